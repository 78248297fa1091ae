"""Segments of one worker and of two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.shm.segment import Segment
from tests.support.segments import segment


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    """A segment of one worker."""
    with segment(tmp_path, monkeypatch, workers=1) as made:
        yield made


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    """A segment of two workers."""
    with segment(tmp_path, monkeypatch) as made:
        yield made
