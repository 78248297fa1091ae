"""Symbols dealt to workers: what the busiest of them carries, and what two kernels do side by side."""

from __future__ import annotations

import mmap
import time
from functools import partial
from typing import Any, Final

import numpy as np

from bench.micro.kernel import filled_engine
from bench.support.market import Trades, names
from bench.support.stage import child, cores, wait_for
from klshm.historian.deal import deal


__all__ = ["busiest_share", "dealt_to", "two_kernels_per_s"]

_SYMBOLS: Final = 200
_TRADES: Final = 400_000
_BATCH: Final = 256


def dealt_to(seed: int, workers: int, by_load: bool) -> Any:
    """Return the worker of each symbol.

    Args:
        seed: Of the activity.
        workers: How many.
        by_load: As klshm deals; otherwise equally many to each.
    """
    if not by_load:
        return np.arange(_SYMBOLS) % workers
    weights = dict(zip(names(_SYMBOLS), _activity(seed).tolist(), strict=True))
    rooms = [-(-_SYMBOLS * 9 // (8 * workers))] * workers  # as klshm.run.sizes has it
    dealt = deal(weights, [0] * workers, rooms)
    return np.array([dealt[name] for name in names(_SYMBOLS)])


def busiest_share(worker: Any, seed: int) -> float:
    """Return the share of all trades that the worker with most of them carries.

    Args:
        worker: Of each symbol.
        seed: Of the activity.
    """
    loads = np.bincount(worker, weights=_activity(seed))
    return float(loads.max() / loads.sum())


def two_kernels_per_s(worker: Any, seed: int) -> float:
    """Return the trades per second of two engines on a core each; the one with more trades decides.

    Args:
        worker: Of each symbol, 0 or 1.
        seed: Of the activity.
    """
    trades = Trades.make(_TRADES, _SYMBOLS)
    order = np.argsort(np.argsort(-_activity(seed), kind="stable"))  # rank of each symbol; slot 0 trades most
    marks: Any = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
    ready, begun, ended = marks[0:2], marks[2:4], marks[4:6]

    def work(number: int) -> None:
        ranks = order[worker == number]
        local = np.full(_SYMBOLS, -1)
        local[ranks] = np.arange(len(ranks))
        events = trades.events()
        events["slot"] = local[trades.slot]
        events = np.ascontiguousarray(events[events["slot"] >= 0])
        engine = filled_engine(len(ranks))
        ready[number] = 1
        while not ready.all():
            pass
        begun[number] = time.monotonic_ns()
        for at in range(0, len(events), _BATCH):
            part = events[at : at + _BATCH]
            engine.apply(part, int(part["time"][-1]) + 5)
        ended[number] = time.monotonic_ns()
        time.sleep(3600)

    with child(partial(work, 0), cores()[0]), child(partial(work, 1), cores()[1]):
        wait_for(ended.all, "both kernels are done")
    return len(trades) / float(ended.max() - begun.min()) * 1e9


def _activity(seed: int) -> Any:
    """Return trades per symbol by Zipf's law, in the order of a list that knows nothing of it."""
    return np.random.default_rng(seed).permutation(1_000_000 // np.arange(1, _SYMBOLS + 1))
