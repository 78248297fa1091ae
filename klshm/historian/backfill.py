"""History at start, most needed first: a first pass over all symbols, then depth.

The first pass gives every symbol, busiest first, what its open bars are folded from: 499 minutes
(they cover the open 4h) and 99 rows of each higher interval. Only then does any symbol get the
configured depth. 499 rows cost least weight per row, 99 the least weight at all.

Rows go to the worker (what its history can hold) and to the persister (all). Rows that the
worker's history holds (after a restart of this process) or that the archive holds confirmed (after
one of the engine) are not asked for; after a gap that the first 499 minutes cover, the bars above
them are folded from these. A bar of a higher interval that was read too young to be final is read
once more: workers ask for minutes only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.config import HistorianConfig
from klshm.config.depths import depths_of
from klshm.errors import ExchangeError, ExchangeRefused, IpBanned, RowsRefused
from klshm.exchange.governor import Priority
from klshm.historian.archived import Archived
from klshm.historian.health import Health
from klshm.historian.inbox import Outlet, command
from klshm.historian.rows import CONFIRM_AGE_MS
from klshm.historian.source import RowSource
from klshm.historian.symbols import Entry
from klshm.historian.tally import Tally
from klshm.historian.tasks import Task, first_pass_order, first_pass_rows, missing_range, pages
from klshm.intervals import MINUTE_MS
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView


__all__ = ["Backfill"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_TRIES: Final = 8
_MEND_MS: Final = 30 * 86_400_000
"""How far back a break in a stored series is looked for and mended."""
_FOLD_S: Final = 5.0
"""After so long the worker has folded what it could of the minutes it was sent; else the exchange is asked."""
_DAY_MS: Final = 86_400_000
_LAST_MINUTES: Final = 30
_LAST_ROWS: Final = 2


class Backfill:
    """Fetches history for symbols as they are added.

    Args:
        segment: The segment.
        config: Depths and concurrency; a concurrency of 0 switches backfill off.
        source: Fetches rows.
        inboxes: One outlet per worker.
        log: Outlet to the persister.
        health: Told failures; its counters are kept.
        now_ms: Returns the exchange's time, UTC ms.
        archived: What earlier runs have stored.
        retention_days: How long the archive keeps bars: none that it would delete is sent there, and as few as
            the worker's history can hold are asked for.
    """

    def __init__(
        self,
        segment: Segment,
        config: HistorianConfig,
        source: RowSource,
        inboxes: list[Outlet],
        log: Outlet,
        health: Health,
        now_ms: Callable[[], int],
        archived: Archived,
        retention_days: Mapping[str, int] | None = None,
    ) -> None:
        layout = segment.layout
        self._layout = layout
        self._config = config
        self._source = source
        self._inboxes = inboxes
        self._log = log
        self._health = health
        self._now_ms = now_ms
        self._archived = archived
        self._tally = Tally(health.counters)
        self._names = [intervals.name_of(code) for code in layout.interval_codes]
        self._retention_days = retention_days or {}
        held = dict(zip(self._names, layout.history_rows, strict=True))
        self._depths = depths_of(config.bars_per_interval, self._retention_days, held)
        self._views = [PartitionView(segment, worker) for worker in range(layout.workers)]
        self._queue: asyncio.PriorityQueue[Task] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._removed: set[int] = set()

    # Called by the listings

    def add(self, entries: list[Entry]) -> None:
        """Fetch the history of these symbols, busiest first."""
        busiest = sorted(entries, key=lambda e: -e.trades_24h)
        for rank, entry in enumerate(busiest):
            if self._config.concurrency == 0:
                self._inboxes[entry.worker].urgent(command(lay.COMMAND_HISTORY_DONE, entry.slot))
            else:
                self._put(Task(0, rank, next(self._numbers), entry))

    def remove(self, entries: list[Entry]) -> None:
        """Ask nothing more for these symbols but, once, their last rows: no worker confirms them any more."""
        self._removed.update(entry.slot for entry in entries)
        # Then the minute in which trading ended has closed, and its row does not change any more.
        pause_s = (MINUTE_MS - self._now_ms() % MINUTE_MS + CONFIRM_AGE_MS) / 1000
        if self._config.concurrency:
            for entry in entries:
                for index in range(len(self._names)):
                    self._put(Task(2, 0, next(self._numbers), entry, index), pause_s)

    # Runs for ever

    async def run(self) -> None:
        """Work through what is to be fetched, and wait for more."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._config.concurrency):
                group.create_task(self._work())
            group.create_task(self._tally.report())

    @property
    def idle(self) -> bool:
        """Whether everything asked for has been fetched or given up."""
        return self._tally.open == 0

    async def _work(self) -> None:
        while True:
            task = await self._queue.get()
            try:
                await self._do(task)
            except ExchangeError as error:
                self._retry(task, error)
            except Exception:
                _log.exception("backfill failed symbol=%s", task.entry.name)
                self._give_up(task)
            else:
                self._tally.closed(task.entry.name, failed=False)

    async def _do(self, task: Task) -> None:
        if task.stage == 2 and task.interval is not None:
            await self._last_rows(task.entry, task.interval)
        elif task.entry.slot in self._removed:
            return
        elif task.interval is None:
            await self._first_pass(task)
        elif task.again is not None:
            await self._fetch_missing(task.entry, task.interval, *task.again, is_second=task.is_second)
        else:
            await self._depth(task, task.interval)

    async def _first_pass(self, task: Task) -> None:
        refusal: ExchangeError | None = None
        for index in sorted(range(len(self._names)), key=first_pass_order(self._names)):
            try:
                await self._first_pass_of(task, index)
            except RowsRefused as error:
                refusal = refusal or error  # it is about this series: the others need not wait for it
        if refusal is not None:
            raise refusal
        await self._first_pass_ended(task)

    async def _first_pass_of(self, task: Task, index: int) -> None:
        name = self._names[index]
        last_ms = self._last_open_ms(name)
        first_ms = last_ms - (min(first_pass_rows(name), self._depths[name]) - 1) * intervals.length_ms(name)
        missing = await self._missing(task.entry, index, first_ms, last_ms)
        if missing is None:
            return
        if index and first_ms < missing[0] and self._is_folded(missing[0]):
            self._put(Task(1, task.rank, next(self._numbers), task.entry, index, missing), _FOLD_S)
        else:
            await self._fetch(task.entry, index, *missing, is_fresh=missing == (first_ms, last_ms))

    def _is_folded(self, first_ms: int) -> bool:
        """Return whether the minutes that the first pass asks for reach back to a time.

        A higher bar that ended after the last one stored is then folded from them by the worker.
        """
        return first_ms > self._last_open_ms("1m") - (first_pass_rows("1m") - 1) * MINUTE_MS

    async def _first_pass_ended(self, task: Task) -> None:
        self._say_done(task)
        for index, name in enumerate(self._names):
            if await self._rows_wanted(task.entry, name) > first_pass_rows(name):
                self._put(Task(1, task.rank, next(self._numbers), task.entry, index))

    async def _depth(self, task: Task, index: int) -> None:
        name = self._names[index]
        length_ms = intervals.length_ms(name)
        wanted = await self._rows_wanted(task.entry, name)
        for first_ms, last_ms in pages(self._last_open_ms(name), length_ms, first_pass_rows(name), wanted):
            await self._fetch_missing(task.entry, index, first_ms, last_ms)

    async def _last_rows(self, entry: Entry, index: int) -> None:
        """Fetch what a symbol's series ended with, for the archive alone."""
        name = self._names[index]
        last_ms, count = self._last_open_ms(name), _LAST_MINUTES if index == 0 else _LAST_ROWS
        first_ms = last_ms - (count - 1) * intervals.length_ms(name)
        rows = await self._source.fetch(entry, name, first_ms, last_ms, Priority.BACKFILL)
        await self._store(name, rows)
        self._tally.fetched(len(rows))

    async def _missing(self, entry: Entry, index: int, first_ms: int, last_ms: int) -> tuple[int, int] | None:
        """Return the smallest range that neither the worker's history nor the archive holds.

        Each is given what only the other holds: history may have been filled by an historian that was killed
        before the same rows had reached the archive, or from a snapshot.
        """
        name = self._names[index]
        length_ms = intervals.length_ms(name)
        origin_ms = self._source.origin_ms(entry)
        if origin_ms is not None:
            first_ms = max(first_ms, intervals.open_time_of(name, origin_ms))
        held = self._views[entry.worker].history(entry.local_slot, index, first_ms, last_ms)
        # A bar that was read young, and is not the worker's own fold, waits to be read again.
        held = held[(held["state"] == lay.STATE_CONFIRMED) | (held["flags"] & lay.FLAG_DERIVED != 0)]
        known = await self._archived.confirmed(entry, name, first_ms, last_ms, self._now_ms())
        confirmed = held[held["state"] == lay.STATE_CONFIRMED]
        await self._store(name, confirmed[~np.isin(confirmed["open_time"], known["open_time"])])
        known = known[~np.isin(known["open_time"], held["open_time"])]
        self._tally.known(len(known))
        await self._to_worker(entry, index, known)
        times = held["open_time"].tolist() + known["open_time"].tolist()
        return missing_range(times, first_ms, last_ms, length_ms)

    async def _fetch_missing(
        self, entry: Entry, index: int, first_ms: int, last_ms: int, *, is_second: bool = False
    ) -> None:
        missing = await self._missing(entry, index, first_ms, last_ms)
        if missing is not None:
            is_fresh = missing == (first_ms, last_ms)
            await self._fetch(entry, index, *missing, is_fresh=is_fresh, is_second=is_second)

    async def _fetch(
        self, entry: Entry, index: int, first_ms: int, last_ms: int, *, is_fresh: bool, is_second: bool = False
    ) -> None:
        name = self._names[index]
        fetch = self._source.fetch_some if is_fresh else self._source.fetch
        rows = await fetch(entry, name, first_ms, last_ms, Priority.BACKFILL)
        await self._store(name, rows)
        self._tally.fetched(len(rows))
        await self._to_worker(entry, index, rows)
        young = rows[rows["state"] != lay.STATE_CONFIRMED]["open_time"]
        if index and len(young) and not is_second:
            span = int(young[0]), int(young[-1])
            final_ms = span[1] + intervals.length_ms(name) + CONFIRM_AGE_MS
            pause_s = max(0.0, (final_ms - self._now_ms()) / 1000)
            self._put(Task(1, 0, next(self._numbers), entry, index, span, is_second=True), pause_s)

    async def _to_worker(self, entry: Entry, index: int, rows: Rows) -> None:
        # A series' history is a ring by time: an older row would overwrite a newer one.
        length_ms = intervals.length_ms(self._names[index])
        oldest_held_ms = self._last_open_ms(self._names[index]) - (self._layout.history_rows[index] - 3) * length_ms
        await self._inboxes[entry.worker].bulk(rows[rows["open_time"] >= oldest_held_ms])

    async def _store(self, name: str, rows: Rows) -> None:
        if name in self._retention_days:
            rows = rows[rows["open_time"] >= self._now_ms() - self._retention_days[name] * _DAY_MS]
        await self._log.bulk(rows)

    # Bookkeeping

    async def _rows_wanted(self, entry: Entry, name: str) -> int:
        """Return the depth of a new series; of a known one, what reaches back to its first break if that is more."""
        length_ms, last_ms = intervals.length_ms(name), self._last_open_ms(name)
        whole_until_ms = await self._archived.whole_until_ms(entry, name, last_ms - _MEND_MS)
        behind = (last_ms - whole_until_ms) // length_ms if whole_until_ms is not None else 0
        return max(self._depths[name], behind)

    def _last_open_ms(self, name: str) -> int:
        """Return the open time of the newest bar that has ended."""
        return intervals.open_time_of(name, self._now_ms()) - intervals.length_ms(name)

    def _put(self, task: Task, pause_s: float = 0.0) -> None:
        self._tally.opened()
        if pause_s:
            asyncio.get_running_loop().call_later(pause_s, self._queue.put_nowait, task)
        else:
            self._queue.put_nowait(task)

    def _retry(self, task: Task, error: ExchangeError) -> None:
        # What is about this task may be final (a symbol that serves no klines); all else is about
        # the way to the exchange, and passes: errors of the server, pages, answers cut short.
        if isinstance(error, RowsRefused) or (isinstance(error, ExchangeRefused) and error.is_about_request):
            task.tries += 1
            _log.info("backfill refused symbol=%s try=%d: %s", task.entry.name, task.tries, error)
            if task.tries >= _TRIES:
                _log.warning("backfill given up symbol=%s tries=%d: %s", task.entry.name, task.tries, error)
                self._give_up(task)
                return
            if task.tries == 1:
                self._say_done(task)  # the worker need not wait for what may never come
        else:
            self._health.failed("backfill", error)
        pause_s = task.backoff.next_s()
        if isinstance(error, IpBanned):
            pause_s = max(pause_s, (error.until_ms - self._now_ms()) / 1000)
        asyncio.get_running_loop().call_later(pause_s, self._queue.put_nowait, task)

    def _give_up(self, task: Task) -> None:
        self._say_done(task)
        self._tally.closed(task.entry.name, failed=True)

    def _say_done(self, task: Task) -> None:
        """Tell the worker, once the first pass is over, that no more of it will come."""
        if task.interval is None:
            self._inboxes[task.entry.worker].append(command(lay.COMMAND_HISTORY_DONE, task.entry.slot))
