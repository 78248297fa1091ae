"""Waiting for words of shared memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from klshm.shm import futex
from klshm.shm.segment import Segment, open_segment
from tests.support.processes import PATIENCE_S, exit_code, fork


@pytest.fixture(params=["futex_waitv", "an old kernel"])
def wait_any(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Wait with futex_waitv and, by a number that no system call has, as on kernels without it."""
    if request.param == "an old kernel":
        monkeypatch.setattr(futex, "_SYS_FUTEX_WAITV", 99_999)
    return futex.wait_any


@contextmanager
def changed_by_another_process(words: Any, index: int) -> Iterator[None]:
    """Let another process change a word once this one sleeps, or is about to."""

    def change() -> None:
        time.sleep(0.05)  # to let the waiter fall asleep: either way it must come back
        words[index] += 1
        futex.wake(words, index)

    pid = fork(change)
    yield
    assert exit_code(pid) == 0


def test_a_changed_word_ends_the_wait(segment: Segment) -> None:
    reader = open_segment("test")
    with changed_by_another_process(segment.words, 5000):
        assert futex.wait(reader.words, 5000, 0, 30)
    assert reader.words[5000] == 1
    reader.close()


def test_a_word_that_has_changed_already_is_not_waited_for() -> None:
    words = np.array([3], dtype=np.int64)
    assert futex.wait(words, 0, 2, 30)
    assert futex.wait_any(words, [0], [2], 30)


@pytest.mark.parametrize("timeout_s", [0.02, 0.0, -1.0])
def test_a_word_that_stays_lets_the_time_run_out(wait_any: Callable[..., bool], timeout_s: float) -> None:
    words = np.zeros(2, dtype=np.int64)
    began_s = time.monotonic()
    assert not futex.wait(words, 0, 0, timeout_s)
    assert not wait_any(words, [0, 1], [0, 0], timeout_s)
    assert time.monotonic() - began_s >= 2 * max(0.0, timeout_s) * 0.95


@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_of_several_words_ends_the_wait(segment: Segment, wait_any: Callable[..., bool], which: int) -> None:
    reader = open_segment("test")
    indices = [5000, 6000, 7000]
    with changed_by_another_process(segment.words, indices[which]):
        while not wait_any(reader.words, indices, [0, 0, 0], 30):
            pass
    assert [int(reader.words[index]) for index in indices] == [int(n == which) for n in range(3)]
    reader.close()


def test_more_words_than_the_kernel_takes_at_once() -> None:
    words = np.zeros(200, dtype=np.int64)
    assert not futex.wait_any(words, list(range(200)), [0] * 200, 0.01)
    waiter = threading.Thread(target=lambda: futex.wait_any(words, list(range(200)), [0] * 200, 30))
    waiter.start()
    words[199] = 1
    waiter.join()
    assert not waiter.is_alive()


def test_large_values_are_told_apart_by_their_low_half() -> None:
    """Tails grow beyond 32 bits; the kernel compares 32."""
    words = np.array([(7 << 32) + 5], dtype=np.int64)
    assert not futex.wait(words, 0, (7 << 32) + 5, 0.01)
    assert not futex.wait_any(words, [0], [(7 << 32) + 5], 0.01)


def test_waking_says_how_many_slept() -> None:
    words = np.zeros(1, dtype=np.int64)
    assert futex.wake(words, 0) == 0
    waiters = [threading.Thread(target=futex.wait, args=(words, 0, 0, 30)) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    woken, end_s = 0, time.monotonic() + PATIENCE_S
    while woken < 2 and time.monotonic() < end_s:
        woken += futex.wake(words, 0)
    assert woken == 2
    for waiter in waiters:
        waiter.join()


FORBIDDEN = """
import ctypes, errno, os, sys, time
import numpy as np
from klshm.shm import futex

libc = ctypes.CDLL(None, use_errno=True)

class Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))

class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Instruction)))

# Load the number of the call; if it is futex_waitv answer EPERM, else allow.
code = (Instruction * 4)(
    Instruction(0x20, 0, 0, 0),
    Instruction(0x15, 0, 1, 449),
    Instruction(0x06, 0, 0, 0x00050000 | errno.EPERM),
    Instruction(0x06, 0, 0, 0x7FFF0000),
)
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 2, ctypes.byref(Program(4, code)), 0, 0) != 0:
    sys.exit("no seccomp here")
words = np.zeros(2, dtype=np.int64)
began = time.monotonic()
print(futex.wait_any(words, [0, 1], [0, 0], 0.05), time.monotonic() - began > 0.04)
"""


def test_a_container_that_forbids_the_call_gets_polling_not_spinning() -> None:
    """Older container runtimes answer EPERM to calls they do not know."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", FORBIDDEN], capture_output=True, text=True)
    if "no seccomp here" in done.stderr:
        pytest.skip("this kernel takes no seccomp filter")
    assert done.stdout == "False True\n", done.stderr
