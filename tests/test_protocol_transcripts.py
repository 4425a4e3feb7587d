"""The protocol as prose: every file in ``transcripts/`` says what happens, step by step.

``REWRITE=1 pytest tests/test_protocol_transcripts.py`` writes what really happens.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transcript import Town

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_transcript_is_what_happens(path: Path) -> None:
    town = Town()
    played: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("    "):
            continue
        played.append(line)
        if line and not line.startswith("#"):
            played += [f"    {text}" for text in town.play(line)]
    text = "\n".join(played) + "\n"
    if os.environ.get("REWRITE"):
        path.write_text(text)
    assert text == path.read_text()
