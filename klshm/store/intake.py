"""From the rings to the disk: closed-bar logs into the journal, the historian's log into the archive."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import numpy as np

from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.counters import Counters
from klshm.shm.crash import Crash
from klshm.shm.layout import ROW_BYTES
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView
from klshm.store.archive import Archive
from klshm.store.journal import Journal
from klshm.store.segment_rows import Namer, log_name


__all__ = ["TAKE_ROWS", "HistorianIntake", "LogIntake", "historian_ring"]

log = logging.getLogger(__name__)

Words = np.ndarray[Any, np.dtype[np.int64]]

TAKE_ROWS: Final = 16_384
"""Rows taken from one ring at once: a commit of some ten milliseconds."""


def historian_ring(segment: Segment, cursor: int) -> RingConsumer:
    """Return a consumer of the historian's log."""
    layout = segment.layout
    block = segment.block(layout.historian_offset)
    ring = segment.region(layout.historian_log_offset, layout.historian_log_rows * ROW_BYTES)
    return RingConsumer(ring, block[lay.B_TAIL : lay.B_TAIL + 1], cursor)


class LogIntake:
    """Moves every worker's closed-bar log into the journal, each entry once.

    A segment that the journal has not seen is read from its first entry. Where a ring was
    overrun the journal notes, with the rows that could still be had, that the archive is owed a
    walk over that worker's history.

    Args:
        segment: Whose logs.
        journal: Where to.
        namer: Names of the segment's slots.
        counters: The persister's.
        crash: Where this life of the persister dies, for tests.
    """

    def __init__(
        self, segment: Segment, journal: Journal, namer: Namer, counters: Counters, crash: Crash | None = None
    ) -> None:
        self._journal = journal
        self._crash = crash or Crash()
        self._namer = namer
        self._counters = counters
        self._uuid = segment.uuid
        self._rings = {
            log_name(worker): PartitionView(segment, worker).log(
                journal.cursor(self._uuid, log_name(worker)) or 0
            )
            for worker in range(segment.layout.workers)
        }

    @property
    def behind(self) -> int:
        """Log entries that are not yet durable."""
        return sum(max(ring.behind, 0) for ring in self._rings.values())

    def take(self) -> int:
        """Make the next entries of all logs durable in one transaction; return how many.

        Raises:
            JournalError: If nothing was stored; the next call takes the same entries again.
        """
        began_ns = time.monotonic_ns()
        cursors = {name: ring.cursor for name, ring in self._rings.items()}
        lost = {name: ring.lost for name, ring in self._rings.items()}
        try:
            taken = {name: ring.take(TAKE_ROWS) for name, ring in self._rings.items()}
            moved = {name: ring.cursor for name, ring in self._rings.items() if ring.cursor != cursors[name]}
            if not moved:
                return 0
            batches = [self._namer.batch(rows) for rows in taken.values() if len(rows)]
            overrun = [name for name, ring in self._rings.items() if ring.lost != lost[name]]
            self._crash.passing("persister.log_taken")
            self._journal.append(batches, self._uuid, moved, overrun)
            self._crash.passing("persister.journal_committed")
        except BaseException:
            for name, ring in self._rings.items():
                ring.cursor, ring.lost = cursors[name], lost[name]
            raise
        for name in overrun:
            missed = self._rings[name].lost - lost[name]
            self._counters.add("overruns_total")
            self._counters.add("lost_rows_total", missed)
            log.warning("closed-bar log overrun, history will be walked ring=%s entries=%d", name, missed)
        rows, stored = sum(map(len, taken.values())), sum(map(len, batches))
        if stored < rows:
            self._counters.add("rows_refused_total", rows - stored)
            log.warning("rows without a name or a finite value refused rows=%d", rows - stored)
        self._counters.add("journal_rows_total", stored)
        self._counters.add("journal_commits_total")
        self._counters.set("journal_commit_ms", (time.monotonic_ns() - began_ns) // 1_000_000)
        self._counters.set("commit_last_ms", time.time_ns() // 1_000_000)
        return rows


class HistorianIntake:
    """Moves the historian's log into the archive and tells the historian how far it got.

    The position is stored in the transaction that stores the rows; the word that the historian
    waits for follows it.

    Args:
        segment: Whose log.
        archive: Where to.
        namer: Names of the segment's slots.
        counters: The persister's.
        block: The persister's block, whose cursor word the historian reads.
        crash: Where this life of the persister dies, for tests.
    """

    def __init__(
        self,
        segment: Segment,
        archive: Archive,
        namer: Namer,
        counters: Counters,
        block: Words,
        crash: Crash | None = None,
    ) -> None:
        self._archive = archive
        self._crash = crash or Crash()
        self._namer = namer
        self._counters = counters
        self._block = block
        self._uuid = segment.uuid
        mark = archive.historian_cursor
        self._ring = historian_ring(segment, mark[1] if mark and mark[0] == self._uuid else 0)
        block[lay.B_CURSOR] = self._ring.cursor

    @property
    def behind(self) -> int:
        """Entries that are not yet in the archive."""
        return max(self._ring.behind, 0)

    def take(self) -> int:
        """Store the next entries; return how many.

        Raises:
            ArchiveError: If nothing was stored; the next call takes the same entries again.
        """
        before, lost = self._ring.cursor, self._ring.lost
        rows = self._ring.take(TAKE_ROWS)
        if self._ring.cursor == before:
            return 0
        try:
            batch = self._namer.batch(rows)
            self._crash.passing("persister.backfill_taken")
            self._archive.write(batch, official=True, historian_cursor=(self._uuid, self._ring.cursor))
            self._crash.passing("persister.backfill_committed")
        except BaseException:
            self._ring.cursor, self._ring.lost = before, lost
            raise
        self._block[lay.B_CURSOR] = self._ring.cursor
        self._counters.add("archive_rows_total", len(batch))
        if self._ring.lost != lost:
            self._counters.add("lost_rows_total", self._ring.lost - lost)
            log.warning("historian's log overrun, its bars are fetched again entries=%d", self._ring.lost - lost)
        self._counters.add("rows_refused_total", len(rows) - len(batch))
        return len(rows)
