"""The way from one process to another, by the moments that both note on the same clock."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.baselines.bare_recv import run_bare_recv
from bench.report import columns, figure_text
from bench.scenario.latency import WARM_UP_S, bytes_seen, moments_ns, trade_seen
from bench.support.stage import child, cores, make_layout, pinned, run_worker, segment_of, wait_for
from klshm.shm import futex
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from klshm.shm.view import wait_for_tail
from klshm.worker.intake import Intake
from klshm.worker.process import Worker


__all__ = ["latency_stages", "wake_stages"]

_PERCENTS: Final = (50, 90, 99, 99.9)
_PAUSE_S: Final = 0.003


def latency_stages(rate: int, seconds: float) -> str:
    """Return how long every stage between send() and a visible row takes, in a table.

    Args:
        rate: Messages per second.
        seconds: How long is measured.
    """
    texts = []
    for name, busy_poll in (("klshm", False), ("klshm with busy_poll", True)):
        watch = _Watch(int(rate * (seconds + WARM_UP_S)))
        sent, returned, seen = moments_ns(rate, seconds, watch.serve, trade_seen, busy_poll)
        stages = {
            "send() until it returns (the receiver is woken inside)": returned - sent,
            "send() to the worker's first own code: wake-up, recv, WebSocket frame": watch.came - sent,
            "the rest of the frames of this turn": watch.began - watch.came,
            "read and kernel, to the end of the turn": watch.ended - watch.began,
            "visible after the end of the turn (less than 0: before)": seen - watch.ended,
            "all: send() to visible": seen - sent,
        }
        skipped = int(rate * WARM_UP_S)
        texts.append(f"{name}\n{_table({title: ns[skipped:] for title, ns in stages.items()}, seen - sent)}")
    sent, returned, seen = moments_ns(rate, seconds, run_bare_recv, bytes_seen, False)
    bare = {"send() until it returns": returned - sent, "all: send() to visible": seen - sent}
    texts.append(f"bare blocking recv()\n{_table({title: ns[skipped:] for title, ns in bare.items()}, seen - sent)}")
    return "\n\n".join(texts)


def wake_stages(rounds: int) -> str:
    """Return how long every stage from the store of a tail to a reader's own code takes, in a table.

    Args:
        rounds: Wakes, each out of a pause of 3 ms.
    """
    texts = []
    for name, is_spinning in (("futex", False), ("spinning reader, nobody is woken", True)):
        sent, returned, back, seen = _wakes(rounds, is_spinning)
        stages = {"store to the return of the writer's wake call": returned - sent}
        if not is_spinning:
            stages["store to the return of the reader's system call"] = back - sent
            stages["from there to the reader's own code"] = seen - back
        stages["all: store to the reader's own code"] = seen - sent
        texts.append(f"{name}\n{_table(stages, seen - sent)}")
    return "\n\n".join(texts)


class _Watch:
    """A worker that notes the moments of every frame; what it notes is shared by fork.

    Args:
        frames: How many there will be.
    """

    def __init__(self, frames: int) -> None:
        self.came, self.began, self.ended = (_shared(frames) for _ in range(3))
        self._came = self._done = 0

    def serve(self, segment: Segment, port: int) -> None:
        """Serve for ever."""
        take, flush, clock = Intake._take, Worker._flush, time.monotonic_ns

        def noted_take(intake: Intake, payload: bytes) -> None:
            self.came[self._came] = clock()
            self._came += 1
            take(intake, payload)

        def noted_flush(worker: Worker) -> None:
            began_ns = clock()
            flush(worker)
            ended_ns = clock()
            for number in range(self._done, self._came):
                self.began[number], self.ended[number] = began_ns, ended_ns
            self._done = self._came

        # In the worker's own process only: nothing else runs there.
        Intake._take, Worker._flush = noted_take, noted_flush  # type: ignore[assignment, method-assign]
        run_worker(segment)


def _wakes(rounds: int, is_spinning: bool) -> Any:
    sent, returned, back, seen = (_shared(rounds + 1) for _ in range(4))
    reader_core, writer_core = cores()
    with segment_of(make_layout(4)) as segment:
        words = segment.words
        tail = segment.layout.partition_offset(0) // 8 + lay.B_TAIL
        wake = futex.Waker(words, tail)

        def follow() -> None:
            last = [0]
            futex._syscall = _noted(futex._syscall, last)  # type: ignore[assignment]  # in this process only
            for number in range(1, rounds + 1):
                while int(words[tail]) == number - 1:
                    if not is_spinning:
                        wait_for_tail(segment, [tail], [number - 1], 1.0)
                seen[number] = time.monotonic_ns()
                back[number] = last[0]

        with child(follow, reader_core), pinned(writer_core):
            for number in range(1, rounds + 1):
                time.sleep(_PAUSE_S + number % 10 / 10_000)
                sent[number] = time.monotonic_ns()
                words[tail] = number
                wake()
                returned[number] = time.monotonic_ns()
                wait_for(lambda number=number: seen[number], "the reader woke")  # type: ignore[misc]
            time.sleep(_PAUSE_S)  # the last note follows what was waited for
    return np.array([sent, returned, back, seen])[:, 1:]


def _noted(call: Callable[..., Any], last: list[int]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        result = call(*arguments)
        last[0] = time.monotonic_ns()
        return result

    return noted


def _shared(count: int) -> Any:
    return np.frombuffer(mmap.mmap(-1, 8 * count), dtype=np.int64)


def _table(stages: dict[str, Any], total_ns: Any) -> str:
    """Return percentiles of each stage, and its mean among the slowest hundredth of all."""
    total_ns = total_ns[-len(next(iter(stages.values()))) :]
    slow = total_ns >= np.percentile(total_ns, 99)
    lines = [("us", *(f"p{percent:g}" for percent in _PERCENTS), "mean", "mean of the slowest 1 %")]
    for title, ns in stages.items():
        values = (*np.percentile(ns, _PERCENTS), ns.mean(), ns[slow].mean())
        lines.append((title, *(figure_text(float(value) / 1000) for value in values)))
    return columns(lines)
