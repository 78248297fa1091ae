"""Dying on purpose at one named instant, as abruptly as by kill -9: for tests of what a crash leaves.

The n-th life of a role dies at the n-th of the points asked for that are its own, after passing it
so many times; lives beyond them run on. Points inside kernels are numbers, compared with a word of
the worker's private memory (`klshm.shm.crash_here`)::

    crash word = number of the point * 2**32 + passes until the process dies; 0: none
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Final


__all__ = [
    "HALF_WRITTEN",
    "HISTORY_WRITTEN",
    "IN_KERNELS",
    "LIVE_WRITTEN",
    "LOG_WRITTEN",
    "SWAPPED",
    "SWAP_BEGUN",
    "TAIL_MOVED",
    "Crash",
    "die",
]

LOG_WRITTEN: Final = 1
HISTORY_WRITTEN: Final = 2
LIVE_WRITTEN: Final = 3
SWAP_BEGUN: Final = 4
HALF_WRITTEN: Final = 5
SWAPPED: Final = 6
TAIL_MOVED: Final = 7

IN_KERNELS: Final = {
    "worker.log_written": LOG_WRITTEN,
    "worker.history_written": HISTORY_WRITTEN,
    "worker.live_written": LIVE_WRITTEN,
    "worker.swap_begun": SWAP_BEGUN,
    "worker.half_written": HALF_WRITTEN,
    "worker.swapped": SWAPPED,
    "worker.tail_moved": TAIL_MOVED,
}
"""Number of every point that lies inside a kernel."""


class Crash:
    """Where one life of one role dies, if anywhere.

    Args:
        points: Names of all points asked for, of every role.
        role: The role's kind.
        life: Which life of the role this is, 1: the first.
        after_n: At which passing of the point it dies, 1: the first.

    Attributes:
        point: Name of this life's point; empty: none.
    """

    def __init__(self, points: Iterable[str] = (), role: str = "", life: int = 1, after_n: int = 1) -> None:
        own = [point for point in points if point.startswith(f"{role}.")]
        self.point = own[life - 1] if 0 < life <= len(own) else ""
        self._left = after_n

    @property
    def word(self) -> int:
        """The crash word for kernels; 0: they do not die."""
        number = IN_KERNELS.get(self.point, 0)
        return number << 32 | self._left if number else 0

    def passing(self, point: str) -> None:
        """Die here if this is the point and its turn has come."""
        if point == self.point:
            self._left -= 1
            if self._left == 0:  # pragma: no cover - nobody is left to count
                die()


def die() -> None:  # pragma: no cover
    """End this process as kill -9 does: nothing is flushed, nothing is closed."""
    os.kill(os.getpid(), signal.SIGKILL)
