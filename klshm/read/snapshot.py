"""The open bars of the whole market at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klshm.errors import UnknownInterval, UnknownSymbol
from klshm.read.bars import Bar, bar_of
from klshm.read.source import Market
from klshm.shm.layout import KLINE, ROW_WORDS
from klshm.shm.view import Cut


__all__ = ["Snapshot", "assemble"]

Rows = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Snapshot:
    """Open bars of all symbols: an exact cut per worker.

    Attributes:
        symbols: Names, one per row of `rows`.
        intervals: Names of the kept intervals, one per column of `rows`.
        rows: Shape (symbols, intervals), dtype KLINE; state 0 where a symbol has no bar yet.
        cut_exchange_ms: Exchange time of each worker's cut, UTC ms.
        closed_through_ms: Every minute that ended by then is closed, market-wide, UTC ms.
    """

    symbols: tuple[str, ...]
    intervals: tuple[str, ...]
    rows: Rows
    cut_exchange_ms: tuple[int, ...]
    closed_through_ms: int

    def __len__(self) -> int:
        return len(self.symbols)

    def bar(self, symbol: str, interval: str) -> Bar:
        """Return one bar.

        Raises:
            UnknownSymbol: If the snapshot does not hold the symbol.
            UnknownInterval: If it does not hold the interval; names those it does.
        """
        if symbol not in self.symbols:
            raise UnknownSymbol(f"symbol {symbol!r} is not among the {len(self)} of this snapshot")
        if interval not in self.intervals:
            raise UnknownInterval(f"interval {interval!r} is not kept; kept are {', '.join(self.intervals)}")
        row = self.rows[self.symbols.index(symbol), self.intervals.index(interval)]
        return bar_of(row.item(), symbol)

    def bars(self) -> Iterator[Bar]:
        """Return every bar, symbol by symbol; symbols without a bar yet are left out."""
        for symbol, rows in zip(self.symbols, self.rows, strict=True):
            for row in rows.tolist():
                bar = bar_of(row, symbol)
                if bar.state != "empty":
                    yield bar


def assemble(cuts: Sequence[Cut], market: Market, intervals: tuple[str, ...]) -> Snapshot:
    """Put the cuts of all workers together, in the order of the market's symbols.

    Args:
        cuts: One per worker.
        market: The symbols.
        intervals: Names of the kept intervals.
    """
    # As words: NumPy copies structured rows field by field, thirty times slower.
    words = np.empty((len(market.names), len(intervals) * ROW_WORDS), dtype=np.int64)
    closed_through_ms = []
    for worker, cut in enumerate(cuts):
        mine = np.flatnonzero(market.workers == worker)
        if len(mine):  # a worker without symbols closes nothing
            words[mine] = np.take(cut.rows.view(np.int64).reshape(len(cut.rows), -1), market.local_slots[mine], axis=0)
            closed_through_ms.append(cut.closed_through_ms)
    return Snapshot(
        symbols=market.names,
        intervals=intervals,
        rows=words.view(KLINE),
        cut_exchange_ms=tuple(cut.exchange_ms for cut in cuts),
        closed_through_ms=min(closed_through_ms, default=0),
    )
