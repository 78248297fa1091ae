"""The whole historian against the simulator, with real rings."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from klshm import intervals
from klshm.historian import process as process_module
from klshm.historian.process import Historian, serve
from klshm.shm import layout as lay
from klshm.shm.counters import HISTORIAN, Counters
from klshm.shm.exact import split
from klshm.shm.view import SymbolTable, read_clock
from tests.historian.support import Consumers, make_role
from tests.support.exchange import exchange
from tests.support.processes import PROJECT, open_files
from tests.support.segments import INTERVALS, segment
from tests.support.servers import free_port


def test_fills_table_clock_and_history_of_every_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main() -> None:
        # No bar above a minute has just ended: what is read young is read twice.
        options = ("--symbols", "6", "--rate", "50", "--start-at", "2026-11-20T12:02:35Z")
        with exchange(*options) as sim, segment(tmp_path, monkeypatch) as made:
            role = make_role(made, sim.rest_url)
            consumers, table = Consumers(made), SymbolTable(made)
            counters = Counters(role.block, HISTORIAN)
            task = asyncio.create_task(serve(role))
            await consumers.until(
                lambda: (
                    len(consumers.commands(lay.COMMAND_HISTORY_DONE)) == table.count > 0
                    and counters.get("backfill_done") == counters.get("backfill_tasks")
                )
            )
            assert role.block[lay.B_ROLE_STATE] == lay.ROLE_LIVE
            clock = read_clock(made)
            assert clock is not None
            before_ms, server_ms, after_ms = clock.now_ms(), sim.now_ms(), clock.now_ms()
            error_ms = clock.error_ns / 1e6 + 20  # of the clock, and of what drifts since it was measured
            assert before_ms - error_ms <= server_ms <= after_ms + error_ms
            check_table(table, sim.get("/fapi/v1/exchangeInfo"))
            check_rows(sim, consumers, table)
            beat = int(role.block[lay.B_HEARTBEAT_NS])
            await until(lambda: int(role.block[lay.B_HEARTBEAT_NS]) > beat)
            assert counters.get("weight_used") > 0 and counters.get("requests_total") > 20
            role.stop.set()
            await task
            assert role.block[lay.B_ROLE_STATE] == lay.ROLE_STOPPED

    asyncio.run(main())
    assert "backfill finished" in caplog.text


def check_table(table: SymbolTable, info: dict) -> None:  # type: ignore[type-arg]
    trading = {
        s["symbol"]: s
        for s in info["symbols"]
        if s["status"] == "TRADING"
        and s["quoteAsset"] == "USDT"
        and s["contractType"] in ("PERPETUAL", "TRADIFI_PERPETUAL")
    }
    rows = table.rows()
    names = [table.name(slot) for slot in range(table.count)]
    assert set(names) == set(trading)
    assert list(rows["onboard_ms"]) == sorted(rows["onboard_ms"])
    for name, row in zip(names, rows, strict=True):
        assert row["status"] == lay.SYMBOL_TRADING
        assert row["price_decimals"] == trading[name]["pricePrecision"]
        assert row["quantity_decimals"] == trading[name]["quantityPrecision"]
    for worker in (0, 1):
        local = sorted(rows["local_slot"][rows["worker"] == worker])
        assert local == list(range(len(local)))
    assert len(set(rows["worker"])) == 2


def check_rows(sim, consumers: Consumers, table: SymbolTable) -> None:  # type: ignore[no-untyped-def]
    for slot in range(table.count):
        name = table.name(slot)
        commands = consumers.all[(consumers.all["slot"] == slot) & (consumers.all["interval"] == 255)]["state"]
        assert commands[0] == lay.COMMAND_ADD
        for interval in INTERVALS:
            rows = consumers.rows(slot, interval)
            opens = np.sort(rows["open_time"])
            length = intervals.length_ms(interval)
            assert np.all(np.diff(opens) == length), (name, interval)
            query = f"symbol={name}&interval={interval}&startTime={opens[0]}&endTime={opens[-1]}&limit=1500"
            official = {row[0]: row for row in sim.get(f"/fapi/v1/klines?{query}")}
            for row in rows:
                expected = official[int(row["open_time"])]
                cells = [row[f] for f in ("open", "high", "low", "close", "volume")]
                assert cells == [float(text) for text in expected[1:6]]
                assert row["trade_count"] == expected[8]
                scale = 10 ** (int(row["price_decimals"]) + int(row["quantity_decimals"]))
                units = split(row["quote_volume"], scale) + int(row["quote_residual"])
                assert units == int(expected[7].replace(".", ""))
                assert int(row["state"]) in (lay.STATE_CLOSED, lay.STATE_CONFIRMED)
                assert row["open_time"] + length <= row["event_time"]
        logged = consumers.log[consumers.log["slot"] == slot]
        assert len(logged) >= sum(len(consumers.rows(slot, i)) for i in INTERVALS)


def error_text(role) -> str:  # type: ignore[no-untyped-def]
    length = int(role.block[lay.B_ERROR_LENGTH])
    return bytes(role.block[lay.B_ERROR_TEXT :].tobytes()[:length]).decode()


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


def test_unreachable_exchange_is_said_once_and_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="klshm")

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            role = make_role(made, f"http://127.0.0.1:{free_port()}")
            before = open_files()
            task = asyncio.create_task(serve(role))
            counters = Counters(role.block, HISTORIAN)
            await until(lambda: counters.get("requests_failed_total") >= 2)
            assert role.block[lay.B_ROLE_STATE] == lay.ROLE_CONNECTING
            assert counters.get("exchange_reachable") == 0
            assert "--demo" in error_text(role) and "exchange.proxy" in error_text(role)
            role.stop.set()
            await task
            await until(lambda: open_files() <= before)  # the archive's thread ends by itself

    asyncio.run(main())
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1
    assert "clock failed, trying again: cannot reach 127.0.0.1" in caplog.text


def test_mute_exchange_is_said_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process_module, "_SILENCE_S", 0.1)

    async def main() -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as mute, segment(tmp_path, monkeypatch) as made:
            role = make_role(made, f"http://127.0.0.1:{mute.getsockname()[1]}")
            task = asyncio.create_task(serve(role))
            await until(lambda: "no answer from 127.0.0.1" in caplog.text)
            role.stop.set()
            await task

    asyncio.run(main())
    assert "--demo" in caplog.text and "exchange.proxy" in caplog.text


def test_exchange_that_comes_late_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            port = free_port()
            role = make_role(made, f"http://127.0.0.1:{port}", concurrency=0)
            task = asyncio.create_task(serve(role))
            await until(lambda: "clock failed" in caplog.text)
            with exchange("--symbols", "3", "--port", str(port)):
                await until(lambda: role.block[lay.B_ROLE_STATE] == lay.ROLE_LIVE)
                assert SymbolTable(made).count == 3
                role.stop.set()
                await task

    asyncio.run(main())
    assert "exchange answers again" in caplog.text


def test_ban_outlives_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with exchange("--symbols", "3") as sim, segment(tmp_path, monkeypatch) as made:
            sim.fault(name="http_status", status=418, count=1)
            role = make_role(made, sim.rest_url)
            counters = Counters(role.block, HISTORIAN)
            task = asyncio.create_task(serve(role))
            await until(lambda: counters.get("banned_until_ms") > 0)
            role.stop.set()
            await task
            kept = json.loads((tmp_path / "state" / "klshm" / "governor.json").read_text())
            assert kept[sim.rest_url]["banned_until_ms"] == counters.get("banned_until_ms")
            successor = make_role(made, sim.rest_url)
            async with Historian(successor) as historian:
                assert historian.governor.banned_until_ms(historian.clock.now_ms()) > 0
                stopped = asyncio.Event()
                running = asyncio.create_task(historian.run(stopped))
                await until(lambda: "banned" in error_text(successor))
                assert historian.client.requests == 0
                stopped.set()
                await running

    asyncio.run(main())


def test_part_that_fails_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        with exchange("--symbols", "3") as sim, segment(tmp_path, monkeypatch) as made:
            role = make_role(made, sim.rest_url, concurrency=0)
            async with Historian(role) as historian:
                scan, calls = historian.needs.scan, 0

                def broken() -> None:
                    nonlocal calls
                    calls += 1
                    if calls == 1:
                        raise RuntimeError("a bug")
                    scan()

                monkeypatch.setattr(historian.needs, "scan", broken)
                stopped = asyncio.Event()
                running = asyncio.create_task(historian.run(stopped))
                await until(lambda: calls >= 3)
                assert "needs: RuntimeError('a bug')" in error_text(role)
                stopped.set()
                await running

    asyncio.run(main())
    assert "historian part failed part=needs" in caplog.text


_CHILD = """
import asyncio, sys
from klshm.config import Config, ExchangeConfig, HistorianConfig
from klshm.historian.process import serve
from klshm.role import Role
from klshm.shm.segment import open_segment
made = open_segment("test", writable=True)
config = Config(exchange=ExchangeConfig(rest_url=sys.argv[1]), historian=HistorianConfig())
asyncio.run(serve(Role("historian", 0, made, config)))
"""


def start_child(rest_url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _CHILD, rest_url], cwd=PROJECT)


@pytest.mark.fault
def test_killed_at_any_time_its_successor_finishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with exchange("--symbols", "5") as sim, segment(tmp_path, monkeypatch) as made:
            consumers, table = Consumers(made), SymbolTable(made)
            block = made.block(made.layout.historian_offset)
            counters = Counters(block, HISTORIAN)
            for delay_s in (0.55, 0.65, 0.8, 1.0, None):
                child = start_child(sim.rest_url)
                counters.set("backfill_done", 0)
                counters.set("backfill_tasks", 0)
                if delay_s is not None:
                    await asyncio.sleep(delay_s)
                    child.send_signal(signal.SIGKILL)
                    child.wait()
                    consumers.take()
                    continue
                await consumers.until(
                    lambda: (
                        counters.get("backfill_done") == counters.get("backfill_tasks") > 0
                        and set(consumers.commands(lay.COMMAND_HISTORY_DONE)["slot"]) == set(range(5))
                    )
                )
                child.kill()
                child.wait()
            consumers.take()
            check_table(table, sim.get("/fapi/v1/exchangeInfo"))
            for slot in range(table.count):
                for interval in INTERVALS:
                    opens = np.unique(consumers.rows(slot, interval)["open_time"])
                    assert len(opens) and np.all(np.diff(opens) == intervals.length_ms(interval))

    asyncio.run(main())
