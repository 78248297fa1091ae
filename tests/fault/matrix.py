"""One engine and its exchange, killed again and again: at named points, at random instants, as a whole."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klshm.config.crash_points import CRASH_POINTS
from tests.e2e.support import Comparison, compare, trading_symbols
from tests.support.engine import Engine, addresses, launcher
from tests.support.exchange import Exchange
from tests.support.processes import engine_processes, is_alive, wait_for


M = 60_000
POINTS = {
    role: [point for point in CRASH_POINTS if point.startswith(f"{role}.") and point != "persister.walk_committed"]
    for role in ("worker", "persister", "historian")
}
"""Nothing is overrun here: the walk has a test of its own."""
WORKERS = 2
_DIED = re.compile(r"role ended role=(\w+)(?: \d)? pid=\d+ status=signal 9")


@dataclass
class Matrix:
    """What is killed and what has been found.

    Args:
        market: The exchange, which lives on.
        directory: The test's directory: every engine finds the archive, journal and segment of the one before.
        shared: Directory of the segments.
        random: What decides.
    """

    market: Exchange
    directory: Path
    shared: Path
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    audits: int = 0
    bars: int = 0

    @contextmanager
    def engine(
        self, points: list[str] | None = None, after_n: int = 1, options: tuple[str, ...] = ()
    ) -> Iterator[Engine]:
        """Run an engine whose roles die at these points, one in each life; it is gone when the block is left."""
        chaos = ("--set", f"chaos.crash_at={','.join(points or [])}", "--set", f"chaos.crash_after_n={after_n}")
        usual = (
            *("--workers", str(WORKERS), "--set", "store.flush_interval_s=0.5"),
            *("--set", "historian.bars_per_interval=default=99,1w=50"),
        )
        with ExitStack() as stack:
            arguments = (*addresses(self.market.port), *usual, *chaos, *options)
            running = stack.enter_context(
                launcher(self.directory, *arguments, instance="matrix", KLSHM_SHM_DIRECTORY=str(self.shared))
            )
            stack.callback(self._count_deaths, running)
            running.wait_live()
            yield running

    def _count_deaths(self, running: Engine) -> None:
        self.kills.update(_DIED.findall(running.text()))

    # Killing

    def wait_deaths(self, running: Engine, number: int, latest_s: float) -> None:
        """Wait until so many roles have died, or until it is too late."""
        until_s = time.monotonic() + latest_s
        wait_for(
            lambda: len(_DIED.findall(running.text())) >= number or time.monotonic() > until_s, latest_s + 240
        )

    def kill_one(self, running: Engine, kind: str) -> None:
        """Kill a role at a random instant and wait until another process has its place."""
        rows = [row for row in running.status().get("processes", []) if row["role"] == kind and is_alive(row["pid"])]
        if not rows:
            return  # it is between two lives
        died = len(_DIED.findall(running.text()))
        time.sleep(self.random.uniform(0.0, 0.4))  # the instant itself is what is drawn
        os.kill(self.random.choice(rows)["pid"], signal.SIGKILL)
        wait_for(lambda: len(_DIED.findall(running.text())) > died, explain=running.text)

    def kill_launcher(self, running: Engine) -> None:
        """Kill the launcher; the kernel takes its roles along."""
        family = engine_processes(running.process.pid)
        running.process.kill()
        self._wait_gone(running, family)
        self.kills["launcher"] += 1

    def kill_all(self, running: Engine) -> None:
        """Kill every process at once."""
        family = engine_processes(running.process.pid)
        for pid in self.random.sample(family, len(family)):
            os.kill(pid, signal.SIGKILL)
        self._wait_gone(running, family)
        self.kills["all at once"] += 1

    def _wait_gone(self, running: Engine, family: list[int]) -> None:
        running.process.wait()
        wait_for(lambda: not any(is_alive(pid) for pid in family))

    # Judging

    @property
    def archive(self) -> Path:
        """The archive of all these engines."""
        return self.directory / "data" / "matrix" / "klines.db"

    def wait_complete(self, running: Engine) -> None:
        """Wait until the archive has every bar that has closed so far, equal to the exchange's own."""
        end_ms = self.market.now_ms()
        symbols = trading_symbols(self.market)
        found: list[Comparison] = []

        def complete() -> bool:
            found[:] = [compare(self.market, self.archive, symbols, 0, end_ms)]
            return found[0].equal == found[0].compared

        wait_for(complete, explain=lambda: f"{found[0].missing[:9]} {found[0].different[:9]}\n{running.text()}")
        self.audits += 1
        self.bars += found[0].compared

    def check_confirmed(self) -> None:
        """Whatever the archive calls confirmed is the exchange's own at any moment, and is there once."""
        if not self.archive.exists():
            return
        with sqlite3.connect(f"file:{self.archive}?mode=ro", uri=True) as database:
            tables = database.execute("SELECT symbol, interval, table_name FROM series").fetchall()
            for symbol, interval, table in tables:
                self._check_series(database, symbol, interval, table)
        self.audits += 1

    def _check_series(self, database: sqlite3.Connection, symbol: str, interval: str, table: str) -> None:
        official = {
            row[0]: (*map(float, row[1:6]), float(row[7]), row[8], float(row[9]), float(row[10]))
            for row in self.market.get("/fapi/v1/klines", symbol=symbol, interval=interval, limit=99)
        }
        rows: list[Any] = database.execute(
            "SELECT open_time, state, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume, "
            f'taker_buy_quote_volume FROM "{table}"'
        ).fetchall()
        assert len({row[0] for row in rows}) == len(rows), f"{table} has a bar twice"
        for row in rows:
            if row[1] == 3 and row[0] in official:
                assert row[2:] == official[row[0]], f"{symbol} {interval} {row[0]}"
                self.bars += 1
