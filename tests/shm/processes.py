"""Processes of a test's own: forked, and killed at the latest when the test is done with them."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


_PR_SET_PDEATHSIG = 1


def fork(function: Callable[[], Any]) -> int:
    """Run a function in a forked process; its exit code is 0 if it returned."""
    with warnings.catch_warnings():
        # Newer Pythons warn where a library keeps threads; the child here calls none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@contextmanager
def forked(function: Callable[[], Any]) -> Iterator[int]:
    """Let a function run beside the block; it is killed at the block's end."""
    pid = fork(function)
    try:
        yield pid
    finally:
        kill(pid)


def shown(rounds: Iterable[Any], fault: str) -> None:
    """Return as soon as a round shows the fault that a missing guard lets through.

    Processes that never run at the same time collide rarely: a busy machine may show nothing.
    """
    tried = 0
    for found in rounds:
        tried += 1
        if found:
            return
    pytest.skip(f"this machine showed {fault} in none of {tried} rounds: is it very busy, or has it one core?")


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
