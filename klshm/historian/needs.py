"""What the workers want repaired: read from their needs tables, answered through their inboxes.

A need is a state, not a message: the worker rewrites its row until it is content, so nothing is
lost by a crash on either side. When a minute is asked for, counted from its end (BARS section 6):

    5 s    trades are known to be missing or the confirmation to be lost, and the budget of this
           minute is mostly unused
    10 s   the confirmation has not come
           (both are aimed: the request reaches the exchange at that moment, `request_margin_ms` later)
    30 s   what was read before may have moved: from now on a repeated row is the truth
    60 s   the last word: whatever the exchange says now confirms the minute

Minutes that merely seem empty are asked for at 30 s, at most for a thirtieth of the budget; what
that leaves over waits for company, a quarter of an hour at most: 99 of them cost the same as one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from klshm.errors import ExchangeError, IpBanned
from klshm.exchange.governor import Governor, Priority, klines_weight
from klshm.historian.absent import Absent
from klshm.historian.health import Health
from klshm.historian.inbox import Outlet, command
from klshm.historian.rows import CONFIRM_AGE_MS
from klshm.historian.source import PAGE_ROWS, RowSource
from klshm.historian.symbols import Entry, SymbolBook
from klshm.intervals import MINUTE_MS
from klshm.shm import layout as lay
from klshm.shm.layout import NEED, ROW_BYTES, ROW_WORDS
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView


__all__ = ["Need", "Needs", "NeedsTable", "due_range"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_PERIOD_MS: Final = 250
_LOST_DELAY_MS: Final = 5_000
_CONFIRM_DELAY_MS: Final = 10_000
_EMPTY_DELAY_MS: Final = CONFIRM_AGE_MS
_EMPTY_PATIENCE_MS: Final = 15 * MINUTE_MS
_EMPTY_SHARE: Final = 0.03
"""Share of the request weight of a minute that may go to minutes that merely seem empty."""
_YOUNG_SHARE: Final = 0.4
"""Share of the request weight used, above which no minute is asked for before it is likely to be final."""
_LAST_WORD_MS: Final = 60_000
"""Age from which the engine takes a row for the truth, whatever it held before."""
_AGAIN_MS: Final = 5_000
_PATIENT_TRIES: Final = 8
_SLOWEST_MS: Final = 60_000
_QUEUE_ROWS: Final = 16_384

_LOST: Final = lay.NEED_HOLE | lay.NEED_DOUBT


class Aim(Protocol):
    """The exchange's time, and when what is sent arrives there (`klshm.historian.timesync.ExchangeClock`)."""

    def now_ms(self) -> int:
        """Return the exchange's time, UTC ms."""

    def arrival_ms(self) -> int:
        """Return when a request that is sent now reaches the exchange, UTC ms."""

    def seconds_until_sending(self, arrive_ms: int, margin_ms: int) -> float:
        """Return how long to wait so that a request reaches the exchange at a given time."""


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
        return Priority.REPAIR if self.reason & _LOST else Priority.CONFIRM

    @property
    def is_empty(self) -> bool:
        """Whether it is only about minutes that seem to hold no trades."""
        return self.reason == lay.NEED_EMPTY


def due_range(need: Need, now_ms: int, *, lead_ms: int = 0, hurried: bool = True) -> tuple[int, int] | None:
    """Return the minutes of a need that may be asked for now, at most 499, oldest first.

    Args:
        need: What a worker wants.
        now_ms: Exchange time, UTC ms.
        lead_ms: How long a request takes to reach the exchange. How much a row proves is judged by when it was
            asked for, so only what proves little anyhow is asked for so much earlier.
        hurried: Whether weight is plentiful enough to ask for minutes that will be asked for again.

    Returns:
        (first, last) open times, or None if nothing is due.
    """
    if need.is_empty:
        delay_ms = _EMPTY_DELAY_MS
    elif need.reason & _LOST:
        delay_ms = _LOST_DELAY_MS - lead_ms if hurried else CONFIRM_AGE_MS
    elif need.reason & lay.NEED_LOST_FRAME and hurried:
        delay_ms = _LOST_DELAY_MS - lead_ms
    else:
        delay_ms = _CONFIRM_DELAY_MS - lead_ms
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

        A minute read before its last word is read again when it may have changed, not before: with a
        stream down for all symbols more would exceed the budget. Asked in vain after that, pauses double.
        """
        self.running = True
        end_ms = last_ms + MINUTE_MS
        for age_ms in (CONFIRM_AGE_MS, _LAST_WORD_MS):
            if now_ms < end_ms + age_ms:
                self.from_ms, self.tries, self.next_ms = from_ms, 0, max(end_ms + age_ms, now_ms + _AGAIN_MS)
                return
        self.tries = self.tries + 1 if from_ms == self.from_ms else 1
        self.from_ms = from_ms
        pause_ms = _AGAIN_MS << max(0, min(self.tries - _PATIENT_TRIES, 4))
        self.next_ms = now_ms + min(pause_ms, _SLOWEST_MS)


class _Allowance:
    """How much weight of the current minute may go to minutes that merely seem empty."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor
        self._minute = 0
        self._spent = 0

    def take(self, weight: int, now_ms: int) -> bool:
        """Take so much of it, if there is as much."""
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self._spent = now_ms // MINUTE_MS, 0
        if self._spent + weight > self._governor.limit * _EMPTY_SHARE:
            return False
        self._spent += weight
        return True


class Needs:
    """Scans the needs of all workers and answers them.

    Args:
        segment: The segment.
        book: The symbols table.
        source: Fetches rows.
        inboxes: One outlet per worker.
        health: Told failures; its counters are kept.
        governor: The budget, looked at before asking early.
        clock: The exchange's time, and how long requests are under way.
        concurrency: Requests under way at once, at most.
        margin_ms: How much later than aimed at requests may arrive.
    """

    def __init__(
        self,
        segment: Segment,
        book: SymbolBook,
        source: RowSource,
        inboxes: list[Outlet],
        health: Health,
        governor: Governor,
        clock: Aim,
        *,
        concurrency: int,
        margin_ms: int = 0,
    ) -> None:
        self._tables = [NeedsTable(segment, worker) for worker in range(segment.layout.workers)]
        self._views = [PartitionView(segment, worker) for worker in range(segment.layout.workers)]
        self._book = book
        self._source = source
        self._inboxes = inboxes
        self._health = health
        self._governor = governor
        self._allowance = _Allowance(governor)
        self._clock = clock
        self._now_ms = clock.now_ms
        self._concurrency = concurrency
        self._margin_ms = margin_ms
        self._asked: dict[int, _Asked] = {}
        self._absent = Absent()
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Scan four times a second, for ever, at moments whose requests arrive at quarters of a second."""
        while True:
            self.scan()
            next_ms = self._clock.arrival_ms() // _PERIOD_MS * _PERIOD_MS + _PERIOD_MS
            # The tables are words of other processes' memory: nothing announces a change.
            await asyncio.sleep(max(0.01, self._clock.seconds_until_sending(next_ms, self._margin_ms)))

    def scan(self) -> None:
        """Start the requests that are due, the most urgent first."""
        now_ms = self._now_ms()
        lead_ms = self._clock.arrival_ms() - now_ms
        hurried = self._governor.used(now_ms) < self._governor.limit * _YOUNG_SHARE
        due: list[tuple[Priority, int, int, Need]] = []
        for worker, table in enumerate(self._tables):
            if self._inboxes[worker].urgent_queued > _QUEUE_ROWS:
                continue  # it does not take what was sent already
            for wanted in table.read():
                need = self._without_absent(wanted, worker, now_ms)
                if need is None:
                    continue
                span = due_range(need, now_ms, lead_ms=lead_ms, hurried=hurried)
                if span is not None and self._may_ask(need.slot, now_ms):
                    due.append((need.priority, *span, need))
        due.sort(key=lambda item: item[:2])
        for _, first_ms, last_ms, need in due:
            if len(self._running) >= self._concurrency:
                break
            if need.is_empty and not self._may_ask_empty(first_ms, last_ms, now_ms):
                continue
            asked = self._asked.setdefault(need.slot, _Asked())
            asked.begin(first_ms, last_ms, now_ms)
            task = asyncio.create_task(self._answer(self._book.entries[need.slot], need, first_ms, last_ms, asked))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _without_absent(self, need: Need, worker: int, now_ms: int) -> Need | None:
        """Let a need begin behind minutes that the exchange has no row of; None if it is about no others."""
        first_ms = self._absent.skip(need.slot, need.from_ms, now_ms)
        if first_ms == need.from_ms:
            return need
        # The worker's need stays on the first of them for as long as history holds it.
        local_slot = self._book.entries[need.slot].local_slot
        held = self._views[worker].history(local_slot, 0, first_ms, need.to_ms)
        confirmed = set(held["open_time"][held["state"] == lay.STATE_CONFIRMED].tolist())
        for minute in range(first_ms, need.to_ms + 1, MINUTE_MS):
            if minute not in confirmed and self._absent.skip(need.slot, minute, now_ms) == minute:
                return dataclasses.replace(need, from_ms=minute)
        return None

    def _may_ask(self, slot: int, now_ms: int) -> bool:
        if not 0 <= slot < len(self._book.entries):
            return False
        asked = self._asked.get(slot)
        return asked is None or (not asked.running and now_ms >= asked.next_ms)

    def _may_ask_empty(self, first_ms: int, last_ms: int, now_ms: int) -> bool:
        """Return whether minutes that seem empty may be asked for now, and take the weight if so."""
        weight = klines_weight((last_ms - first_ms) // MINUTE_MS + 1)
        return self._allowance.take(weight, now_ms) or now_ms >= first_ms + MINUTE_MS + _EMPTY_PATIENCE_MS

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
            self._note_absent(entry, rows["open_time"].tolist(), first_ms, last_ms)
            _log.debug("repair symbol=%s from_ms=%d rows=%d reason=%d", entry.name, first_ms, len(rows), need.reason)
        finally:
            asked.running = False

    def _note_absent(self, entry: Entry, there: list[int], first_ms: int, last_ms: int) -> None:
        """Find minutes that the exchange has no row of although its series had begun and they are old enough."""
        now_ms, origin_ms = self._now_ms(), self._source.origin_ms(entry)
        begun_ms = max(first_ms, origin_ms if origin_ms is not None else first_ms)
        # Where the series begins is not known yet, an answer without its first rows says nothing of them.
        if origin_ms is None and (not there or there[0] > first_ms):
            return
        old_ms = min(last_ms, now_ms - MINUTE_MS - _LAST_WORD_MS)
        lacking = sorted(set(range(begun_ms, old_ms + 1, MINUTE_MS)).difference(there))
        for minute in self._absent.note(entry.slot, lacking, now_ms):
            _log.warning("exchange has no row symbol=%s open_time_ms=%d; its bar stays partial", entry.name, minute)
            self._inboxes[entry.worker].urgent(command(lay.COMMAND_NO_ROW, entry.slot, open_time=minute))
