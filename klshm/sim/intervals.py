"""The exchange's kline intervals and their alignment: a day at 00:00 UTC, a week on Monday, a month by calendar."""

from __future__ import annotations

from datetime import UTC, datetime


__all__ = [
    "INTERVALS",
    "MINUTE_MS",
    "DAY_MS",
    "WEEK_MS",
    "WEEK_OFFSET_MS",
    "next_open_ms",
    "open_ms",
    "previous_open_ms",
]

MINUTE_MS = 60_000
DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
# 1970-01-01 was a Thursday; the first Monday is 4 days later.
WEEK_OFFSET_MS = 4 * DAY_MS

#: Length in milliseconds; a month has no fixed length and is 0 here.
INTERVALS: dict[str, int] = {
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
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": WEEK_MS,
    "1M": 0,
}


def _month_ms(months: int) -> int:
    return int(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp()) * 1000


def _month_of(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms // 1000, UTC)
    return day.year * 12 + day.month - 1


def open_ms(interval: str, at_ms: int) -> int:
    """Return the open time of the bar that contains `at_ms`."""
    length_ms = INTERVALS[interval]
    if interval == "1w":
        return at_ms - (at_ms - WEEK_OFFSET_MS) % WEEK_MS
    if length_ms:
        return at_ms - at_ms % length_ms
    return _month_ms(_month_of(at_ms))


def next_open_ms(interval: str, opened_ms: int) -> int:
    """Return the open time of the bar after the one opened at `opened_ms`."""
    length_ms = INTERVALS[interval]
    return opened_ms + length_ms if length_ms else _month_ms(_month_of(opened_ms) + 1)


def previous_open_ms(interval: str, opened_ms: int) -> int:
    """Return the open time of the bar before the one opened at `opened_ms`."""
    length_ms = INTERVALS[interval]
    return opened_ms - length_ms if length_ms else _month_ms(_month_of(opened_ms) - 1)
