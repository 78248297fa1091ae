"""Waking a reader that waits for a closed bar: by futex, the twin that looks every millisecond, and a bare pipe.

The reader's process sleeps; the writer notes the time, moves the tail and wakes. The figure is the
time until the reader's own code runs. A byte through a pipe is the floor: what this machine takes to
wake any process.
"""

from __future__ import annotations

import mmap
import os
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


__all__ = ["measure", "times_us"]

Wait = Callable[[Segment, int], Any]
Wake = Callable[[Segment], Callable[[], Any]]

_PAUSE_S: Final = 0.003
_POLL_S: Final = 0.001


def measure(quick: bool) -> dict[str, float]:
    """Return percentiles in microseconds, of futex and of polling.

    Args:
        quick: Fewer wakes.
    """
    rounds = 300 if quick else 1000
    reading, writing = os.pipe()
    ways: dict[str, tuple[Wait, Wake]] = {
        "futex": (_by_futex, _wake_futex),
        "poll": (_by_polling, lambda segment: lambda: None),
        "pipe": (lambda segment, seen: os.read(reading, 1), lambda segment: lambda: os.write(writing, b"x")),
    }
    figures: dict[str, float] = {}
    for name, (wait, wake) in ways.items():
        figures |= percentiles(name, times_us(rounds, wait, wake))
    return figures


def times_us(rounds: int, wait: Wait, wake: Wake) -> Any:
    """Return microseconds from a wake until the reader runs, one per round.

    Args:
        rounds: How many.
        wait: What the reader does; takes the segment and the tail it has seen.
        wake: Returns what the writer does once the tail has moved, made ready beforehand as a worker's is.
    """
    seen_ns = np.frombuffer(mmap.mmap(-1, 8 * (rounds + 1)), dtype=np.int64)
    sent_ns = np.zeros(rounds + 1, dtype=np.int64)
    reader_core, writer_core = cores()
    with segment_of(make_layout(4)) as segment:
        words, tail = segment.words, _tail(segment)
        woken = wake(segment)

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
                woken()
                wait_for(lambda number=number: seen_ns[number], "the reader woke")  # type: ignore[misc]
    return (seen_ns[1:] - sent_ns[1:]) / 1000


def _tail(segment: Segment) -> int:
    return segment.layout.partition_offset(0) // 8 + lay.B_TAIL


def _wake_futex(segment: Segment) -> futex.Waker:
    return futex.Waker(segment.words, _tail(segment))


def _by_futex(segment: Segment, seen: int) -> None:
    tail = _tail(segment)
    while int(segment.words[tail]) == seen:
        wait_for_tail(segment, [tail], [seen], 1.0)


def _by_polling(segment: Segment, seen: int) -> None:
    tail = _tail(segment)
    while int(segment.words[tail]) == seen:
        time.sleep(_POLL_S)


if __name__ == "__main__":
    print_figures(measure)
