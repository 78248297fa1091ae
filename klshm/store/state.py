"""What is known of a market at one moment, under names: its symbols, its open bars, closed bars.

Every source that a start can find (a dead segment, the journal, a snapshot file) is read into one
of these, so that there is one way from any of them into a fresh segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, SYMBOL


__all__ = ["CARRIED", "MAX_DECIMALS", "State", "are_sound", "needed_times", "symbol_names", "worth"]

Rows = np.ndarray[Any, Any]

CARRIED: Final = (lay.SYMBOL_TRADING, lay.SYMBOL_HALTED)
CLOSED: Final = (lay.STATE_CLOSED, lay.STATE_CONFIRMED)
MAX_DECIMALS: Final = 9
"""Price and quantity decimals together, at most (SHM section 2)."""
MOST_ROWS: Final = 1024
"""Closed bars of one series that open ones are folded from, at most: with few intervals a week has 10,080."""

_PRICES: Final = ("open", "high", "low", "close")
_SUMS: Final = ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
_LARGEST: Final = 1e18
_FLAGS: Final = (1 << len(lay.FLAG_NAMES)) - 1


@dataclass(frozen=True, eq=False)
class State:
    """What one source knows.

    Attributes:
        origin: "segment", "journal" or "snapshot", for messages.
        symbols: Shape (m,), dtype SYMBOL; only symbols that are carried. Worker and slots mean nothing here.
        live: Open bars, shape (n,), dtype KLINE; `slot` is an index into `symbols`.
        closed: Closed bars in pieces, each shape (n,), dtype KLINE; `slot` likewise. May be read at every walk.
        time_ms: Exchange time of the newest that it knows, UTC ms.
        skew_ms: Exchange time minus this machine's clock when it was made.
    """

    origin: str
    symbols: Rows
    live: Rows
    closed: Iterable[Rows] = ()
    time_ms: int = 0
    skew_ms: int = 0

    @classmethod
    def empty(cls, origin: str) -> State:
        """Return a state that knows nothing."""
        return cls(origin, np.empty(0, dtype=SYMBOL), np.empty(0, dtype=KLINE))

    @property
    def closed_rows(self) -> int:
        """Number of closed bars."""
        return sum(map(len, self.closed))


def symbol_names(symbols: Rows) -> list[str]:
    """Return the names of rows of a symbols table."""
    return [bytes(name).decode(errors="replace") for name in symbols["name"]]


def are_sound(rows: Rows, *, is_open: bool) -> Rows:
    """Return which bars can be bars at all: aligned, finite, in order, of the state expected.

    Args:
        rows: Shape (n,), dtype KLINE.
        is_open: Whether open bars are expected, else closed ones.

    Returns:
        Shape (n,), dtype bool.
    """
    good: Rows = np.isin(rows["state"], (lay.STATE_LIVE,) if is_open else CLOSED)
    good &= rows["interval"] < len(intervals.INTERVALS)
    good &= rows["price_decimals"].astype(np.int64) + rows["quantity_decimals"] <= MAX_DECIMALS
    good &= (rows["flags"] & ~np.uint16(_FLAGS)) == 0
    lengths, anchors = _grid(rows["interval"])
    good &= (rows["open_time"] > 0) & ((rows["open_time"] - anchors) % lengths == 0)
    with np.errstate(invalid="ignore"):  # what is no number compares as false
        low, high = rows["low"], rows["high"]
        good &= (low > 0) & (high < _LARGEST)
        for name in ("open", "close"):
            good &= (low <= rows[name]) & (rows[name] <= high)
        for name in _SUMS:
            good &= (rows[name] >= 0) & (rows[name] < _LARGEST)
    return good


def worth(words: Rows) -> Rows:
    """Return what closed bars are worth against others of their times: rank, then revision.

    Args:
        words: Shape (n, 16): rows as 64-bit words.
    """
    packed = words[:, lay.W_REVISION_SLOT]
    confirmed = (packed >> 56) & 0xFF == lay.STATE_CONFIRMED
    partial = (words[:, lay.W_FLAGS] & lay.FLAG_PARTIAL != 0) & ~confirmed
    values: Rows = (np.where(confirmed, 3, 2) - partial) << 32 | (packed & 0xFFFFFFFF)
    return values


def _grid(codes: Rows) -> tuple[Rows, Rows]:
    names = intervals.INTERVALS
    lengths = np.ones(256, dtype=np.int64)
    anchors = np.zeros(256, dtype=np.int64)
    lengths[: len(names)] = [intervals.length_ms(name) for name in names]
    anchors[: len(names)] = [intervals.anchor_ms(name) for name in names]
    return lengths[codes], anchors[codes]


def needed_times(names: tuple[str, ...], minute_ms: int, least: int) -> list[Rows]:
    """Return which closed bars of each interval the open bars stand on.

    Args:
        names: Kept intervals, shortest first.
        minute_ms: Open time of the open minute.
        least: At least so many of each interval.

    Returns:
        Per interval the open times, ascending, dtype int64.
    """
    sources = intervals.parents_of(names)
    found = []
    for index, name in enumerate(names):
        length = intervals.length_ms(name)
        last = intervals.open_time_of(name, minute_ms) - length
        first = last - (least - 1) * length
        for parent, source in enumerate(sources):
            if source == index:
                first = min(first, intervals.open_time_of(names[parent], minute_ms))
        found.append(np.arange(max(first, last - (MOST_ROWS - 1) * length), last + 1, length, dtype=np.int64))
    return found
