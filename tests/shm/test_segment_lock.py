"""The lock of a segment: held until the last process of its engine is dead."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.shm.segment import (
    Segment,
    create_segment,
    open_segment,
)
from tests.shm.segments import make_layout
from tests.support.processes import fork, kill


_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def serving(children: int) -> Iterator[list[int]]:
    """Run an engine: a process that made the segment and its children; yield their pids, the creator's first."""
    read, write = os.pipe()

    def create() -> None:
        segment = create_segment("test", make_layout(), b"{}")
        for _ in range(children):
            if os.fork() == 0:
                os.write(write, f"{os.getpid()} ".encode())
                signal.pause()
        assert segment.is_locked()
        os.write(write, b"ready ")
        signal.pause()

    # Orphans become children of this process, so that it can wait until they are gone.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pids = [fork(create)]
    try:
        words: list[bytes] = []
        while len(words) < children + 1:
            words += os.read(read, 100).split()
        pids += [int(word) for word in words if word != b"ready"]
        yield pids
    finally:
        os.close(read)
        os.close(write)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                kill(pid)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_the_lock_is_held_while_the_creator_lives() -> None:
    with serving(0) as (creator,):
        segment = open_segment("test")
        assert segment.is_locked() and segment.is_locked(), "a look takes nothing away"
        kill(creator)
        assert not segment.is_locked()
        segment.close()


def test_the_lock_is_held_until_the_last_process_is_dead() -> None:
    with serving(2) as (creator, *children):
        segment = open_segment("test")
        kill(creator)
        assert segment.is_locked(), "two children of the dead creator still hold it"
        kill(children[0])
        assert segment.is_locked()
        kill(children[1])
        assert not segment.is_locked()
        segment.close()


def test_the_lock_does_not_pass_to_programs_that_are_started(shared_memory: Path) -> None:
    segment = create_segment("test", make_layout(), b"{}")
    with subprocess.Popen(["sleep", "60"], close_fds=False) as other:
        segment.close()
        reader = open_segment("test")
        assert not reader.is_locked()
        reader.close()
        other.kill()


def test_the_truth_about_a_segment_whose_name_is_gone_or_taken() -> None:
    with serving(0) as (creator,):
        segment = open_segment("test")
        segment.unlink()
        assert segment.is_locked(), "unlinked, but its engine lives"
        other = create_segment("test", make_layout(), b"{}")
        assert segment.is_locked()
        kill(creator)
        assert not segment.is_locked(), "the lock of the new engine is none of its own"
        assert other.is_locked()
        segment.close()
        other.close()


def test_a_locked_segment_can_be_probed_by_many(segment: Segment) -> None:
    with open(segment.path, "rb") as someone:
        with pytest.raises(BlockingIOError):
            fcntl.flock(someone, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert segment.is_locked()
