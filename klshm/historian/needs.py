"""What the workers want repaired: read from their needs tables, answered through their inboxes.

A need is a state, not a message: the worker rewrites its row until it is content, so nothing is
lost by a crash on either side. Minutes are asked for once they are due, as BARS section 6 has it:
5 s after their end where something is known to be missing, 10 s where only the confirmation has
not come. Minutes that merely seem empty wait a quarter of an hour for company: 99 of them cost
the same weight as one. What was read young is read once more when it is old enough to be final.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from klshm.errors import ExchangeError, IpBanned
from klshm.exchange.governor import Priority
from klshm.historian.health import Health
from klshm.historian.inbox import Outlet
from klshm.historian.rows import CONFIRM_AGE_MS
from klshm.historian.source import PAGE_ROWS, RowSource
from klshm.historian.symbols import Entry, SymbolBook
from klshm.intervals import MINUTE_MS
from klshm.shm import layout as lay
from klshm.shm.layout import NEED, ROW_BYTES, ROW_WORDS
from klshm.shm.segment import Segment


__all__ = ["Need", "Needs", "NeedsTable", "due_range"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_PERIOD_S: Final = 0.25
_LOST_DELAY_MS: Final = 5_000
_CONFIRM_DELAY_MS: Final = 10_000
_EMPTY_DELAY_MS: Final = 15 * MINUTE_MS
_AGAIN_MS: Final = 5_000
_PATIENT_TRIES: Final = 8
_SLOWEST_MS: Final = 60_000
_QUEUE_ROWS: Final = 16_384

_LOST: Final = lay.NEED_HOLE | lay.NEED_DOUBT
_CONFIRM: Final = lay.NEED_UNCONFIRMED | lay.NEED_EMPTY


@dataclass(frozen=True)
class Need:
    """One row of a needs table.

    Attributes:
        slot: The symbol's slot.
        from_ms: Open time of the first minute concerned.
        to_ms: Open time of the last minute concerned.
        reason: Bits `lay.NEED_...`.
    """

    slot: int
    from_ms: int
    to_ms: int
    reason: int

    @property
    def priority(self) -> Priority:
        """How urgent it is: what is missing goes before what is unconfirmed."""
        if self.reason & _LOST:
            return Priority.REPAIR
        return Priority.CONFIRM if self.reason & _CONFIRM else Priority.LISTINGS


def due_range(need: Need, now_ms: int) -> tuple[int, int] | None:
    """Return the minutes of a need that may be asked for now, at most 499, oldest first.

    Args:
        need: What a worker wants.
        now_ms: Exchange time, UTC ms.

    Returns:
        (first, last) open times, or None if nothing is due.
    """
    if need.reason == lay.NEED_EMPTY and now_ms < need.from_ms + MINUTE_MS + _EMPTY_DELAY_MS:
        return None
    delay_ms = _LOST_DELAY_MS if need.reason & _LOST else _CONFIRM_DELAY_MS
    last_due_ms = (now_ms - delay_ms) // MINUTE_MS * MINUTE_MS - MINUTE_MS
    last_ms = min(need.to_ms, last_due_ms, need.from_ms + (PAGE_ROWS - 1) * MINUTE_MS)
    return (need.from_ms, last_ms) if last_ms >= need.from_ms else None


class NeedsTable:
    """Reads the needs table of one worker.

    Args:
        segment: The segment.
        worker: Number of the worker.
    """

    def __init__(self, segment: Segment, worker: int) -> None:
        layout = segment.layout
        self._words = segment.region(layout.needs_offset(worker), layout.slots * ROW_BYTES).reshape(-1, ROW_WORDS)

    def read(self) -> Iterator[Need]:
        """Return the needs that are whole; one being written now is seen the next time."""
        # SYNC POINT need: reader
        before = self._words[:, 0].copy()
        rows = self._words.copy()
        whole = (before == self._words[:, 0]) & (before & 1 == 0)
        table = rows.view(NEED).reshape(-1)
        for index in np.flatnonzero(whole & (table["reason"] != 0)):
            row = table[index]
            from_ms, to_ms = int(row["from_ms"]), int(row["to_ms"])
            if 0 < from_ms <= to_ms and from_ms % MINUTE_MS == 0:
                yield Need(int(row["slot"]), from_ms, to_ms, int(row["reason"]))


@dataclass
class _Asked:
    """When a symbol was asked for last, and how often in vain for the same first minute."""

    from_ms: int = 0
    tries: int = 0
    next_ms: int = 0
    running: bool = False

    def begin(self, from_ms: int, last_ms: int, now_ms: int) -> None:
        """Count an attempt, and say when the next may come.

        A minute read before it is old enough is read again when it is, not before: with a stream
        down for all symbols more would exceed the budget. Asked in vain the pauses double.
        """
        self.running = True
        final_ms = last_ms + MINUTE_MS + CONFIRM_AGE_MS
        if now_ms < final_ms:
            self.from_ms, self.tries, self.next_ms = from_ms, 0, max(final_ms, now_ms + _AGAIN_MS)
            return
        self.tries = self.tries + 1 if from_ms == self.from_ms else 1
        self.from_ms = from_ms
        pause_ms = _AGAIN_MS << max(0, min(self.tries - _PATIENT_TRIES, 4))
        self.next_ms = now_ms + min(pause_ms, _SLOWEST_MS)


class Needs:
    """Scans the needs of all workers and answers them.

    Args:
        segment: The segment.
        book: The symbols table.
        source: Fetches rows.
        inboxes: One outlet per worker.
        health: Told failures; its counters are kept.
        now_ms: Returns the exchange's time, UTC ms.
        concurrency: Requests under way at once, at most.
    """

    def __init__(
        self,
        segment: Segment,
        book: SymbolBook,
        source: RowSource,
        inboxes: list[Outlet],
        health: Health,
        now_ms: Callable[[], int],
        *,
        concurrency: int,
    ) -> None:
        self._tables = [NeedsTable(segment, worker) for worker in range(segment.layout.workers)]
        self._book = book
        self._source = source
        self._inboxes = inboxes
        self._health = health
        self._now_ms = now_ms
        self._concurrency = concurrency
        self._asked: dict[int, _Asked] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Scan four times a second, for ever."""
        while True:
            self.scan()
            # The tables are words of other processes' memory: nothing announces a change.
            await asyncio.sleep(_PERIOD_S)

    def scan(self) -> None:
        """Start the requests that are due, the most urgent first."""
        now_ms = self._now_ms()
        due: list[tuple[Priority, int, int, Need]] = []
        for worker, table in enumerate(self._tables):
            if self._inboxes[worker].urgent_queued > _QUEUE_ROWS:
                continue  # it does not take what was sent already
            for need in table.read():
                span = due_range(need, now_ms)
                if span is not None and self._may_ask(need.slot, now_ms):
                    due.append((need.priority, *span, need))
        due.sort(key=lambda item: item[:2])
        for _, first_ms, last_ms, need in due[: self._concurrency - len(self._running)]:
            asked = self._asked.setdefault(need.slot, _Asked())
            asked.begin(first_ms, last_ms, now_ms)
            task = asyncio.create_task(self._answer(self._book.entries[need.slot], need, first_ms, last_ms, asked))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _may_ask(self, slot: int, now_ms: int) -> bool:
        if not 0 <= slot < len(self._book.entries):
            return False
        asked = self._asked.get(slot)
        return asked is None or (not asked.running and now_ms >= asked.next_ms)

    async def _answer(self, entry: Entry, need: Need, first_ms: int, last_ms: int, asked: _Asked) -> None:
        counter = "repair_requests_total" if need.reason & _LOST else "confirm_requests_total"
        self._health.counters.add(counter)
        try:
            rows = await self._source.fetch(entry, "1m", first_ms, last_ms, need.priority)
        except ExchangeError as error:
            self._health.failed(f"repair of {entry.name}", error)
            now_ms = self._now_ms()
            asked.next_ms = max(now_ms + _AGAIN_MS, error.until_ms if isinstance(error, IpBanned) else 0)
        else:
            self._inboxes[entry.worker].urgent(rows)
            _log.debug("repair symbol=%s from_ms=%d rows=%d reason=%d", entry.name, first_ms, len(rows), need.reason)
        finally:
            asked.running = False
