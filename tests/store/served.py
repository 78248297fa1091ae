"""A persister that serves in a thread, and what it has put on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader
from klshm.store.journal import Journal
from klshm.store.persister import serve
from tests.store.engine import MINUTE, START, Engine, bars


def minutes(first: int, last: int, **fields: Any) -> Any:
    return bars(START + np.arange(first, last) * MINUTE, **fields)


class Served:
    """A persister in a thread, as with `--workers 0`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.role: Role = engine.role()
        self.counters = Counters(self.role.block, PERSISTER)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            serve(self.role)
        except BaseException as error:
            self.failure = error

    def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            assert self.failure is None
            assert self.thread.is_alive()
            time.sleep(0.002)  # polls the outside view of another thread

    def stop(self) -> None:
        self.role.stop.set()
        self.thread.join()
        assert self.failure is None


@contextmanager
def serving(engine: Engine) -> Iterator[Served]:
    served = Served(engine)
    try:
        yield served
    finally:
        served.stop()


def state_of(served: Served) -> int:
    return int(served.role.block[lay.B_ROLE_STATE])


def archived(engine: Engine, symbol: str, interval: str = "1m") -> list[int]:
    try:
        reader = ArchiveReader(names.archive_path(engine.directory))
    except Exception:
        return []
    rows = reader.read_series(symbol, interval, limit=1 << 20)
    reader.close()
    return [int(t - START) // MINUTE for t in rows["open_time"]]


def journal_blocks(engine: Engine) -> int:
    journal = Journal(names.journal_path(engine.directory))
    blocks = journal.blocks
    journal.close()
    return blocks
