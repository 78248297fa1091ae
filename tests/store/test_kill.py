"""Kill -9 at any instant: every bar is stored once, none is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader, has_archive
from klshm.store.journal import Journal
from klshm.store.recovery import drain_segment, load_latest
from tests.store.engine import MINUTE, START, Engine, bars
from tests.support.processes import fork


pytestmark = pytest.mark.fault

KILLS = 25


class Producer:
    """Logs bars and backfill as fast as the persister may be trusted to follow."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.minute = 0
        self.want: dict[tuple[str, int], tuple[float, int]] = {}

    def room(self) -> int:
        """Rows that may be logged without an overrun of what is not yet durable."""
        journaled = self.engine.counters.get("journal_rows_total")
        return 128 - sum(log.position for log in self.engine.logs) + journaled

    def produce(self) -> None:
        engine, rows = self.engine, []
        for slot in range(4):
            close, revision = self.random.random(), 1 + self.random.randrange(3)
            state = self.random.choice((lay.STATE_CLOSED, lay.STATE_CONFIRMED))
            row = bars([START + self.minute * MINUTE], slot=slot, close=close, revision=revision, state=state)
            rows.append(row)
            self.want[engine.symbols[slot], self.minute] = (close, revision)
        for worker in (0, 1):
            engine.log(np.concatenate(rows[worker::2]), worker)
        if engine.backfill.room() >= 1:
            name = 5  # a symbol that only the historian fills
            engine.backfill.append(bars([START + self.minute * MINUTE], slot=name, state=lay.STATE_CONFIRMED))
            engine.backfill.publish()
            self.want["BACKUSDT", self.minute] = (float(bars([START + self.minute * MINUTE])["close"][0]), 1)
        self.minute += 1


def found_in_archive(engine: Engine) -> dict[tuple[str, int], tuple[float, int]]:
    found: dict[tuple[str, int], tuple[float, int]] = {}
    if not has_archive(names.archive_path(engine.directory)):
        return found  # it was killed before its first flush
    reader = ArchiveReader(names.archive_path(engine.directory))
    for series in reader.series():
        assert reader.damaged_ms(series.table) == []
        for row in reader.read_series(series.symbol, series.interval, limit=1 << 30):
            key = (series.symbol, int(row["open_time"] - START) // MINUTE)
            assert key not in found
            found[key] = (float(row["close"]), int(row["revision"]))
    reader.close()
    return found


def found_in_journal(engine: Engine) -> list[tuple[tuple[str, int], tuple[float, int]]]:
    journal = Journal(names.journal_path(engine.directory))
    blocks = journal.read(0, 1 << 30)
    journal.close()
    return [
        (
            (block.listings[row["slot"]].name, int(row["open_time"] - START) // MINUTE),
            (float(row["close"]), int(row["revision"])),
        )
        for _, block in blocks
        if block is not None
        for row in block.rows
    ]


def kill_in_a_loop(engine: Engine, producer: Producer) -> None:
    for _ in range(KILLS):
        pid, _ = engine.fork_persister()
        end_s = time.monotonic() + producer.random.uniform(0.005, 0.12)
        while time.monotonic() < end_s:
            if producer.room() >= 8:
                producer.produce()
            else:
                os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        # A kill between commit and counter makes the counter low for ever: what is durable says the truth.
        journal = Journal(names.journal_path(engine.directory))
        durable = sum(journal.cursor(engine.segment.uuid, f"log/{worker}") or 0 for worker in (0, 1))
        journal.close()
        engine.counters.set("journal_rows_total", durable)


@pytest.fixture
def killed(make_engine: Callable[..., Engine], request: Any) -> tuple[Engine, Producer]:
    symbols = ("AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT", "BACKUSDT")
    engine = make_engine(symbols=symbols, store=StoreConfig(flush_interval_s=0.01))
    producer = Producer(engine, seed=request.param)
    kill_in_a_loop(engine, producer)
    assert producer.minute > KILLS
    return engine, producer


def test_a_recovery_that_is_killed_is_repeated(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(symbols=("AUSDT", "BUSDT"), log_rows=4096)
    minutes = np.arange(5000)
    engine.log(bars(START + minutes * MINUTE), 0)  # overrun: history is walked too
    engine.log(bars(START + minutes[:4000] * MINUTE, slot=1), 1)
    engine.trade(bars([START] * 2, slot=np.arange(2), state=lay.STATE_LIVE))
    ends = []
    for number in range(KILLS):
        pid = fork(lambda: drain_segment(engine.segment, engine.directory))
        time.sleep(0.0008 * number)  # the kill comes at another instant each time
        os.kill(pid, signal.SIGKILL)
        ends.append(os.waitpid(pid, 0)[1])
    assert signal.SIGKILL in ends
    drain_segment(engine.segment, engine.directory)
    journaled = {key for key, _ in found_in_journal(engine)}
    assert journaled == {("AUSDT", m) for m in range(904, 5000)} | {("BUSDT", m) for m in range(4000)}
    assert set(load_latest(engine.directory)) == {("AUSDT", "1m"), ("BUSDT", "1m")}


@pytest.mark.parametrize("killed", [1], indirect=True)
def test_the_next_persister_completes_the_archive(killed: tuple[Engine, Producer]) -> None:
    engine, producer = killed
    pid, role = engine.fork_persister()
    role.stop.set()
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert found_in_journal(engine) == []
    assert found_in_archive(engine) == producer.want
    assert (engine.counters.get("overruns_total"), engine.counters.get("failures_total")) == (0, 0)


@pytest.mark.parametrize("killed", [2], indirect=True)
def test_archive_and_journal_hold_all_when_the_whole_engine_died(killed: tuple[Engine, Producer]) -> None:
    engine, producer = killed
    drain_segment(engine.segment, engine.directory)
    drain_segment(engine.segment, engine.directory)
    journaled = found_in_journal(engine)
    assert len(dict(journaled)) == len(journaled)  # nothing was journaled twice
    assert found_in_archive(engine) | dict(journaled) == producer.want
