"""Symbols with Chinese names all the way: stream names, addresses, tables, every command, any terminal."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.official import waiting
from tests.e2e.support import compare
from tests.support.engine import Engine, engine
from tests.support.exchange import Exchange, exchange
from tests.support.processes import PROJECT, wait_for


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

M = 60_000
NAME = "币安人生USDT"
"""Listed from the start."""
LATER = "龙虾USDT"
"""Listed while the engine runs."""


def klshm(running: Engine, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command on the engine; what it says comes as the bytes that it wrote."""
    line = [sys.executable, "-m", "klshm", *arguments, "--instance", running.instance]
    return subprocess.run(line, capture_output=True, cwd=PROJECT, env={**running.environment, **environment})


def answer(running: Engine, *arguments: str, **environment: str) -> Any:
    done = klshm(running, *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_commands(running: Engine, market: Exchange) -> None:
    """Ask for a Chinese symbol by every command that takes one."""
    assert {NAME, LATER} < {row["symbol"] for row in answer(running, "symbols")}
    bars = answer(running, "history", NAME, "1m", "--limit", "3")
    assert [bar["symbol"] for bar in bars] == [NAME] * 3
    official = market.get("/fapi/v1/klines", symbol=NAME, interval="1m", startTime=bars[0]["open_time"], limit=1)
    assert [bars[0]["open_time"], bars[0]["trade_count"]] == [official[0][0], official[0][8]]
    assert answer(running, "live", LATER, "1d")["symbol"] == LATER
    replayed = answer(running, "closed", "--symbols", NAME, "--intervals", "1m", "--since", "1", "--count", "1")
    assert replayed["symbol"] == NAME
    found = answer(running, "audit", "--symbols", f"{NAME},{LATER}")
    assert found["compared"] == found["equal"] > 0
    unknown = klshm(running, "history", "龙 虾USDT")
    assert unknown.returncode == 2 and f"nearest are {LATER}" in unknown.stderr.decode()


def test_chinese_names_from_the_stream_to_the_terminal(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "8", "--rate", "60") as market,
        engine(tmp_path, market, "names", "--workers", "2") as running,
    ):
        running.wait_live()
        market.fault(name="list_symbol", symbol=LATER, delay_s=1)
        running.wait_said(f"symbols added count=1 first={LATER}")
        end_ms = market.now_ms() // M * M + 2 * M  # the first minute that is whole of both
        wait_for(
            lambda: market.now_ms() > end_ms and not waiting(running.archive, market.start_ms, end_ms),
            240,
            running.text,
        )
        wait_for(lambda: answer(running, "audit", "--symbols", LATER)["compared"] > 0, 240, running.text)
        check_commands(running, market)

        rows = klshm(running, "symbols").stdout.decode().splitlines()
        assert [NAME in row for row in rows].count(True) == [LATER in row for row in rows].count(True) == 1
        for encoding in ("ascii", "latin-1"):
            escaped = NAME.encode("ascii", "backslashreplace")
            assert escaped in klshm(running, "symbols", PYTHONIOENCODING=encoding).stdout
            assert answer(running, "live", NAME, PYTHONIOENCODING=encoding)["symbol"] == NAME
            done = klshm(running, "live", NAME, PYTHONIOENCODING=encoding)
            assert (done.returncode, done.stderr) == (0, b"") and escaped in done.stdout

        assert running.stop() == 0, running.text()
        result = compare(market, running.archive, [NAME, LATER], market.start_ms, end_ms)
        assert result.missing == [] and result.different == [] and result.confirmed == result.compared > 0
        with sqlite3.connect(running.archive) as database:
            tables = dict(database.execute("SELECT table_name, symbol FROM series WHERE interval = '1m'"))
        assert (tables["k_币安人生_1m"], tables["k_龙虾_1m"]) == (NAME, LATER)


def test_the_data_service_takes_them_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with exchange("--symbols", "8", "--rate", "20") as market:

        def backfill(*options: str) -> dict[str, Any]:
            settings = {"exchange.rest_url": market.rest_url, "data.directory": tmp_path}
            depth = "--set=historian.bars_per_interval={default=20}"
            arguments = [f"--set={key}={value}" for key, value in settings.items()]
            line = [sys.executable, "-m", "klshm", "backfill", *arguments, depth, "--intervals", "1m,1w", *options]
            done = subprocess.run([*line, "--json"], capture_output=True, text=True, cwd=PROJECT)
            assert done.returncode == 0, done.stderr
            outcome: dict[str, Any] = json.loads(done.stdout)
            return outcome

        assert backfill("--symbols", NAME)["tasks"] == 2
        with sqlite3.connect(tmp_path / "main" / "klines.db") as database:
            assert database.execute('SELECT count(*) FROM "k_币安人生_1m"').fetchone() == (20,)
        # A list of the configuration: all of it but this one, and this one alone.
        assert backfill("--set", f'exchange.exclude=["{NAME}"]')["tasks"] == 2 * 7
        assert backfill("--set", f'exchange.symbols=["{NAME}", "ETHUSDT"]')["tasks"] == 2 * 2
