"""Every ordering between processes is marked on both sides, and listed."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
NAMES = {"row", "cut", "ring", "symbol", "clock", "need"}

_MARK = re.compile(r"# SYNC POINT (\S+?): (writer|reader)\b")


def marks(package: Path) -> dict[str, set[str]]:
    """Return the sides that each sync point has."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.count("SYNC POINT") == len(_MARK.findall(text)), f"{path}: write '# SYNC POINT <name>: writer'"
        for name, side in _MARK.findall(text):
            found[name].add(side)
    return dict(found)


def test_every_sync_point_has_a_writer_and_a_reader() -> None:
    found = marks(ROOT / "klshm")
    assert set(found) == NAMES
    assert {name: sides for name, sides in found.items() if sides != {"writer", "reader"}} == {}


def test_every_sync_point_is_listed() -> None:
    architecture = ROOT / "ARCHITECTURE.md"
    if not architecture.exists():
        pytest.skip("ARCHITECTURE.md is not written yet")
    text = architecture.read_text(encoding="utf-8")
    table = text.partition("# SYNC POINT name")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([a-z]+) \|", table, re.MULTILINE)) - {"name"} == NAMES


def test_a_mark_without_its_other_side_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("# SYNC POINT row: writer\n# SYNC POINT row: reader. More.\n")
    (tmp_path / "two.py").write_text("    # SYNC POINT lonely: writer\n")
    assert marks(tmp_path) == {"row": {"writer", "reader"}, "lonely": {"writer"}}
    (tmp_path / "bad.py").write_text("# SYNC POINT nameless\n")
    with pytest.raises(AssertionError, match="write '# SYNC POINT"):
        marks(tmp_path)
