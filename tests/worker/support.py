"""Real parts for the worker's tests: a segment, a table of symbols, a clock, a worker in the test's own loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from klshm.config import Config, ExchangeConfig, RunConfig
from klshm.exchange.models import Listing
from klshm.historian.symbols import Entry, SymbolBook
from klshm.historian.timesync import ExchangeClock, TimeSync
from klshm.role import Role
from klshm.run.child import new_loop
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER, Counters
from klshm.shm.segment import Segment
from klshm.worker.process import Worker


MINUTE_MS = 60_000
NOW_MS = 1_795_176_020_000
_MOST_S = 280.0
_PATIENCE_S = 240.0


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test in the loop that workers use; its time is bounded here, as uvloop swallows what an alarm raises."""

    async def bounded() -> None:
        async with asyncio.timeout(_MOST_S):
            await main

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(bounded())


def listing(symbol: str, **more: Any) -> Listing:
    return Listing(symbol, 2, 3, "TRADING", symbol, "PERPETUAL", "USDT", **more)


def trade(symbol: str = "BTCUSDT", **changes: Any) -> dict[str, Any]:
    data = {"e": "aggTrade", "E": NOW_MS, "s": symbol, "a": 5, "p": "1.5", "q": "2", "f": 7, "l": 9, "T": NOW_MS}
    return {"stream": "x@aggTrade", "data": {**data, "m": True, **changes}}


def add(segment: Segment, *symbols: str) -> list[Entry]:
    """Write symbols into the table, as the historian does."""
    return SymbolBook(segment).add([listing(symbol) for symbol in symbols], {})


async def give_clock(segment: Segment) -> None:
    """Publish an exchange clock: this machine's own."""

    async def now() -> int:
        return time.time_ns() // 1_000_000

    await TimeSync(segment, ExchangeClock(segment), now).measure()


def role_of(segment: Segment, port: int, *, busy_poll: bool = False, **exchange: Any) -> Role:
    addresses = {"rest_url": f"http://127.0.0.1:{port}", "ws_url": f"ws://127.0.0.1:{port}"}
    config = Config(
        exchange=ExchangeConfig(**addresses, reconnect_max_s=1.0, **exchange),
        run=RunConfig(workers=1, busy_poll=busy_poll),
    )
    return Role("worker", 0, segment, config)


class Running:
    """A worker that runs."""

    def __init__(self, worker: Worker, task: asyncio.Task[None], stopped: asyncio.Event) -> None:
        self.worker = worker
        self.task = task
        self.counters = Counters(worker.role.block, WORKER)
        self._stopped = stopped

    @property
    def state(self) -> str:
        return lay.ROLE_STATE_NAMES[int(self.worker.role.block[lay.B_ROLE_STATE])]

    async def until(self, condition: Callable[[], object]) -> None:
        """Look again and again; a worker that ends meanwhile raises what ended it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not condition():
            if self.task.done():
                self.task.result()
                raise AssertionError("the worker has ended")
            if time.monotonic() > deadline_s:
                raise AssertionError(f"not within {_PATIENCE_S:.0f} s; counters {self.counters.as_dict()}")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        self._stopped.set()
        await self.task


@asynccontextmanager
async def running(role: Role) -> AsyncIterator[Running]:
    """Run a worker until the block is left."""
    stopped = asyncio.Event()
    worker = Worker(role)
    run = Running(worker, asyncio.create_task(worker.run(stopped)), stopped)
    try:
        yield run
    finally:
        await run.stop()
