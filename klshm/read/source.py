"""What a reader reads from: the views of one segment, and the archive behind them."""

from __future__ import annotations

import difflib
from contextlib import closing
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from klshm.config import Config
from klshm.config.settings import from_json
from klshm.errors import UnknownInterval, UnknownSymbol
from klshm.intervals import length_ms, name_of
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView, SymbolTable


__all__ = ["Market", "Place", "Source"]

Rows = np.ndarray[Any, Any]


class Place(NamedTuple):
    """Where one series lies."""

    symbol: str
    slot: int
    worker: int
    local_slot: int
    interval: int
    """Index among the kept intervals."""
    code: int
    """Code of the interval in records."""
    step: int
    """Length of the interval, ms."""
    capacity: int
    """Closed bars that memory can hold and a reader may take."""


class Market(NamedTuple):
    """The symbols that are not delisted, in the order of their slots."""

    names: tuple[str, ...]
    workers: Rows
    """Shape (n,), dtype int64."""
    local_slots: Rows
    """Shape (n,), dtype int64."""


class Source:
    """The views of one segment.

    Args:
        segment: The mapped segment.

    Attributes:
        views: One per worker.
        table: The symbols table.
        codes: Codes of the kept intervals, shortest first.
        intervals: Their names.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.views = [PartitionView(segment, worker) for worker in range(segment.layout.workers)]
        self.table = SymbolTable(segment)
        # A word of a memoryview is read five times as fast as one of an array.
        self._historian: Any = memoryview(segment.block(segment.layout.historian_offset).data)
        self.codes = segment.layout.interval_codes
        self.intervals = tuple(name_of(code) for code in self.codes)
        self._places: dict[tuple[str, str], Place] = {}
        self._version = -1
        self._market: tuple[int, Market] | None = None

    def close(self) -> None:
        """Let go of the segment, also where an error under way still holds this object."""
        del self.views, self.table, self._historian

    @cached_property
    def config(self) -> Config:
        """The configuration the engine was started with."""
        return from_json(self.segment.config_bytes())

    def place(self, symbol: str, interval: str) -> Place:
        """Return where a series lies.

        Raises:
            UnknownSymbol: If the engine does not carry the symbol; names the nearest.
            UnknownInterval: If it does not keep the interval; names those it does.
        """
        version = self._historian[lay.B_SYMBOLS_VERSION]
        if version != self._version:
            self._places.clear()
            self._version = version
        place = self._places.get((symbol, interval))
        if place is None:
            place = self.place_of(self.slot(symbol), self.interval_index(interval))
            self._places[symbol, interval] = place
        return place

    def place_of(self, slot: int, interval: int) -> Place:
        """Return where the series of a slot and of the interval with that index lies."""
        listing = self.table.row(slot)
        return Place(
            symbol=self.table.name(slot),
            slot=slot,
            worker=int(listing["worker"]),
            local_slot=int(listing["local_slot"]),
            interval=interval,
            code=self.codes[interval],
            step=length_ms(self.intervals[interval]),
            capacity=self.segment.layout.history_rows[interval] - 2,
        )

    def slot(self, symbol: str) -> int:
        """Return the slot of a symbol.

        Raises:
            UnknownSymbol: If the engine does not carry it; names the nearest.
        """
        slot = self.table.find(symbol)
        if slot < 0:
            raise UnknownSymbol(f"symbol {symbol!r} is not carried by this engine; {_nearest(symbol, self.names())}")
        return slot

    def interval_index(self, interval: str) -> int:
        """Return the index of an interval among the kept ones.

        Raises:
            UnknownInterval: If it is not kept; names those that are.
        """
        if interval not in self.intervals:
            raise UnknownInterval(f"interval {interval!r} is not kept; kept are {', '.join(self.intervals)}")
        return self.intervals.index(interval)

    def tail_words(self) -> list[int]:
        """Return the word of each worker's log tail, which readers wait on."""
        layout = self.segment.layout
        return [layout.partition_offset(worker) // 8 + lay.B_TAIL for worker in range(layout.workers)]

    def names(self) -> list[str]:
        """Return the names of all symbols that are not delisted, by slot."""
        return list(self.market().names)

    def generation_words(self) -> list[int]:
        """Return the word of each worker's generation, which moves and wakes at every publication."""
        layout = self.segment.layout
        return [layout.partition_offset(worker) // 8 + lay.B_GENERATION for worker in range(layout.workers)]

    def market(self) -> Market:
        """Return the symbols that are not delisted, as of the table's last change."""
        version = self.table.version
        if self._market is None or version != self._market[0]:
            rows = self.table.rows()
            rows = rows[(rows["status"] != lay.SYMBOL_EMPTY) & (rows["status"] != lay.SYMBOL_DELISTED)]
            names = tuple(bytes(name).decode(errors="replace") for name in rows["name"])
            self._market = version, Market(names, rows["worker"].copy(), rows["local_slot"].copy())
        return self._market[1]

    def history(self, place: Place, first_ms: int, last_ms: int) -> Rows:
        """Return the closed bars of a series that memory holds, and older ones from the archive.

        Args:
            place: The series.
            first_ms: Open time of the first bar wanted, aligned.
            last_ms: Open time of the last bar wanted, aligned.

        Returns:
            Shape (n,), dtype KLINE, oldest first; bars that nobody has are left out.
        """
        view = self.views[place.worker]
        rows = view.history(place.local_slot, place.interval, first_ms, last_ms)
        oldest = last_ms - (place.capacity - 1) * place.step
        if first_ms >= oldest:
            return rows
        older = self._archived(place, first_ms, oldest - place.step)
        return np.concatenate((older, rows)) if len(older) else rows

    def _archived(self, place: Place, first_ms: int, last_ms: int) -> Rows:
        # Only here, so that a reader loads SQLite when it asks for more than memory holds.
        from klshm.store.archive_reader import ArchiveReader
        from klshm.store.names import archive_path, data_directory

        path = archive_path(data_directory(self.config))
        if not path.exists():
            return np.empty(0, dtype=lay.KLINE)
        count = (last_ms - first_ms) // place.step + 1
        with closing(ArchiveReader(path)) as archive:
            rows = archive.read_series(place.symbol, self.intervals[place.interval], first_ms, last_ms, count)
        rows = rows[rows["state"] >= lay.STATE_CLOSED]
        rows["slot"] = place.slot
        return rows


def _nearest(symbol: str, names: list[str]) -> str:
    near = difflib.get_close_matches(symbol.upper(), names, n=3)
    return f"nearest are {', '.join(near)}" if near else f"it carries {len(names)} symbols: list them with `symbols`"
