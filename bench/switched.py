"""What is measured with and without one thing, in turns, in the same run.

Each function returns figures by name, every one a list of runs with it and a list of runs without.
A name that ends in `_per_s` is better when it is more, any other when it is less.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, Final, Literal

import numpy as np

import klshm
from bench.scenario.latency import latencies_us, trade_seen
from bench.support.bars import wave_of
from bench.support.dealing import busiest_share, dealt_to, two_kernels_per_s
from bench.support.figures import percentiles
from bench.support.market import names
from bench.support.memory import proportional_bytes
from bench.support.stage import child, cores, make_layout, pinned, run_worker, segment_of, wait_for
from klshm.run.affinity import isolated_cores, pin, usable_cores
from klshm.run.child import load_roles
from klshm.run.kernels import load_kernels
from klshm.shm import layout as lay
from klshm.shm.ring import RingProducer
from klshm.shm.segment import Segment


__all__ = ["EFFECTS", "Figures", "NotMeasurable"]

Figures = dict[str, dict[str, list[float]]]

_ROOT: Final = Path(__file__).resolve().parents[1]
_RATE: Final = 10_000
_ROLES: Final = 4
_PAUSE_S: Final = 0.003


class NotMeasurable(Exception):
    """This machine cannot show it."""


def busy_poll(quick: bool) -> Figures:
    """`run.busy_poll`: the worker's loop spins instead of sleeping."""
    return _in_turns(quick, lambda on: _latencies(quick, partial(_serve, is_frozen=True), busy_poll=on))


def gc_freeze(quick: bool) -> Figures:
    """`gc.freeze()` before roles are forked and before each serves."""

    def measure(on: bool) -> dict[str, float]:
        return _latencies(quick, partial(_serve, is_frozen=on)) | {"forked_role_mib": _forked_mib(on)}

    return _in_turns(quick, measure)


def pinning(quick: bool) -> Figures:
    """The worker kept on a core, alone and beside a process that computes all the time."""

    def measure(on: bool) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, beside in (("alone", nullcontext()), ("beside_another", child(_burn))):
            with beside:
                found |= _latencies(quick, partial(_serve, is_frozen=True), name, is_pinned=on)
        return found

    return _in_turns(quick, measure)


def isolated(quick: bool) -> Figures:
    """The worker on a core that is kept from the scheduler, instead of an ordinary one."""
    quiet = isolated_cores(usable_cores())
    if not quiet:
        raise NotMeasurable("no isolated cores on this machine (isolcpus=); that they are chosen is tested")
    ordinary = cores()[1]
    return _in_turns(quick, lambda on: _latencies(quick, partial(_serve_on, quiet[0] if on else ordinary)))


def spinning_readers(quick: bool) -> Figures:
    """`attach(wait="spin")`: a reader of closed bars looks all the time instead of sleeping in a futex."""
    rounds = 200 if quick else 1000
    return _in_turns(quick, lambda on: percentiles("wake", _woken_us("spin" if on else "futex", rounds)))


def dealt_by_load(quick: bool) -> Figures:
    """Symbols dealt to workers by the trades of a day, instead of equally many to each."""
    seeds = range(2 if quick else 6)

    def measure(on: bool) -> dict[str, float]:
        found = {
            f"busiest_of_{workers}_percent": mean(
                100 * busiest_share(dealt_to(seed, workers, on), seed) for seed in seeds
            )
            for workers in (2, 4)
        }
        return found | {"two_kernels_per_s": mean(two_kernels_per_s(dealt_to(seed, 2, on), seed) for seed in seeds)}

    return _in_turns(quick, measure)


def prefetch(quick: bool) -> Figures:
    """The processor is asked for a trade's record before the trade is looked at; compiles a copy without."""
    with tempfile.TemporaryDirectory() as directory:
        without = Path(directory)
        for package in ("klshm", "bench"):
            shutil.copytree(_ROOT / package, without / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
        source = without / "klshm" / "core" / "prefetch.py"
        lines = source.read_text().splitlines(keepends=True)
        kept = [line for line in lines if "builder.call(" not in line]
        if len(kept) != len(lines) - 1:
            raise NotMeasurable("prefetch.py has not the one call that is left out")
        source.write_text("".join(kept))
        place = {True: (_ROOT, os.environ), False: (without, {**os.environ, "KLSHM_CACHE": str(without / "cache")})}

        def measure(on: bool) -> dict[str, float]:
            root, environment = place[on]
            command = [sys.executable, "-m", "bench.micro.kernel", *(["--quick"] if quick else [])]
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            return {name: figures[name] for name in ("batch_256_ns", "batch_4096_ns")}

        return _in_turns(quick, measure)


EFFECTS: Final[dict[str, Callable[[bool], Figures]]] = {
    each.__name__: each
    for each in (busy_poll, gc_freeze, pinning, isolated, spinning_readers, dealt_by_load, prefetch)
}


def _in_turns(quick: bool, measure: Callable[[bool], dict[str, float]], rounds: int = 0) -> Figures:
    """Measure with and without, one after the other, each first in every second round."""
    figures: Figures = {}
    for number in range(rounds or (2 if quick else 5)):
        for on in (True, False) if number % 2 == 0 else (False, True):
            for name, value in measure(on).items():
                figures.setdefault(name, {"with": [], "without": []})["with" if on else "without"].append(value)
    return figures


def _latencies(
    quick: bool, work: Callable[[Segment, int], None], name: str = "latency", **more: Any
) -> dict[str, float]:
    seconds = 1.0 if quick else 4.0
    samples = latencies_us(_RATE, seconds, work, trade_seen, more.pop("busy_poll", False), **more)
    return percentiles(name, samples)


def _serve(segment: Segment, port: int, is_frozen: bool) -> None:
    if not is_frozen:
        gc.unfreeze()
    run_worker(segment, is_frozen=is_frozen)


def _serve_on(core: int | None, segment: Segment, port: int) -> None:
    pin(core)
    run_worker(segment)


def _burn() -> None:
    while True:
        pass


def _forked_mib(is_frozen: bool) -> float:
    """Return the proportional memory of the largest of some forked processes that have collected garbage once."""
    load_kernels()
    load_roles()
    marks: Any = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
    gc.collect()
    if is_frozen:
        gc.freeze()

    def stay(number: int) -> None:
        gc.collect()
        marks[number] = 1
        time.sleep(3600)

    try:
        with ExitStack() as stack:
            pids = [stack.enter_context(child(partial(stay, number))) for number in range(_ROLES)]
            wait_for(marks[:_ROLES].all, "all have collected")
            return max(map(proportional_bytes, pids)) / 2**20
    finally:
        gc.unfreeze()


def _woken_us(way: Literal["futex", "spin"], rounds: int) -> Any:
    """Return microseconds from a bar's publication until a reader's own code has it, out of a pause each."""
    seen_ns = np.frombuffer(mmap.mmap(-1, 8 * (rounds + 1)), dtype=np.int64)
    sent_ns = np.zeros(rounds + 1, dtype=np.int64)
    reader_core, writer_core = cores()
    with segment_of(make_layout(4)) as segment:
        layout = segment.layout
        tail = layout.partition_offset(0) // 8 + lay.B_TAIL
        producer = RingProducer(segment.words, layout.log_offset(0) // 8, layout.log_rows, tail)

        def follow() -> None:
            with klshm.attach(segment.path.name.removeprefix("klshm."), wait=way) as reader:
                bars = reader.closed(names(1), ["1m"], when="tick")
                seen_ns[0] = 1
                for number in range(1, rounds + 1):
                    next(bars)
                    seen_ns[number] = time.monotonic_ns()

        with child(follow, reader_core), pinned(writer_core):
            wait_for(lambda: seen_ns[0], "the reader follows")
            for number in range(1, rounds + 1):
                time.sleep(_PAUSE_S)
                producer.append(wave_of(1, number).rows[:1])
                sent_ns[number] = time.monotonic_ns()
                producer.publish()
                wait_for(lambda number=number: seen_ns[number], "the bar came")  # type: ignore[misc]
    return (seen_ns[1:] - sent_ns[1:]) / 1000
