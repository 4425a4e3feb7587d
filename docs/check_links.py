"""Check that every relative link in the project's Markdown leads somewhere.

Usage: ``python docs/check_links.py [ROOT]``; prints one line per broken link, exits 1 if any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    """The Markdown files of the project, without those of hidden folders (``.venv`` and such)."""
    found = [*root.glob("*.md")]
    for folder in ("docs", "examples", "benchmarks", "tests"):
        found += (root / folder).rglob("*.md")
    return sorted(found)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get where it is shown."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"[^\w\- ]", "", h.lower()) for h in HEADING.findall(text))
    return {heading.replace(" ", "-") for heading in headings}


def broken(root: Path) -> Iterator[str]:
    """One line per link that leads nowhere."""
    for page in pages(root):
        for match in LINK.finditer(CODE.sub("", page.read_text("utf-8"))):
            link = match[1] or match[2]
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path) if path else page
            if not target.exists():
                yield f"{page.relative_to(root)}: {link}: no such file"
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                yield f"{page.relative_to(root)}: {link}: no such heading"


def main() -> int:
    """Check the project this file belongs to, or the one named."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent
    lines = list(broken(root.resolve()))
    print("\n".join(lines) or f"links: {len(pages(root))} pages, none broken")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
