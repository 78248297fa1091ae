"""Feeding the archive: the historian's log, history that is owed, the journal, in small pieces."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from klshm.errors import ArchiveError
from klshm.role import Role
from klshm.shm.counters import Counters
from klshm.shm.view import read_clock
from klshm.store import names
from klshm.store.archive import Archive
from klshm.store.batch import Batch, unite
from klshm.store.intake import TAKE_ROWS, HistorianIntake
from klshm.store.journal import Journal
from klshm.store.place import Place
from klshm.store.segment_rows import Namer, log_name, walk_history


__all__ = ["ArchiveFeed"]

log = logging.getLogger(__name__)

_FLUSH_ROWS: Final = 32_768
_PRUNE_EVERY_S: Final = 3600.0
_DAY_MS: Final = 86_400_000


class ArchiveFeed:
    """Opens the archive when it is first needed and brings into it what waits for it.

    Args:
        role: The persister's role.
        namer: Names of the segment's slots.
        counters: The persister's.
        breathe: Called several times a second during long work.

    Attributes:
        has_more: The last `feed` left something that can be stored at once.
    """

    def __init__(self, role: Role, namer: Namer, counters: Counters, breathe: Callable[[], None]) -> None:
        self._role = role
        self._segment = role.segment
        self._store = role.config.store
        self._path = names.archive_path(names.data_directory(role.config))
        self._block = role.block
        self._namer = namer
        self._counters = counters
        self._breathe = breathe
        self._archive: Archive | None = None
        self._backfill: HistorianIntake | None = None
        self._place = Place()
        self._is_judged = False
        self._next_flush_s = self._next_prune_s = 0.0
        self.has_more = False

    def feed(self, journal: Journal, *, now: bool) -> int:
        """Store the next of what waits.

        Args:
            journal: What closed.
            now: Do not wait for the next flush.

        Returns:
            How much was stored: entries, blocks and walks; `has_more` says whether more waits.

        Raises:
            ArchiveError: If nothing could be stored, or the WAL is beyond its limit.
            JournalError: If the journal could not be read or trimmed.
        """
        archive = self._ready()
        if not self._is_judged:
            self._make_good(archive, journal)
            self._is_judged = True
        stored = self._backfill.take() if self._backfill is not None else 0
        self.has_more = stored >= TAKE_ROWS
        if now or time.monotonic() >= self._next_flush_s:
            stored += self._walk_owed(archive, journal)
            blocks = self._flush(archive, journal)
            if blocks and journal.blocks:
                self.has_more = True
            else:
                self._prune(archive)
                self._next_flush_s = time.monotonic() + self._store.flush_interval_s
            stored += blocks
        return stored

    def write_open(self, batch: Batch) -> int:
        """Store open bars, which give way to any closed one; return how many.

        Raises:
            ArchiveError: If nothing could be stored, or the WAL is beyond its limit.
        """
        self._ready().write(batch)
        return len(batch)

    @property
    def backfill_behind(self) -> int:
        """Entries of the historian's log that are not in the archive; -1 while it is not open."""
        return self._backfill.behind if self._backfill is not None else -1

    def note_progress(self) -> None:
        """Set the counters that are levels."""
        if self._archive is not None:
            mark = self._archive.watermark
            self._counters.set("archive_sequence", mark[1] if mark else 0)
            self._counters.set("wal_bytes", self._archive.wal_bytes)
            self._counters.set("historian_behind_rows", self.backfill_behind)

    def close(self) -> None:
        """Close the archive; the next use opens it again."""
        archive, self._archive, self._backfill = self._archive, None, None
        self._place = Place()
        self._is_judged = False
        if archive is not None:
            archive.close()

    def _ready(self) -> Archive:
        """Return the archive, open and with room in its WAL."""
        archive = self._open()
        if not archive.has_room():
            raise ArchiveError(
                f"{archive.path}-wal has {archive.wal_bytes} bytes, expected at most {self._store.wal_limit_bytes}: a "
                "reader keeps an old snapshot open; end it. Closed bars wait in the journal until then"
            )
        return archive

    def _open(self) -> Archive:
        if lost := self._place.lost():
            raise ArchiveError(
                f"{lost} was removed or replaced while in use; a new archive is made and gets what shared memory "
                "holds, the next start fetches what is older"
            )
        if self._archive is None:
            layout = self._segment.layout
            max_series = layout.max_symbols * layout.intervals
            self._archive = Archive(self._path, self._store, max_series=max_series, beat=self._breathe)
            self._backfill = HistorianIntake(
                self._segment, self._archive, self._namer, self._counters, self._block, self._role.crash
            )
            self._place = Place(self._path, self._path.with_name(f"{self._path.name}-wal"))
        return self._archive

    def _flush(self, archive: Archive, journal: Journal) -> int:
        """Archive blocks of the journal, then delete them: in this order. Return how many."""
        blocks = journal.read(_archived_through(archive, journal), _FLUSH_ROWS)
        if not blocks:
            return 0
        batch = unite([block for _, block in blocks if block is not None])
        newest = blocks[-1][0]
        crash = self._role.crash
        crash.passing("persister.blocks_read")
        archive.write(batch, watermark=(journal.uuid, newest))
        crash.passing("persister.archive_committed")
        if any(block is None for _, block in blocks):
            log.error("damaged block in the journal journal=%s", journal.directory)
            self._owe_everything(journal)
        self._counters.add("trimmed_total", journal.trim(newest))
        crash.passing("persister.trimmed")
        self._counters.add("archive_rows_total", len(batch))
        self._counters.add("archive_flushes_total")
        self._counters.set("archive_last_ms", time.time_ns() // 1_000_000)
        return len(blocks)

    def _make_good(self, archive: Archive, journal: Journal) -> None:
        """Let history be walked if blocks were trimmed that this file does not hold: it is new, or an older copy."""
        archived, trimmed = _archived_through(archive, journal), journal.next_sequence - 1 - journal.blocks
        if archived < trimmed:
            log.warning("the archive lacks what the journal has trimmed archived=%d trimmed=%d", archived, trimmed)
            self._owe_everything(journal)

    def _owe_everything(self, journal: Journal) -> None:
        log.warning("all history in shared memory will be walked for the archive")
        journal.append((), self._segment.uuid, owed_walks=map(log_name, range(self._segment.layout.workers)))

    def _walk_owed(self, archive: Archive, journal: Journal) -> int:
        owed = journal.owed_walks(self._segment.uuid)
        for ring in owed:
            rows = 0
            for piece in walk_history(self._segment, int(ring.rpartition("/")[2])):
                batch = self._namer.batch(piece)
                archive.write(batch)
                rows += len(batch)
                self._breathe()
            self._role.crash.passing("persister.walk_committed")
            journal.walk_done(self._segment.uuid, ring)
            self._counters.add("walks_total")
            log.info("history walked ring=%s rows=%d", ring, rows)
        return len(owed)

    def _prune(self, archive: Archive) -> None:
        if not self._store.retention_days or time.monotonic() < self._next_prune_s:
            return
        clock = read_clock(self._segment)
        if clock is None:
            return  # by a wrong clock of this machine all could be old
        now_ms = clock.now_ms()
        for interval, days in self._store.retention_days.items():
            self._counters.add("pruned_total", archive.prune(interval, now_ms - days * _DAY_MS))
        self._next_prune_s = time.monotonic() + _PRUNE_EVERY_S


def _archived_through(archive: Archive, journal: Journal) -> int:
    """Return the sequence up to which the archive holds the journal's blocks."""
    mark = archive.watermark
    # A watermark from another journal, or from beyond this one's end, says nothing about its blocks.
    same = mark is not None and mark[0] == journal.uuid and mark[1] < journal.next_sequence
    return mark[1] if mark and same else 0
