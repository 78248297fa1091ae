"""A worker in its loop: against the simulator, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from klshm.historian.process import Historian
from klshm.historian.symbols import SymbolBook
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.consumer import RingConsumer
from klshm.shm.segment import Segment
from klshm.shm.view import PartitionView, SymbolTable
from tests.support.exchange import Exchange, exchange
from tests.support.servers import stream_server
from tests.worker.support import MINUTE_MS, Running, add, give_clock, role_of, run, running, trade


@asynccontextmanager
async def historian(role: Role) -> AsyncIterator[Historian]:
    """Run the historian of a worker's segment until the block is left."""
    stopped = asyncio.Event()
    async with Historian(Role("historian", 0, role.segment, role.config)) as serving:
        task = asyncio.create_task(serving.run(stopped))
        try:
            yield serving
        finally:
            stopped.set()
            await task


def fault(market: Exchange, **parameters: Any) -> Any:
    """Make a fault without blocking the loop, so that the worker goes on."""
    return asyncio.to_thread(market.fault, **parameters)


async def said(market: Exchange, at: Running, symbol: str, status: str) -> None:
    """Wait until the exchange says so of a symbol."""
    while True:
        info = await asyncio.to_thread(market.get, "/fapi/v1/exchangeInfo")
        if {row["symbol"]: row["status"] for row in info["symbols"]}.get(symbol) == status:
            return


async def traded(at: Running, more: int = 20) -> None:
    """Wait until so many more trades have been applied."""
    before = at.counters.get("trades_total")
    await at.until(lambda: at.counters.get("trades_total") >= before + more)


def test_a_worker_serves_and_comes_back_after_a_lost_connection(made: Segment) -> None:
    async def main(market: Exchange) -> None:
        role = role_of(made, market.port)
        async with running(role) as at, historian(role):
            await at.until(lambda: at.state == "live")
            view, slot = PartitionView(made, 0), 0
            await at.until(lambda: view.live_row(slot, 0)["trade_count"] > 0)
            await traded(at)
            await fault(market, name="close")
            await at.until(lambda: at.counters.get("disconnects_total") == 1)
            await at.until(lambda: at.counters.get("connects_total") == 2)
            await traded(at)
            assert at.state == "live"
        assert at.state == "draining"  # `serve` says stopped
        assert at.counters.get("decode_errors_total") == 0
        assert at.counters.get("refused_total") == 0

    with exchange("--symbols", "4", "--rate", "300") as market:
        run(main(market))


def test_symbols_are_listed_and_delisted_while_it_runs(made: Segment) -> None:
    async def main(market: Exchange) -> None:
        role, table = role_of(made, market.port), SymbolTable(made)
        view = PartitionView(made, 0)
        async with running(role) as at, historian(role) as serving:
            await at.until(lambda: at.state == "live")
            assert at.worker.intake.symbols == 4
            await fault(market, name="list_symbol", symbol="新币USDT", delay_s=0.5, trades_per_s=50)
            await said(market, at, "新币USDT", "TRADING")
            serving.listings.refresh()
            await at.until(lambda: at.worker.intake.symbols == 5)
            slot = table.find("新币USDT")
            local = int(table.row(slot)["local_slot"])
            await at.until(lambda: view.live_row(local, 0)["trade_count"] > 0)
            assert at.counters.get("connects_total") == 1  # over the connection that was there

            await fault(market, name="delist_symbol", symbol="新币USDT", delay_s=0)
            await said(market, at, "新币USDT", "SETTLING")
            for _ in range(2):  # one answer alone removes nothing
                answered = serving.client.requests
                serving.listings.refresh()
                await at.until(lambda before=answered: serving.client.requests > before)  # type: ignore[misc]
            await at.until(lambda: at.worker.intake.symbols == 4)
            assert int(table.row(slot)["status"]) == lay.SYMBOL_DELISTED
            assert int(view.live_row(local, 0)["trade_count"]) >= 0  # its rows stay
            await traded(at)

    with exchange("--symbols", "4", "--rate", "100") as market:
        run(main(market))


def test_a_restarted_worker_carries_halted_symbols(made: Segment) -> None:
    async def main() -> None:
        entries = add(made, "BTCUSDT", "ETHUSDT")
        await give_clock(made)
        async with stream_server() as server:
            async with running(role_of(made, server.port)) as at:
                await server.until(lambda: len(server.streams) == 4)
                SymbolBook(made).replace([dataclasses.replace(entries[1], status=lay.SYMBOL_HALTED)])
            server.requests.clear()
            async with running(role_of(made, server.port)) as at:
                await server.until(lambda: "ethusdt@kline_1m" in server.streams)
                assert at.worker.intake.symbols == 2
                await server.sockets[-1].send_json(
                    trade("ETHUSDT", E=int(time.time() * 1000), T=int(time.time() * 1000))
                )
                await at.until(lambda: at.counters.get("trades_total") == 1)

    run(main())


def test_a_worker_without_symbols_is_live_all_the_same(shared: Segment) -> None:
    async def main() -> None:
        await give_clock(shared)
        async with running(Role("worker", 1, shared, role_of(shared, 9).config)) as at:
            await at.until(lambda: at.state == "connecting")
            await asyncio.sleep(0.6)  # two checks: an empty table says nothing yet
            assert at.state == "connecting"
            add(shared, "BTCUSDT")
            await at.until(lambda: at.state == "live")

    run(main())


def test_hostile_events_are_refused_and_the_worker_goes_on(made: Segment) -> None:
    async def main() -> None:
        add(made, "BTCUSDT")
        await give_clock(made)
        if time.time() % 60 > 50:  # all of it within one minute
            await asyncio.sleep(60 - time.time() % 60)
        now_ms = int(time.time() * 1000)
        good = {"E": now_ms, "T": now_ms}
        hostile = [
            {"a": -5}, {"f": 9, "l": 3}, {"p": "0"}, {"q": "0"}, {"p": "999999999999999999"},
            {"T": -1}, {"T": 2**62}, {"E": 2**62}, {"E": -(2**62)}, {"T": now_ms + 10**9}, {"f": -1}, {"l": 2**63 - 1},
        ]  # fmt: skip
        async with stream_server() as server, running(role_of(made, server.port)) as at:
            await server.until(lambda: len(server.requests) == 1)
            await server.sockets[0].send_json(trade(**good))
            await at.until(lambda: at.counters.get("trades_total") == 1)
            before = PartitionView(made, 0).live_row(0, 0)
            for number, change in enumerate(hostile):
                await server.sockets[0].send_json(trade(**{**good, "a": 6 + number, "f": 10, "l": 10, **change}))
                await asyncio.sleep(0.02)  # a batch of its own
            await server.sockets[0].send_str("no JSON")
            await at.until(lambda: at.counters.get("decode_errors_total") == 1)
            await at.until(lambda: at.counters.get("refused_total") + at.counters.get("overflows_total") >= 8)
            after = PartitionView(made, 0).live_row(0, 0)
            assert (after["high"], after["low"]) == (before["high"], before["low"]) == (1.5, 1.5)
            await server.sockets[0].send_json(trade(**good, a=100, f=200, l=200, p="1.6"))
            await at.until(lambda: PartitionView(made, 0).live_row(0, 0)["high"] == 1.6)

    run(main())


def test_a_late_change_is_logged_when_the_worker_stops(made: Segment) -> None:
    """No minute end comes any more that would log it."""

    async def main() -> None:
        add(made, "BTCUSDT")
        await give_clock(made)
        log = made.layout.log_offset(0) // 8
        words = made.words[log : log + made.layout.log_rows * lay.ROW_WORDS]
        block = made.block(made.layout.partition_offset(0))
        entries = RingConsumer(words, block[lay.B_TAIL : lay.B_TAIL + 1], 0)
        async with stream_server() as server, running(role_of(made, server.port)) as at:
            await server.until(lambda: len(server.requests) == 1)
            await at.until(lambda: at.worker.clock.settled_ms == at.worker.clock.ticked_ms > 0)
            ended = at.worker.clock.ticked_ms
            for number in range(3):
                late = {"E": ended + 500, "T": ended - 1000, "a": 5 + number, "f": 10 + number, "l": 10 + number}
                await server.sockets[0].send_json(trade(**late))
                await at.until(lambda more=number: at.counters.get("trades_total") == more + 1)
        rows = entries.take()
        logged = rows[(rows["open_time"] == ended - MINUTE_MS) & (rows["interval"] == 0)]
        assert logged["trade_count"].tolist()[-1] == 3
        stored = PartitionView(made, 0).history(0, 0, ended - MINUTE_MS, ended)
        assert logged["revision"][-1] == stored["revision"][0]

    run(main())


def test_busy_polling_serves_and_stops(made: Segment) -> None:
    async def main(market: Exchange) -> None:
        role = role_of(made, market.port, busy_poll=True)
        async with running(role) as at, historian(role):
            await at.until(lambda: at.state == "live")
            await traded(at)
            began_s, turns = time.monotonic(), at.worker._turns
            await at.until(lambda: at.worker._turns > turns + 10_000)
            swaps = (time.monotonic() - began_s) / 0.05
            assert 10_000 > 10 * swaps, "it does not spin: timers alone turn the loop once a swap"
            beat = int(role.block[lay.B_HEARTBEAT_NS])
            await at.until(lambda: int(role.block[lay.B_HEARTBEAT_NS]) > beat)
        turns = at.worker._turns
        await asyncio.sleep(0.05)
        assert at.worker._turns <= turns + 1  # and no more once it has ended

    with exchange("--symbols", "2", "--rate", "200") as market:
        run(main(market))


def test_the_loop_turns_while_the_exchange_stands_still(made: Segment) -> None:
    async def main(market: Exchange) -> None:
        role = role_of(made, market.port)
        async with running(role) as at, historian(role):
            await at.until(lambda: at.state == "live")
            os.kill(market.process.pid, signal.SIGSTOP)
            try:
                for _ in range(20):  # every swap shows life, though nothing answers any more
                    beat = int(role.block[lay.B_HEARTBEAT_NS])
                    await at.until(lambda beat=beat: int(role.block[lay.B_HEARTBEAT_NS]) > beat)  # type: ignore[misc]
                closed = PartitionView(made, 0).cut().closed_through_ms
                end = MINUTE_MS - time.time_ns() // 1_000_000 % MINUTE_MS
                if end < 5_000:  # a minute ends soon enough to see it closed by the clock alone
                    await at.until(lambda: PartitionView(made, 0).cut().closed_through_ms > closed)
            finally:
                os.kill(market.process.pid, signal.SIGCONT)
            await traded(at)

    with exchange("--symbols", "2", "--rate", "200") as market:
        run(main(market))


def test_a_mute_stream_is_said(made: Segment, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("klshm.worker.process._SILENT_S", 0.3)

    async def main() -> None:
        add(made, "BTCUSDT")
        await give_clock(made)
        async with stream_server() as server, running(role_of(made, server.port)) as at:
            await at.until(lambda: "stream silent worker=0" in caplog.text)
            assert "acknowledged its subscriptions and has sent nothing" in caplog.text
            assert "check exchange.ws_url" in caplog.text
            assert at.state == "connecting"
            before = caplog.text.count("stream silent")
            await asyncio.sleep(0.6)
            assert caplog.text.count("stream silent") == before  # once, not four times a second
            assert server.handshakes == 1

    run(main())
