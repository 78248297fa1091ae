"""The kline intervals klshm can keep, and the arithmetic of their open times.

Every interval's rows open at multiples of its length from its anchor: the epoch for all
but the week, which opens Monday 00:00 UTC (EXCHANGE section 3.2, seen on the exchange's own
rows). All times are UTC milliseconds.
"""

from __future__ import annotations

from typing import Final

from klshm.errors import UnknownInterval


__all__ = [
    "CODES",
    "INTERVALS",
    "MINUTE_MS",
    "MONDAY_MS",
    "anchor_ms",
    "code_of",
    "length_ms",
    "name_of",
    "open_time_of",
    "parents_of",
]

MINUTE_MS: Final = 60_000
MONDAY_MS: Final = 4 * 86_400_000
"""Monday 1970-01-05 00:00 UTC: weeks open at multiples of seven days from here."""

_LENGTHS: Final = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "2h": 120 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS,
    "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS,
    "1d": 1440 * MINUTE_MS,
    "1w": 7 * 1440 * MINUTE_MS,
}

INTERVALS: Final = tuple(_LENGTHS)
"""Names of all intervals that can be kept, shortest first (3d and 1M are not offered)."""

CODES: Final = {name: code for code, name in enumerate(INTERVALS)}
"""Name to the code stored in a record's `interval` byte; a code never changes its meaning."""


def length_ms(interval: str) -> int:
    """Return the length of an interval in ms.

    Raises:
        UnknownInterval: If klshm cannot keep it; the message names those it can.
    """
    try:
        return _LENGTHS[interval]
    except KeyError:
        raise UnknownInterval(
            f"interval {interval!r} is not one of {', '.join(INTERVALS)}; use one of these"
        ) from None


def code_of(interval: str) -> int:
    """Return the code of an interval as stored in records."""
    length_ms(interval)
    return CODES[interval]


def name_of(code: int) -> str:
    """Return the name of an interval code.

    Raises:
        UnknownInterval: If no interval has that code.
    """
    if not 0 <= code < len(INTERVALS):
        raise UnknownInterval(f"interval code {code} is not in 0..{len(INTERVALS) - 1}")
    return INTERVALS[code]


def anchor_ms(interval: str) -> int:
    """Return an open time from which all open times of the interval are multiples, UTC ms."""
    return MONDAY_MS if interval == "1w" else 0


def open_time_of(interval: str, time_ms: int) -> int:
    """Return the open time of the row of `interval` that holds `time_ms`, UTC ms."""
    length, anchor = length_ms(interval), anchor_ms(interval)
    return (time_ms - anchor) // length * length + anchor


def parents_of(intervals: tuple[str, ...]) -> tuple[int, ...]:
    """Return for each kept interval the index of the one it is folded from.

    A row is folded from rows of the largest kept interval that divides it; the first
    interval must be 1m and has no source.

    Args:
        intervals: Kept intervals, shortest first, the first being 1m.

    Returns:
        One index per interval; -1 for 1m.
    """
    sources = [-1]
    for index in range(1, len(intervals)):
        length = length_ms(intervals[index])
        sources.append(
            max(j for j in range(index) if length % length_ms(intervals[j]) == 0)
        )
    return tuple(sources)
