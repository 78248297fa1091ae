"""`live`, `history`, `symbols`, `closed`: bars as they are printed."""

from __future__ import annotations

import json
import signal

from tests.commands.support import BAR, Run, process
from tests.support.desk import MINUTE, START, Desk


def test_live(desk: Desk, run: Run) -> None:
    bar = run("live", "BTCUSDT", "1m", "--json").document
    assert list(bar) == BAR
    assert bar["volume"] == 0.30000000000000004, "floats come through unchanged"
    assert (bar["state"], bar["flags"], bar["close_time"]) == ("live", ["partial"], START + MINUTE - 1)
    everyone = run("live", "--json").document
    assert [b["symbol"] for b in everyone] == ["BTCUSDT", "币安人生USDT"]
    table = run("live", "BTCUSDT").out.splitlines()
    assert table[0].split() == ["symbol", "open_time", *BAR[3:8], "quote_volume", "trade_count", "state", "flags"]
    assert "0.30000000000000004" in table[1] and table[1].endswith("partial")
    assert run("live", "BTCUSD").code == 2
    assert run("live", "BTCUSDT", "2h").code == 2


def test_history(desk: Desk, run: Run) -> None:
    bars = run("history", "BTCUSDT", "1m", "--limit", "2", "--json").document
    assert [bar["open_time"] for bar in bars] == [START - 2 * MINUTE, START - MINUTE]
    assert all(list(bar) == BAR and bar["state"] == "confirmed" for bar in bars)
    bars = run("history", "BTCUSDT", "1m", "--include-live", "--json").document
    assert [bar["state"] for bar in bars] == ["confirmed"] * 3 + ["live"]
    assert len(run("history", "币安人生USDT").out.splitlines()) == 4


def test_symbols(desk: Desk, run: Run) -> None:
    rows = run("symbols", "--json").document
    assert [row["symbol"] for row in rows] == ["BTCUSDT", "币安人生USDT"]
    assert rows[0]["status"] == "trading" and rows[0]["price_decimals"] == 2
    assert [row["status"] for row in run("symbols", "--all", "--json").document][-1] == "delisted"
    assert run("symbols").out.splitlines()[0].startswith("symbol")


def test_closed_ends_after_a_count_or_a_silence(desk: Desk, run: Run) -> None:
    since = str(START - 2 * MINUTE)
    found = run("closed", "--since", since, "--intervals", "1m", "--count", "3", "--json")
    bars = [json.loads(line) for line in found.out.splitlines()]
    assert found.code == 0 and len(bars) == 3
    assert all(list(bar) == BAR for bar in bars)
    found = run("closed", "--since", since, "--symbols", "BTCUSDT", "--timeout", "0.01")
    assert found.code == 5 and found.err.startswith("klshm: no bar closed within 0.01 s")
    assert len(found.out.splitlines()) == 2 and "confirmed" in found.out
    assert run("closed", "--timeout", "-1").code == 1
    assert run("closed", "--count", "0").out == ""


def test_closed_reads_times_in_both_spellings(desk: Desk, run: Run) -> None:
    outputs = {
        run("closed", "--since", since, "--symbols", "BTCUSDT", "--count", "1", "--json").out
        for since in (str(START - 2 * MINUTE), "2025-10-09T08:52:00Z", "2025-10-09 08:52", "2025-10-09T10:52+02:00")
    }
    assert START == 1_760_000_040_000 and len(outputs) == 1
    assert run("closed", "--since", "yesterday").code == 2


def test_a_stream_ends_quietly_with_its_reader_and_with_ctrl_c(desk: Desk) -> None:
    follow = ("closed", "--when", "tick", "--since", str(START - 3 * MINUTE), "--json")
    with process(*follow) as running:
        assert running.stdout is not None and running.stderr is not None
        assert json.loads(running.stdout.readline())["symbol"] == "BTCUSDT"
        running.send_signal(signal.SIGINT)
        assert running.stderr.read() == ""
    assert running.returncode == 130
    with process(*follow) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        for minute in range(3):
            desk.tick("BTCUSDT", "1m", START + minute * MINUTE)
            desk.publish()
        assert running.stderr.read() == ""
    assert running.returncode == 0
