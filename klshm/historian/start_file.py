"""The start-up snapshot that `backfill` leaves: who trades, and the closed bars that open ones stand on.

It has no open bars but those of a snapshot that was there: an engine that starts from it opens its
own, in a table of symbols that it need not wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from klshm import intervals
from klshm.errors import SnapshotFileError, StoreError
from klshm.exchange.models import Listing
from klshm.historian.symbols import CONTRACT_CODES
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, SYMBOL
from klshm.store.archive_reader import ArchiveReader, has_archive
from klshm.store.names import is_legal_symbol
from klshm.store.remains import LEAST_ROWS
from klshm.store.snapshot import read_snapshot, snapshot_path, write_snapshot
from klshm.store.state import State, needed_times, symbol_names


__all__ = ["write_start_file"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)



def write_start_file(
    archive: Path, instance: str, names: Sequence[str], listings: Sequence[Listing], now_ms: int, skew_ms: int
) -> None:
    """Write the snapshot that the next start goes on from; what an earlier one knows beside it is kept.

    A file that cannot be written costs a start some seconds and is said, no more.

    Args:
        archive: The SQLite file; the snapshot lies beside it.
        instance: Name of the instance.
        names: Kept intervals, shortest first.
        listings: Contracts that were looked at.
        now_ms: Exchange time, UTC ms.
        skew_ms: Exchange time minus this machine's clock.
    """
    path = snapshot_path(archive.parent)
    try:
        state = _archived(archive, names, listings, now_ms, skew_ms)
        kept = set(names)
        if path.exists():
            try:
                earlier = read_snapshot(path)
                state = _with_earlier(state, earlier.state)
                kept |= set(earlier.intervals)
            except SnapshotFileError as error:
                _log.warning("the snapshot that was there is replaced: %s", error)
        write_snapshot(path, instance, tuple(sorted(kept, key=intervals.code_of)), state)
    except StoreError as error:
        _log.warning("no snapshot for the next start: %s", error)


def _archived(
    archive: Path, names: Sequence[str], listings: Sequence[Listing], now_ms: int, skew_ms: int
) -> State:
    listings = [listing for listing in listings if is_legal_symbol(listing.symbol)]
    symbols = np.zeros(len(listings), dtype=SYMBOL)
    symbols["status"] = lay.SYMBOL_TRADING
    closed = []
    for index, listing in enumerate(listings):
        row = symbols[index : index + 1]
        row["name"], row["pair"] = listing.symbol.encode(), listing.pair.encode()
        row["contract"] = CONTRACT_CODES.get(listing.contract_type, 0)
        row["price_decimals"], row["quantity_decimals"] = listing.price_precision, listing.quantity_precision
        row["onboard_ms"], row["delivery_ms"] = listing.onboard_date, max(0, listing.delivery_date)
    if has_archive(archive):
        with closing(ArchiveReader(archive)) as reader:
            for index, listing in enumerate(listings):
                for name, times in zip(names, needed_times(tuple(names), now_ms, LEAST_ROWS), strict=True):
                    rows = reader.read_series(listing.symbol, name, int(times[0]), int(times[-1]))
                    rows["slot"] = index
                    closed.append(rows)
                    if name == "1d" and len(rows):
                        symbols["trades_24h"][index] = rows["trade_count"][-1]  # they are dealt by it
    return State("snapshot", symbols, np.empty(0, dtype=KLINE), tuple(closed), now_ms, skew_ms)


def _with_earlier(state: State, earlier: State) -> State:
    """Return a state with what an earlier one knows of other symbols, and with its open bars."""
    places = {name: index for index, name in enumerate(symbol_names(state.symbols))}
    others = [name not in places for name in symbol_names(earlier.symbols)]
    symbols = np.concatenate((state.symbols, earlier.symbols[others]))
    places = {name: index for index, name in enumerate(symbol_names(symbols))}
    index = np.array([places[name] for name in symbol_names(earlier.symbols)], dtype=np.int64)
    live = earlier.live.copy()
    live["slot"] = index[live["slot"]]
    closed = []
    for piece in earlier.closed:
        rows = piece[np.array(others, dtype=bool)[piece["slot"]]]
        rows["slot"] = index[rows["slot"]]
        closed.append(rows)
    return State(state.origin, symbols, live, (*state.closed, *closed), state.time_ms, state.skew_ms)
