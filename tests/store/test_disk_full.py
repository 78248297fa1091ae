"""A real disk limit (RLIMIT_FSIZE on the persister's process): it alarms, lives on and catches up."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader
from klshm.store.persister import ALARM_JOURNAL, serve
from tests.store.engine import MINUTE, START, Engine, bars
from tests.support.processes import fork


pytestmark = pytest.mark.fault

LIMIT_BYTES = 150_000


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.002)  # polls the outside view of another process


def test_a_full_disk_stops_only_persistence(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(symbols=("AUSDT",), log_rows=8192, store=StoreConfig(flush_interval_s=0.02))
    role = engine.role()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
        serve(role)

    pid = fork(limited)
    try:
        logged = 0
        while not engine.counters.get("alarm"):
            engine.log(bars(START + np.arange(logged, logged + 50) * MINUTE), 0)
            logged += 50
            # Not until nothing is behind: that is told a moment late, and would let the log run over.
            until(lambda all=logged: engine.counters.get("journal_rows_total") == all or engine.counters.get("alarm"))
        engine.log(bars(START + np.arange(logged, logged + 2000) * MINUTE), 0)
        logged += 2000
        until(lambda: engine.counters.get("alarm") & ALARM_JOURNAL != 0)
        beat = int(engine.persister_block[lay.B_HEARTBEAT_NS])
        until(lambda: int(engine.persister_block[lay.B_HEARTBEAT_NS]) > beat)
        assert int(engine.persister_block[lay.B_ERROR_LENGTH]) > 0

        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        until(lambda: engine.counters.get("alarm") == 0 and engine.counters.get("journal_behind_rows") == 0)
        role.stop.set()
        _, status = os.waitpid(pid, 0)
        assert status == 0
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    assert engine.counters.get("overruns_total") == 0
    reader = ArchiveReader(names.archive_path(engine.directory))
    stored = reader.read_series("AUSDT", "1m", limit=1 << 20)["open_time"]
    assert reader.damaged_ms("k_a_1m") == []
    reader.close()
    assert np.array_equal(stored, START + np.arange(logged) * MINUTE)
