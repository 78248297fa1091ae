"""The archive (SQLite, one table per series): a wave into 3,600 tables, and bulk as backfill stores it.

Durable on return (WAL, synchronous=FULL), on the disk of the working directory. The tables are there.
Beside it: the same rows into one table of a plain connection with SQLite's own defaults.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from bench.support.bars import bars_of, wave_of
from bench.support.figures import print_figures
from klshm.config import StoreConfig
from klshm.store.archive import Archive
from klshm.store.batch import Batch


__all__ = ["measure"]

_SYMBOLS: Final = 600
_COLUMNS: Final = ("slot", "interval", "open_time", "open", "high", "low", "close", "volume", "quote_volume")
_BULK_SYMBOLS: Final = 16
_BULK_BARS: Final = 1000
"""In one transaction of the bulk figure: 96,000 rows of 96 series."""


def measure(quick: bool) -> dict[str, float]:
    """Return milliseconds per wave and rows per second in bulk.

    Args:
        quick: Fewer rows.
    """
    waves = 6 if quick else 20
    batches = 4 if quick else 14
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as directory:
        archive = Archive(Path(directory) / "klines.db", StoreConfig())
        archive.write(wave_of(_SYMBOLS, 0))
        waves_ms = [_written_s(archive, wave_of(_SYMBOLS, number)) * 1e3 for number in range(1, 1 + waves)]
        rates = []
        for number in range(batches):
            chosen = range(number * _BULK_SYMBOLS, (number + 1) * _BULK_SYMBOLS)
            batch = bars_of(_SYMBOLS, chosen, 1000, _BULK_BARS)
            rates.append(len(batch) / _written_s(archive, batch))
        archive.close()
        naive_ms = _one_table_ms(Path(directory) / "plain.db", waves)
    return {
        "wave_ms": float(np.median(waves_ms)),
        "bulk_rows_per_s": float(np.median(rates)),
        "one_table_wave_ms": naive_ms,
    }


def _written_s(archive: Archive, batch: Batch) -> float:
    began_s = time.perf_counter()
    archive.write(batch)
    return time.perf_counter() - began_s


def _one_table_ms(path: Path, waves: int) -> float:
    connection = sqlite3.connect(path)
    connection.execute(
        f"CREATE TABLE bars ({', '.join(_COLUMNS)}, PRIMARY KEY (slot, interval, open_time)) WITHOUT ROWID"
    )
    times_ms = []
    for number in range(waves):
        rows = wave_of(_SYMBOLS, number).rows[list(_COLUMNS)].tolist()
        began_s = time.perf_counter()
        connection.executemany(f"INSERT OR REPLACE INTO bars VALUES ({', '.join('?' * len(_COLUMNS))})", rows)
        connection.commit()
        times_ms.append((time.perf_counter() - began_s) * 1e3)
    connection.close()
    return float(np.median(times_ms))


if __name__ == "__main__":
    print_figures(measure)
