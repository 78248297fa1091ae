"""The simulator's clock: starts at a chosen instant and then runs at normal speed."""

from __future__ import annotations

import time
from datetime import UTC, datetime


__all__ = ["SimClock", "parse_instant_ms"]


class SimClock:
    """Count milliseconds from `start_ms` by CLOCK_MONOTONIC.

    Args:
        start_ms: UTC milliseconds shown at the moment of construction; None for the real time.
    """

    def __init__(self, start_ms: int | None = None) -> None:
        self.start_ms = int(time.time() * 1000) if start_ms is None else start_ms
        self._origin_ns = time.monotonic_ns()
        self._born_ms = self._origin_ns // 1_000_000

    def step(self, by_ms: int) -> None:
        """Jump by some milliseconds, forwards or backwards."""
        self._origin_ns -= by_ms * 1_000_000

    def uptime_ms(self) -> int:
        """Return the time since the start; steps do not change it."""
        return time.monotonic_ns() // 1_000_000 - self._born_ms

    def now_ms(self) -> int:
        """Return the simulated time, UTC milliseconds."""
        return self.start_ms + (time.monotonic_ns() - self._origin_ns) // 1_000_000


def parse_instant_ms(text: str) -> int:
    """Read an instant given as ISO-8601 (UTC unless it carries an offset) or as milliseconds.

    Raises:
        ValueError: the text is neither.
    """
    if text.isdigit():
        return int(text)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"found {text!r}, expected ISO-8601 such as 2026-11-22T23:59:50Z or milliseconds") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)
