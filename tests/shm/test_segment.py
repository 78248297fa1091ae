"""The segment: made whole or not at all, never pulled from under a reader."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from klshm.errors import (
    ConfigError,
    InstanceNotFound,
    InstanceRunning,
    SegmentError,
)
from klshm.shm import layout as lay
from klshm.shm.segment import (
    Segment,
    check_instance_name,
    create_segment,
    instance_names,
    open_segment,
    segment_path,
    shared_memory_directory,
    sweep_temporary_segments,
)
from tests.shm.segments import make_layout
from tests.support.processes import PATIENCE_S, forked


# Names


@pytest.mark.parametrize("name", ["a", "main", "demo-2", "0" * 32])
def test_legal_names(name: str) -> None:
    assert check_instance_name(name) == name


@pytest.mark.parametrize("name", ["", "Main", "a.b", "../x", "ä", "a" * 33, "a\n", "x/y"])
def test_illegal_names(name: str) -> None:
    with pytest.raises(ConfigError, match=f"instance name {re.escape(repr(name))} is not 1 to 32"):
        segment_path(name)


def test_where_segments_live(shared_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert segment_path("main") == shared_memory / "klshm.main"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("KLSHM_SHM_DIRECTORY")
        else:
            monkeypatch.setenv("KLSHM_SHM_DIRECTORY", unset)
        assert shared_memory_directory() == Path("/dev/shm")


def test_instances_are_those_with_a_segment(make: Callable[..., Segment], shared_memory: Path) -> None:
    make("two")
    make("one")
    for name in ("klshm.Bad", "klshm.one.17.tmp", "other.three", "klshm."):
        (shared_memory / name).touch()
    assert instance_names() == ["one", "two"]


# Creating


def test_what_is_created_can_be_opened(segment: Segment, shared_memory: Path) -> None:
    assert os.listdir(shared_memory) == ["klshm.test"]
    assert segment.path.stat().st_size == segment.layout.total_bytes == len(segment.words) * 8
    assert int(segment.words[lay.H_STATE]) == lay.STATE_STARTING
    assert int(segment.words[lay.H_VERSION]) == lay.VERSION
    assert segment.path.stat().st_blocks * 512 >= segment.layout.total_bytes, "allocated, not sparse"
    reader = open_segment("test")
    assert reader.layout == segment.layout
    assert reader.uuid == segment.uuid and re.fullmatch("[0-9a-f]{32}", reader.uuid)
    assert reader.config_bytes() == b"{}"
    assert reader.inode == segment.inode
    segment.words[5000] = 7
    assert reader.words[5000] == 7
    with pytest.raises(ValueError, match="read-only"):
        reader.words[5000] = 8
    reader.close()


def test_recovery_may_write(segment: Segment) -> None:
    other = open_segment("test", writable=True)
    other.words[5000] = 9
    assert segment.words[5000] == 9
    other.close()


def test_every_segment_has_an_identity_of_its_own(make: Callable[..., Segment]) -> None:
    assert make("one").uuid != make("two").uuid


@pytest.mark.parametrize("size", [0, 1, 7, 8, lay.CONFIG_BYTES])
def test_the_configuration_is_kept(size: int) -> None:
    config = bytes(range(1, 128)) * (size // 127 + 1)
    segment = create_segment("test", make_layout(), config[:size])
    assert segment.config_bytes() == config[:size]
    assert not segment.block(segment.layout.launcher_offset).any()
    segment.close()


def test_a_configuration_that_does_not_fit_is_refused(shared_memory: Path) -> None:
    with pytest.raises(SegmentError, match="has 28673 bytes, the segment holds 28672; shorten the symbol lists"):
        create_segment("test", make_layout(), bytes(lay.CONFIG_BYTES + 1))
    assert os.listdir(shared_memory) == []


def test_a_second_instance_is_refused_and_leaves_the_first_alone(segment: Segment, shared_memory: Path) -> None:
    before = segment.path.read_bytes()
    with pytest.raises(InstanceRunning, match="klshm.test exists already; stop that engine or choose another"):
        create_segment("test", make_layout(), b"other")
    assert os.listdir(shared_memory) == ["klshm.test"]
    assert segment.path.read_bytes() == before
    assert segment.is_locked()


def test_what_could_not_be_created_holds_no_memory(segment: Segment) -> None:
    maps = Path("/proc/self/maps")
    before = maps.read_text().count("klshm.test")
    with pytest.raises(InstanceRunning) as caught:
        create_segment("test", make_layout(), b"")
    assert maps.read_text().count("klshm.test") == before
    assert caught.value is not None  # its traceback is alive


# Unlinking and closing


def test_unlinking_leaves_readers_what_they_see(segment: Segment, shared_memory: Path) -> None:
    reader = open_segment("test")
    segment.words[5000] = 1
    segment.unlink()
    assert os.listdir(shared_memory) == []
    segment.words[5000] = 2
    assert reader.words[5000] == 2 and reader.words[-1] == 0
    segment.unlink()  # already gone: what was wanted
    reader.close()


def test_unlinking_leaves_a_successor_alone(make: Callable[..., Segment], shared_memory: Path) -> None:
    first = make()
    first.unlink()
    second = make()
    first.unlink()
    assert os.listdir(shared_memory) == ["klshm.test"]
    assert second.path.stat().st_ino == second.inode


def test_a_segment_that_is_looked_into_cannot_be_closed(segment: Segment) -> None:
    reader = open_segment("test")
    view = reader.block(reader.layout.launcher_offset)
    with pytest.raises(SegmentError, match="a view into the segment is still in use; keep copies"):
        reader.close()
    del view
    descriptor = reader.descriptor
    reader.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_closing_twice_closes_nobody_elses_descriptor(segment: Segment) -> None:
    reader = open_segment("test")
    number = reader.descriptor
    reader.close()
    innocent = os.open("/dev/null", os.O_RDONLY)
    if innocent != number:
        os.dup2(innocent, number)
        os.close(innocent)
    reader.close()
    os.fstat(number)
    os.close(number)


# Leftovers


def test_unfinished_segments_are_swept(segment: Segment, shared_memory: Path) -> None:
    for name in ("klshm.test.17.tmp", "klshm.test.99.tmp", "klshm.test2.17.tmp", "klshm.other.1.tmp"):
        (shared_memory / name).touch()
    assert [path.name for path in sweep_temporary_segments("test")] == ["klshm.test.17.tmp", "klshm.test.99.tmp"]
    assert sorted(os.listdir(shared_memory)) == ["klshm.other.1.tmp", "klshm.test", "klshm.test2.17.tmp"]
    assert sweep_temporary_segments("test") == []


def test_a_creator_killed_at_any_instant_leaves_a_whole_segment_or_none(shared_memory: Path) -> None:
    chance = np.random.default_rng(20261120)
    found = set()

    def create_for_ever() -> None:
        while True:
            segment = create_segment("test", make_layout(), b"{}")
            segment.unlink()
            segment.close()

    end_s = time.monotonic() + PATIENCE_S
    while len(found) < 2 and time.monotonic() < end_s:
        with forked(create_for_ever) as pid:
            while not os.listdir(shared_memory) and time.monotonic() < end_s:
                os.sched_yield()
            time.sleep(chance.uniform(0, 0.003))
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        found |= {name.replace(str(pid), "N") for name in os.listdir(shared_memory)}
        sweep_temporary_segments("test")
        with contextlib.suppress(InstanceNotFound):
            segment = open_segment("test")
            assert segment.layout == make_layout() and segment.config_bytes() == b"{}"
            assert not segment.is_locked()
            segment.unlink()
            segment.close()
        assert os.listdir(shared_memory) == []
    assert found == {"klshm.test", "klshm.test.N.tmp"}, "the kills fell nowhere else: this proved nothing"
