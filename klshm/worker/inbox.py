"""What the historian sends a worker: official bars, and symbols that come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from klshm.core.events import EVENT, NO_ROW, REST_ROW, STREAM_DOWN, SYMBOL_ADD, SYMBOL_ORIGIN, SYMBOL_REMOVE
from klshm.core.kernel.scaling import cells_of_row
from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import ROW_BYTES, ROW_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import SymbolTable


__all__ = ["Inbox"]

Events = np.ndarray[Any, Any]

ROWS_PER_TURN: Final = 256
_CARRIED: Final = (lay.SYMBOL_TRADING, lay.SYMBOL_HALTED)
"""A halted symbol keeps its bars and its streams: it may trade again at any moment."""


class Inbox:
    """Turns inbox rows into events.

    Args:
        segment: The segment.
        worker: Number of the worker.
        on_add: Called with local slot, symbol, pair and contract type of a symbol that joins.
        on_remove: Called with the local slot of a symbol that leaves.
    """

    def __init__(
        self,
        segment: Segment,
        worker: int,
        on_add: Callable[[int, str, str, str], None],
        on_remove: Callable[[int], None],
    ) -> None:
        layout = segment.layout
        self._worker = worker
        self._symbols = SymbolTable(segment)
        self._on_add = on_add
        self._on_remove = on_remove
        self._indices = {code: index for index, code in enumerate(layout.interval_codes)}
        self._cursor = segment.block(layout.partition_offset(worker))[lay.B_CURSOR : lay.B_CURSOR + 1]
        ring = segment.region(layout.inbox_offset(worker), layout.inbox_rows * ROW_BYTES)
        tails = segment.block(layout.historian_offset)
        tail = tails[lay.B_INBOX_TAILS + worker : lay.B_INBOX_TAILS + worker + 1]
        self._ring = RingConsumer(ring, tail, int(self._cursor[0]))

    def known_symbols(self) -> Events:
        """Return events that add every symbol the table gives to this worker (at start)."""
        rows = self._symbols.rows()
        return _as_events([self._add(slot, rows[slot]) for slot in np.flatnonzero(self._mine(rows)).tolist()])

    def is_idle(self) -> bool:
        """Return whether the table gives this worker no symbol, once it gives any at all."""
        rows = self._symbols.rows()
        return len(rows) > 0 and not self._mine(rows).any()

    @property
    def waits(self) -> bool:
        """Whether anything waits to be taken."""
        return self._ring.behind > 0

    def take(self) -> Events:
        """Return the next events; call `done` once they have been applied."""
        rows = self._ring.take(ROWS_PER_TURN)
        words = rows.view(np.int64).reshape(-1)
        events = []
        for index, row in enumerate(rows):
            slot = int(row["slot"])
            if slot >= self._symbols.count:
                continue
            known = self._symbols.row(slot)
            if known["worker"] != self._worker:
                continue
            if row["interval"] == lay.INTERVAL_COMMAND:
                events.extend(self._command(slot, row, known))
            elif int(row["interval"]) in self._indices:
                events.append(self._bar(row, int(known["local_slot"]), words, index * ROW_WORDS))
        return _as_events(events)

    def done(self) -> None:
        """Say that everything taken has taken effect: the historian may reuse its room."""
        self._cursor[0] = self._ring.cursor

    def _mine(self, rows: Events) -> Events:
        mine: Events = (rows["worker"] == self._worker) & np.isin(rows["status"], _CARRIED)
        return mine

    def _command(self, slot: int, row: Any, known: Any) -> list[Events]:
        kind, local = int(row["state"]), int(known["local_slot"])
        if kind == lay.COMMAND_ADD and known["status"] in _CARRIED:
            return [self._add(slot, known)]
        if kind == lay.COMMAND_REMOVE:
            self._on_remove(local)
            return [_event(kind=SYMBOL_REMOVE, slot=local)]
        if kind == lay.COMMAND_ORIGIN:
            return [_event(kind=SYMBOL_ORIGIN, slot=local, open_time=int(row["open_time"]))]
        if kind == lay.COMMAND_NO_ROW:
            return [_event(kind=NO_ROW, slot=local, open_time=int(row["open_time"]))]
        if kind == lay.COMMAND_DOUBT:
            return [_event(kind=STREAM_DOWN, slot=local, time=int(row["open_time"]))]
        return []

    def _add(self, slot: int, row: Any) -> Events:
        local = int(row["local_slot"])
        contract = lay.CONTRACT_NAMES[int(row["contract"])]
        name, pair = (bytes(row[field]).decode(errors="replace") for field in ("name", "pair"))
        self._on_add(local, name, pair, contract)
        return _event(
            kind=SYMBOL_ADD,
            slot=local,
            l=slot,
            open_time=int(row["onboard_ms"]),
            price_decimals=int(row["price_decimals"]),
            quantity_decimals=int(row["quantity_decimals"]),
        )

    def _bar(self, row: Any, local: int, words: np.ndarray[Any, Any], at: int) -> Events:
        event = _event(
            kind=REST_ROW,
            slot=local,
            time=int(row["event_time"]),
            open_time=int(row["open_time"]),
            interval=self._indices[int(row["interval"])],
            price_decimals=int(row["price_decimals"]),
            quantity_decimals=int(row["quantity_decimals"]),
            quote_decimals=int(row["price_decimals"]) + int(row["quantity_decimals"]),
        )
        cells_of_row(words, at, event.view(np.int64), 0)
        return event


def _event(**values: int) -> Events:
    event = np.zeros(1, dtype=EVENT)
    for name, value in values.items():
        event[name] = value
    return event


def _as_events(events: list[Events]) -> Events:
    return np.concatenate(events) if events else np.zeros(0, dtype=EVENT)
