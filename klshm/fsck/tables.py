"""Entries of the archive's own tables, put right where it can be told what they should say."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.exchange.models import Listing
from klshm.fsck.archive import ABSENT, ArchiveState
from klshm.store import names, schema


__all__ = ["mend_tables"]

_MAX_DECIMALS: Final = 9


def mend_tables(path: Path, store: StoreConfig, state: ArchiveState, listings: Mapping[str, Listing]) -> None:
    """Give series their names, tables and decimals back, and drop progress that cannot be.

    Args:
        path: The archive.
        store: Cache and limits.
        state: What was found in it; nothing of it counts if the archive has been written anew since.
        listings: Contracts by symbol, as the exchange lists them.

    Raises:
        ArchiveError: If it cannot be written.
    """
    try:
        with closing(schema.connect(path, store, 64)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            if not state.broken:
                _mend_series(connection, state, listings)
            _drop_marks(connection)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise ArchiveError(schema.describe(path, error)) from error


def _mend_series(connection: sqlite3.Connection, state: ArchiveState, listings: Mapping[str, Listing]) -> None:
    for table, (symbol, interval) in state.renamed.items():
        connection.execute(
            "UPDATE series SET symbol = ?, interval = ? WHERE table_name = ?", (symbol, interval, table)
        )
    for series in state.missing:
        connection.execute(schema.create_table_sql(series.table))
    for series in state.series:
        parsed = names.parse_table(series.table)
        retired = int(bool(parsed and parsed[2]))
        decimals = series.price_decimals, series.quantity_decimals
        if min(decimals) < 0 or sum(decimals) > _MAX_DECIMALS:
            listing = listings.get(series.symbol)
            decimals = (listing.price_precision, listing.quantity_precision) if listing else (0, 0)
        if (retired, *decimals) != (series.retired, series.price_decimals, series.quantity_decimals):
            connection.execute(
                "UPDATE series SET retired = ?, price_decimals = ?, quantity_decimals = ? WHERE table_name = ?",
                (retired, *decimals, series.table),
            )


def _drop_marks(connection: sqlite3.Connection) -> None:
    for key, value in connection.execute("SELECT key, value FROM meta").fetchall():
        if key in ("watermark", "historian_cursor") and schema.parse_mark(value) is None:
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
        elif str(key).startswith(ABSENT) and not str(value).startswith("["):
            connection.execute("DELETE FROM meta WHERE key = ?", (key,))
