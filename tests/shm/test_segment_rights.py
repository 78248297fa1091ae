"""Whose a segment is, and whether there is room for it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import grp
import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.errors import (
    ConfigError,
    SegmentError,
    SegmentTooLarge,
)
from klshm.shm.segment import (
    Segment,
    create_segment,
    open_segment,
)
from tests.shm.segments import make_layout


ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="needs root: another user, a mount")


# Rights


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


# Room


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
