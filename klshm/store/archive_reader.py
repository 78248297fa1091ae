"""Reading the archive: read-only, in short transactions, beside the engine or without it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from klshm.errors import ArchiveError
from klshm.intervals import code_of
from klshm.shm.layout import KLINE
from klshm.store import names, rows, schema


__all__ = ["ArchiveReader", "Series"]

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
        if not path.exists():
            raise ArchiveError(f"no archive {path}; the engine writes it once bars have closed")
        with self._described():
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None
            )
            try:
                schema.check_version(self._connection, path)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def series(self) -> list[Series]:
        """Return all series, retired ones included, by symbol and table."""
        with self._described():
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
        with self._described():
            series = self._find(symbol, interval)
            if series is None:
                return np.empty(0, dtype=KLINE)
            order = "DESC" if newest else "ASC"
            query = f"SELECT * FROM {names.quoted(series.table)} WHERE open_time BETWEEN ? AND ? ORDER BY open_time"
            found = self._connection.execute(f"{query} {order} LIMIT ?", (first_ms, last_ms, limit)).fetchall()
        if newest:
            found.reverse()
        return rows.decode_rows(found, code_of(interval), series.price_decimals, series.quantity_decimals)

    def last_confirmed_ms(self, symbol: str, interval: str) -> int | None:
        """Return the open time of a series' newest confirmed bar, UTC ms, or None."""
        with self._described():
            series = self._find(symbol, interval)
            if series is None:
                return None
            query = f"SELECT open_time FROM {names.quoted(series.table)} WHERE state = 3"
            found = self._connection.execute(f"{query} ORDER BY open_time DESC LIMIT 1").fetchone()
        return int(found[0]) if found else None

    def damaged_ms(self, table: str) -> list[int]:
        """Return the open times of a table's rows whose bits are not those that were written."""
        with self._described():
            found = self._connection.execute(f"SELECT * FROM {names.quoted(table)} ORDER BY open_time")
            return [row[0] for row in found if not rows.is_intact(row)]

    def mark(self, key: str) -> tuple[str, int] | None:
        """Return `watermark` or `historian_cursor`: the uuid of the source and a position in it."""
        with self._described():
            found = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if found is None:
            return None
        uuid, _, position = str(found[0]).rpartition(":")
        return uuid, int(position)

    def _find(self, symbol: str, interval: str) -> Series | None:
        query = f"{_SERIES} WHERE symbol = ? AND interval = ? AND retired = 0"
        found = self._connection.execute(query, (symbol, interval)).fetchone()
        return _series(found) if found else None

    @contextmanager
    def _described(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ArchiveError(schema.describe(self.path, error)) from error


_SERIES: Final = (
    "SELECT symbol, interval, table_name, onboard_ms, price_decimals, quantity_decimals, retired FROM series"
)


def _series(found: tuple[Any, ...]) -> Series:
    return Series._make((*found[:6], bool(found[6])))
