"""The tables of the archive: which series lives in which, made when its first bar comes.

A ticker that the exchange gives to a new listing gets new tables; those of the old listing
are renamed and kept (`klshm.store.names`).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from klshm.intervals import length_ms
from klshm.store import names, schema
from klshm.store.batch import Listing
from klshm.store.rows import series_seed


__all__ = ["Series", "SeriesTables"]

log = logging.getLogger(__name__)


@dataclass
class Series:
    """One current series, as the writer knows it.

    Attributes:
        table: Name of its table.
        onboard_ms: When its listing began, UTC ms; 0: unknown.
        price_decimals: The most that a bar of it had.
        quantity_decimals: Likewise.
        upsert: Statement that stores a bar.
        seed: What the checks of its rows begin with.
    """

    table: str
    onboard_ms: int
    price_decimals: int
    quantity_decimals: int
    upsert: str
    seed: int


class SeriesTables:
    """Finds and makes the tables of series, within the transactions of its owner.

    Args:
        connection: The archive, open for writing.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._series: dict[str, dict[str, Series]] = {}  # symbol, interval
        self._onboard_ms: dict[str, int] = {}

    def load(self) -> None:
        """Read what the file holds; also after a rollback, when tables just made are gone."""
        self._series.clear()
        self._onboard_ms.clear()
        for symbol, interval, table, onboard_ms, price_decimals, quantity_decimals in self._connection.execute(
            "SELECT symbol, interval, table_name, onboard_ms, price_decimals, quantity_decimals "
            "FROM series WHERE retired = 0"
        ):
            series = _series(symbol, interval, table, onboard_ms, price_decimals, quantity_decimals)
            self._series.setdefault(symbol, {})[interval] = series
            self._onboard_ms[symbol] = max(self._onboard_ms.get(symbol, 0), onboard_ms)

    def get(self, listing: Listing, interval: str, price_decimals: int, quantity_decimals: int) -> Series:
        """Return a series, its table made and its decimals raised where needed.

        Args:
            listing: Whose series.
            interval: Name of the interval.
            price_decimals: Of the bars about to be stored.
            quantity_decimals: Likewise.
        """
        if listing.onboard_ms > self._onboard_ms.get(listing.name, 0):
            self._begin_listing(listing)
        series = self._series.get(listing.name, {}).get(interval)
        if series is None:
            return self._create(listing.name, interval, price_decimals, quantity_decimals)
        if price_decimals > series.price_decimals or quantity_decimals > series.quantity_decimals:
            series.price_decimals = max(series.price_decimals, price_decimals)
            series.quantity_decimals = max(series.quantity_decimals, quantity_decimals)
            self._connection.execute(
                "UPDATE series SET price_decimals = ?, quantity_decimals = ? WHERE table_name = ?",
                (series.price_decimals, series.quantity_decimals, series.table),
            )
        return series

    def _create(self, symbol: str, interval: str, price_decimals: int, quantity_decimals: int) -> Series:
        table = self._free(lambda attempt: names.table_name(symbol, interval, attempt))
        onboard_ms = self._onboard_ms.get(symbol, 0)
        self._connection.execute(schema.create_table_sql(table))
        self._connection.execute(
            "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, 0)",
            (table, symbol, interval, onboard_ms, price_decimals, quantity_decimals),
        )
        series = _series(symbol, interval, table, onboard_ms, price_decimals, quantity_decimals)
        self._series.setdefault(symbol, {})[interval] = series
        return series

    def _free(self, name_of: Callable[[int], str]) -> str:
        """Return the first name, by attempt, that no table has."""
        query = "SELECT 1 FROM series WHERE table_name = ?"
        attempt = 1
        while self._connection.execute(query, (name_of(attempt),)).fetchone() is not None:
            attempt += 1
        return name_of(attempt)

    def _begin_listing(self, listing: Listing) -> None:
        """Note a later onboard date; where all stored bars are older, their tables retire."""
        own = self._series.get(listing.name, {})
        if own:
            shortest = min(own, key=length_ms)
            _, newest = self._first_and_last(own[shortest])
            if newest + length_ms(shortest) <= listing.onboard_ms:
                for interval in list(own):
                    self._retire(listing.name, interval, own.pop(interval))
        for series in own.values():
            series.onboard_ms = listing.onboard_ms
        self._connection.execute(
            "UPDATE series SET onboard_ms = ? WHERE symbol = ? AND retired = 0", (listing.onboard_ms, listing.name)
        )
        self._onboard_ms[listing.name] = listing.onboard_ms

    def _first_and_last(self, series: Series) -> tuple[int, int]:
        query = f"SELECT ifnull(min(open_time), 0), ifnull(max(open_time), 0) FROM {names.quoted(series.table)}"
        first, last = self._connection.execute(query).fetchone()
        return int(first), int(last)

    def _retire(self, symbol: str, interval: str, series: Series) -> None:
        began_ms = series.onboard_ms or self._first_and_last(series)[0]
        table = self._free(lambda attempt: names.retired_table(series.table, began_ms, attempt))
        self._connection.execute(f"ALTER TABLE {names.quoted(series.table)} RENAME TO {names.quoted(table)}")
        self._connection.execute(
            "UPDATE series SET table_name = ?, retired = 1 WHERE table_name = ?", (table, series.table)
        )
        log.info("ticker reused, earlier listing kept symbol=%s interval=%s table=%s", symbol, interval, table)


def _series(
    symbol: str, interval: str, table: str, onboard_ms: int, price_decimals: int, quantity_decimals: int
) -> Series:
    upsert, seed = schema.upsert_sql(table), series_seed(symbol, interval)
    return Series(table, onboard_ms, price_decimals, quantity_decimals, upsert, seed)
