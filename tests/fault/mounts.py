"""File systems of a test's own: small ones, ones that cannot be written."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import exit_code, fork


__all__ = ["in_own_mounts", "mount_tmpfs"]

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_RDONLY = 1
_MS_REMOUNT = 32

_libc = ctypes.CDLL(None, use_errno=True)


def in_own_mounts(function: Callable[[], Any]) -> None:
    """Run a function in a process that may mount, in an unprivileged namespace; skip where there is none."""
    if exit_code(fork(_enter)) != 0:
        pytest.skip("this machine lets nobody make a mount namespace of his own")

    def inside() -> None:
        _enter()
        function()

    assert exit_code(fork(inside)) == 0, "see the error above"


def mount_tmpfs(place: Path, size_bytes: int, *, read_only: bool = False, again: bool = False) -> None:
    """Mount a file system of so many bytes, or change the one that is there."""
    flags = (_MS_RDONLY if read_only else 0) | (_MS_REMOUNT if again else 0)
    _check(_libc.mount(b"klshm-test", os.fsencode(place), b"tmpfs", flags, f"size={size_bytes}".encode()))


def _enter() -> None:
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
