"""A closing wave: the end of a week closes all six intervals of 150 symbols in one call of the engine.

On a segment in shared memory whose pages were touched before, with a reader asleep on the log's
tail. The clock runs from the call, before its first store, until the wake has returned.
"""

from __future__ import annotations

import time
from typing import Any, Final

import numpy as np

from bench.support.figures import print_figures
from bench.support.market import BEGIN_MS, INTERVALS, Trades, warm_up
from bench.support.stage import child, cores, make_layout, pinned, segment_of, wait_for
from klshm.core.engine import Engine
from klshm.core.events import EVENT, TICK
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import wait_for_tail


__all__ = ["measure", "wave_ns"]

_SYMBOLS: Final = 150
_TRADES: Final = 20_000
_WEEK_MS: Final = 604_800_000
_PAGE_WORDS: Final = 512


def measure(quick: bool) -> dict[str, float]:
    """Return milliseconds of a wave, median and worst of several engines.

    Args:
        quick: Fewer engines.
    """
    reader_core, worker_core = cores()
    with pinned(worker_core):
        waves_ms = [wave_ns(_SYMBOLS, reader_core) / 1e6 for _ in range(5 if quick else 20)]
    return {"wave_ms": float(np.median(waves_ms)), "worst_ms": max(waves_ms)}


def wave_ns(symbols: int, reader_core: int | None, history_rows: int = 96) -> int:
    """Return nanoseconds from the first store to the last wake of one wave.

    Args:
        symbols: All of one worker.
        reader_core: Where the waiting reader runs.
        history_rows: Closed bars kept per series.
    """
    begin_ms = BEGIN_MS + _WEEK_MS - 60_000
    with (
        segment_of(make_layout(symbols, history_rows=history_rows)) as segment,
        # Before the engine: a fork would protect its private pages, and each first store would fault.
        child(lambda: _wait(segment), reader_core) as reader,
    ):
        engine = Engine(segment.words, segment.layout)
        for words in engine.memory:
            words[::_PAGE_WORDS] += 0
        for events, now_ms in warm_up(symbols, begin_ms):
            engine.apply(events, now_ms)
        engine.apply(Trades.make(_TRADES, symbols, begin_ms=begin_ms).events(), begin_ms + 51_000)
        engine.publish(time.monotonic_ns())
        before = _tail(segment)
        wait_for(lambda: _sleeps(reader), "the reader waits")
        elapsed_ns = _close(engine, segment, begin_ms + 60_000)
        if _tail(segment) - before != symbols * len(INTERVALS):
            raise AssertionError(f"{_tail(segment) - before} bars closed, expected {symbols * len(INTERVALS)}")
    return elapsed_ns


def _close(engine: Engine, segment: Segment, end_ms: int) -> int:
    event = np.zeros(1, dtype=EVENT)
    event["kind"], event["time"] = TICK, end_ms
    block = segment.layout.partition_offset(0) // 8
    wake_tail, wake_cut = (futex.Waker(segment.words, block + word) for word in (lay.B_TAIL, lay.B_GENERATION))
    began_ns = time.monotonic_ns()
    engine.apply(event, end_ms + 1, began_ns)
    wake_tail()
    wake_cut()
    return time.monotonic_ns() - began_ns


def _tail(segment: Segment) -> int:
    return int(segment.block(segment.layout.partition_offset(0))[lay.B_TAIL])


def _wait(segment: Segment) -> None:
    word = segment.layout.partition_offset(0) // 8 + lay.B_TAIL
    while True:
        wait_for_tail(segment, [word], [_tail(segment)], 60.0)


def _sleeps(pid: int) -> Any:
    with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
        return "futex" in file.read()


if __name__ == "__main__":
    print_figures(measure)
