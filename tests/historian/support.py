"""Real parts for the historian's tests: a role, consumers of its rings, servers of klines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiohttp import web

from klshm import intervals
from klshm.config import Config, ExchangeConfig, HistorianConfig
from klshm.exchange.models import Listing
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.layout import KLINE, ROW_BYTES
from klshm.shm.segment import Segment


def listing(name: str, onboard_ms: int = 1, **changes: object) -> Listing:
    fields = {"status": "TRADING", "pair": name, "contract_type": "PERPETUAL", "delivery_date": 9}
    return Listing(name, 2, 3, **{**fields, **changes}, onboard_date=onboard_ms)  # type: ignore[arg-type]


def make_role(made: Segment, rest_url: str, **historian: Any) -> Role:
    exchange = ExchangeConfig(rest_url=rest_url, connect_timeout_s=2.0)
    return Role("historian", 0, made, Config(exchange=exchange, historian=HistorianConfig(**historian)))


class SetClock:
    """An exchange clock that the test sets.

    Args:
        now_ms: Returns the exchange's time, UTC ms.
        lead_ms: How long a request takes to get there.
    """

    def __init__(self, now_ms: Callable[[], int], lead_ms: int = 0) -> None:
        self.now_ms = now_ms
        self._lead_ms = lead_ms

    def arrival_ms(self) -> int:
        return self.now_ms() + self._lead_ms

    def seconds_until_sending(self, arrive_ms: int, margin_ms: int) -> float:
        return (arrive_ms + margin_ms - self.arrival_ms()) / 1000


class Consumers:
    """Takes what the historian sends, as workers and persister would, moving their cursors."""

    def __init__(self, made: Segment) -> None:
        layout = made.layout
        block = made.block(layout.historian_offset)
        self._rings = [
            (
                RingConsumer(
                    made.region(layout.inbox_offset(w), layout.inbox_rows * ROW_BYTES),
                    block[lay.B_INBOX_TAILS + w : lay.B_INBOX_TAILS + w + 1],
                ),
                made.block(layout.partition_offset(w)),
            )
            for w in range(layout.workers)
        ]
        log = made.region(layout.historian_log_offset, layout.historian_log_rows * ROW_BYTES)
        self._log = RingConsumer(log, block[lay.B_TAIL : lay.B_TAIL + 1])
        self._persister = made.block(layout.persister_offset)
        self.inbox = [np.empty(0, dtype=KLINE) for _ in self._rings]
        self.log = np.empty(0, dtype=KLINE)

    def take(self) -> None:
        for worker, (ring, block) in enumerate(self._rings):
            self.inbox[worker] = np.concatenate((self.inbox[worker], ring.take()))
            block[lay.B_CURSOR] = ring.cursor
            assert ring.lost == 0
        self.log = np.concatenate((self.log, self._log.take()))
        self._persister[lay.B_CURSOR] = self._log.cursor
        assert self._log.lost == 0

    @property
    def all(self) -> np.ndarray[Any, Any]:
        return np.concatenate(self.inbox)

    def commands(self, kind: int) -> np.ndarray[Any, Any]:
        rows = self.all
        return rows[(rows["interval"] == lay.INTERVAL_COMMAND) & (rows["state"] == kind)]

    def rows(self, slot: int, interval: str) -> np.ndarray[Any, Any]:
        rows = self.all
        return rows[(rows["interval"] == intervals.code_of(interval)) & (rows["slot"] == slot)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take rows until a condition holds; the rings have no waiters, so this looks every few ms."""
        while True:
            self.take()
            if condition():
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def http_server(handler: Callable[[web.Request], web.StreamResponse]) -> AsyncIterator[str]:
    """A small exchange of a test's own; yields its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return handler(request)

    app = web.Application()
    app.router.add_route("GET", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class KlineServer:
    """Serves made-up klines of any symbol from `origin_ms` on, but for the `gaps`."""

    def __init__(self, origin_ms: int) -> None:
        self.origin_ms = origin_ms
        self.gaps: set[int] = set()
        self.spoil: Callable[[list[list[Any]]], list[list[Any]]] = lambda rows: rows
        self.refusal: tuple[int, Any] | None = None
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append(query)
        if self.refusal is not None:
            return web.json_response(self.refusal[1], status=self.refusal[0])
        length, limit = intervals.length_ms(query["interval"]), int(query["limit"])
        start = max(int(query["startTime"]), intervals.open_time_of(query["interval"], self.origin_ms))
        first = intervals.open_time_of(query["interval"], start + length - 1)
        end = int(query.get("endTime", first + limit * length))
        opens = [t for t in range(first, end + 1, length) if t not in self.gaps][:limit]
        rows = [[t, "2", "3", "1", "2", "5", t + length - 1, "10", 4, "2", "4", "0"] for t in opens]
        return web.json_response(self.spoil(rows))
