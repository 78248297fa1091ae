from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from klshm.errors import SegmentError
from klshm.shm.segment import Segment
from tests.shm.segments import make_segment


@pytest.fixture(autouse=True)
def shared_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let segments lie in a directory of this test's own, in memory."""
    with tempfile.TemporaryDirectory(prefix="klshm-test-", dir="/dev/shm") as directory:
        monkeypatch.setenv("KLSHM_SHM_DIRECTORY", directory)
        yield Path(directory)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture(autouse=True)
def no_descriptor_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    if not request.node.stash.get(_FAILED, True):  # the traceback of a failure keeps what it saw
        assert set(os.listdir("/proc/self/fd")) <= before, "a test left descriptors open"


@pytest.fixture
def make(no_descriptor_is_left: None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Segment]]:
    """Make segments that are removed when the test is over."""
    made: list[Segment] = []

    def make(*args: Any, **options: Any) -> Segment:
        made.append(make_segment(*args, **options))
        return made[-1]

    yield make
    for segment in made:
        with contextlib.suppress(*[SegmentError] * request.node.stash.get(_FAILED, True)):
            segment.close()


@pytest.fixture
def segment(make: Callable[..., Segment]) -> Segment:
    return make()
