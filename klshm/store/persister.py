"""The persister: what the rings hold goes to disk, in an order that a kill at any instant survives.

::

    worker logs --> journal (rows + cursors, one transaction) --> archive (rows + watermark) --> trim
    historian's log ------------------------------------------> archive (rows + position)  --> its cursor word
    open bars of the readable halves --> journal, database `latest`

Its role is "stopped" only when nothing in the segment is needed any more: whoever ends the engine
looks at that before the segment is removed.

Disks fail without stopping it: the step that failed is counted, raises its bit of `alarm`
(1 journal, 2 archive) and is tried again later; what it would have stored stays in the rings or
in the journal until then. While the WAL is beyond its limit nothing goes to the archive.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from klshm.errors import JournalError
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.shm.view import wait_for_tail
from klshm.store import names
from klshm.store.archive_feed import ArchiveFeed
from klshm.store.intake import TAKE_ROWS, LogIntake
from klshm.store.journal import Journal
from klshm.store.open_bars import OpenBars
from klshm.store.place import Place
from klshm.store.segment_rows import Namer, interval_names
from klshm.store.trouble import Step


__all__ = ["ALARM_ARCHIVE", "ALARM_JOURNAL", "serve"]

log = logging.getLogger(__name__)

ALARM_JOURNAL: Final = 1
ALARM_ARCHIVE: Final = 2

_WAIT_S: Final = 0.1
_GATHER_S: Final = 0.01  # the workers close a minute within a few milliseconds: one commit for all
_BREATH_S: Final = 0.05  # between two looks at the logs while the archive works
_DRAIN_S: Final = 20.0
_DRAIN_ARCHIVE_S: Final = 5.0  # what is in the journal is safe, and archived at the next start


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
        self._directory = names.data_directory(role.config)
        self._counters = Counters(role.block, PERSISTER)
        self._namer = Namer(self._segment)
        self._open_bars = OpenBars(self._segment, self._namer, role.config.store)
        self._interval_names = interval_names(self._segment)
        self._journal: Journal | None = None
        self._journal_place = Place()
        self._logs: LogIntake | None = None
        self._archive = ArchiveFeed(role, self._namer, self._counters, self._breathe)
        self._journal_step = Step("journal", ALARM_JOURNAL, role, self._counters, self._drop_journal)
        self._archive_step = Step("archive", ALARM_ARCHIVE, role, self._counters, self._archive.close)
        self._next_breath_s = 0.0
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
            safe = self._drain()
        finally:
            self._archive.close()
            self._drop_journal()
        if safe:
            role.enter(lay.ROLE_STOPPED)

    # Turns

    def _turn(self) -> bool:
        """Do what is due; return whether rings hold more that could be taken at once."""
        self._role.heartbeat()
        full = self._take_logs()
        if self._journal is not None:
            self._journal_step.attempt(self._store_open_bars)
        if self._journal is not None:
            full |= self._archive_step.attempt(self._feed_archive) and self._archive.has_more
        self._note_progress()
        return full

    def _breathe(self) -> None:
        """Show life and journal what closed, in the middle of long work for the archive."""
        self._role.heartbeat()
        if time.monotonic() >= self._next_breath_s:
            self._take_logs()
            self._next_breath_s = time.monotonic() + _BREATH_S

    def _take_logs(self) -> bool:
        """Journal what closed; return whether a log holds more."""
        taken = 0

        def work() -> int:
            nonlocal taken
            taken = self._open_journal().take()
            return taken

        return self._journal_step.attempt(work) and taken >= TAKE_ROWS

    def _store_open_bars(self, *, final: bool = False) -> int:
        batch = self._open_bars.due(final=final)
        if batch is None or self._journal is None:
            return 0
        self._journal.put_latest(batch, self._interval_names)
        self._role.crash.passing("persister.open_bars_committed")
        self._open_bars.stored()
        self._counters.add("open_rows_total", len(batch))
        if self._role.config.store.open_bars:
            self._archive_step.attempt(lambda: self._archive.write_open(batch))
        return len(batch)

    def _feed_archive(self) -> int:
        if self._journal is None:
            return 0
        try:
            return self._archive.feed(self._journal, now=self._draining)
        except JournalError as error:
            self._archive.has_more = False
            self._journal_step.fail(error)
            return 0

    def _note_progress(self) -> None:
        counters = self._counters
        if self._logs is not None:
            counters.set("journal_behind_rows", self._logs.behind)
        if self._journal is not None:
            counters.set("journal_sequence", self._journal.next_sequence - 1)
        self._archive.note_progress()

    # The end

    def _drain(self) -> bool:
        """Store what the rings hold and the last open bars; return whether the segment is needed no more."""
        began_s = time.monotonic()
        self._draining = True
        final_bars = False
        while True:
            more = self._turn()
            waited_s = time.monotonic() - began_s
            if not more:
                if self._journal is not None and not final_bars:
                    final_bars = self._journal_step.attempt(lambda: self._store_open_bars(final=True))
                journaled = final_bars and self._logs is not None and self._logs.behind == 0
                if journaled and (self._is_archived() or waited_s > _DRAIN_ARCHIVE_S):
                    break
            if waited_s > _DRAIN_S:
                break
            if not more:
                seen = [int(self._segment.words[tail]) for tail in self._tails]
                wait_for_tail(self._segment, self._tails, seen, _WAIT_S / 2)
        self._say_what_is_left(final_bars)
        return final_bars and self._is_safe()

    def _is_safe(self) -> bool:
        """Return whether all that closed is on disk: what is journaled is archived at the next start."""
        if self._journal is None or self._logs is None or self._logs.behind != 0:
            return False
        block = self._segment.block(self._segment.layout.historian_offset)
        return not self._journal.owed_walks(self._segment.uuid) and int(block[lay.B_TAIL]) == int(
            self._role.block[lay.B_CURSOR]
        )

    def _is_archived(self) -> bool:
        return self._journal is not None and self._journal.blocks == 0 and self._archive.backfill_behind == 0

    def _say_what_is_left(self, final_bars: bool) -> None:
        behind = self._logs.behind if self._logs else -1
        if behind != 0 or not final_bars:
            log.error("stopped before all was stored log_rows=%d open_bars_stored=%s", behind, final_bars)
        if not self._is_archived():
            blocks = self._journal.blocks if self._journal else -1
            log.warning(
                "the archive lacks bars that the next start adds journal_blocks=%d backfill_rows=%d",
                blocks,
                self._archive.backfill_behind,
            )

    # Opening and dropping files

    def _open_journal(self) -> LogIntake:
        if lost := self._journal_place.lost():
            raise JournalError(
                f"{lost} was removed or replaced while in use; a new journal is made and gets what shared memory holds"
            )
        if self._logs is None:
            path = names.journal_path(self._directory)
            journal = self._journal = Journal(path)
            self._journal_place = Place(path / "data.mdb")
            journal.forget_segments(self._segment.uuid)
            self._logs = LogIntake(self._segment, journal, self._namer, self._counters, self._role.crash)
            self._open_bars.forget()
        return self._logs

    def _drop_journal(self) -> None:
        journal, self._journal, self._logs = self._journal, None, None
        self._journal_place = Place()
        if journal is not None:
            journal.close()
