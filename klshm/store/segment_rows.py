"""Rows of a segment under durable names: its symbols, its history, its rings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_BYTES, ROW_WORDS, SYMBOL
from klshm.shm.segment import Segment
from klshm.shm.view import SymbolTable
from klshm.store.batch import Batch, Listing
from klshm.store.names import is_legal_symbol


__all__ = ["Namer", "interval_names", "log_name", "walk_history"]

Rows = np.ndarray[Any, Any]

_WALK_ROWS: Final = 65_536
_VALUES: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
CLOSED: Final = (lay.STATE_CLOSED, lay.STATE_CONFIRMED)
OPEN: Final = (lay.STATE_LIVE,)


def log_name(worker: int) -> str:
    """Return the durable name of a worker's closed-bar log."""
    return f"log/{worker}"


def interval_names(segment: Segment) -> dict[int, str]:
    """Return code and name of every interval the segment keeps."""
    return {code: intervals.name_of(code) for code in segment.layout.interval_codes}


class Namer:
    """Puts the names of a segment's symbols in place of their slots.

    A slot keeps its name after its symbol was delisted, so rows that come late still find it.

    Args:
        segment: Whose rows.
        at_rest: No process writes the segment: take rows of the symbols table as they are, also one
            whose writer was killed (a slot's name is written once, before its first bar).
    """

    def __init__(self, segment: Segment, *, at_rest: bool = False) -> None:
        self._segment = segment
        self._at_rest = at_rest
        self._table = SymbolTable(segment)
        self._seen = -1
        self._listings: tuple[Listing, ...] = ()
        self._legal = np.zeros(0, dtype=bool)
        self._kept = np.zeros(256, dtype=bool)
        self._kept[list(segment.layout.interval_codes)] = True

    def batch(self, rows: Rows, states: tuple[int, ...] = CLOSED) -> Batch:
        """Return the rows that can be stored, in order.

        Left out are rows of a slot without a legal name, of an interval that is not kept, of
        another state, and rows with a value that is not a finite number.

        Args:
            rows: Shape (n,), dtype KLINE, slots of this segment.
            states: States wanted.

        Raises:
            RowBusy: If the symbols table was being written at every look.
        """
        self._refresh()
        slots = rows["slot"]
        known = slots < len(self._legal)
        good = known & self._kept[rows["interval"]] & np.isin(rows["state"], states)
        good[known] &= self._legal[slots[known]]
        for name in _VALUES:
            good &= np.isfinite(rows[name])
        return Batch(self._listings, rows if good.all() else rows[good])

    def _refresh(self) -> None:
        version = self._table.version
        if version == self._seen and not self._at_rest:
            return
        symbols = self._symbols_at_rest() if self._at_rest else self._table.rows()
        names = [bytes(name).decode(errors="replace") for name in symbols["name"]]
        self._listings = tuple(map(Listing, names, symbols["onboard_ms"].tolist()))
        self._legal = np.array([is_legal_symbol(name) for name in names], dtype=bool)
        self._seen = version

    def _symbols_at_rest(self) -> Rows:
        layout = self._segment.layout
        table = self._segment.region(layout.symbols_offset, layout.max_symbols * lay.SYMBOL_BYTES)
        count = min(max(self._table.count, 0), layout.max_symbols)
        return table[: count * lay.SYMBOL_WORDS].copy().view(SYMBOL)


def walk_history(segment: Segment, worker: int) -> Iterator[Rows]:
    """Yield all rows of a worker's history, in pieces; those being written are left out.

    A row that is being written has its log entry beyond the tail (entries come first, the tail
    last), so whoever reads the tail before the walk and the log from there misses nothing.

    Yields:
        Shape (n,), dtype KLINE.
    """
    layout = segment.layout
    count = layout.slots * layout.history_rows_per_symbol
    history = segment.region(layout.history_offset(worker), count * ROW_BYTES).reshape(count, ROW_WORDS)
    for start in range(0, count, _WALK_ROWS):
        piece = history[start : start + _WALK_ROWS]
        # SYNC POINT row: reader
        before = piece[:, 0].copy()
        if not before.any():
            continue
        copied = piece.copy()
        whole = (before > 0) & (before & 1 == 0) & (before == piece[:, 0])
        yield copied[whole].view(KLINE).reshape(-1)
