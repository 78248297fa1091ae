"""Opening a segment: what is none, is damaged, or is of another layout is refused by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klshm.errors import (
    InstanceNotFound,
    KlshmError,
    LayoutMismatch,
    SegmentDamaged,
    SegmentError,
    SegmentNotReady,
)
from klshm.shm import layout as lay
from klshm.shm.segment import (
    Segment,
    open_segment,
)


def refused(instance: str = "test") -> SegmentError:
    """Return the error that opening ends in; it must leave nothing behind."""
    with pytest.raises(SegmentError) as caught:
        open_segment(instance)
    return caught.value


def test_no_segment(make: Callable[..., Segment], shared_memory: Path) -> None:
    with pytest.raises(
        InstanceNotFound, match=f"no engine 'test': {shared_memory}/klshm.test does not exist; none runs here"
    ):
        open_segment("test")
    make("one")
    make("two")
    with pytest.raises(InstanceNotFound, match="does not exist; running here: one, two"):
        open_segment("test")


def test_a_foreign_file(shared_memory: Path) -> None:
    (shared_memory / "klshm.test").write_bytes(b"hello world " * 1000)
    assert isinstance(refused(), SegmentDamaged)
    assert "does not begin with the mark of a klshm segment" in str(refused())


@pytest.mark.parametrize("size", [0, 1, 4095])
def test_a_file_without_a_whole_header(shared_memory: Path, size: int) -> None:
    (shared_memory / "klshm.test").write_bytes(bytes(size))
    assert isinstance(refused(), SegmentDamaged)
    assert f"has {size} bytes, expected at least 4096" in str(refused())


def test_a_truncated_segment(segment: Segment, shared_memory: Path) -> None:
    (shared_memory / "klshm.cut").write_bytes(segment.path.read_bytes()[:-4096])
    assert isinstance(refused("cut"), SegmentDamaged)
    assert f"has {segment.layout.total_bytes - 4096} bytes, its header says {segment.layout.total_bytes}" in str(
        refused("cut")
    )


def test_a_segment_that_is_not_ready(segment: Segment) -> None:
    segment.words[lay.H_VERSION] = 0
    assert isinstance(refused(), SegmentNotReady)
    assert "is still being created; try again in a moment" in str(refused())


def test_a_segment_of_another_layout(segment: Segment) -> None:
    segment.words[lay.H_VERSION] = 2 << 16
    assert isinstance(refused(), LayoutMismatch)
    assert "was written by layout 2.0, this klshm reads 1.0" in str(refused())


def test_a_directory_or_a_loop_in_its_place(shared_memory: Path) -> None:
    (shared_memory / "klshm.test").mkdir()
    assert isinstance(refused(), SegmentError)
    (shared_memory / "klshm.loop").symlink_to("klshm.loop")
    assert "cannot open" in str(refused("loop"))


def test_random_damage_ends_in_an_error_of_ours_or_in_nothing(segment: Segment) -> None:
    chance = np.random.default_rng(20261120)
    header = segment.words[: lay.HEADER_BYTES // 8].copy()
    for _ in range(300):
        words = chance.integers(0, 64, size=3)
        segment.words[words] = chance.integers(-(1 << 62), 1 << 62, size=3) >> chance.integers(0, 62, size=3)
        with contextlib.suppress(KlshmError):
            open_segment("test").close()
        segment.words[: len(header)] = header
