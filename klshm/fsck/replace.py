"""Putting the exchange's rows in the place of wrong ones: one transaction per answer, good rows untouched."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.fsck.archive import ABSENT, Series
from klshm.fsck.bars import Hole
from klshm.fsck.wanted import Wanted
from klshm.shm import layout as lay
from klshm.store import names, rows


__all__ = ["Replacer"]

Rows = np.ndarray[Any, Any]
Values = tuple[Any, ...]

_STATE, _FLAGS, _REVISION = (rows.COLUMNS.index(name) for name in ("state", "flags", "revision"))
_CELLS: Final = tuple(rows.COLUMNS.index(name) for name in rows.CELLS)


class Replacer:
    """Writes what the exchange has answered.

    Args:
        connection: The archive, open for writing.
        evidence: File to which every row that goes is appended first, one JSON list per line.

    Attributes:
        counts: Rows fetched, replaced, filled in, removed; times at which the exchange has nothing.
    """

    def __init__(self, connection: sqlite3.Connection, evidence: Path) -> None:
        self._connection = connection
        self._evidence = evidence
        self.counts = {"replaced": 0, "filled_in": 0, "confirmed": 0, "removed": 0, "absent": 0}

    def page(self, wanted: Wanted, first_ms: int, last_ms: int, fetched: Rows) -> None:
        """Store the answer to one request.

        Args:
            wanted: What was to be fetched of the series.
            first_ms: Open time of the first bar asked for, UTC ms.
            last_ms: Of the last.
            fetched: The closed bars that the exchange has there, dtype KLINE.
        """
        series = wanted.series
        seed = rows.series_seed(series.symbol, series.interval)
        official = {row[0]: row for row in rows.encode_rows(fetched, [seed] * len(fetched))}
        times = {time for time in wanted.times if first_ms <= time <= last_ms}
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._drop(series, times & wanted.replace)
            for time in sorted(times & official.keys()):
                self._put(wanted, official[time], seed)
            gone = sorted((times & (wanted.replace | wanted.holes)) - official.keys())
            if gone:
                self._note_absent(series, gone)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def misfits(self, wanted: Wanted) -> None:
        """Remove rows at times at which no bar of their interval opens."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._drop(wanted.series, wanted.replace - wanted.times)
        self._connection.execute("COMMIT")

    def _drop(self, series: Series, times: set[int]) -> None:
        table = names.quoted(series.table)
        for time in sorted(times):
            found = self._connection.execute(f"SELECT * FROM {table} WHERE open_time = ?", (time,)).fetchone()
            if found is not None:
                self._keep(series, found)
                self._connection.execute(f"DELETE FROM {table} WHERE open_time = ?", (time,))
                self.counts["removed"] += 1

    def _keep(self, series: Series, row: Values) -> None:
        line = json.dumps([series.table, *row], default=repr, ensure_ascii=False)
        with self._evidence.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _put(self, wanted: Wanted, official: Values, seed: int) -> None:
        table = names.quoted(wanted.series.table)
        time = official[0]
        before = self._connection.execute(f"SELECT * FROM {table} WHERE open_time = ?", (time,)).fetchone()
        if before is None:
            kind = "replaced" if time in wanted.replace else "filled_in"
        elif time not in wanted.better or official[_STATE] != lay.STATE_CONFIRMED:
            return  # it has come meanwhile, or is too young to say more
        else:
            kind = "confirmed"
            differs = any(official[cell] != before[cell] for cell in _CELLS)
            flags = official[_FLAGS] | (lay.FLAG_CORRECTED if differs else 0)
            official = rows.amended(official, before[_REVISION] + 1, flags, seed)
        marks = ", ".join("?" * len(rows.COLUMNS))
        self._connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", official)
        self.counts[kind] += 1

    def _note_absent(self, series: Series, times: list[int]) -> None:
        """Remember that the exchange has nothing there, or every look would call it a hole again."""
        key, length_ms = f"{ABSENT}{series.table}", intervals.length_ms(series.interval)
        stored = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        spans = [Hole(*span) for span in json.loads(stored[0])] if stored else []
        merged: list[Hole] = []
        for hole in sorted([*spans, *(Hole(time, time) for time in times)]):
            if merged and hole.first_ms <= merged[-1].last_ms + length_ms:
                merged[-1] = Hole(merged[-1].first_ms, max(merged[-1].last_ms, hole.last_ms))
            else:
                merged.append(hole)
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(merged)))
        self.counts["absent"] += len(times)
