"""A whole engine and its exchange as processes, and the exchange's word against the archive's."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klshm import intervals


PROJECT = Path(__file__).resolve().parents[2]
KEPT = ("1m", "5m", "30m", "4h", "1d", "1w")


@dataclass
class Exchange:
    """A running simulator."""

    port: int
    start_ms: int
    process: subprocess.Popen[str]

    def get(self, path: str, **query: object) -> Any:
        """Return the answer of a REST request."""
        text = urllib.parse.urlencode({k: str(v) for k, v in query.items()})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}?{text}", timeout=30) as answer:
            return json.load(answer)

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return int(self.get("/fapi/v1/time")["serverTime"])


@contextmanager
def exchange(*options: str) -> Iterator[Exchange]:
    """Run a simulator."""
    command = [sys.executable, "-m", "klshm.sim", "--port", "0", "--exit-with-parent", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    try:
        line = json.loads(process.stdout.readline())
        yield Exchange(line["port"], line["start_ms"], process)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@dataclass
class Engine:
    """A running launcher."""

    instance: str
    directory: Path
    process: subprocess.Popen[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return what the launcher has said so far."""
        return self.log.read_text()

    def status(self) -> dict[str, Any]:
        """Return `klshm status --json`."""
        done = subprocess.run(
            [sys.executable, "-m", "klshm", "status", "--json", "--instance", self.instance],
            capture_output=True,
            text=True,
            cwd=PROJECT,
            env=self.environment,
        )
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def wait_live(self, timeout_s: float = 180.0) -> None:
        """Wait until the launcher says that all workers are live."""
        wait_for(lambda: " is live:" in self.text(), timeout_s, lambda: self.text())

    def stop(self) -> int:
        """Stop it in order and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    @property
    def archive(self) -> Path:
        """Path of the SQLite archive."""
        return self.directory / self.instance / "klines.db"


@contextmanager
def engine(tmp_path: Path, market: Exchange | None, instance: str, *options: str) -> Iterator[Engine]:
    """Run a launcher against a simulator; its shared memory is a directory of its own."""
    shared = Path(f"/dev/shm/klshm-test-{os.getpid()}-{instance}")
    shared.mkdir()
    environment = {**os.environ, "KLSHM_SHM_DIRECTORY": str(shared), "XDG_STATE_HOME": str(tmp_path / "state")}
    command = [sys.executable, "launcher.py", "--instance", instance, "--config", "configs/demo.toml"]
    command += ["--set", f"data.directory={tmp_path}"]
    if market is not None:
        command += ["--set", f"exchange.rest_url=http://127.0.0.1:{market.port}"]
        command += ["--set", f"exchange.ws_url=ws://127.0.0.1:{market.port}"]
    log = tmp_path / f"{instance}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *options], stdout=output, stderr=subprocess.STDOUT, text=True, cwd=PROJECT, env=environment
        )
        try:
            yield Engine(instance, tmp_path, process, log, environment)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            left = sorted(path.name for path in shared.iterdir())
            for path in shared.iterdir():
                path.unlink()
            shared.rmdir()
    if process.returncode in (0, 1, 4):
        assert left == [], f"left in shared memory: {left}"


def wait_for(condition: Callable[[], object], timeout_s: float, explain: Callable[[], str] = lambda: "") -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:.0f} s: {condition}\n{explain()}")
        time.sleep(0.05)


@dataclass
class Comparison:
    """What the archive says against what the exchange says."""

    compared: int = 0
    equal: int = 0
    confirmed: int = 0
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    per_interval: dict[str, int] = field(default_factory=dict)


def compare(market: Exchange, archive: Path, symbols: list[str], first_ms: int, end_ms: int) -> Comparison:
    """Compare every bar that closed in a span, in nine fields, with the exchange's own.

    Args:
        market: The simulator, still running.
        archive: The SQLite archive.
        symbols: Symbols to compare.
        first_ms: Bars that closed after this exchange time.
        end_ms: Bars that had closed by this exchange time.
    """
    result = Comparison()
    with sqlite3.connect(f"file:{archive}?mode=ro", uri=True) as database:
        series = database.execute("SELECT symbol, interval, table_name FROM series")
        tables = {(symbol, interval): name for symbol, interval, name in series}
        for symbol in symbols:
            for interval in KEPT:
                rows = market.get("/fapi/v1/klines", symbol=symbol, interval=interval, limit=99)
                length = intervals.length_ms(interval)
                for row in rows:
                    if first_ms < row[0] + length <= end_ms:
                        _compare_row(result, database, tables.get((symbol, interval)), symbol, interval, row)
    return result


def _compare_row(
    result: Comparison, database: sqlite3.Connection, table: str | None, symbol: str, interval: str, row: list[Any]
) -> None:
    result.compared += 1
    result.per_interval[interval] = result.per_interval.get(interval, 0) + 1
    found = None
    if table is not None:
        found = database.execute(
            f'SELECT open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume, '
            f'taker_buy_quote_volume, state, flags FROM "{table}" WHERE open_time = ?',
            (row[0],),
        ).fetchone()
    if found is None:
        result.missing.append(f"{symbol} {interval} {row[0]}")
        return
    wanted = (*map(float, row[1:6]), float(row[7]), row[8], float(row[9]), float(row[10]))
    if found[:9] == wanted:
        result.equal += 1
    else:
        result.different.append(f"{symbol} {interval} {row[0]}: archive {found}, exchange {wanted}")
    result.confirmed += found[9] == 3


def trading_symbols(market: Exchange) -> list[str]:
    """Return the symbols the engine takes by default."""
    return [
        row["symbol"]
        for row in market.get("/fapi/v1/exchangeInfo")["symbols"]
        if row["status"] == "TRADING"
        and row["contractType"] in ("PERPETUAL", "TRADIFI_PERPETUAL")
        and row["quoteAsset"] == "USDT"
    ]


def engine_processes(pid: int) -> list[int]:
    """Return the live descendants of a process and itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        current = pending.pop()
        found.append(current)
        pending.extend(children.get(current, []))
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
