"""The exchange misbehaves; every bar ends up as the exchange's own, and none is passed off as empty."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import compare, trading_symbols
from tests.support.engine import Engine, engine
from tests.support.exchange import exchange
from tests.support.processes import PROJECT, wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

MINUTE_MS = 60_000
JUDGED_MS = 75_000
"""So long after its end a bar is confirmed and stored."""


@pytest.fixture(autouse=True)
def compiled() -> None:
    """Compile first: a cold start would sleep through the faults."""
    subprocess.run(
        [sys.executable, "-c", "from klshm.run.kernels import load_kernels; load_kernels()"], check=True, cwd=PROJECT
    )


def klshm(running: Engine, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "klshm", *arguments, "--instance", running.instance]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, env=running.environment)


def audit(running: Engine, *options: str) -> tuple[int, dict[str, Any]]:
    done = klshm(running, "audit", "--json", *options)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def both_mute(seconds: int, at_s: int = 0, **more: str) -> str:
    streams = ("aggTrade", "kline")
    return json.dumps([{"at_s": at_s, "name": "mute", "stream": s, "seconds": seconds, **more} for s in streams])


def test_every_bar_of_the_standard_faults_equals_the_exchange(tmp_path: Path) -> None:
    with (
        exchange("--faults", "standard", "--symbols", "30", "--rate", "300") as market,
        engine(tmp_path, market, "faults", "--workers", "2", "--set", "chaos.kill_worker_after_s=45") as running,
    ):
        running.wait_live()
        symbols = [*trading_symbols(market), "NEWUSDT"]
        judged_ms = market.start_ms + 220_000
        wait_for(lambda: market.now_ms() > judged_ms + JUDGED_MS + 1_000, 330, running.text)
        assert market.get("/sim/state")["faults"]["planned"] == 0
        assert [p["restarts"] for p in running.status()["processes"] if p["role"] == "worker"] == [1, 0]
        code, found = audit(running)
        print(json.dumps(found, indent=1))
        assert found["differing"] == []
        assert code == 0
        assert found["equal"] == found["compared"] and not found["missing"] + found["unconfirmed"] + found["extra"]
        # Minutes end 40, 100, 160 and 220 s after the start, and at 100 s every other interval with them.
        assert found["compared"] >= 30 * (3 + 5)
        assert all(found["per_interval"][name]["compared"] >= 30 for name in ("5m", "30m", "4h", "1d", "1w"))
        assert 0 < found["aggtrade_only"]["equal"] < found["aggtrade_only"]["compared"]
        assert running.stop() == 0, running.text()
        result = compare(market, running.archive, symbols, market.start_ms, judged_ms)
    assert result.missing == [] and result.different == []
    assert result.confirmed == result.equal == result.compared


def test_silent_from_the_start_confirms_nothing_empty_and_heals(tmp_path: Path) -> None:
    mute_s = 150
    with (
        exchange("--faults", both_mute(mute_s), "--symbols", "12", "--rate", "40") as market,
        engine(tmp_path, market, "silent", "--workers", "2") as running,
    ):
        wait_for(lambda: running.status().get("state") == "serving", 60, running.text)
        seen = tmp_path / "confirmed.jsonl"
        command = [*(sys.executable, "-m", "klshm", "closed", "--json", "--when", "confirmed", "--intervals", "1m")]
        with seen.open("w") as output:
            follower = subprocess.Popen(
                [*command, "--revisions", "--instance", running.instance],
                stdout=output,
                cwd=PROJECT,
                env=running.environment,
            )
            try:
                wait_for(lambda: "streams mute" in running.text(), 60, running.text)
                assert market.now_ms() < market.start_ms + mute_s * 1000
                wait_for(lambda: market.now_ms() > market.start_ms + (mute_s + 5) * 1000, 200, running.text)
                end_ms = market.now_ms() // MINUTE_MS * MINUTE_MS
                wait_for(lambda: market.now_ms() > end_ms + JUDGED_MS + 2_000, 100, running.text)
            finally:
                follower.terminate()
                follower.wait()
        symbols = trading_symbols(market)
        code, found = audit(running)
        assert found["differing"] == [] and code == 0 and found["compared"] >= 12 * 2
        assert running.stop() == 0, running.text()
        result = compare(market, running.archive, symbols, market.start_ms, end_ms)
        assert result.missing == [] and result.different == []
        assert result.confirmed == result.compared
        official = {
            (symbol, row[0]): row[8]
            for symbol in symbols
            for row in market.get("/fapi/v1/klines", symbol=symbol, interval="1m", limit=99)
        }
    confirmed = [json.loads(line) for line in seen.read_text().splitlines() if line.endswith("}")]
    assert confirmed
    empty = [(bar["symbol"], bar["open_time"]) for bar in confirmed if bar["trade_count"] == 0]
    assert [key for key in empty if official.get(key)] == []


def test_one_symbol_mute_in_both_streams_is_found_and_repaired(tmp_path: Path) -> None:
    with (
        exchange("--faults", both_mute(100, 20, symbol="BTCUSDT"), "--symbols", "6", "--rate", "60") as market,
        engine(tmp_path, market, "mute", "--workers", "1") as running,
    ):
        running.wait_live()
        wait_for(lambda: "streams mute symbols=1" in running.text(), 60, running.text)
        wait_for(lambda: market.now_ms() > market.start_ms + 30_000, 60, running.text)
        live = json.loads(klshm(running, "live", "BTCUSDT", "--json").stdout)
        assert "partial" in live["flags"], live
        end_ms = market.now_ms() // MINUTE_MS * MINUTE_MS + MINUTE_MS
        wait_for(lambda: market.now_ms() > end_ms + JUDGED_MS + 2_000, 200, running.text)
        code, found = audit(running)
        assert found["differing"] == [] and code == 0, found
        assert running.stop() == 0, running.text()
        result = compare(market, running.archive, trading_symbols(market), market.start_ms, end_ms)
        assert result.missing == [] and result.different == [] and result.confirmed == result.compared


def test_bars_that_were_young_at_the_start_are_confirmed(tmp_path: Path) -> None:
    """History read within seconds of a week boundary may still move; no worker can fold these days and weeks."""
    with (
        exchange("--start-at", "2026-11-22T23:59:59Z", "--symbols", "12", "--rate", "100") as market,
        engine(tmp_path, market, "young", "--workers", "2", "--set", 'klines.intervals=["1m", "1d", "1w"]') as running,
    ):
        running.wait_live()
        monday_ms = market.start_ms + 1_000
        assert market.now_ms() < monday_ms + 25_000
        wait_for(lambda: market.now_ms() > monday_ms + JUDGED_MS + 2_000, 120, running.text)
        code, found = audit(running, "--since", str(monday_ms - 1))
        assert found["differing"] == [] and code == 0
        assert {name: tallies["compared"] for name, tallies in found["per_interval"].items()} == dict.fromkeys(
            ("1m", "1d", "1w"), 12
        )
        assert running.stop() == 0, running.text()
