"""Every start is a recovery: bars are served at once, and in the end every one is the exchange's own."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.official import waiting
from tests.e2e.support import compare, trading_symbols
from tests.support.engine import Engine, addresses, launcher, refused
from tests.support.exchange import Exchange, exchange
from tests.support.processes import engine_processes, is_alive, wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

NAME = "restart"
SYMBOLS = 12
RESUMES = ("--set", "historian.from_archive=true")
"""The demo's configuration, which the tests start from, goes on from nothing: its next market is another one."""
LATE = 12_000
"""REST answers come so late, ms: what is served before has come from nowhere but the last run."""


def start(tmp_path: Path, market: Exchange, *options: str) -> Any:
    return launcher(tmp_path, *addresses(market.port), *RESUMES, *options, instance=NAME)


def kill_all(running: Engine) -> None:
    """Kill every process of an engine."""
    family = engine_processes(running.process.pid)
    for pid in family:
        with suppress(ProcessLookupError):  # it died with the launcher
            os.kill(pid, signal.SIGKILL)
    running.process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in family))


def served(running: Engine, file: Path) -> int:
    """Return how many open bars the engine serves."""
    done = running.klshm("snapshot", str(file), "--json")
    return int(json.loads(done.stdout)["bars"]) if done.returncode == 0 else 0


def test_after_a_crash_another_layout_serves_at_once_and_ends_equal(tmp_path: Path) -> None:
    """Four intervals close while nobody runs."""
    noon_ms = 1_795_176_000_000
    with exchange("--symbols", str(SYMBOLS), "--rate", "200", "--start-at", str(noon_ms - 16_000)) as market:
        with start(tmp_path, market, "--workers", "2") as crashed:
            crashed.wait_live()
            crashed.wait_said("backfill finished")
            pause_s = random.uniform(0, 3)
            time.sleep(pause_s)
            print(f"killed {pause_s:.3f} s after it was live")
            kill_all(crashed)
            assert crashed.left() == [f"klshm.{NAME}"]
        wait_for(lambda: market.now_ms() > noon_ms + 1000)
        market.fault(name="http_delay", seconds=300, delay_ms=LATE)
        kept = '["1m","5m","15m","30m","4h","1d","1w"]'
        options = ("--workers", "3", "--set", "segment.max_symbols=40", "--set", f"klines.intervals={kept}")
        with start(tmp_path, market, *options) as again:
            again.wait_live()
            wait_for(lambda: served(again, tmp_path / "x") == SYMBOLS * 7, explain=again.text)
            assert "exchange clock measured" not in again.text()  # nor anything else that REST has to say
            assert f"restored symbols={SYMBOLS} open_bars={SYMBOLS * 6}" in again.text()
            assert "found segment: symbols=12 open_bars=72" in again.text()
            market.fault(name="clear")
            wait_for(lambda: not waiting(again.archive, market.start_ms, noon_ms), explain=again.text)
            found = compare(market, again.archive, trading_symbols(market), market.start_ms, noon_ms)
            assert (found.missing, found.different) == ([], [])
            assert found.per_interval == dict.fromkeys(("1m", "5m", "30m", "4h"), SYMBOLS)
            assert again.stop() == 0, again.text()
            assert again.left() == []


def test_after_an_ordered_stop_it_goes_on_in_the_same_minute(tmp_path: Path) -> None:
    with exchange("--symbols", str(SYMBOLS), "--rate", "200", "--start-at", "2026-11-20T12:00:40Z") as market:
        with start(tmp_path, market, "--workers", "2") as first:
            first.wait_live()
            first.wait_said("backfill finished")
            assert first.stop() == 0, first.text()
            assert first.left() == []
        market.fault(name="http_delay", seconds=300, delay_ms=LATE)
        with start(tmp_path, market, "--workers", "0") as again:
            again.wait_said("restored symbols=12 open_bars=72")
            again.wait_said("kernels loaded")
            assert "found snapshot: symbols=12 open_bars=72" in again.text()
            wait_for(lambda: served(again, tmp_path / "x") == SYMBOLS * 6, explain=again.text)
            assert "exchange clock measured" not in again.text()
            market.fault(name="clear")
            end_ms = market.now_ms() // 60_000 * 60_000 + 60_000
            wait_for(lambda: market.now_ms() > end_ms)
            wait_for(lambda: not waiting(again.archive, market.start_ms, end_ms), explain=again.text)
            found = compare(market, again.archive, trading_symbols(market), market.start_ms, end_ms)
            assert (found.missing, found.different) == ([], [])
            assert found.compared >= SYMBOLS
            assert again.stop() == 0, again.text()


def test_a_snapshot_file_starts_an_engine_that_knows_nothing(tmp_path: Path) -> None:
    with exchange("--symbols", str(SYMBOLS), "--rate", "200") as market:
        with start(tmp_path, market, "--workers", "1") as first:
            first.wait_live()
            first.wait_said("backfill finished")
            assert served(first, tmp_path / "x.bin") == SYMBOLS * 6
            assert first.stop() == 0, first.text()
        market.fault(name="http_delay", seconds=300, delay_ms=LATE)
        options = ["--workers", "2", "--from-snapshot", str(tmp_path / "x.bin")]
        options += ["--set", "historian.from_archive=false", "--set", f"data.directory={tmp_path / 'other'}"]
        with start(tmp_path, market, *options, "--set", "segment.max_symbols=8") as other:
            other.wait_said("restored symbols=8 open_bars=48")
            assert "more symbols than segment.max_symbols left_out=4" in other.text()
            assert "found named snapshot: symbols=12 open_bars=72" in other.text()
            assert " age_s=" in other.text()
            other.wait_said("kernels loaded")
            wait_for(lambda: served(other, tmp_path / "y.bin") == 8 * 6, explain=other.text)
            assert "exchange clock measured" not in other.text()
            assert other.stop() == 0, other.text()
            assert (tmp_path / "other" / NAME / "initial_state.bin").exists(), other.text()


def test_a_named_snapshot_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    damaged = tmp_path / "x.bin"
    damaged.write_bytes(b"KLSHMSNP\x01\0\0\0" + bytes(100))
    code, line = refused(tmp_path, "--from-snapshot", str(damaged))
    assert (code, "x.bin is damaged: " in line) == (1, True), line
    code, line = refused(tmp_path, "--from-snapshot", str(tmp_path / "none"))
    assert (code, "cannot read snapshot" in line and "No such file" in line) == (1, True), line
    assert not (tmp_path / "data").exists()  # nothing else has happened


BROKEN = """
from klshm.run.resume import Resume
def break_down(resume, segment):
    segment.words[segment.layout.live_offset(0) // 8 + 1] = 60_000
    raise RuntimeError("half way")
Resume.seed = break_down
"""


def test_a_start_that_breaks_down_half_way_is_a_cold_one(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "6", "--rate", "50") as market,
        launcher(tmp_path, *addresses(market.port), *RESUMES, "--workers", "1", "--duration", "1", first=BROKEN) as one,
    ):
        assert one.process.wait() == 0, one.text()
        assert "RuntimeError: half way" in one.text()
        assert "going on from nothing" in one.text()
        assert one.left() == []
