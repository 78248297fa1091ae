"""Which series of an archive still wait for the exchange's word; asks nobody but the archive."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from klshm import intervals


__all__ = ["waiting"]


def waiting(archive: Path, start_ms: int, end_ms: int) -> list[str]:
    """Return the tables whose bars are not all there and confirmed.

    Args:
        archive: The SQLite archive.
        start_ms: Bars that closed after this exchange time.
        end_ms: Bars that had closed by this exchange time.
    """
    found = []
    with sqlite3.connect(f"file:{archive}?mode=ro", uri=True) as database:
        for table, interval in database.execute("SELECT table_name, interval FROM series").fetchall():
            length = intervals.length_ms(interval)
            since, last = start_ms - length, intervals.open_time_of(interval, end_ms) - length
            newest, unconfirmed = database.execute(
                f'SELECT max(open_time), sum(state != 3) FROM "{table}" WHERE open_time > ? AND open_time <= ?',
                (since, last),
            ).fetchone()
            if last > since and (newest != last or unconfirmed):
                found.append(table)
    return found
