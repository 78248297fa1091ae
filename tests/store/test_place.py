"""Files that are taken away or exchanged while they are open."""

from __future__ import annotations

from pathlib import Path

import pytest

from klshm.store.place import Place


def test_files_in_their_place(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    place = Place(one, other)
    assert place.lost() is None
    other.touch()  # seen for the first time
    one.write_bytes(b"more")
    assert place.lost() is None


@pytest.mark.parametrize("again", [False, True])
def test_a_file_that_is_gone_or_another(tmp_path: Path, again: bool) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.touch()
    other.touch()
    place = Place(one, other)
    other.rename(tmp_path / "aside")
    if again:
        other.touch()
    assert place.lost() == other
    assert place.lost() == other


def test_a_directory_that_became_a_file(tmp_path: Path) -> None:
    inside = tmp_path / "directory" / "file"
    inside.parent.mkdir()
    inside.touch()
    place = Place(inside)
    inside.parent.rename(tmp_path / "aside")
    inside.parent.write_text("in the way")
    assert place.lost() == inside


def test_nothing_is_never_lost() -> None:
    assert Place().lost() is None
