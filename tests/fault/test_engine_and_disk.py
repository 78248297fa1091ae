"""A whole engine whose disk fails in one way after the other: intake goes on, and in the end no bar is missing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import klshm
from klshm.store.persister import ALARM_ARCHIVE, ALARM_JOURNAL
from tests.fault.matrix import Matrix
from tests.support.engine import Engine
from tests.support.exchange import exchange
from tests.support.processes import wait_for


pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

STORE = (
    *("--set", "store.wal_limit_bytes=1048576", "--set", "store.open_bars=true"),
    *("--set", "store.flush_interval_s=0.2"),
)


class Watched:
    """A running engine, seen by a reader.

    Args:
        running: The launcher.
        reader: Attached to its segment.
    """

    def __init__(self, running: Engine, reader: klshm.Reader) -> None:
        self.running, self.reader = running, reader

    def until(self, condition: Callable[[], object]) -> None:
        wait_for(condition, 120, lambda: f"{self.counters('persister')}\n{self.running.text()}")

    def counters(self, role: str) -> Any:
        return self.reader.status()["counters"][role]

    @property
    def alarm(self) -> int:
        return int(self.counters("persister")["alarm"])

    def takes_in(self) -> None:
        """Check that messages, heartbeats and publications of every worker go on, and that the persister lives."""
        before = self.counters("workers")
        self.until(lambda: all(map(_is_more, self.counters("workers"), before)))
        assert all(process["state"] != "gone" for process in self.reader.status()["processes"])


def _is_more(now: dict[str, int], before: dict[str, int]) -> bool:
    return now["messages_total"] > before["messages_total"] and now["swaps_total"] > before["swaps_total"]


def test_the_disk_fails_and_the_market_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--weight-limit", "1000000", "--symbols", "6", "--rate", "60", "--history-days", "40")
    with (
        exchange(*options) as market,
        tempfile.TemporaryDirectory(prefix="klshm-test-", dir="/dev/shm") as shared,
    ):
        monkeypatch.setenv("KLSHM_SHM_DIRECTORY", shared)
        matrix = Matrix(market, tmp_path, Random(1))
        with matrix.engine(options=STORE) as (running, _), klshm.attach("matrix") as reader:
            watched = Watched(running, reader)
            matrix.wait_complete(running)
            for trouble in (pin_the_wal, hold_the_lock, stop_the_persister, take_the_archive, take_the_directory):
                trouble(watched, matrix)
                watched.until(lambda: watched.alarm == 0)
            matrix.wait_complete(running)
            assert watched.counters("persister")["overruns_total"] == 0
            assert running.stop() == 0, running.text()


def pin_the_wal(watched: Watched, matrix: Matrix) -> None:
    other = sqlite3.connect(matrix.archive, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM series").fetchall()
    watched.until(lambda: watched.alarm & ALARM_ARCHIVE)
    watched.takes_in()
    assert "a reader keeps an old snapshot open; end it" in watched.running.text()
    other.close()


def hold_the_lock(watched: Watched, matrix: Matrix) -> None:
    other = sqlite3.connect(matrix.archive, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    watched.until(lambda: watched.alarm & ALARM_ARCHIVE)
    watched.takes_in()
    other.close()


def stop_the_persister(watched: Watched, matrix: Matrix) -> None:
    """A disk that takes seconds looks the same from outside: the persister neither journals nor shows life."""
    pid = next(process["pid"] for process in watched.reader.status()["processes"] if process["role"] == "persister")
    os.kill(pid, signal.SIGSTOP)
    watched.takes_in()
    os.kill(pid, signal.SIGCONT)


def take_the_archive(watched: Watched, matrix: Matrix) -> None:
    matrix.archive.rename(matrix.archive.with_name("taken.db"))
    watched.until(lambda: watched.alarm & ALARM_ARCHIVE)
    watched.takes_in()


def take_the_directory(watched: Watched, matrix: Matrix) -> None:
    shutil.rmtree(matrix.archive.parent)
    watched.until(lambda: watched.alarm & ALARM_JOURNAL)
    watched.takes_in()
