"""What every process of the engine is given: its segment, its configuration, its block, a stop signal.

A role never decides when to stop: it serves until `role.stop` is set, then drains and returns.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from klshm.config import Config
from klshm.shm import layout as lay
from klshm.shm.crash import Crash
from klshm.shm.segment import Segment


__all__ = ["Role", "Stop"]


class Stop:
    """A flag that a signal handler sets, and that loops and threads can wait for."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def set(self) -> None:
        """Ask the role to stop; safe in a signal handler, may be repeated."""
        os.eventfd_write(self._descriptor, 1)

    def is_set(self) -> bool:
        """Return whether the role was asked to stop."""
        return self.wait(0.0)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the role is asked to stop.

        Args:
            timeout_s: Seconds to wait at most.

        Returns:
            Whether it was asked.
        """
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    @contextmanager
    def in_loop(self) -> Iterator[asyncio.Event]:
        """Give the running event loop an event that is set with the flag, as long as the context lasts."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        # A descriptor of its own: with every role in one loop others may watch theirs too.
        descriptor = os.dup(self._descriptor)
        loop.add_reader(descriptor, stopped.set)
        try:
            yield stopped
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


class Role:
    """One role of the engine: worker i, historian, persister or web.

    Attributes:
        kind: "worker", "historian", "persister" or "web".
        index: Number of the worker; 0 for the others.
        segment: The segment, mapped for writing.
        config: The resolved configuration.
        stop: Set when the role shall drain and return.
        block: The role's own block, shape (256,), dtype int64.
        crash: Where this life of the role dies, for tests; known once it has begun.
    """

    def __init__(self, kind: str, index: int, segment: Segment, config: Config, stop: Stop | None = None) -> None:
        self.kind = kind
        self.index = index
        self.segment = segment
        self.config = config
        self.stop = stop or Stop()
        self.block = segment.block(block_offset(segment.layout, kind, index))
        self.crash = Crash()

    @property
    def name(self) -> str:
        """Name for logs, such as "worker 2" or "historian"."""
        return f"{self.kind} {self.index}" if self.kind == "worker" else self.kind

    def begin(self) -> None:
        """Write the life line of a role that has just started."""
        self.block[lay.B_PID] = os.getpid()
        self.block[lay.B_START_TICKS] = _start_ticks()
        self.block[lay.B_INCARNATION] += 1
        chaos = self.config.chaos
        self.crash = Crash(chaos.crash_at, self.kind, int(self.block[lay.B_INCARNATION]), chaos.crash_after_n)
        self.heartbeat()
        self.enter(lay.ROLE_STARTING)

    def enter(self, state: int) -> None:
        """Say which state the role is in (`klshm.shm.layout.ROLE_...`)."""
        self.block[lay.B_ROLE_STATE] = state

    def heartbeat(self) -> None:
        """Say that the role is alive; call it from the role's own loop, several times a second."""
        self.block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()

    def report_error(self, text: str) -> None:
        """Leave an error where it can be read after a crash."""
        # Cut between characters, not within one.
        data = text.encode()[: lay.ERROR_TEXT_BYTES].decode(errors="ignore").encode()
        padded = data + bytes(-len(data) % 8)
        self.block[lay.B_ERROR_LENGTH] = 0
        self.block[lay.B_ERROR_TEXT : lay.B_ERROR_TEXT + len(padded) // 8] = np.frombuffer(padded, dtype=np.int64)
        self.block[lay.B_ERROR_MS] = time.time_ns() // 1_000_000
        self.block[lay.B_ERROR_LENGTH] = len(data)


def block_offset(layout: lay.Layout, kind: str, index: int) -> int:
    """Return the offset of a role's block in the segment."""
    if kind == "worker":
        return layout.partition_offset(index)
    offsets: dict[str, Any] = {
        "launcher": layout.launcher_offset,
        "historian": layout.historian_offset,
        "persister": layout.persister_offset,
        "web": layout.web_offset,
    }
    return int(offsets[kind])


def _start_ticks() -> int:
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
