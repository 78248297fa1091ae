"""A worker's process: one event loop, one engine, the only writer of its partition.

One turn: the frames that have arrived become a batch of events, the engine applies the batch,
readers are woken. Timers add the ticks of the exchange's clock, the swaps and the checks. Nothing
here may block.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from klshm.core.clock import MinuteClock
from klshm.core.engine import Engine
from klshm.core.events import CHECK, EVENT, SETTLE, TICK
from klshm.core.messages import EventBatch
from klshm.role import Role
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER, Counters
from klshm.shm.view import read_clock
from klshm.worker.inbox import Inbox
from klshm.worker.intake import Intake
from klshm.worker.lag import LagMeter


__all__ = ["Worker", "every", "serve"]

_log = logging.getLogger(__name__)

_INBOX_S: Final = 0.02
_CHECK_S: Final = 0.25
_CLOCK_WAIT_S: Final = 10.0
_EARLY_MS: Final = 2
"""The loop's timers are whole milliseconds: ticks are armed early, then the time is looked at every turn."""
_CLOCK_LOOK_MS: Final = 100
_SILENT_S: Final = 10.0
_SPIN_HEARTBEAT: Final = 1000


async def serve(role: Role) -> None:
    """Run a worker until its role is asked to stop.

    Args:
        role: Kind "worker".
    """
    role.begin()
    worker = Worker(role)
    try:
        with role.stop.in_loop() as stopped:
            await worker.run(stopped)
    finally:
        role.enter(lay.ROLE_STOPPED)


class Worker:
    """Wires sockets, engine, timers and inbox of one worker.

    Args:
        role: Its role.
    """

    def __init__(self, role: Role) -> None:
        config, segment = role.config, role.segment
        self.role = role
        self.segment = segment
        self.engine = Engine(
            segment.words,
            segment.layout,
            role.index,
            amend_minutes=config.klines.amend_minutes,
        )
        self.counters = Counters(role.block, WORKER)
        self.batch = EventBatch()
        self.clock = MinuteClock(config.klines.settle_ms)
        self.lag = LagMeter()
        self.intake = Intake(
            config.exchange, role.name, self.batch, self.counters, self._schedule, lambda: int(self._now_ms())
        )
        self.inbox = Inbox(segment, role.index, self.intake.add, self.intake.remove)
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._offset_ns = 0
        self._error_ms = 0.0
        self._clock_known = False
        self._began_ns = time.monotonic_ns()
        word = segment.layout.partition_offset(role.index) // 8
        self._wake_tail = futex.Waker(segment.words, word + lay.B_TAIL)
        self._wake_cut = futex.Waker(segment.words, word + lay.B_GENERATION)
        self._turns = 0
        self._warned_silent: set[int] = set()

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped` is set, then publish what is held and return."""
        adopted = self.engine.recover()
        self.engine.crash_at(self.role.crash.word)
        if adopted:
            _log.info("log entries of the worker before this one adopted worker=%d rows=%d", self.role.index, adopted)
        self.role.enter(lay.ROLE_CONNECTING)
        timers = [every(self._swap_s(), self._swap), every(_INBOX_S, self._take_inbox)]
        timers += [every(_CHECK_S, self._check), self._keep_minutes()]
        tasks = [asyncio.create_task(timer) for timer in timers]
        self._add_known_symbols()
        if self.role.config.run.busy_poll:
            self._spin()
        stopping = asyncio.create_task(stopped.wait())
        waited: list[asyncio.Task[Any]] = [stopping, *tasks]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # a timer never ends by itself: raise what ended it
        finally:
            self.role.enter(lay.ROLE_DRAINING)
            for task in waited:
                task.cancel()
            await self.intake.close()
            self._flush()
            self._log_late_changes()
            self.engine.publish(time.monotonic_ns())
            self._wake_cut()

    # The exchange's time

    def _now_ms(self) -> float:
        if not self._clock_known:
            return time.time_ns() / 1e6
        return (time.monotonic_ns() + self._offset_ns) / 1e6

    def _look_at_clock(self) -> None:
        clock = read_clock(self.segment)
        if clock is not None:
            self._offset_ns = clock.offset_ns
            self._error_ms = clock.error_ns / 1e6
            if not self._clock_known:
                self._clock_known = True
                _log.info(
                    "exchange clock taken worker=%d error_ms=%.1f offset_ms=%.0f",
                    *(self.role.index, self._error_ms, (clock.offset_ns - time.time_ns() + time.monotonic_ns()) / 1e6),
                )

    @property
    def _may_tick(self) -> bool:
        """Whether there is a clock to tick by: the exchange's, or after a while this machine's own."""
        return self._clock_known or time.monotonic_ns() - self._began_ns > _CLOCK_WAIT_S * 1e9

    # One turn

    def _schedule(self) -> None:
        """Apply the batch at the end of this turn of the loop, once for all frames that came in it."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self.intake.read()
        if self.batch.count:
            words, number = self.batch.take_words()
            now_ms = self._now_ms()
            self._tell(self.engine.apply_words(words, number, int(now_ms), time.monotonic_ns()))
            self.lag.add(now_ms, words, number)

    def _apply(self, events: np.ndarray[Any, Any], now_ms: int) -> None:
        self._tell(self.engine.apply(events, now_ms, time.monotonic_ns()))

    def _tell(self, log_entries: int) -> None:
        if log_entries:
            self._wake_tail()
            self.role.crash.passing("worker.waiters_woken")

    # Timers

    def _swap_s(self) -> float:
        return self.role.config.segment.swap_interval_ms / 1000

    def _swap(self) -> None:
        self._flush()
        if self.engine.publish(time.monotonic_ns()):
            self._wake_cut()
        self.role.heartbeat()
        self.role.block[lay.B_LAST_TURN_NS] = time.monotonic_ns()

    def _take_inbox(self) -> None:
        if not self._clock_known:
            self._look_at_clock()
        if self.inbox.waits:
            self._take_waiting()
        if self._may_tick:
            self.intake.start()

    def _take_waiting(self) -> None:
        events = self.inbox.take()
        if len(events):
            self._flush()
            self._apply(events, int(self._now_ms()))
            self.counters.add("inbox_rows_total", len(events))
        self.inbox.done()

    def _check(self) -> None:
        event = np.zeros(1, dtype=EVENT)
        event["kind"] = CHECK
        self._apply(event, int(self._now_ms()))
        self.lag.measure()
        self.engine.set_lag(self.lag.p99_ms)
        self.counters.set("lag_p50_us", self.lag.p50_us)
        self.counters.set("lag_p99_us", self.lag.p99_us)
        self.intake.check()
        self.intake.publish_counters()
        if int(self.role.block[lay.B_ROLE_STATE]) == lay.ROLE_CONNECTING and self._is_live():
            self.role.enter(lay.ROLE_LIVE)
        silent = set(self.intake.silent_links(_SILENT_S))
        for number in silent - self._warned_silent:
            text = (
                f"stream {number} acknowledged its subscriptions and has sent nothing for {_SILENT_S:.0f} s; "
                "its bars are flagged partial; check exchange.ws_url"
            )
            _log.error("stream silent worker=%d: %s", self.role.index, text)
            self.role.report_error(text)
        self._warned_silent = silent

    def _is_live(self) -> bool:
        """Return whether every connection has shown a frame; with more workers than symbols some have none."""
        return self.intake.live or (self.intake.symbols == 0 and self.inbox.is_idle())

    async def _keep_minutes(self) -> None:
        """Tick and settle on the exchange's clock."""
        while True:
            now_ms = self._now_ms()
            if self._may_tick:
                self._minute_moments(now_ms)
            due_ms = self.clock.next_due_ms(self._error_ms, self.lag.p99_ms) - now_ms
            # At least one turn of the loop lies between two looks, so readable sockets are drained first.
            if due_ms <= _EARLY_MS:
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(min(due_ms - _EARLY_MS, _CLOCK_LOOK_MS) / 1000)
                self._look_at_clock()

    def _minute_moments(self, now_ms: float) -> None:
        if self.clock.tick(now_ms, self._error_ms):
            self._flush()
            self._tick(now_ms)
            self._wake_cut()
        end = self.clock.settle(now_ms, self.lag.p99_ms)
        if end:
            self._flush()
            event = np.zeros(1, dtype=EVENT)
            event["kind"], event["open_time"] = SETTLE, end
            self._apply(event, int(now_ms))
            self._wake_tail()

    def _tick(self, now_ms: float) -> None:
        event = np.zeros(1, dtype=EVENT)
        event["kind"], event["time"] = TICK, self.clock.ticked_ms
        self._apply(event, int(now_ms))

    def _log_late_changes(self) -> None:
        """Log what no next minute end will: the last tick again closes nothing, and logs what changed since."""
        if self.clock.ticked_ms:
            self._tick(self._now_ms())

    def _spin(self) -> None:
        """Keep the loop from sleeping: whoever owns a core saves the time of waking up."""
        self._turns += 1
        if self._turns % _SPIN_HEARTBEAT == 0:
            self.role.heartbeat()
        if int(self.role.block[lay.B_ROLE_STATE]) < lay.ROLE_DRAINING:
            self._loop.call_soon(self._spin)

    def _add_known_symbols(self) -> None:
        events = self.inbox.known_symbols()
        if len(events):
            self._look_at_clock()
            self._apply(events, int(self._now_ms()))


async def every(period_s: float, action: Callable[[], None]) -> None:
    """Call an action now and at the multiples of a period of the wall clock, each once, for ever.

    Args:
        period_s: Seconds; more than the granularity of the loop's timers.
        action: It may take longer than the period: multiples that have passed meanwhile are left out.
    """
    while True:
        action()
        now_s = time.time()
        multiple = (now_s + _EARLY_MS / 1000) // period_s  # it may be a little before the one that is meant
        await asyncio.sleep((multiple + 1) * period_s - now_s)
