"""Where one would keep live bars without shared memory: LMDB and SQLite, one read of one record."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lmdb


__all__ = ["lmdb_reader", "sqlite_reader"]

_CELLS: Final = struct.Struct("<9d")


def lmdb_reader(directory: Path, records: list[tuple[bytes, bytes]]) -> Callable[[bytes], bytes]:
    """Store records and return what reads one, each in a transaction of its own: it is the newest."""
    environment = lmdb.open(str(directory), map_size=1 << 26, sync=False)
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(sorted(records))

    def read(key: bytes) -> bytes:
        with environment.begin() as transaction:
            return bytes(transaction.get(key, b""))

    return read


def sqlite_reader(path: Path, records: list[tuple[bytes, bytes]]) -> Callable[[bytes], Any]:
    """Store records as rows of nine numbers and return what reads one."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE live (key BLOB PRIMARY KEY, o, h, l, c, v, q, n, tv, tq) WITHOUT ROWID")
    rows = [(key, *_CELLS.unpack_from(value)) for key, value in records]
    connection.executemany("INSERT INTO live VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()

    def read(key: bytes) -> Any:
        return connection.execute("SELECT * FROM live WHERE key = ?", (key,)).fetchone()

    return read
