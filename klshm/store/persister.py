"""The persister: what the rings hold goes to disk, in an order that a kill at any instant survives.

::

    worker logs --> journal (rows + cursors, one transaction) --> archive (rows + watermark) --> trim
    historian's log ------------------------------------------> archive (rows + position)  --> its cursor word
    open bars of the readable halves --> journal, database `latest`

Disks fail without stopping it: the step that failed is counted, raises its bit of `alarm`
(1 journal, 2 archive) and is tried again later; what it would have stored stays in the rings or
in the journal until then. While the WAL is beyond its limit nothing goes to the archive.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from klshm.errors import ArchiveError, JournalError
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.shm.view import exchange_now_ms, wait_for_tail
from klshm.store import names
from klshm.store.archive import Archive
from klshm.store.batch import unite
from klshm.store.intake import TAKE_ROWS, HistorianIntake, LogIntake
from klshm.store.journal import Journal
from klshm.store.open_bars import OpenBars
from klshm.store.segment_rows import Namer, interval_names, log_name, walk_history
from klshm.store.trouble import Step


__all__ = ["ALARM_ARCHIVE", "ALARM_JOURNAL", "serve"]

log = logging.getLogger(__name__)

ALARM_JOURNAL: Final = 1
ALARM_ARCHIVE: Final = 2

_WAIT_S: Final = 0.1
_GATHER_S: Final = 0.01  # the workers close a minute within a few milliseconds: one commit for all
_BREATH_S: Final = 0.05  # between two looks at the logs while the archive works
_FLUSH_ROWS: Final = 32_768
_DRAIN_S: Final = 20.0
_DRAIN_ARCHIVE_S: Final = 5.0  # what is in the journal is safe, and archived at the next start
_PRUNE_EVERY_S: Final = 3600.0
_DAY_MS: Final = 86_400_000


def serve(role: Role) -> None:
    """Store what the engine produces until `role.stop` is set, then drain and return.

    Args:
        role: The persister's role. Files are opened in this process and thread.
    """
    Persister(role).run()


class Persister:
    """The state of one run.

    Args:
        role: The persister's role.
    """

    def __init__(self, role: Role) -> None:
        self._role = role
        self._segment = role.segment
        self._store = role.config.store
        self._directory = names.data_directory(role.config)
        self._counters = Counters(role.block, PERSISTER)
        self._namer = Namer(self._segment)
        self._open_bars = OpenBars(self._segment, self._namer, self._store)
        self._interval_names = interval_names(self._segment)
        self._journal: Journal | None = None
        self._archive: Archive | None = None
        self._logs: LogIntake | None = None
        self._backfill: HistorianIntake | None = None
        self._journal_step = Step("journal", ALARM_JOURNAL, role, self._counters, self._drop_journal)
        self._archive_step = Step("archive", ALARM_ARCHIVE, role, self._counters, self._drop_archive)
        self._next_flush_s = self._next_prune_s = self._next_breath_s = 0.0
        self._archive_has_more = False
        self._draining = False
        layout = self._segment.layout
        blocks = [layout.historian_offset, *(layout.partition_offset(worker) for worker in range(layout.workers))]
        self._tails = [offset // 8 + lay.B_TAIL for offset in blocks]

    def run(self) -> None:
        """Serve until asked to stop, then drain."""
        role = self._role
        role.begin()
        self._counters.add("runs_total")
        self._counters.set("alarm", 0)
        role.enter(lay.ROLE_LIVE)
        try:
            while not role.stop.is_set():
                seen = [int(self._segment.words[tail]) for tail in self._tails]
                if self._turn():
                    continue
                if wait_for_tail(self._segment, self._tails, seen, _WAIT_S):
                    role.stop.wait(_GATHER_S)
            role.enter(lay.ROLE_DRAINING)
            self._drain()
        finally:
            self._drop_archive()
            self._drop_journal()
        role.enter(lay.ROLE_STOPPED)

    # Turns

    def _turn(self) -> bool:
        """Do what is due; return whether rings hold more that could be taken at once."""
        self._role.heartbeat()
        full = False
        self._journal_step.attempt(self._open_journal)
        if self._journal and self._logs:
            full = self._take_logs(self._logs)
            self._journal_step.attempt(self._store_open_bars)
        if self._journal:
            full |= self._archive_step.attempt(self._feed_archive) and self._archive_has_more
        self._note_progress()
        return full

    def _breathe(self) -> None:
        """Show life and journal what closed, in the middle of long work for the archive."""
        self._role.heartbeat()
        if self._logs is not None and time.monotonic() >= self._next_breath_s:
            self._take_logs(self._logs)
            self._next_breath_s = time.monotonic() + _BREATH_S

    def _take_logs(self, logs: LogIntake) -> bool:
        taken = 0

        def work() -> None:
            nonlocal taken
            taken = logs.take()

        return self._journal_step.attempt(work) and taken >= TAKE_ROWS

    def _store_open_bars(self, *, final: bool = False) -> None:
        batch = self._open_bars.due(final=final)
        if batch is None or self._journal is None:
            return
        self._journal.put_latest(batch, self._interval_names)
        self._open_bars.stored()
        self._counters.add("open_rows_total", len(batch))
        if self._store.open_bars and self._archive is not None:
            archive = self._archive
            self._archive_step.attempt(lambda: archive.write(batch))

    def _feed_archive(self) -> None:
        """Bring historian's log, owed history and journal into the archive."""
        archive = self._open_archive()
        if not archive.has_room():
            raise ArchiveError(
                f"{archive.path}-wal has {archive.wal_bytes} bytes, expected at most {self._store.wal_limit_bytes}: a "
                "reader keeps an old snapshot open; end it. Closed bars wait in the journal until then"
            )
        self._archive_has_more = self._backfill is not None and self._backfill.take() >= TAKE_ROWS
        if self._draining or time.monotonic() >= self._next_flush_s:
            try:
                self._walk_owed(archive)
                more = self._flush(archive)
            except JournalError as error:
                self._journal_step.fail(error)
                return
            self._archive_has_more |= more
            if not more:
                self._prune(archive)
                self._next_flush_s = time.monotonic() + self._store.flush_interval_s

    def _flush(self, archive: Archive) -> bool:
        """Archive blocks of the journal, then delete them: in this order. Return whether there are more."""
        journal = self._journal
        if journal is None:
            return False
        mark = archive.watermark
        same = mark is not None and mark[0] == journal.uuid and mark[1] < journal.next_sequence
        blocks = journal.read(mark[1] if mark and same else 0, _FLUSH_ROWS)
        if not blocks:
            return False
        batch = unite([block for _, block in blocks if block is not None])
        newest = blocks[-1][0]
        archive.write(batch, watermark=(journal.uuid, newest))
        if any(block is None for _, block in blocks):
            self._owe_everything(journal)
        self._counters.add("trimmed_total", journal.trim(newest))
        self._counters.add("archive_rows_total", len(batch))
        self._counters.add("archive_flushes_total")
        self._counters.set("archive_last_ms", time.time_ns() // 1_000_000)
        return newest < journal.next_sequence - 1

    def _owe_everything(self, journal: Journal) -> None:
        log.error("damaged block in the journal, all history will be walked journal=%s", journal.directory)
        journal.append((), self._segment.uuid, owed_walks=map(log_name, range(self._segment.layout.workers)))

    def _walk_owed(self, archive: Archive) -> None:
        journal = self._journal
        if journal is None:
            return
        for ring in journal.owed_walks(self._segment.uuid):
            rows = 0
            for piece in walk_history(self._segment, int(ring.rpartition("/")[2])):
                batch = self._namer.batch(piece)
                archive.write(batch)
                rows += len(batch)
                self._breathe()
            journal.walk_done(self._segment.uuid, ring)
            self._counters.add("walks_total")
            log.info("history walked ring=%s rows=%d", ring, rows)

    def _prune(self, archive: Archive) -> None:
        if not self._store.retention_days or time.monotonic() < self._next_prune_s:
            return
        now_ms = exchange_now_ms(self._segment)
        for interval, days in self._store.retention_days.items():
            self._counters.add("pruned_total", archive.prune(interval, now_ms - days * _DAY_MS))
        self._next_prune_s = time.monotonic() + _PRUNE_EVERY_S

    def _note_progress(self) -> None:
        counters = self._counters
        if self._logs is not None:
            counters.set("journal_behind_rows", self._logs.behind)
        if self._backfill is not None:
            counters.set("historian_behind_rows", self._backfill.behind)
        if self._journal is not None:
            counters.set("journal_sequence", self._journal.next_sequence - 1)
        if self._archive is not None:
            mark = self._archive.watermark
            counters.set("archive_sequence", mark[1] if mark else 0)
            counters.set("wal_bytes", self._archive.wal_bytes)

    # The end

    def _drain(self) -> None:
        """Store what the rings hold and the last open bars; say what could not be stored."""
        began_s = time.monotonic()
        self._draining = True
        final_bars = False
        while True:
            more = self._turn()
            waited_s = time.monotonic() - began_s
            if not more:
                final_bars = final_bars or self._journal_step.attempt(lambda: self._store_open_bars(final=True))
                journaled = final_bars and self._logs is not None and self._logs.behind == 0
                if journaled and (self._is_archived() or waited_s > _DRAIN_ARCHIVE_S):
                    break
            if waited_s > _DRAIN_S:
                break
            if not more:
                seen = [int(self._segment.words[tail]) for tail in self._tails]
                wait_for_tail(self._segment, self._tails, seen, _WAIT_S / 2)
        self._say_what_is_left(final_bars)

    def _is_archived(self) -> bool:
        journal, archive, backfill = self._journal, self._archive, self._backfill
        if journal is None or archive is None or backfill is None:
            return False
        return journal.blocks == 0 and backfill.behind == 0

    def _say_what_is_left(self, final_bars: bool) -> None:
        behind = self._logs.behind if self._logs else -1
        if behind != 0 or not final_bars:
            log.error("stopped before all was stored log_rows=%d open_bars_stored=%s", behind, final_bars)
        if not self._is_archived():
            blocks = self._journal.blocks if self._journal else -1
            backfill = self._backfill.behind if self._backfill else -1
            log.warning(
                "the archive lacks bars that the next start adds journal_blocks=%d backfill_rows=%d", blocks, backfill
            )

    # Opening and dropping files

    def _open_journal(self) -> None:
        if self._journal is None:
            journal = Journal(names.journal_path(self._directory))
            self._journal = journal
            journal.forget_segments(self._segment.uuid)
            self._logs = LogIntake(self._segment, journal, self._namer, self._counters)
            self._open_bars.forget()

    def _open_archive(self) -> Archive:
        if self._archive is None:
            layout = self._segment.layout
            self._archive = Archive(
                names.archive_path(self._directory),
                self._store,
                max_series=layout.max_symbols * layout.intervals,
                beat=self._breathe,
            )
            self._backfill = HistorianIntake(
                self._segment, self._archive, self._namer, self._counters, self._role.block
            )
        return self._archive

    def _drop_journal(self) -> None:
        journal, self._journal, self._logs = self._journal, None, None
        if journal is not None:
            journal.close()

    def _drop_archive(self) -> None:
        archive, self._archive, self._backfill = self._archive, None, None
        if archive is not None:
            archive.close()
