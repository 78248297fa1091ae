"""A reader's costs: one live record as bytes and as numbers, and an exact cut of 600 symbols x 6 intervals.

The record is one of 3,600, another at every read. Beside it: LMDB, SQLite and a bare copy of memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

import klshm
from bench.baselines.stores import lmdb_reader, sqlite_reader
from bench.micro.kernel import filled_market
from bench.support.figures import best_of, print_figures
from bench.support.market import INTERVALS, names
from bench.support.stage import make_layout, segment_of
from klshm.read.bars import ROW
from klshm.shm.view import take_cuts


__all__ = ["measure"]

_SYMBOLS: Final = 600
_COPIES: Final = 200


def measure(quick: bool) -> dict[str, float]:
    """Return microseconds per read.

    Args:
        quick: Fewer reads.
    """
    reads = 20_000 if quick else 100_000
    with segment_of(make_layout(_SYMBOLS)) as segment:
        filled_market(segment)
        with klshm.attach(segment.path.name.removeprefix("klshm.")) as reader:
            return {**_records(reader, reads), **_cuts(reader)}


def _records(reader: klshm.Reader, reads: int) -> dict[str, float]:
    title = names(_SYMBOLS)
    keys = [(symbol, interval) for symbol in title for interval in INTERVALS]
    view = reader.source.views[0]
    places = [(slot, interval) for slot in range(_SYMBOLS) for interval in range(len(INTERVALS))]
    read, unpack = view.live_bytes, ROW.unpack

    def numbers(slot: int, interval: int) -> Any:
        return unpack(read(slot, interval))

    records = [
        (f"{symbol} {interval}".encode(), read(*place)) for (symbol, interval), place in zip(keys, places, strict=True)
    ]
    flat = [(key,) for key, _ in records]
    with tempfile.TemporaryDirectory() as directory:
        found = {
            "live_bytes_us": _per_read_us(read, places, reads),
            "live_numbers_us": _per_read_us(numbers, places, reads),
            "live_bar_us": _per_read_us(reader.live, keys, reads),
            "lmdb_us": _per_read_us(lmdb_reader(Path(directory) / "lmdb", records), flat, reads),
            "sqlite_us": _per_read_us(sqlite_reader(Path(directory) / "live.db", records), flat, reads),
        }
    return found


def _per_read_us(read: Callable[..., Any], arguments: list[Any], reads: int) -> float:
    order = np.random.default_rng(7).permutation(len(arguments))
    chosen = [arguments[index] for index in order] * (reads // len(arguments))
    best_ns = float("inf")
    for _ in range(3):
        began_ns = time.perf_counter_ns()
        for each in chosen:
            read(*each)
        best_ns = min(best_ns, (time.perf_counter_ns() - began_ns) / len(chosen))
    return best_ns / 1000


def _cuts(reader: klshm.Reader) -> dict[str, float]:
    views = reader.source.views
    source = np.ones(_SYMBOLS * len(INTERVALS) * 16, dtype=np.int64)
    target = np.empty_like(source)
    return {
        "cut_us": best_of(5, _COPIES, lambda: take_cuts(views)) / 1000,
        "snapshot_us": best_of(5, _COPIES, reader.snapshot) / 1000,
        "memcpy_us": best_of(5, _COPIES, lambda: np.copyto(target, source)) / 1000,
        "copy_us": best_of(5, _COPIES, source.copy) / 1000,
    }


if __name__ == "__main__":
    print_figures(measure)
