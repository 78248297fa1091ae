"""Iterating over a follower: waiting in pieces, so that a dead engine is noticed, and patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from klshm.errors import WaitTimeout
from klshm.read.bars import Bar
from klshm.read.closed import Follower


__all__ = ["LONGEST_WAIT_S", "aiterate", "iterate"]

LONGEST_WAIT_S: Final = 0.5
"""A wait is cut into pieces so that a dead engine is noticed."""
_THREAD_WAIT_S: Final = 0.25
"""In a thread, which a cancelled task leaves behind for so long."""


def iterate(
    follower: Follower, check: Callable[[], None], *, is_spinning: bool, timeout_s: float | None
) -> Iterator[Bar]:
    """Yield the follower's bars as they become due.

    Args:
        follower: The follower.
        check: Raises if the engine does not live.
        is_spinning: Look without pause instead of sleeping until woken.
        timeout_s: Seconds without a bar after which `WaitTimeout` is raised; None: never.
    """
    patience = _Patience(timeout_s)
    while True:
        wait_s = 0.0 if is_spinning else patience.wait_s(LONGEST_WAIT_S)
        bars = _next(follower, check, wait_s)
        yield from bars
        patience.judge(bars)


async def aiterate(follower: Follower, check: Callable[[], None], *, timeout_s: float | None) -> AsyncIterator[Bar]:
    """Yield the follower's bars as `iterate` does; the waiting is done in a thread."""
    patience = _Patience(timeout_s)
    while True:
        bars = await asyncio.to_thread(_next, follower, check, patience.wait_s(_THREAD_WAIT_S))
        for bar in bars:
            yield bar
        patience.judge(bars)


def _next(follower: Follower, check: Callable[[], None], wait_s: float) -> list[Bar]:
    """Return the bars that are due, waiting for them once."""
    check()
    bars = follower.poll()
    if bars or not wait_s:
        return bars
    follower.wait(wait_s)
    return follower.poll()


class _Patience:
    """Ends an iteration that has seen no bar for too long."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._from_s = time.monotonic()

    def wait_s(self, longest_s: float) -> float:
        """Return how long to wait at once."""
        return longest_s if self._timeout_s is None else min(self._timeout_s, longest_s)

    def judge(self, bars: list[Bar]) -> None:
        """Begin anew if bars came; raise `WaitTimeout` if none came for too long."""
        now_s = time.monotonic()
        if bars:
            self._from_s = now_s
        elif self._timeout_s is not None and now_s - self._from_s >= self._timeout_s:
            raise WaitTimeout(f"no bar closed within {self._timeout_s:g} s; wait longer or see `status`")
