"""Reading the archive: read-only, in short transactions, beside the engine or without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from klshm.errors import ArchiveError
from klshm.intervals import code_of, length_ms
from klshm.shm.layout import KLINE, STATE_CONFIRMED
from klshm.store import names, rows, schema


__all__ = ["ArchiveReader", "Series", "has_archive"]

Rows = np.ndarray[Any, Any]

_BUSY_S: Final = 2.0
_EVER: Final = (1 << 63) - 1


class Series(NamedTuple):
    """One table of the archive.

    Attributes:
        symbol: As the exchange spells it.
        interval: Name of the interval.
        table: Name of the table.
        onboard_ms: When the listing began, UTC ms; 0: unknown.
        price_decimals: Of the newest bars.
        quantity_decimals: Of the newest bars.
        retired: The ticker belongs to a later listing now.
    """

    symbol: str
    interval: str
    table: str
    onboard_ms: int
    price_decimals: int
    quantity_decimals: int
    retired: bool


class ArchiveReader:
    """A read-only connection; used in the thread that opened it.

    Every call is a transaction of its own and ends before it returns, so that no reader keeps
    the write-ahead log from shrinking.

    Args:
        path: The SQLite file.

    Raises:
        ArchiveError: If there is none, or it is damaged or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection, filled = _connect(path)
        if not filled:
            self._connection.close()
            raise ArchiveError(f"no archive in {path} yet; the engine writes it once bars have closed")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def series(self) -> list[Series]:
        """Return all series, retired ones included, by symbol and table."""
        with _described(self.path):
            return [_series(found) for found in self._connection.execute(f"{_SERIES} ORDER BY symbol, table_name")]

    def read_series(
        self,
        symbol: str,
        interval: str,
        first_ms: int = 0,
        last_ms: int = _EVER,
        limit: int = 1000,
        *,
        newest: bool = True,
    ) -> Rows:
        """Return stored bars of one series, oldest first.

        Args:
            symbol: As the exchange spells it.
            interval: Name of the interval.
            first_ms: Earliest open time, UTC ms.
            last_ms: Latest open time, UTC ms.
            limit: At most so many.
            newest: Which to leave out if there are more: the oldest, else the newest.

        Returns:
            Shape (n,), dtype KLINE; slot 65535, ids -1, event time 0: these are not archived. Empty if the
            archive has no such series.
        """
        with _described(self.path):
            series = self._find(symbol, interval)
            if series is None:
                return np.empty(0, dtype=KLINE)
            order = "DESC" if newest else "ASC"
            query = f"SELECT * FROM {names.quoted(series.table)} WHERE open_time BETWEEN ? AND ? ORDER BY open_time"
            found = self._connection.execute(f"{query} {order} LIMIT ?", (first_ms, last_ms, limit)).fetchall()
        if newest:
            found.reverse()
        return rows.decode_rows(found, code_of(interval), series.price_decimals, series.quantity_decimals)

    def read_confirmed(self, symbol: str, interval: str, first_ms: int, last_ms: int) -> Rows:
        """Return the confirmed bars of a span whose bits are those that were written, oldest first.

        Args:
            symbol: As the exchange spells it.
            interval: Name of the interval.
            first_ms: Earliest open time, UTC ms.
            last_ms: Latest open time, UTC ms.

        Returns:
            As `read_series`.
        """
        with _described(self.path):
            series = self._find(symbol, interval)
            if series is None:
                return np.empty(0, dtype=KLINE)
            query = f"SELECT * FROM {names.quoted(series.table)} WHERE open_time BETWEEN ? AND ? AND state = ?"
            found = self._connection.execute(f"{query} ORDER BY open_time", (first_ms, last_ms, STATE_CONFIRMED))
            intact = rows.intact_rows(found.fetchall(), rows.series_seed(symbol, interval))
        return rows.decode_rows(intact, code_of(interval), series.price_decimals, series.quantity_decimals)

    def whole_until_ms(self, symbol: str, interval: str, since_ms: int) -> int | None:
        """Return the open time of the last confirmed bar before the first break of a series, or None.

        Args:
            symbol: As the exchange spells it.
            interval: Name of the interval.
            since_ms: Earliest open time looked at, UTC ms.
        """
        with _described(self.path):
            series = self._find(symbol, interval)
            if series is None:
                return None
            table = names.quoted(series.table)
            following = f"SELECT open_time, LEAD(open_time) OVER (ORDER BY open_time) AS following FROM {table}"
            query = f"SELECT open_time FROM ({following} WHERE open_time >= ? AND state = ?)"
            breaks = "WHERE following IS NULL OR following > open_time + ? ORDER BY open_time LIMIT 1"
            found = self._connection.execute(f"{query} {breaks}", (since_ms, STATE_CONFIRMED, length_ms(interval)))
            row = found.fetchone()
        return int(row[0]) if row else None

    def last_confirmed_ms(self, symbol: str, interval: str) -> int | None:
        """Return the open time of a series' newest confirmed bar, UTC ms, or None."""
        with _described(self.path):
            series = self._find(symbol, interval)
            if series is None:
                return None
            query = f"SELECT open_time FROM {names.quoted(series.table)} WHERE state = 3"
            found = self._connection.execute(f"{query} ORDER BY open_time DESC LIMIT 1").fetchone()
        return int(found[0]) if found else None

    def damaged_ms(self, table: str) -> list[int]:
        """Return the open times of a table's rows whose bits are not those that were written for its series."""
        with _described(self.path):
            series = _series(self._connection.execute(f"{_SERIES} WHERE table_name = ?", (table,)).fetchone())
            seed = rows.series_seed(series.symbol, series.interval)
            found = self._connection.execute(f"SELECT * FROM {names.quoted(table)} ORDER BY open_time")
            return [row[0] for row in found if not rows.is_intact(row, seed)]

    def mark(self, key: str) -> tuple[str, int] | None:
        """Return `watermark` or `historian_cursor`: the uuid of the source and a position in it."""
        with _described(self.path):
            found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else schema.parse_mark(found[0])

    def _find(self, symbol: str, interval: str) -> Series | None:
        query = f"{_SERIES} WHERE symbol = ? AND interval = ? AND retired = 0"
        found = self._connection.execute(query, (symbol, interval)).fetchone()
        return _series(found) if found else None


def has_archive(path: Path) -> bool:
    """Return whether there is an archive; False for none, and for one whose creation was cut off.

    Raises:
        ArchiveError: If the file is damaged or of another schema.
    """
    if not path.exists():
        return False
    connection, filled = _connect(path)
    connection.close()
    return filled


def _connect(path: Path) -> tuple[sqlite3.Connection, bool]:
    if not path.exists():
        raise ArchiveError(f"no archive {path}; the engine writes it once bars have closed")
    with _described(path):
        connection = sqlite3.connect(
            f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
        )
        try:
            return connection, schema.check_version(connection, path)
        except BaseException:
            connection.close()
            raise


@contextmanager
def _described(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ArchiveError(schema.describe(path, error)) from error


_SERIES: Final = (
    "SELECT symbol, interval, table_name, onboard_ms, price_decimals, quantity_decimals, retired FROM series"
)


def _series(found: tuple[Any, ...]) -> Series:
    return Series._make((*found[:6], bool(found[6])))
