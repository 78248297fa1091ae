"""The whole historian against the simulator, with real rings."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from klshm import intervals
from klshm.historian.process import serve
from klshm.shm import layout as lay
from klshm.shm.counters import HISTORIAN, Counters
from klshm.shm.exact import split
from klshm.shm.view import SymbolTable, read_clock

from .support import NAMES, Consumers, make_role, segment, simulator


def test_fills_table_clock_and_history_of_every_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main() -> None:
        with simulator("--symbols", "6", "--rate", "50") as sim, segment(tmp_path, monkeypatch) as made:
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
            assert clock is not None and abs(clock.now_ms() - sim.get("/fapi/v1/time")["serverTime"]) < 200
            check_table(table, sim.get("/fapi/v1/exchangeInfo"))
            check_rows(sim, consumers, table)
            beat = int(role.block[lay.B_HEARTBEAT_NS])
            assert time.monotonic_ns() - beat < 1_000_000_000
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
        for interval in NAMES:
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
        assert len(logged) >= sum(len(consumers.rows(slot, i)) for i in NAMES)
