"""The segment: made whole or not at all, locked until the last process is dead, never pulled from under a reader."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import grp
import os
import re
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from klshm.errors import (
    ConfigError,
    InstanceNotFound,
    InstanceRunning,
    KlshmError,
    LayoutMismatch,
    SegmentDamaged,
    SegmentError,
    SegmentNotReady,
    SegmentTooLarge,
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
from tests.support.processes import exit_code, fork, forked, kill


_PR_SET_CHILD_SUBREAPER = 36

ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="needs root: another user, a mount")


def refused(instance: str = "test") -> SegmentError:
    """Return the error that opening ends in; it must leave nothing behind."""
    with pytest.raises(SegmentError) as caught:
        open_segment(instance)
    return caught.value


# -- names ----------------------------------------------------------------------------------------------


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


# -- creating -------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions(mode: int) -> None:
    mask = os.umask(0o077)
    try:
        segment = create_segment("test", make_layout(), b"", mode=mode)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(segment.path.stat().st_mode) == mode
    segment.close()


def test_group() -> None:
    mine = grp.getgrgid(os.getgid()).gr_name
    segment = create_segment("test", make_layout(), b"", group=mine)
    assert segment.path.stat().st_gid == os.getgid()
    segment.close()


def test_a_group_that_does_not_exist(shared_memory: Path) -> None:
    with pytest.raises(ConfigError, match="segment.group = 'no-such-group': no such group on this machine"):
        create_segment("test", make_layout(), b"", group="no-such-group")
    assert os.listdir(shared_memory) == []


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Let the block run with the rights of another user."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@ROOT_ONLY
def test_a_group_that_one_is_no_member_of(shared_memory: Path) -> None:
    shared_memory.chmod(0o777)
    message = "segment.group = 'root': Operation not permitted; be a member of it"
    with as_nobody(), pytest.raises(ConfigError, match=message):
        create_segment("test", make_layout(), b"", group="root")
    assert os.listdir(shared_memory) == []


@ROOT_ONLY
def test_a_directory_that_one_may_not_write_to(shared_memory: Path) -> None:
    shared_memory.chmod(0o755)
    message = r"cannot create .*: Permission denied; is .* a tmpfs that you may write to\?"
    with as_nobody(), pytest.raises(SegmentError, match=message):
        create_segment("test", make_layout(), b"")


@ROOT_ONLY
def test_a_segment_that_one_may_not_read(segment: Segment, shared_memory: Path) -> None:
    shared_memory.chmod(0o755)
    message = "may not open .*: Permission denied; read as the engine's user, or set segment.mode"
    with as_nobody(), pytest.raises(SegmentError, match=message):
        open_segment("test")


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


# -- too little room ------------------------------------------------------------------------------------


@pytest.fixture
def small_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mount a tmpfs of 4 MiB, as a container has one of 64."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    if mount(b"tmpfs", str(tmp_path).encode(), b"tmpfs", 0, b"size=4m") != 0:
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    yield tmp_path
    gc.collect()
    assert ctypes.CDLL(None, use_errno=True).umount2(str(tmp_path).encode(), 2) == 0


def test_too_little_shared_memory_says_what_there_is_and_what_is_needed(small_tmpfs: Path) -> None:
    layout = make_layout(log_rows=65_536)
    with pytest.raises(
        SegmentTooLarge,
        match=rf"{small_tmpfs} has 4 MiB free, the segment needs 17 MiB; lower segment.max_symbols .*--shm-size",
    ):
        create_segment("test", layout, b"{}")
    assert os.listdir(small_tmpfs) == []
    segment = create_segment("test", make_layout(), b"{}")
    segment.close()


def test_a_limit_on_file_sizes_is_too_little_room_as_well(shared_memory: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(SegmentTooLarge, match="the segment needs 1 MiB"):
            create_segment("test", make_layout(), b"{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(shared_memory) == []


def test_a_place_that_cannot_hold_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", "/proc")
    with pytest.raises(SegmentError, match=r"cannot create /proc/klshm\.test\.\d+\.tmp: No such file or directory"):
        create_segment("test", make_layout(), b"{}")


def test_a_file_system_that_cannot_allocate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(SegmentError, match="cannot allocate the segment in .*: Operation not supported"):
        create_segment("test", make_layout(), b"{}")


# -- opening --------------------------------------------------------------------------------------------


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


# -- the lock -------------------------------------------------------------------------------------------


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


# -- unlinking and closing ------------------------------------------------------------------------------


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


# -- leftovers ------------------------------------------------------------------------------------------


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

    end_s = time.monotonic() + 20
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


def test_exit_codes_of_helpers() -> None:
    """A failure in a forked process must not pass for success."""
    assert exit_code(fork(lambda: None)) == 0
