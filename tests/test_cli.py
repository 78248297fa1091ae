"""The commands, as people and scripts call them."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from read.conftest import make_desk as make_desk
from read.segments import MINUTE, START, Desk

from klshm import cli
from klshm.shm import layout as lay
from klshm.version import __version__


ROOT = Path(__file__).parents[1]
BAR = [
    "symbol",
    "interval",
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "state",
    "flags",
    "revision",
]


class Result:
    """What one command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a command in this process."""

    def run(*arguments: str) -> Result:
        try:
            code = cli.main(arguments)
        except SystemExit as usage:
            code = int(usage.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, with nothing of klshm in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("KLSHM_") or name == "CONFIG_PATH":
            monkeypatch.delenv(name)


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    desk = make_desk()
    for name in ("BTCUSDT", "币安人生USDT"):
        desk.list_symbol(name)
        for minute in range(1, 4):
            desk.keep(name, "1m", START - minute * MINUTE, volume=0.1 + minute, state=lay.STATE_CONFIRMED)
        desk.live(name, "1m", START, volume=0.30000000000000004, flags=lay.FLAG_PARTIAL)
        desk.live(name, "5m", START)
    desk.list_symbol("OLDUSDT", status=lay.SYMBOL_DELISTED)
    desk.settle(START)
    desk.publish(closed_through_ms=START)
    return desk


def process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "klshm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A shell gives its background jobs an ignored SIGINT, and they their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


# -- every command ----------------------------------------------------------------------------------


def test_help_of_every_noun(run: Callable[..., Result]) -> None:
    top = run("--help")
    assert top.code == 0 and "exit codes: 0 ok, 1 error" in " ".join(top.out.split())
    nouns = re.findall(r"^    (\w+) ", top.out, re.MULTILINE)
    assert nouns == ["status", "symbols", "live", "history", "closed", "top", "audit", "layout", "config"]
    for noun in nouns:
        assert "--json" in run(noun, "--help").out
    for verb in ("show", "explain", "check", "default"):
        assert run("config", verb, "--help").code == 0
    assert run("--version").out == f"klshm {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["history"], ["closed", "--when", "later"], ["config"]])
def test_usage_is_exit_code_2(run: Callable[..., Result], arguments: list[str]) -> None:
    assert run(*arguments).code == 2


@pytest.mark.parametrize("value", ["-1", "x"])
def test_counts_are_checked(run: Callable[..., Result], value: str) -> None:
    found = run("history", "BTCUSDT", "1m", "--limit", value)
    assert found.code == 2 and f"invalid count value: '{value}'" in found.err


@pytest.mark.parametrize("noun", [["status"], ["symbols"], ["live"], ["history", "X"], ["closed"], ["top", "--once"]])
def test_without_an_engine_it_is_exit_code_3(make_desk: object, run: Callable[..., Result], noun: list[str]) -> None:
    found = run(*noun, "--json")
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("klshm: no engine runs here") and found.err.count("\n") == 1


def test_the_instance_may_stand_on_both_sides(make_desk: Callable[..., Desk], run: Callable[..., Result]) -> None:
    for name in ("one", "two"):
        make_desk(name).list_symbol(f"{name.upper()}USDT")
    found = run("symbols", "--json")
    assert found.code == 2 and "2 engines run here: one, two" in found.err
    for arguments in (["--instance", "two", "symbols", "--json"], ["symbols", "--instance", "two", "--json"]):
        assert [row["symbol"] for row in run(*arguments).document] == ["TWOUSDT"]
    assert run("--json", "--instance=one", "symbols").document[0]["symbol"] == "ONEUSDT"
    assert run("--instance", "three", "symbols").code == 3
    assert run("--instance", "No!", "symbols").code == 4


def test_stale_data_is_exit_code_6(desk: Desk, run: Callable[..., Result]) -> None:
    desk.beat(5.0)
    assert run("live", "BTCUSDT", "1m").code == 6
    assert run("status", "--json").document["state"] == "serving", "the status of a silent engine can be read"


# -- bars -------------------------------------------------------------------------------------------


def test_live(desk: Desk, run: Callable[..., Result]) -> None:
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


def test_history(desk: Desk, run: Callable[..., Result]) -> None:
    bars = run("history", "BTCUSDT", "1m", "--limit", "2", "--json").document
    assert [bar["open_time"] for bar in bars] == [START - 2 * MINUTE, START - MINUTE]
    assert all(list(bar) == BAR and bar["state"] == "confirmed" for bar in bars)
    bars = run("history", "BTCUSDT", "1m", "--include-live", "--json").document
    assert [bar["state"] for bar in bars] == ["confirmed"] * 3 + ["live"]
    assert len(run("history", "币安人生USDT").out.splitlines()) == 4


def test_symbols(desk: Desk, run: Callable[..., Result]) -> None:
    rows = run("symbols", "--json").document
    assert [row["symbol"] for row in rows] == ["BTCUSDT", "币安人生USDT"]
    assert rows[0]["status"] == "trading" and rows[0]["price_decimals"] == 2
    assert [row["status"] for row in run("symbols", "--all", "--json").document][-1] == "delisted"
    assert run("symbols").out.splitlines()[0].startswith("symbol")


def test_closed_ends_after_a_count_or_a_silence(desk: Desk, run: Callable[..., Result]) -> None:
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


def test_closed_reads_times_in_both_spellings(desk: Desk, run: Callable[..., Result]) -> None:
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


# -- top --------------------------------------------------------------------------------------------


def test_top_once(desk: Desk, run: Callable[..., Result]) -> None:
    for order in ("volume", "change", "name", "trades"):
        lines = run("top", "--once", "--sort", order).out.splitlines()
        assert lines[0].startswith("klshm test   serving") and "\x1b" not in "".join(lines)
        assert lines[5].startswith("SYMBOL") and len(lines) == 8
        assert lines[6].startswith("BTCUSDT") and lines[6].endswith("partial")
    document = run("top", "--once", "--json").document
    assert document["status"]["instance"] == "test" and list(document["bars"][0]) == BAR
    assert run("top", "--interval", "0").code == 1


def test_top_in_a_terminal_gives_the_screen_back(desk: Desk) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "klshm", "top", "--interval", "0.05"],
        stdout=follower,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40", "LINES": "8"},
    ) as running:
        os.close(follower)
        seen = b""
        while seen.count(b"SYMBOL") < 2:
            seen += os.read(leader, 4096)
        running.send_signal(signal.SIGINT)
        while not seen.endswith(b"\x1b[?1049l"):
            seen += os.read(leader, 4096)
        assert running.stderr is not None and running.stderr.read() == b""
    os.close(leader)
    assert seen.startswith(b"\x1b[?1049h")
    text = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", seen.decode())
    assert max(len(line) for line in text.splitlines()) <= 40
    assert "币安人生USDT" not in text, "eight lines hold one symbol"


# -- layout -----------------------------------------------------------------------------------------


def test_layout_tells_every_offset(desk: Desk, run: Callable[..., Result]) -> None:
    document = run("layout", "--json").document
    fields = {field["name"]: field for field in document["records"]["KLINE"]["fields"]}
    assert document["records"]["KLINE"]["bytes"] == 128
    assert set(fields) == set(lay.KLINE.names or ())
    assert fields["volume"] == {"name": "volume", "offset": 48, "type": "<f8", "count": 1}
    assert document["magic"] == lay.MAGIC and document["layout_hash"] == lay.LAYOUT_HASH
    assert document["block_words"]["heartbeat_ns"] == lay.B_HEARTBEAT_NS
    assert document["flags"]["partial"] == lay.FLAG_PARTIAL and document["states"]["confirmed"] == 3
    segment = document["segment"]
    assert segment["total_bytes"] == desk.layout.total_bytes == os.stat(desk.segment.path).st_size
    assert segment["partitions"][0]["live"] == desk.layout.live_offset(0)
    assert "partition of worker 0" in run("layout").out
    desk.segment.unlink()
    assert run("layout", "--json").document["segment"] is None, "what all segments share needs no engine"
    assert run("layout").code == 0


C_READER = """
#include <stdio.h>
#include <stdlib.h>
#include "klshm.h"
int main(int argc, char **argv) {
    FILE *file = fopen(argv[1], "rb");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = malloc(size);
    if (fread(data, 1, size, file) != (size_t)size) return 1;
    const int64_t *h = (const int64_t *)data;
    if (h[KLSHM_H_MAGIC] != KLSHM_MAGIC || h[KLSHM_H_LAYOUT_HASH] != KLSHM_LAYOUT_HASH) return 2;
    for (int worker = 0; worker < h[KLSHM_H_WORKERS]; worker++) {
        int64_t at = klshm_partition(h, worker);
        printf("%ld %ld %ld %ld %ld %ld\\n", (long)at, (long)(at + klshm_in_half(h, 1)), (long)(at + klshm_in_inbox(h)),
               (long)(at + klshm_in_log(h)), (long)(at + klshm_in_history(h)), (long)klshm_history_row(h, 3, 1));
    }
    const struct klshm_kline *live = (const struct klshm_kline *)(data + klshm_partition(h, 0) + klshm_in_live());
    printf("%.17g %d\\n", live->volume, (live->flags & KLSHM_FLAG_PARTIAL) != 0);
    return klshm_partition(h, (int)h[KLSHM_H_WORKERS]) == size ? 0 : 3;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_the_c_header_reads_a_real_segment(
    make_desk: Callable[..., Desk], run: Callable[..., Result], tmp_path: Path
) -> None:
    desk = make_desk(workers=3, intervals=("1m", "5m", "1h"))
    desk.list_symbol("BTCUSDT")
    desk.live("BTCUSDT", "1m", START, volume=0.1, flags=lay.FLAG_PARTIAL)
    (tmp_path / "klshm.h").write_text(run("layout", "--c-header").out)
    (tmp_path / "reader.c").write_text(C_READER)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Werror"]
    subprocess.run(["cc", *flags, "reader.c", "-o", "reader"], cwd=tmp_path, check=True)
    printed = subprocess.run(
        [tmp_path / "reader", desk.segment.path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    layout = desk.layout
    expected = [
        f"{layout.partition_offset(w)} {layout.half_offset(w, 1)} {layout.inbox_offset(w)} {layout.log_offset(w)} "
        f"{layout.history_offset(w)} {layout.history_row(3, 1)}"
        for w in range(3)
    ]
    assert printed == [*expected, "0.10000000000000001 1"]


# -- config -----------------------------------------------------------------------------------------


def test_config_shows_what_is_in_force(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("config", "show", "--json").document["run"]["workers"] == 2
    (tmp_path / "c.toml").write_text("[run]\nworkers = 3\n")
    monkeypatch.setenv("KLSHM_WEB__PORT", "9")
    arguments = ("--config", str(tmp_path / "c.toml"), "--set", "log.level=debug", "--instance", "x")
    document = run("config", "show", *arguments, "--json").document
    assert (document["run"]["workers"], document["web"]["port"], document["log"]["level"]) == (3, 9, "debug")
    assert document["instance"] == "x"
    assert "[run]\nworkers = 3\n" in run("config", "show", *arguments).out
    explained = {row["key"]: row for row in run("config", "explain", *arguments, "--json").document}
    assert explained["run.workers"]["source"] == str(tmp_path / "c.toml") and explained["run.workers"]["default"] == 2
    assert explained["web.port"]["source"] == "KLSHM_WEB__PORT"
    assert explained["run.busy_poll"]["source"] == "default"
    assert explained["run.busy_poll"]["variable"] == "KLSHM_RUN__BUSY_POLL"
    checked = run("config", "check", *arguments, "--json").document
    assert checked["ok"] is True and len(checked["changed"]) == 4
    monkeypatch.delenv("KLSHM_WEB__PORT")
    assert run("config", "check").out == "ok: no file, defaults, 0 keys differ from the defaults\n"


def test_config_explains_one_key(run: Callable[..., Result]) -> None:
    text = run("config", "explain", "run.workers").out
    assert text.startswith("run.workers = 2   (default)\n    worker processes")
    assert "KLSHM_RUN__WORKERS" in text
    assert len(run("config", "explain", "run", "--json").document) == 3
    found = run("config", "explain", "run.nothing")
    assert found.code == 4 and "unknown key run.nothing" in found.err


def test_config_default_is_the_shipped_file(run: Callable[..., Result]) -> None:
    assert run("config", "default").out == (ROOT / "configs/klshm.toml").read_text(encoding="utf-8")
    assert run("config", "default", "--json").document["run.workers"] == 2


def test_a_wrong_configuration_is_exit_code_4(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\nworkres = 3\n")
    found = run("config", "check", "--config", "c.toml")
    assert (found.code, found.out) == (4, "")
    assert found.err == (
        "klshm: c.toml: unknown key run.workres, expected workers, affinity, busy_poll; nearest is run.workers\n"
    )


def test_config_of_a_running_engine(desk: Desk, run: Callable[..., Result]) -> None:
    assert run("config", "show", "--running", "--json").document["data"]["directory"] == "/nonexistent"


@pytest.fixture
def no_descriptors_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def test_the_module_runs(desk: Desk) -> None:
    with process("symbols", "--json") as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, "")
    assert len(json.loads(out)) == 2


def test_status_for_people(desk: Desk, run: Callable[..., Result], no_descriptors_left: None) -> None:
    text = run("status").out
    assert re.search(r"^symbols +trading 2  live 2  quiet 2  silent 0$", text, re.MULTILINE)
    assert re.search(r"^role +index +pid", text, re.MULTILINE)
