"""Writing the archive: one transaction per flush, one table per series.

Progress is stored in the transaction that stores the rows: the watermark (journal uuid,
sequence) up to which the journal was archived, and the position up to which the historian's
log was (segment uuid, position). So neither can be ahead of the rows or behind them.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.intervals import name_of
from klshm.shm import layout as lay
from klshm.store import names, rows, schema
from klshm.store.batch import Batch, Listing
from klshm.store.series import Series, SeriesTables


__all__ = ["Archive", "Mark"]

log = logging.getLogger(__name__)

Rows = np.ndarray[Any, Any]
Mark = tuple[str, int]
"""Progress in a source: its uuid, and a sequence or position in it."""

_LOCK_TRIES: Final = 20
_PIECE_ROWS: Final = 2048
"""Rows encoded at once: few enough that their columns stay in the processor's cache."""
_BEAT_EVERY: Final = 256  # series between two signs of life
_cells_of: Final = itemgetter(*(rows.COLUMNS.index(name) for name in rows.CELLS))
_STATE, _FLAGS, _REVISION = (rows.COLUMNS.index(name) for name in ("state", "flags", "revision"))


def _nothing() -> None:
    return


class Archive:
    """The writing side of the archive; used in the thread that opened it.

    Args:
        path: The SQLite file, created where there is none.
        store: Cache and limits.
        max_series: So many tables are expected; their statements stay prepared.
        beat: Called several times a second while a long write runs.

    Raises:
        ArchiveError: If it cannot be opened; one line says why and what to do.
    """

    def __init__(
        self, path: Path, store: StoreConfig, *, max_series: int = 8192, beat: Callable[[], None] = _nothing
    ) -> None:
        self.path = path
        self._store = store
        self._beat = beat
        self._connection = schema.connect(path, store, 2 * max_series + 64, beat)
        self._tables = SeriesTables(self._connection)
        self.watermark: Mark | None = None
        self.historian_cursor: Mark | None = None
        with self._described():
            self._load()

    def close(self) -> None:
        """Close the file; the last one to close it folds the WAL into it."""
        self._connection.close()

    def write(
        self,
        batch: Batch,
        *,
        official: bool = False,
        watermark: Mark | None = None,
        historian_cursor: Mark | None = None,
    ) -> None:
        """Store bars and progress in one transaction, durable on return.

        Args:
            batch: Bars in the order they were made.
            official: They were read from the exchange just now. Such a confirmed bar that differs from a
                stored confirmed one replaces it, whatever its revision says: it gets the stored revision + 1
                and `corrected`. The exchange's own word is younger than any memory of it, and equal bars
                change nothing, so a repetition is harmless.
            watermark: What of the journal is archived with these.
            historian_cursor: What of the historian's log is archived with these.

        Raises:
            ArchiveError: If nothing was stored; the archive is as before.
        """
        with self._transaction():
            for series, values in self._grouped(batch):
                if official:
                    values = self._corrected(series, values)
                if len(values) == 1:
                    self._connection.execute(series.upsert, values[0])
                else:
                    self._connection.executemany(series.upsert, values)
            for key, mark in (("watermark", watermark), ("historian_cursor", historian_cursor)):
                if mark is not None:
                    self._set_meta(key, f"{mark[0]}:{mark[1]}")
        self.watermark = watermark or self.watermark
        self.historian_cursor = historian_cursor or self.historian_cursor

    def prune(self, interval: str, before_ms: int) -> int:
        """Delete the bars of an interval that opened before a time, of ended listings too; return how many.

        Confirmed or not: what nobody confirmed within the days that are kept, nobody will. The pages become
        free inside the file and are used again before it grows. It does not shrink: what is freed today, bars
        of tomorrow take, and auto_vacuum would move pages at every prune to give back what is needed again.
        """
        with self._described():
            found = self._connection.execute("SELECT table_name FROM series WHERE interval = ?", (interval,)).fetchall()
        tables = [table for (table,) in found]
        deleted = 0
        for start in range(0, len(tables), _BEAT_EVERY):
            with self._transaction():
                for table in tables[start : start + _BEAT_EVERY]:
                    sql = f"DELETE FROM {names.quoted(table)} WHERE open_time < ?"
                    deleted += self._connection.execute(sql, (before_ms,)).rowcount
            self._beat()
        return deleted

    # The write-ahead log

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log, bytes."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except FileNotFoundError:
            return 0

    def has_room(self) -> bool:
        """Return whether the WAL is below its limit, after an attempt to shrink it if it is not.

        A reader that holds an old snapshot keeps it from shrinking; nothing but its end helps.
        """
        if self.wal_bytes <= self._store.wal_limit_bytes:
            return True
        with self._described():
            _, logged, moved = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if logged == moved:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return self.wal_bytes <= self._store.wal_limit_bytes

    # Rows to tables

    def _grouped(self, batch: Batch) -> Iterator[tuple[Series, list[rows.Values]]]:
        keys = batch.rows["slot"].astype(np.int64) << 8 | batch.rows["interval"]
        order = np.argsort(keys, kind="stable")  # stable: amendments of one bar stay in order
        for start in range(0, len(order), _PIECE_ROWS):
            piece = order[start : start + _PIECE_ROWS]
            yield from self._piece(batch.listings, batch.rows.take(piece), keys[piece])

    def _piece(
        self, listings: tuple[Listing, ...], sorted_rows: Rows, keys: Rows
    ) -> Iterator[tuple[Series, list[rows.Values]]]:
        starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
        counts = np.diff(starts, append=len(keys))
        price_decimals = np.maximum.reduceat(sorted_rows["price_decimals"], starts).tolist()
        quantity_decimals = np.maximum.reduceat(sorted_rows["quantity_decimals"], starts).tolist()
        groups = [(listings[key >> 8], name_of(key & 0xFF)) for key in keys[starts].tolist()]
        seeds = [rows.series_seed(listing.name, interval) for listing, interval in groups]
        values = rows.encoded(sorted_rows, np.repeat(seeds, counts).tolist())
        for index, ((listing, interval), count) in enumerate(zip(groups, counts.tolist(), strict=True)):
            series = self._tables.get(listing, interval, price_decimals[index], quantity_decimals[index])
            yield series, list(islice(values, count))
            if index % _BEAT_EVERY == 0:
                self._beat()

    def _corrected(self, series: Series, values: list[rows.Values]) -> list[rows.Values]:
        """Raise the revision of official bars that contradict a confirmed one."""
        query = f"SELECT * FROM {names.quoted(series.table)} WHERE open_time BETWEEN ? AND ? AND state = 3"
        times = [row[0] for row in values]
        stored = {row[0]: row for row in self._connection.execute(query, (min(times), max(times)))}
        if not stored and len(set(times)) == len(times):
            return values
        result = []
        for row in values:
            before = stored.get(row[0])
            if row[_STATE] == lay.STATE_CONFIRMED:
                if before is not None and _cells_of(row) != _cells_of(before):
                    revision = max(row[_REVISION], before[_REVISION] + 1)
                    row = rows.amended(row, revision, row[_FLAGS] | lay.FLAG_CORRECTED, series.seed)
                    log.warning(
                        "confirmed bar corrected table=%s open_time=%d revision=%d", series.table, row[0], revision
                    )
                if before is None or row[_REVISION] > before[_REVISION]:  # else the stored one stays
                    stored[row[0]] = row
            result.append(row)
        return result

    # Transactions

    def _load(self) -> None:
        self._tables.load()
        self.watermark = self._mark("watermark")
        self.historian_cursor = self._mark("historian_cursor")

    def _mark(self, key: str) -> Mark | None:
        found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else schema.parse_mark(found[0])

    def _set_meta(self, key: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._described():
            self._begin()
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                self._load()  # tables made in the transaction are gone
                raise

    def _begin(self) -> None:
        for attempt in range(1, _LOCK_TRIES + 1):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if attempt == _LOCK_TRIES or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                self._beat()

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ArchiveError(schema.describe(self.path, error)) from error
