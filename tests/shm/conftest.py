from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from klshm.shm.segment import Segment

from .segments import make_segment


@pytest.fixture(autouse=True)
def shared_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let segments lie in a directory of this test's own, in memory."""
    with tempfile.TemporaryDirectory(prefix="klshm-test-", dir="/dev/shm") as directory:
        monkeypatch.setenv("KLSHM_SHM_DIRECTORY", directory)
        yield Path(directory)


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before, "a test left descriptors open"


@pytest.fixture
def make(no_descriptor_is_left: None) -> Iterator[Callable[..., Segment]]:
    """Make segments that are removed when the test is over."""
    made: list[Segment] = []

    def make(*args: Any, **options: Any) -> Segment:
        made.append(make_segment(*args, **options))
        return made[-1]

    yield make
    for segment in made:
        segment.close()


@pytest.fixture
def segment(make: Callable[..., Segment]) -> Segment:
    return make()
