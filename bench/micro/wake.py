"""Waking a reader that waits for a closed bar: by futex, and the twin that looks every millisecond.

The reader's process sleeps; the writer notes the time, moves the tail and wakes. The figure is the
time until the reader's own code runs.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.support.figures import percentiles, print_figures
from bench.support.stage import child, cores, make_layout, pinned, segment_of, wait_for
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import wait_for_tail


__all__ = ["measure"]

_PAUSE_S: Final = 0.003
_POLL_S: Final = 0.001


def measure(quick: bool) -> dict[str, float]:
    """Return percentiles in microseconds, of futex and of polling.

    Args:
        quick: Fewer wakes.
    """
    rounds = 300 if quick else 1000
    return {**percentiles("futex", _times_us(rounds, _by_futex)), **percentiles("poll", _times_us(rounds, _by_polling))}


def _times_us(rounds: int, wait: Callable[[Segment, int], None]) -> Any:
    seen_ns = np.frombuffer(mmap.mmap(-1, 8 * (rounds + 1)), dtype=np.int64)
    sent_ns = np.zeros(rounds + 1, dtype=np.int64)
    reader_core, writer_core = cores()
    with segment_of(make_layout(4)) as segment:
        words, tail = segment.words, segment.layout.partition_offset(0) // 8 + lay.B_TAIL

        def follow() -> None:
            for number in range(1, rounds + 1):
                wait(segment, number - 1)
                seen_ns[number] = time.monotonic_ns()

        with child(follow, reader_core), pinned(writer_core):
            for number in range(1, rounds + 1):
                # The reader has to fall asleep between two wakes, at a moment unknown to its timer.
                time.sleep(_PAUSE_S + number % 10 / 10_000)
                sent_ns[number] = time.monotonic_ns()
                words[tail] = number
                futex.wake(words, tail)
                wait_for(lambda number=number: seen_ns[number], "the reader woke")  # type: ignore[misc]
    return (seen_ns[1:] - sent_ns[1:]) / 1000


def _by_futex(segment: Segment, seen: int) -> None:
    tail = segment.layout.partition_offset(0) // 8 + lay.B_TAIL
    while int(segment.words[tail]) == seen:
        wait_for_tail(segment, [tail], [seen], 1.0)


def _by_polling(segment: Segment, seen: int) -> None:
    tail = segment.layout.partition_offset(0) // 8 + lay.B_TAIL
    while int(segment.words[tail]) == seen:
        time.sleep(_POLL_S)


if __name__ == "__main__":
    print_figures(measure)
