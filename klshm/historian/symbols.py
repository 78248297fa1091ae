"""The symbols table: the historian is its only writer, a slot is never shifted.

A slot belongs to one listing for the life of the segment; a delisted one stays as a tombstone.
Which worker carries a symbol is decided once: heaviest first to the lightest worker with room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm.exchange.models import Listing
from klshm.historian.deal import deal
from klshm.shm import layout as lay
from klshm.shm.layout import ROW_WORDS, SYMBOL, SYMBOL_WORDS
from klshm.shm.rows import write_row
from klshm.shm.segment import Segment


__all__ = ["CONTRACT_CODES", "Entry", "SymbolBook"]

Rows = np.ndarray[Any, Any]

CONTRACT_CODES: Final = {name: code for code, name in enumerate(lay.CONTRACT_NAMES)}


@dataclass(frozen=True)
class Entry:
    """One slot of the table.

    Attributes:
        slot: Index in the table.
        name: Symbol as the exchange spells it.
        status: `lay.SYMBOL_...`.
        worker: Worker that carries it.
        local_slot: Slot within that worker's partition.
        price_decimals: Decimals of its prices.
        quantity_decimals: Decimals of its quantities.
        onboard_ms: Announced begin of trading, UTC ms.
        delivery_ms: End of trading, UTC ms.
        trades_24h: Trades of the 24 hours before it was dealt.
    """

    slot: int
    name: str
    status: int
    worker: int
    local_slot: int
    price_decimals: int
    quantity_decimals: int
    onboard_ms: int
    delivery_ms: int
    trades_24h: int
    contract: int = 0
    pair: str = ""
    generation: int = 1

    @property
    def is_carried(self) -> bool:
        """Whether a worker carries it (it is no tombstone)."""
        return self.status not in (lay.SYMBOL_EMPTY, lay.SYMBOL_DELISTED)


class SymbolBook:
    """The table, as its writer sees it.

    Args:
        segment: The segment; a table that an earlier historian left in it is taken over.
    """

    def __init__(self, segment: Segment) -> None:
        layout = segment.layout
        self._words = segment.words
        self._first = layout.symbols_offset // 8
        self._block = segment.block(layout.historian_offset)
        self._layout = layout
        count = int(self._block[lay.B_SYMBOL_COUNT])
        table = segment.region(layout.symbols_offset, count * lay.SYMBOL_BYTES).copy().view(SYMBOL)
        self.entries = [_entry(slot, row) for slot, row in enumerate(table)]
        for entry in self.entries:
            if int(table["sequence"][entry.slot]) & 1:  # its writer was killed there
                self._write(entry)

    # Questions

    def carried(self) -> dict[str, Entry]:
        """Return the symbols that workers carry, by name."""
        return {entry.name: entry for entry in self.entries if entry.is_carried}

    @property
    def room(self) -> int:
        """Slots never used so far."""
        return self._layout.max_symbols - len(self.entries)

    # Changes

    def add(self, listings: Iterable[Listing], trades_24h: Mapping[str, int]) -> list[Entry]:
        """Give slots to listings, in the order given, and workers by weight.

        Args:
            listings: New ones, at most `room`; those that no worker has room for are left out.
            trades_24h: Symbol to trades of 24 hours.

        Returns:
            The new entries.
        """
        chosen = list(listings)[: self.room]
        workers = range(self._layout.workers)
        loads = [sum(e.trades_24h for e in self.carried().values() if e.worker == w) for w in workers]
        taken = [sum(e.worker == w for e in self.entries) for w in workers]
        dealt = deal(
            {listing.symbol: trades_24h.get(listing.symbol, 0) for listing in chosen},
            loads,
            [self._layout.slots - count for count in taken],
        )
        added = []
        for listing in chosen:
            worker = dealt.get(listing.symbol)
            if worker is None:
                continue
            entry = Entry(
                slot=len(self.entries),
                name=listing.symbol,
                status=lay.SYMBOL_TRADING,
                worker=worker,
                local_slot=taken[worker],
                price_decimals=listing.price_precision,
                quantity_decimals=listing.quantity_precision,
                onboard_ms=listing.onboard_date,
                delivery_ms=listing.delivery_date,
                trades_24h=trades_24h.get(listing.symbol, 0),
                contract=CONTRACT_CODES.get(listing.contract_type, 0),
                pair=listing.pair,
            )
            taken[worker] += 1
            self.entries.append(entry)
            self._write(entry)
            added.append(entry)
        if added:
            self._block[lay.B_SYMBOL_COUNT] = len(self.entries)  # after the rows it makes visible
            self._block[lay.B_SYMBOLS_VERSION] += 1
        return added

    def replace(self, changed: Iterable[Entry]) -> None:
        """Write entries that changed in place, their slots untouched."""
        wrote = False
        for entry in changed:
            self.entries[entry.slot] = entry
            self._write(entry)
            wrote = True
        if wrote:
            self._block[lay.B_SYMBOLS_VERSION] += 1

    def _write(self, entry: Entry) -> None:
        row = np.zeros(1, dtype=SYMBOL)
        for name in ("generation", "status", "worker", "local_slot", "price_decimals", "quantity_decimals"):
            row[name] = getattr(entry, name)
        row["onboard_ms"] = entry.onboard_ms
        row["delivery_ms"] = entry.delivery_ms
        row["trades_24h"] = entry.trades_24h
        row["contract"] = entry.contract
        row["name"] = entry.name.encode()
        row["pair"] = entry.pair.encode()
        image = row.view(np.int64)
        at = self._first + entry.slot * SYMBOL_WORDS
        # SYNC POINT symbol: writer. The second half is written while the sequence is odd; then
        # the first half, which makes it even.
        self._words[at] |= 1
        self._words[at + ROW_WORDS : at + SYMBOL_WORDS] = image[ROW_WORDS:]
        write_row(self._words, at, image, 0)


def _entry(slot: int, row: Any) -> Entry:
    return Entry(
        slot=slot,
        name=bytes(row["name"]).decode(errors="replace"),
        status=int(row["status"]),
        worker=int(row["worker"]),
        local_slot=int(row["local_slot"]),
        price_decimals=int(row["price_decimals"]),
        quantity_decimals=int(row["quantity_decimals"]),
        onboard_ms=int(row["onboard_ms"]),
        delivery_ms=int(row["delivery_ms"]),
        trades_24h=int(row["trades_24h"]),
        contract=int(row["contract"]),
        pair=bytes(row["pair"]).decode(errors="replace"),
        generation=int(row["generation"]),
    )
