"""A persister killed before and after every commit and trim: the next one stores every bar once."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from klshm.config import ChaosConfig, StoreConfig
from klshm.config.crash_points import CRASH_POINTS
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader
from klshm.store.journal import Journal
from tests.store.engine import MINUTE, START, Engine, bars
from tests.support.processes import exit_code


pytestmark = pytest.mark.fault

POINTS = tuple(point for point in CRASH_POINTS if point.startswith("persister."))
CASES = [(point, after_n) for point in POINTS for after_n in (1, 2) if (point, after_n) != (POINTS[-1], 2)]
"""One log is overrun, so there is one walk."""
BARS = 40


class Production:
    """An engine whose first persister dies at a point, and what is made in it.

    Args:
        make_engine: Makes engines.
        point: Where it dies.
        after_n: At which passing.
    """

    def __init__(self, make_engine: Callable[..., Engine], point: str, after_n: int = 1) -> None:
        self.engine = make_engine(
            symbols=("AUSDT", "BUSDT", "BACKUSDT"),
            log_rows=64,
            store=StoreConfig(flush_interval_s=0.05, open_bars=True),
        )
        chaos = ChaosConfig(crash_at=[point], crash_after_n=after_n)
        self.engine.config = dataclasses.replace(self.engine.config, chaos=chaos)
        self.rounds = 0
        self.engine.log(bars(START + np.arange(96) * MINUTE), 0)  # more than the log holds: history is owed
        self.make_more()

    @property
    def is_journaled(self) -> bool:
        """Whether all that was logged has been taken, so that there is room for more."""
        counters = self.engine.counters
        taken = counters.get("journal_rows_total") + counters.get("lost_rows_total")
        return taken >= 96 + self.rounds * BARS and self.engine.backfill.room() >= BARS

    def make_more(self) -> None:
        """Log and backfill bars of a further time."""
        engine = self.engine
        minutes = START + (96 + self.rounds * BARS + np.arange(BARS)) * MINUTE
        self.rounds += 1
        engine.log(bars(minutes, slot=1), 1)
        engine.backfill.append(bars(minutes, slot=2, state=lay.STATE_CONFIRMED))
        engine.backfill.publish()
        engine.trade(bars([int(minutes[-1]) + MINUTE], slot=0, state=lay.STATE_LIVE))
        engine.publish_halves()

    def run_first_life(self) -> None:
        """Let more close until the persister has died."""
        pid, _ = self.engine.fork_persister()
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if self.is_journaled:
                self.make_more()
            time.sleep(0.002)  # polls the outside view of another process
        assert exit_code(pid) == -signal.SIGKILL

    def run_second_life(self) -> None:
        """Let a persister store what is left and stop."""
        pid, role = self.engine.fork_persister()
        role.stop.set()
        assert exit_code(pid) == 0


def stored(engine: Engine, symbol: str) -> list[int]:
    """Return the minutes of every closed bar in the archive, each of them sound."""
    reader = ArchiveReader(names.archive_path(engine.directory))
    series = next(series for series in reader.series() if (series.symbol, series.interval) == (symbol, "1m"))
    assert reader.damaged_ms(series.table) == []
    rows = reader.read_series(symbol, "1m", limit=1 << 20)
    reader.close()
    closed = rows[rows["state"] != lay.STATE_LIVE]
    wanted = bars(closed["open_time"])
    for name in ("open", "high", "low", "close", "volume", "quote_volume", "trade_count"):
        assert np.array_equal(closed[name], wanted[name])
    return [int(minute) for minute in (closed["open_time"] - START) // MINUTE]


@pytest.mark.parametrize(("point", "after_n"), CASES)
def test_the_next_persister_stores_every_bar_once(
    make_engine: Callable[..., Engine], point: str, after_n: int
) -> None:
    production = Production(make_engine, point, after_n)
    production.run_first_life()
    production.run_second_life()
    engine, later = production.engine, list(range(96, 96 + production.rounds * BARS))
    first = stored(engine, "AUSDT")
    assert first == list(range(first[0], 96)) and first[0] <= 2, "history keeps 94 of them"
    assert stored(engine, "BUSDT") == later
    assert stored(engine, "BACKUSDT") == later
    if point != "persister.journal_committed":  # killed before it could count
        assert min(engine.counters.get("overruns_total"), engine.counters.get("walks_total")) >= 1
    journal = Journal(names.journal_path(engine.directory))
    try:
        assert journal.blocks == 0
        assert journal.owed_walks(engine.segment.uuid) == []
    finally:
        journal.close()


def test_rows_are_trimmed_only_after_the_archive_has_them(make_engine: Callable[..., Engine]) -> None:
    production = Production(make_engine, "persister.archive_committed")
    production.run_first_life()
    journal = Journal(names.journal_path(production.engine.directory))
    journaled = journal.blocks
    journal.close()
    assert journaled > 0
    assert stored(production.engine, "BUSDT"), "they are in both"
