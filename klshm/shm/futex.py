"""Waiting for a word of shared memory to change, without polling.

Futexes work on a read-only map of a tmpfs file, so readers can wait. Only the low 32 bits of
the word are compared. A wake costs the writer a system call, so it is done once per published
batch, never per trade.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from typing import Any, Final

import numpy as np


__all__ = ["Waker", "wait", "wait_any", "wake"]

Words = np.ndarray[Any, np.dtype[np.int64]]

_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 202)
_SYS_FUTEX_WAITV: Final = 449
_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_FUTEX_32: Final = 2
_MAX_WAITERS: Final = 128
_CLOCK_MONOTONIC: Final = 1
_EVERYONE: Final = 2**31 - 1

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# The same call with its types known: both sides of a wake come out of a pause, and every object costs cold caches.
_futex_call = ctypes.CDLL(None, use_errno=True).syscall
_futex_call.restype = ctypes.c_long
_futex_call.argtypes = (
    *(ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32),
    *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int),
)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Waiter(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


def _address(words: Words, index: int) -> int:
    return int(words.ctypes.data) + 8 * index


class Waker:
    """Wakes everyone who waits for one word.

    Args:
        words: The segment, dtype int64; it must stay mapped.
        index: The word.
    """

    def __init__(self, words: Words, index: int) -> None:
        self._address = _address(words, index)

    def __call__(self) -> int:
        """Wake them; return how many were woken."""
        return int(_futex_call(_SYS_FUTEX, self._address, _FUTEX_WAKE, _EVERYONE, None, None, 0))


def wake(words: Words, index: int) -> int:
    """Wake everyone who waits for a word; whoever does so often keeps a `Waker`.

    Returns:
        How many were woken.
    """
    return Waker(words, index)()


def wait(words: Words, index: int, seen: int, timeout_s: float) -> bool:
    """Wait until a word differs from what was seen.

    Args:
        words: The segment, dtype int64.
        index: The word.
        seen: Its value as last seen.
        timeout_s: Seconds to wait at most.

    Returns:
        False if the time ran out; True otherwise (also when woken for no reason).
    """
    if int(words[index]) != seen:
        return True
    limit = _Timespec(*divmod(max(0, int(timeout_s * 1e9)), 1_000_000_000))
    result = _futex_call(
        _SYS_FUTEX, _address(words, index), _FUTEX_WAIT, seen & 0xFFFFFFFF, ctypes.addressof(limit), None, 0
    )
    return result != -1 or ctypes.get_errno() != errno.ETIMEDOUT


def wait_any(words: Words, indices: list[int], seen: list[int], timeout_s: float) -> bool:
    """Wait until any of several words differs from what was seen.

    Several need futex_waitv (Linux 5.16); before that it looks every millisecond.

    Args:
        words: The segment, dtype int64.
        indices: The words, at most 128.
        seen: Their values as last seen.
        timeout_s: Seconds to wait at most.

    Returns:
        False if the time ran out; True otherwise (also when woken for no reason).
    """
    if len(indices) == 1:
        return wait(words, indices[0], seen[0], timeout_s)
    if any(int(words[index]) != value for index, value in zip(indices, seen, strict=True)):
        return True
    deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
    waiters = (_Waiter * len(indices))(
        *(
            _Waiter(value & 0xFFFFFFFF, _address(words, index), _FUTEX_32, 0)
            for index, value in zip(indices, seen, strict=True)
        )
    )
    limit = _Timespec(*divmod(deadline_ns, 1_000_000_000))
    if len(indices) <= _MAX_WAITERS:
        result = _syscall(
            ctypes.c_long(_SYS_FUTEX_WAITV),
            ctypes.byref(waiters),
            ctypes.c_uint(len(indices)),
            ctypes.c_uint(0),
            ctypes.byref(limit),
            ctypes.c_int(_CLOCK_MONOTONIC),
        )
        error = ctypes.get_errno() if result == -1 else 0
        if error in (0, errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            return error != errno.ETIMEDOUT
        # ENOSYS from a kernel that has no such call, EPERM from a container that forbids it.
    while time.monotonic_ns() < deadline_ns:
        os.sched_yield()
        if any(int(words[index]) != value for index, value in zip(indices, seen, strict=True)):
            return True
        time.sleep(0.001)
    return False
