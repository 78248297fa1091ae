"""Backfill wired to an exchange of a test's own and a real segment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from klshm.config import ExchangeConfig, HistorianConfig
from klshm.exchange.governor import Governor
from klshm.exchange.rest import RestClient
from klshm.historian import tasks as tasks_module
from klshm.historian.archived import Archived
from klshm.historian.backfill import Backfill
from klshm.historian.health import Health
from klshm.historian.inbox import historian_log, worker_inbox
from klshm.historian.source import RowSource
from klshm.historian.symbols import SymbolBook
from tests.historian.support import Consumers, KlineServer, http_server, listing, make_role
from tests.support.segments import segment


M = 60_000
T0 = 5_800_000 * 5 * M + 2 * M + 35_000
NO_ARCHIVE = Archived(Path("/nonexistent"))


def now_ms() -> int:
    """Return a time that is not so close after the end of a bar that its row may still move."""
    return T0


class World:
    """Backfill wired to a made-up exchange and a real segment with three symbols."""

    def __init__(self, made: Any, server: KlineServer, client: RestClient, **config: Any) -> None:
        self.made, self.server, self.client = made, server, client
        self.retention_days = config.pop("retention_days", {})
        self.config = {"concurrency": 4, "bars_per_interval": {"default": 600, "1d": 50, "1w": 50}, **config}
        self.health = Health(make_role(made, "http://127.0.0.1:1"))
        self.counters = self.health.counters
        self.inboxes = [worker_inbox(made, w) for w in (0, 1)]
        self.book = SymbolBook(made)
        self.book.add([listing(n) for n in ("QUIET", "BUSY", "MEDIUM")], {"QUIET": 1, "BUSY": 900, "MEDIUM": 50})
        self.consumers = Consumers(made)
        self.backfill = self.make()

    def make(self) -> Backfill:
        """Return a backfill over the same segment, as a successor makes it."""
        self.log = historian_log(self.made)
        self.source = RowSource(self.client, self.inboxes, self.health, now_ms)
        return Backfill(
            self.made,
            HistorianConfig(**self.config),
            self.source,
            self.inboxes,
            self.log,
            self.health,
            now_ms,
            NO_ARCHIVE,
            self.retention_days,
        )

    async def until_idle(self, backfill: Backfill | None = None) -> None:
        """Run a backfill until nothing is left to ask for."""
        backfill = backfill or self.backfill
        task = asyncio.create_task(backfill.run())
        await self.consumers.until(lambda: not sum(o.flush() for o in (*self.inboxes, self.log)) and backfill.idle)
        self.consumers.take()
        task.cancel()
        await asyncio.wait([task])


def with_world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[World], Coroutine[Any, Any, None]],
    *,
    origin_ms: int = 0,
    **config: Any,
) -> None:
    """Run a test in a world of its own, whose exchange has klines from `origin_ms` on."""
    monkeypatch.setattr(tasks_module, "_PAUSE_S", (0.01, 0.02))

    async def run() -> None:
        server = KlineServer(origin_ms)
        with segment(tmp_path, monkeypatch) as made:
            async with http_server(server) as url:
                async with RestClient(ExchangeConfig(rest_url=url), Governor(), now_ms) as client:
                    await main(World(made, server, client, **config))

    asyncio.run(run())
