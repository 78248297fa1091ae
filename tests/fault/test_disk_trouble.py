"""Disks that are full, cannot be written, or hold something that another process will not let go of."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive_feed import ArchiveFeed
from klshm.store.archive_reader import ArchiveReader, has_archive
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from klshm.store.persister import ALARM_ARCHIVE, ALARM_JOURNAL
from klshm.store.segment_rows import OPEN, Namer
from tests.fault.mounts import in_own_mounts, mount_tmpfs
from tests.store.engine import MINUTE, START, Engine, bars
from tests.support.processes import exit_code, wait_for


pytestmark = pytest.mark.fault

MIB = 1 << 20


class Served:
    """A persister in a process of its own, and what is logged for it.

    Args:
        engine: Its engine.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.logged = 0
        self.pid, self.role = engine.fork_persister()

    def until(self, condition: Callable[[], object]) -> None:
        wait_for(condition, 60, lambda: self.error)

    @property
    def alarm(self) -> int:
        return self.engine.counters.get("alarm")

    @property
    def error(self) -> str:
        """The last error that the persister has reported."""
        block = self.engine.persister_block
        return block[lay.B_ERROR_TEXT :].tobytes()[: int(block[lay.B_ERROR_LENGTH])].decode()

    def log(self, number: int) -> None:
        """Let so many bars of one symbol close."""
        minutes = START + np.arange(self.logged, self.logged + number) * MINUTE
        self.engine.log(bars(minutes), 0)
        self.logged += number

    def log_until_alarm(self) -> None:
        """Let bars close until the persister is in trouble, never more than the log holds."""
        while not self.alarm:
            self.log(100)
            self.until(lambda: self.engine.counters.get("journal_rows_total") == self.logged or self.alarm)

    def shows_life(self) -> None:
        """Check that it goes on meanwhile."""
        beat = int(self.engine.persister_block[lay.B_HEARTBEAT_NS])
        self.until(lambda: int(self.engine.persister_block[lay.B_HEARTBEAT_NS]) > beat)

    def stored(self) -> bool:
        """Return whether every bar that closed is in the archive, sound."""
        path = names.archive_path(self.engine.directory)
        if not has_archive(path):
            return False
        reader = ArchiveReader(path)
        try:
            times = reader.read_series("AUSDT", "1m", limit=1 << 20)["open_time"]
            assert not len(times) or reader.damaged_ms("k_a_1m") == []
        finally:
            reader.close()
        return np.array_equal(times, START + np.arange(self.logged) * MINUTE)


@contextmanager
def serving(engine: Engine) -> Iterator[Served]:
    """Run a persister until the block is left; it must end without an alarm and with nothing lost."""
    served = Served(engine)
    try:
        yield served
        served.until(lambda: served.alarm == 0 and served.stored())
        served.role.stop.set()
        assert exit_code(served.pid) == 0
    except BaseException:
        os.kill(served.pid, signal.SIGKILL)
        raise
    assert engine.counters.get("overruns_total") == 0


def one_symbol(make_engine: Callable[..., Engine], **store: object) -> Engine:
    options = StoreConfig(**{"flush_interval_s": 0.02, **store})  # type: ignore[arg-type]
    engine = make_engine(symbols=("AUSDT",), log_rows=8192, store=options)
    engine.directory.mkdir(parents=True)
    return engine


def test_a_full_file_system_is_an_alarm_until_there_is_room(make_engine: Callable[..., Engine]) -> None:
    engine = one_symbol(make_engine)

    def full() -> None:
        mount_tmpfs(engine.directory, MIB)
        with serving(engine) as served:
            served.log_until_alarm()
            served.log(2000)
            served.until(lambda: served.alarm & ALARM_JOURNAL)
            served.shows_life()
            assert "No space" in served.error or "full" in served.error, served.error
            mount_tmpfs(engine.directory, 64 * MIB, again=True)

    in_own_mounts(full)


def test_a_file_system_that_cannot_be_written_is_an_alarm_until_it_can(make_engine: Callable[..., Engine]) -> None:
    engine = one_symbol(make_engine)

    def read_only() -> None:
        mount_tmpfs(engine.directory, 16 * MIB, read_only=True)
        with serving(engine) as served:
            served.log(500)
            served.until(lambda: served.alarm & ALARM_JOURNAL)
            served.shows_life()
            assert "Read-only" in served.error, served.error
            mount_tmpfs(engine.directory, 16 * MIB, again=True)

    in_own_mounts(read_only)


def test_a_reader_that_holds_the_wal_pauses_the_archive_and_nothing_else(make_engine: Callable[..., Engine]) -> None:
    engine = one_symbol(make_engine, wal_limit_bytes=60_000)
    with serving(engine) as served:
        served.log(1)
        served.until(served.stored)
        reader = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM series").fetchall()
        served.log_until_alarm()
        served.until(lambda: engine.counters.get("failures_total") >= 2)
        size = os.stat(f"{names.archive_path(engine.directory)}-wal").st_size
        failures = engine.counters.get("failures_total")
        served.log(100)
        served.until(lambda: engine.counters.get("failures_total") > failures)  # one more attempt
        served.until(lambda: engine.counters.get("journal_rows_total") == served.logged)
        assert served.alarm == ALARM_ARCHIVE
        assert os.stat(f"{names.archive_path(engine.directory)}-wal").st_size == size
        assert "a reader keeps an old snapshot open; end it" in served.error
        reader.close()


def test_open_bars_do_not_slip_by_while_closed_ones_wait(make_engine: Callable[..., Engine]) -> None:
    engine = one_symbol(make_engine, wal_limit_bytes=20_000)
    namer = Namer(engine.segment)
    feed = ArchiveFeed(engine.role(), namer, engine.counters, lambda: None)
    row = bars([START], slot=0, state=lay.STATE_LIVE)
    feed.write_open(namer.batch(row, OPEN))
    path = names.archive_path(engine.directory)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM series").fetchall()
        with pytest.raises(ArchiveError, match="a reader keeps an old snapshot open"):
            for number in range(100):
                row["volume"] = number
                feed.write_open(namer.batch(row, OPEN))
    assert os.stat(f"{path}-wal").st_size < 40_000
    feed.write_open(namer.batch(row, OPEN))
    feed.close()


def test_a_writer_that_holds_the_archive_is_waited_for(make_engine: Callable[..., Engine]) -> None:
    """Half a minute in the long form; the code that waits and gives up is the same."""
    held_s = 30.0 if os.environ.get("KLSHM_LONG") else 6.0
    engine = one_symbol(make_engine)
    with serving(engine) as served:
        served.log(1)
        served.until(served.stored)
        other = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        end_s = time.monotonic() + held_s
        while time.monotonic() < end_s or not served.alarm:
            served.log(5)
            served.until(lambda: engine.counters.get("journal_rows_total") == served.logged)
            served.shows_life()
        assert "locked" in served.error
        other.close()


_READ_AND_DIE = """
import lmdb, os, signal, sys
reading = lmdb.Environment(sys.argv[1], readonly=True, max_dbs=4).begin()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_dead_reader_does_not_let_the_journal_grow(tmp_path: Path) -> None:
    journal = Journal(tmp_path, map_bytes=MIB)
    minutes = bars(START + np.arange(512) * MINUTE)
    dead = subprocess.run([sys.executable, "-c", _READ_AND_DIE, os.fspath(tmp_path)])
    assert dead.returncode == -signal.SIGKILL
    try:
        for _ in range(100):  # many times what the map holds, were nothing used again
            journal.trim(journal.append([Batch({0: Listing("AUSDT", START)}, minutes)]))
        assert journal._environment.info()["map_size"] == MIB
    finally:
        journal.close()
