"""Facts about the package that its users and its own documents rely on."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import lightning_chaos

ROOT = Path(__file__).parent.parent
PACKAGE = "lightning-chaos"
EXTRAS = ("demo", "exact", "plot")
"""What users may add."""


def canonical(name: str) -> str:
    """A package's name as the registry compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """Name and version of every line of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def asked_for(*extras: str) -> set[str]:
    """What this package asks for, alone and with extras."""
    asked = [requirements(PACKAGE), *(requirements(PACKAGE, extra) for extra in extras)]
    return set().union(*asked) - {PACKAGE}


def requirements(name: str, extra: str = "") -> list[str]:
    """What a package asks for, by name; with an extra, only what that adds."""
    wanted = f'extra == "{extra}"' if extra else ""
    asked = [r for r in importlib.metadata.requires(name) or () if ("extra ==" in r) == bool(extra)]
    return [
        canonical(re.split(r"[^\w.-]", r, maxsplit=1)[0])
        for r in asked
        if wanted in r.replace("'", '"')
    ]


def top_level_imports(file: Path) -> set[str]:
    """First parts of the names of the modules that a source file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_version_is_told_once() -> None:
    assert importlib.metadata.version(PACKAGE) == lightning_chaos.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {lightning_chaos.__version__}" in changelog


def test_the_package_says_that_it_is_typed_and_under_which_licence() -> None:
    assert files("lightning_chaos").joinpath("py.typed").is_file()
    assert importlib.metadata.metadata(PACKAGE)["License-Expression"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence.splitlines()[1]
    assert "END OF TERMS AND CONDITIONS" in licence


def test_torch_is_told_of_the_hook() -> None:
    (entry,) = importlib.metadata.entry_points(group="torch.backends", name="chaos")
    assert entry.load() is lightning_chaos._autoload.autoload


def test_the_demo_finds_its_script_in_a_checkout_and_in_a_wheel() -> None:
    from lightning_chaos.demo.play import our_script

    assert our_script().read_text("utf-8") == (ROOT / "examples/digits.py").read_text("utf-8")


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Chaos'"):
        _ = lightning_chaos.Chaos


def test_everything_the_package_asks_for_is_pinned_to_one_public_version() -> None:
    asked = asked_for(*EXTRAS, "dev")
    assert {"torch", "lightning", "msgspec", "scikit-learn", "pulp", "pytest"} <= asked
    assert asked - pins().keys() == set()
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in pins().values())


def test_everything_that_is_imported_is_asked_for() -> None:
    owners = importlib.metadata.packages_distributions()
    imported = {
        canonical(owner)
        for file in Path(str(files("lightning_chaos"))).rglob("*.py")
        for name in top_level_imports(file)
        for owner in owners.get(name, ())
    }
    # lightning's wheel brings its twin, pytorch-lightning, along; pytest itself imports fixtures.
    assert imported - {PACKAGE, "pytorch-lightning", "pytest"} <= asked_for(*EXTRAS)


def test_every_variable_the_package_reads_is_in_the_readme() -> None:
    source = Path(str(files("lightning_chaos")))
    read = {
        name
        for file in source.rglob("*.py")
        for name in re.findall(r"\bCHAOS_[A-Z][A-Z_]*[A-Z]\b", file.read_text("utf-8"))
    }
    assert (
        read - set(re.findall(r"CHAOS_[A-Z_]+", (ROOT / "README.md").read_text("utf-8"))) == set()
    )


def test_every_link_in_the_documents_leads_somewhere(tmp_path: Path) -> None:
    def check(root: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "docs/check_links.py"), str(root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    here = check(ROOT)
    assert here.returncode == 0, here.stdout

    text = "# One two\n[x](b.md) [y](#one-two) [z](#three) `[no](link)`\n"
    (tmp_path / "a.md").write_text(text)
    there = check(tmp_path)
    assert there.returncode == 1
    assert there.stdout == "a.md: b.md: no such file\na.md: #three: no such heading\n"


def test_no_document_or_source_names_a_place_on_somebodys_machine() -> None:
    named = [
        str(file.relative_to(ROOT))
        for pattern in ("*.md", "*.toml", "Makefile", "constraints.txt", "docs/**/*.md")
        for file in ROOT.glob(pattern)
        if re.search(r"(?<![\w.])/(work|home|root|opt)/", file.read_text("utf-8"))
    ]
    assert named == []
