"""What there is to fetch: units of backfill, their order, and the ranges they ask for; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from klshm import intervals
from klshm.exchange.backoff import Backoff
from klshm.historian.source import PAGE_ROWS
from klshm.historian.symbols import Entry


__all__ = ["Task", "first_pass_order", "first_pass_rows", "missing_range", "pages"]

_FIRST_MINUTES: Final = PAGE_ROWS
_FIRST_ROWS: Final = 99
_FOUR_HOURS_MS: Final = 4 * 3_600_000
_PAUSE_S: Final = (1.0, 60.0)


@dataclass(order=True)
class Task:
    """One unit of backfill: a symbol's first pass, the depth of one series, or a part of one once more.

    Attributes:
        stage: 0: first pass; 1: depth; 2: the last rows of a symbol that was removed.
        rank: Place of the symbol, busiest first.
        number: Order of making.
        entry: The symbol.
        interval: Index of the interval for depth; None for the first pass.
        again: Open times of the first and the last row to look at once more; None: all of the depth.
        is_second: They were read before, too young to be final.
        tries: Refused attempts so far.
    """

    stage: int
    rank: int
    number: int
    entry: Entry = field(compare=False)
    interval: int | None = field(compare=False, default=None)
    again: tuple[int, int] | None = field(compare=False, default=None)
    is_second: bool = field(compare=False, default=False)
    tries: int = field(compare=False, default=0)
    backoff: Backoff = field(compare=False, default_factory=lambda: Backoff(*_PAUSE_S))


def first_pass_rows(interval: str) -> int:
    """Return how many rows the first pass asks of an interval."""
    return _FIRST_MINUTES if interval == "1m" else _FIRST_ROWS


def pages(last_open_ms: int, length_ms: int, have: int, depth: int) -> list[tuple[int, int]]:
    """Return the ranges to ask for depth, newest first.

    Args:
        last_open_ms: Open time of the newest closed row.
        length_ms: Length of the interval.
        have: Rows asked for already, counted back from there.
        depth: Rows wanted in all.

    Returns:
        (first, last) open times, each at most 499 rows.
    """
    ranges = []
    while have < depth:
        count = min(PAGE_ROWS, depth - have)
        last = last_open_ms - have * length_ms
        ranges.append((last - (count - 1) * length_ms, last))
        have += count
    return ranges


def missing_range(have: Iterable[int], first_ms: int, last_ms: int, length_ms: int) -> tuple[int, int] | None:
    """Return the smallest range that holds all rows not there yet, None if all are.

    Args:
        have: Open times of rows that are there.
        first_ms: Open time of the first row wanted.
        last_ms: Open time of the last row wanted.
        length_ms: Length of the interval.
    """
    missing = set(range(first_ms, last_ms + 1, length_ms)).difference(have)
    return (min(missing), max(missing)) if missing else None


def first_pass_order(names: list[str]) -> Callable[[int], tuple[int, int]]:
    """Return the order of intervals: 1m, then from 4h up, then the rest, longest first."""

    def key(index: int) -> tuple[int, int]:
        length = intervals.length_ms(names[index])
        if names[index] == "1m":
            return 0, 0
        return (1, length) if length >= _FOUR_HOURS_MS else (2, -length)

    return key
