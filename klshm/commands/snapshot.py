"""`snapshot`: write what a start needs to serve at once into one file, from a running engine."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from klshm.commands.output import instant, print_json, print_line
from klshm.read.attach import attach
from klshm.read.reader import Reader
from klshm.read.snapshot import Snapshot
from klshm.shm import layout as lay
from klshm.shm.view import exchange_now_ms


__all__ = ["add"]

Rows = np.ndarray[Any, Any]


def add(nouns: Any) -> None:
    """Declare the command."""
    snapshot = nouns.add_parser(
        "snapshot", help="write a file that `launcher.py --from-snapshot` goes on from: all open bars, one exact cut"
    )
    snapshot.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="default: initial_state.bin in the engine's data directory"
    )
    snapshot.set_defaults(run=_snapshot)


def _snapshot(options: argparse.Namespace) -> int:
    # Only here: all other commands need the read side alone.
    from klshm.store.names import data_directory
    from klshm.store.snapshot import snapshot_path, write_snapshot

    with attach(options.instance) as reader:
        cut = reader.snapshot()
        state = _state_of(reader, cut)
        path = options.file or snapshot_path(data_directory(reader.config))
        size = write_snapshot(path, reader.instance, reader.intervals, state)
    document = {
        "path": str(path.absolute()),
        "symbols": len(state.symbols),
        "bars": len(state.live),
        "closed_bars": state.closed_rows,
        "cut_exchange_ms": list(cut.cut_exchange_ms),
        "closed_through_ms": cut.closed_through_ms,
        "bytes": size,
    }
    if options.json:
        print_json(document)
    else:
        print_line(
            f"{document['path']}: {len(state.live)} open bars of {len(state.symbols)} symbols, "
            f"as of {instant(state.time_ms)}, {size} bytes"
        )
    return 0


def _state_of(reader: Reader, cut: Snapshot) -> Any:
    """Return what a running engine knows: its open bars, and the closed ones that they stand on."""
    from klshm.store.names import is_legal_symbol
    from klshm.store.remains import LEAST_ROWS
    from klshm.store.state import CARRIED, State, needed_times, symbol_names

    table = reader.source.table.rows()
    table = table[np.isin(table["status"], CARRIED)]
    place = {name: index for index, name in enumerate(cut.symbols)}
    # What was listed since has no bar in the cut.
    table = table[[name in place and is_legal_symbol(name) for name in symbol_names(table)]]
    live = [np.empty(0, dtype=cut.rows.dtype)]
    closed = []
    for index, name in enumerate(symbol_names(table)):
        rows = cut.rows[place[name]].copy()
        rows["slot"] = index
        live.append(rows[rows["state"] == lay.STATE_LIVE])
        minute_ms = int(rows["open_time"][0])
        if not minute_ms:
            continue
        view = reader.source.views[int(table["worker"][index])]
        # What closed after the cut is no part of it.
        for number, times in enumerate(needed_times(reader.intervals, minute_ms, LEAST_ROWS)):
            found = view.history(int(table["local_slot"][index]), number, int(times[0]), int(times[-1]))
            found["slot"] = index
            closed.append(found)
    time_ms = max(cut.cut_exchange_ms, default=0)
    skew_ms = exchange_now_ms(reader.source.segment) - time.time_ns() // 1_000_000
    return State("snapshot", table, np.concatenate(live), tuple(closed), time_ms, skew_ms)
