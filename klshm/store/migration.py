"""Bringing an archive that an older klshm wrote up to date, where it lies.

One step leads from a version to the next, and an archive of any age takes them in turn, all in
one transaction: it is as it was, or as it should be. What a step needs of the schema of its time
stands in the step; it must not change when the schema does.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from klshm.store.names import quoted
from klshm.store.rows import series_mask, series_seed


__all__ = ["STEPS", "migrate"]

log = logging.getLogger(__name__)

Beat = Callable[[], None]


def migrate(connection: sqlite3.Connection, path: Path, found: int, wanted: int, beat: Beat) -> None:
    """Bring an archive up to date in one transaction.

    Args:
        connection: Open for writing, no transaction under way.
        path: Its file, for messages.
        found: Its version.
        wanted: The version it gets.
        beat: Called several times a second.

    Raises:
        sqlite3.Error: If it could not be done; the file is as before.
    """
    log.info("archive of an older version is brought up to date path=%s from=%d to=%d", path, found, wanted)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(found, wanted):
            STEPS[version](connection, beat)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'version'", (wanted,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _name_series_in_checks(connection: sqlite3.Connection, beat: Beat) -> None:
    """1 to 2: checks begin with the series' seed; one that was wrong stays wrong, a crc is linear."""
    series = connection.execute(
        "SELECT table_name, symbol, interval FROM series JOIN sqlite_schema ON name = table_name"
    ).fetchall()
    for table, symbol, interval in series:
        mask = series_mask(series_seed(symbol, interval))
        # SQL has no exclusive or.
        connection.execute(f'UPDATE {quoted(table)} SET "check" = ("check" | ?1) - ("check" & ?1)', (mask,))
        beat()


STEPS: Final[dict[int, Callable[[sqlite3.Connection, Beat], None]]] = {1: _name_series_in_checks}
"""Version to the step that leads to the next."""
