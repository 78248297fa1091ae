"""The historian's process: clock, listings, backfill, repair and market watch in one event loop.

Nothing that the exchange answers, or fails to, ends it. A task that stops for a reason nobody
thought of is logged, left in the error text and started again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from klshm.errors import ExchangeError
from klshm.exchange.backoff import Backoff
from klshm.exchange.budget import shared_purse
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.rest import RestClient
from klshm.historian.archived import Archived
from klshm.historian.backfill import Backfill
from klshm.historian.health import Health
from klshm.historian.inbox import historian_log, worker_inbox
from klshm.historian.listings import Listings
from klshm.historian.needs import Needs
from klshm.historian.source import RowSource
from klshm.historian.symbols import SymbolBook
from klshm.historian.timesync import ExchangeClock, TimeSync, next_second_30_ms
from klshm.historian.watch import MarketWatch
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.store.names import archive_path, data_directory


__all__ = ["Historian", "serve"]

_log = logging.getLogger(__name__)

_TURN_S: Final = 0.05
_SILENCE_S: Final = 8.0
_REPAIRS: Final = 8


async def serve(role: Role) -> None:
    """Run the historian until its role is asked to stop.

    Args:
        role: Kind "historian".
    """
    role.begin()
    try:
        with role.stop.in_loop() as stopped:
            async with Historian(role) as historian:
                await historian.run(stopped)
    finally:
        role.enter(lay.ROLE_STOPPED)
        role.heartbeat()


class Historian:
    """All parts of the historian, wired; an async context manager.

    Args:
        role: Its role.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        config, segment = role.config, role.segment
        self.governor = Governor(config.exchange.weight_share, config.exchange.backfill_weight_share)
        self.clock = ExchangeClock(segment)
        now_ms = self.clock.now_ms
        self.health = Health(role)
        repairs = max(_REPAIRS, config.historian.concurrency)
        self.client = RestClient(
            config.exchange,
            self.governor,
            now_ms,
            connections=repairs + config.historian.concurrency,
            purse=shared_purse(config.exchange),
        )
        self.timesync = TimeSync(segment, self.clock, self._ask_time)
        self.inboxes = [worker_inbox(segment, worker, role.crash) for worker in range(segment.layout.workers)]
        self.log = historian_log(segment, role.crash)
        self.book = SymbolBook(segment)
        source = RowSource(self.client, self.inboxes, self.health, now_ms)
        self.archived = Archived(archive_path(data_directory(config)) if config.historian.from_archive else None)
        self.backfill = Backfill(
            segment,
            config.historian,
            source,
            self.inboxes,
            self.log,
            self.health,
            now_ms,
            self.archived,
            config.store.retention_days,
        )
        self.needs = Needs(
            segment,
            self.book,
            source,
            self.inboxes,
            self.health,
            self.governor,
            self.clock,
            concurrency=repairs,
            margin_ms=config.exchange.request_margin_ms,
        )
        self.listings = Listings(
            self.book,
            config.exchange,
            self.client,
            self.inboxes,
            self.health,
            now_ms,
            on_added=self.backfill.add,
            on_removed=self.backfill.remove,
        )
        self.watch = MarketWatch(
            role,
            segment,
            config.exchange,
            self.book,
            self.inboxes,
            self.health,
            now_ms,
            on_contract=self.listings.refresh,
        )
        self._measured = asyncio.Event()

    async def __aenter__(self) -> Historian:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.__aexit__(None, None, None)
        self.archived.close()

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped` is set, then hand over what is queued and return."""
        self.role.enter(lay.ROLE_CONNECTING)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "turns": self._turns,
            "silence": self._watch_silence,
            "clock": self._keep_clock,
            "listings": self._keep_listings,
            "backfill": self._keep_backfill,
            "needs": self._keep_needs,
            "watch": self._keep_watch,
        }
        tasks = [asyncio.create_task(self._keep(name, part), name=f"historian {name}") for name, part in parts.items()]
        await stopped.wait()
        self.role.enter(lay.ROLE_DRAINING)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        self._hand_over()

    async def _keep(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part, and again when it stops for a reason nobody thought of."""
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                await part()
                return
            except Exception as error:
                _log.exception("historian part failed part=%s", name)
                self.role.report_error(f"{name}: {error!r}")
                await asyncio.sleep(backoff.next_s())

    # The parts

    async def _turns(self) -> None:
        """Show life, move queued rows into their rings, publish levels."""
        # The rings' consumers move their cursors without waking anybody: looking is all there is.
        turn = 0
        while True:
            self.role.heartbeat()
            self.flush()
            if turn % 5 == 0:
                self._publish_levels()
            turn += 1
            await asyncio.sleep(_TURN_S)

    async def _watch_silence(self) -> None:
        """Say within ten seconds of the start that nothing answers."""
        await asyncio.sleep(_SILENCE_S)
        self.health.silent(_SILENCE_S, urlsplit(self.role.config.exchange.rest_url).netloc)

    async def _keep_clock(self) -> None:
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                sample = await self.timesync.measure()
            except ExchangeError as error:
                self.health.failed("clock", error)
                pause_s = backoff.next_s()
            else:
                backoff.reset()
                self.health.answered()
                if not self._measured.is_set():
                    _log.info("exchange clock measured error_ms=%.1f", sample.error_ns / 1e6)
                self._measured.set()
                self.client.gate.pump()
                pause_s = self.clock.seconds_until_sending(
                    next_second_30_ms(self.clock.arrival_ms()), self.role.config.exchange.request_margin_ms
                )
            await asyncio.sleep(pause_s)

    async def _keep_listings(self) -> None:
        await self._measured.wait()
        await self.listings.run()

    async def _keep_backfill(self) -> None:
        await self.listings.filled.wait()
        self.role.enter(lay.ROLE_LIVE)
        await self.backfill.run()

    async def _keep_needs(self) -> None:
        await self._measured.wait()
        await self.needs.run()

    async def _keep_watch(self) -> None:
        await self.listings.filled.wait()
        await self.watch.run()

    async def _ask_time(self) -> int:
        return await self.client.server_time(Priority.REPAIR)

    # Small things

    def flush(self) -> int:
        """Move queued rows into the rings, and return how many are left."""
        return sum(outlet.flush() for outlet in (*self.inboxes, self.log))

    def _publish_levels(self) -> None:
        counters, governor, now_ms = self.health.counters, self.governor, self.clock.now_ms()
        counters.set("requests_total", self.client.requests)
        counters.set("requests_failed_total", self.client.failures)
        counters.set("limited_total", self.client.limited)
        for priority, weight in self.client.weights.items():
            counters.set(f"weight_{priority.name.lower()}_total", weight)
        counters.set("weight_used", governor.used(now_ms))
        counters.set("weight_limit", governor.limit)
        counters.set("banned_until_ms", governor.banned_until_ms(now_ms))
        counters.set("clock_samples_total", self.timesync.samples)
        counters.set("clock_steps_total", self.timesync.steps)
        counters.set("queue_rows", sum(outlet.queued for outlet in (*self.inboxes, self.log)))

    def _hand_over(self) -> None:
        """Move what still fits; what does not is fetched again at the next start."""
        if left := self.flush():
            _log.info("historian stops with rows not taken rows=%d; they are fetched again at the next start", left)
