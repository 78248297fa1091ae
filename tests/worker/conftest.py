"""Segments of one worker and of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.shm.segment import Segment, create_segment
from tests.historian.support import make_layout


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    """A segment of one worker."""
    yield from _segment(tmp_path, monkeypatch, 1)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    """A segment of two workers."""
    yield from _segment(tmp_path, monkeypatch, 2)


def _segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> Iterator[Segment]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    segment = create_segment("test", make_layout(workers=workers), b"{}")
    yield segment
    segment.unlink()
