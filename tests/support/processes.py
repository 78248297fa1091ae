"""Processes and what becomes of them: forked, killed at the latest when the test is done, waited for by condition."""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


PROJECT = Path(__file__).resolve().parents[2]

PATIENCE_S = 240.0
"""A start with a cold cache compiles; on a busy machine that takes minutes."""

_PR_SET_PDEATHSIG = 1


def wait_for(
    condition: Callable[[], object], timeout_s: float = PATIENCE_S, explain: Callable[[], str] = lambda: ""
) -> None:
    """Wait until a condition holds, however long a busy machine takes.

    Args:
        condition: Asked again and again.
        timeout_s: When to give up: not how long it may take, but when it will not come any more.
        explain: Returns what the failure shall show.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:.0f} s: {condition}\n{explain()}")
        time.sleep(0.05)


def fork(function: Callable[[], Any]) -> int:
    """Run a function in a forked process that never outlives the test; its exit code is 0 if it returned."""
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


def exit_code(pid: int) -> int:
    """Wait for the end of a forked process and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """Kill a forked process and wait for its end."""
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


def engine_processes(pid: int) -> list[int]:
    """Return the live descendants of a process and itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        current = pending.pop()
        found.append(current)
        pending.extend(children.get(current, []))
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def open_files() -> int:
    """Return how many descriptors this process holds."""
    return len(os.listdir("/proc/self/fd"))
