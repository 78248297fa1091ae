"""The open bars of the whole market at one moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from klshm.errors import UnknownInterval, UnknownSymbol
from klshm.read.bars import Bar, bar_of
from klshm.shm import layout as lay
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


def assemble(cuts: Sequence[Cut], table: Rows, slots: Rows, intervals: tuple[str, ...]) -> Snapshot:
    """Put the cuts of all workers together, in the order of `slots`.

    Args:
        cuts: One per worker.
        table: The symbols table, dtype SYMBOL.
        slots: Slots wanted, dtype int64.
        intervals: Names of the kept intervals.
    """
    wanted = table[slots]
    rows = np.empty((len(slots), len(intervals)), dtype=lay.KLINE)
    for worker, cut in enumerate(cuts):
        mine = wanted["worker"] == worker
        rows[mine] = cut.rows[wanted["local_slot"][mine]]
    busy = [cuts[worker].closed_through_ms for worker in np.unique(wanted["worker"])]
    return Snapshot(
        symbols=tuple(bytes(name).decode() for name in wanted["name"]),
        intervals=intervals,
        rows=rows,
        cut_exchange_ms=tuple(cut.exchange_ms for cut in cuts),
        closed_through_ms=min(busy, default=0),
    )
