"""Processes killed with -9: the rest runs on, what was lost comes back, nothing is left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.support import compare, trading_symbols, wait_equal
from tests.support.engine import addresses, engine, launcher
from tests.support.exchange import exchange
from tests.support.processes import engine_processes, is_alive, wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_killed_worker_comes_back_while_the_others_go_on(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "12", "--rate", "200", "--start-at", "2026-11-20T12:00:35Z") as market,
        engine(tmp_path, market, "kill", "--workers", "2") as running,
    ):
        running.wait_live()
        before = {(p["role"], p["index"]): p for p in running.status()["processes"]}
        victim, other = before["worker", 0], before["worker", 1]
        swaps = running.status()["swaps"]
        os.kill(victim["pid"], signal.SIGKILL)
        killed_s = time.monotonic()
        back: dict[str, object] = {}

        def is_back() -> bool:
            rows = {(p["role"], p["index"]): p for p in running.status().get("processes", [])}
            row = rows.get(("worker", 0), {})
            back.update(row)
            return row.get("pid") not in (None, victim["pid"]) and row.get("state") == "live"

        wait_for(is_back, explain=running.text)
        print(f"worker back and live after {time.monotonic() - killed_s:.2f} s (measured with the CLI)")
        after = running.status()
        rows = {(p["role"], p["index"]): p for p in after["processes"]}
        assert rows["worker", 1]["pid"] == other["pid"]
        assert rows["worker", 1]["restarts"] == 0
        assert rows["worker", 0]["restarts"] == 1
        assert after["swaps"] > swaps
        end_ms = market.now_ms() // 60_000 * 60_000 + 60_000
        wait_equal(market, running, trading_symbols(market), end_ms)
        assert running.stop() == 0, running.text()
        result = compare(market, running.archive, trading_symbols(market), market.start_ms, end_ms)
        assert result.missing == []
        assert result.different == []
        assert result.equal == result.compared >= 12


def test_killed_launcher_leaves_no_process(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "6", "--rate", "50") as market,
        engine(tmp_path, market, "orphans", "--workers", "2") as running,
    ):
        running.wait_live()
        family = engine_processes(running.process.pid)
        assert len(family) == 5  # launcher, persister, historian, two workers
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        killed_s = time.monotonic()
        wait_for(lambda: not any(is_alive(pid) for pid in family))
        print(f"all processes gone {time.monotonic() - killed_s:.2f} s after the launcher")


def test_a_start_after_a_crash_recovers_and_serves(tmp_path: Path) -> None:
    with exchange("--symbols", "6", "--rate", "50") as market:
        with launcher(tmp_path, *addresses(market.port), "--workers", "2") as crashed:
            crashed.wait_live()
            assert crashed.end(signal.SIGKILL) == -signal.SIGKILL
            assert crashed.left() == ["klshm.demo"]
        with launcher(tmp_path, *addresses(market.port), "--workers", "3", "--duration", "1") as again:
            assert again.process.wait() == 0, again.text()
            assert "recovered from the segment of a crashed engine" in again.text()
            assert again.left() == []
