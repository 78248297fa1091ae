"""One engine and its exchange, killed again and again: at named points, at random instants, as a whole."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from klshm.config.crash_points import CRASH_POINTS
from klshm.role import block_offset
from klshm.shm import layout as lay
from klshm.shm.counters import LAUNCHER, Counters
from klshm.shm.segment import Segment, open_segment
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
AUDIT_EVERY_S = 3.0
"""The exchange counts what an audit asks with what the engine asks: seldom enough to leave the engine its share."""


class Roles:
    """The roles of a running engine, as its segment shows them; the log holds back what repeats.

    Args:
        segment: Its segment.
    """

    def __init__(self, segment: Segment) -> None:
        layout = segment.layout
        kinds = [("worker", index) for index in range(layout.workers)] + [("persister", 0), ("historian", 0)]
        self._blocks = [(kind, segment.block(block_offset(layout, kind, index))) for kind, index in kinds]
        self._launcher = Counters(segment.block(layout.launcher_offset), LAUNCHER)

    @property
    def deaths(self) -> int:
        """How often a role has ended."""
        return self._launcher.get("restarts_total")

    @property
    def lives(self) -> Counter[str]:
        """How often each kind of role has begun again."""
        found: Counter[str] = Counter()
        for kind, block in self._blocks:
            found[kind] += int(block[lay.B_INCARNATION]) - 1
        return found

    def pids(self, kind: str) -> list[int]:
        """Return the processes of a kind that live."""
        pids = [int(block[lay.B_PID]) for each, block in self._blocks if each == kind]
        return [pid for pid in pids if is_alive(pid)]


@dataclass
class Matrix:
    """What is killed and what has been found.

    Args:
        market: The exchange, which lives on.
        directory: The test's directory: every engine finds the archive and the journal of the one before, and in
            `$KLSHM_SHM_DIRECTORY` its segment.
        random: What decides.
    """

    market: Exchange
    directory: Path
    random: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    audits: int = 0
    bars: int = 0

    @contextmanager
    def engine(
        self, points: list[str] | None = None, after_n: int = 1, options: tuple[str, ...] = ()
    ) -> Iterator[tuple[Engine, Roles]]:
        """Run an engine whose roles die at these points, one in each life; it is gone when the block is left."""
        chaos = ("--set", f"chaos.crash_at={','.join(points or [])}", "--set", f"chaos.crash_after_n={after_n}")
        usual = (
            *("--workers", str(WORKERS), "--set", "store.flush_interval_s=0.5"),
            *("--set", "historian.bars_per_interval=default=99,1w=50"),
        )
        arguments = (*addresses(self.market.port), *usual, *chaos, *options)
        with launcher(
            self.directory, *arguments, instance="matrix", KLSHM_SHM_DIRECTORY=os.environ["KLSHM_SHM_DIRECTORY"]
        ) as running:
            running.wait_live()
            roles = Roles(open_segment("matrix"))
            yield running, roles
            self.kills += roles.lives

    # Killing

    def wait_deaths(self, roles: Roles, number: int, latest_s: float) -> None:
        """Wait until so many roles have died, or until it is too late."""
        until_s = time.monotonic() + latest_s
        wait_for(lambda: roles.deaths >= number or time.monotonic() > until_s, latest_s + 240)

    def kill_one(self, running: Engine, roles: Roles, kind: str) -> None:
        """Kill a role at a random instant and wait until that is noticed."""
        wait_for(lambda: roles.pids(kind), explain=running.text)
        time.sleep(self.random.uniform(0.0, 0.4))  # the instant itself is what is drawn
        died, pids = roles.deaths, roles.pids(kind)
        if pids:
            with suppress(ProcessLookupError):  # dead by itself just now: that counts as well
                os.kill(self.random.choice(pids), signal.SIGKILL)
            wait_for(lambda: roles.deaths > died, explain=running.text)

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
            with suppress(ProcessLookupError):  # the launcher's end may have been quicker
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
        next_s = 0.0

        def complete() -> bool:
            nonlocal next_s
            if time.monotonic() < next_s:
                return False
            next_s = time.monotonic() + AUDIT_EVERY_S
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
