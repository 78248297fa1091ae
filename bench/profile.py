"""Where the time of a row goes: its hot work under a profiler, or stage by stage.

Python work is profiled by cProfile. Compiled work is sampled by `perf` (software clock, which virtual machines
have too) where that is on PATH, and split into stages by what can be left out of it or counted. What happens
between two processes is told by the moments that both note.

    python -m bench.profile kernel latency
"""

from __future__ import annotations

import argparse
import cProfile
import io
import os
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

import klshm
from bench.about import about
from bench.micro.kernel import filled_engine, filled_market
from bench.report import columns, figure_text, origin_text
from bench.scenario.burst import intake_per_s, klshm_worker
from bench.support.bars import bars_of, wave_of
from bench.support.figures import best_of
from bench.support.kernel_names import write_map
from bench.support.market import INTERVALS, Trades, names
from bench.support.moments import latency_stages, wake_stages
from bench.support.stage import cores, make_layout, pinned, segment_of
from klshm.config import StoreConfig
from klshm.core.messages import EventBatch
from klshm.core.reader import FrameReader
from klshm.shm.segment import Segment
from klshm.shm.view import take_cuts
from klshm.store.archive import Archive


__all__ = ["PROFILES", "main"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_RESULTS: Final = _ROOT / "bench" / "results"
_SYMBOLS: Final = 600
_LINES: Final = 25
_COMM: Final = Path("/proc/self/comm")
_SAMPLED: Final = "sampled"
_BATCHES: Final = (1, 16, 256, 4096)
_TRADED: Final = (1, 30, 600)
_TURN_FRAMES: Final = 512


def kernel(quick: bool) -> str:
    """One trade into six intervals: what each call, each touched symbol and each trade takes, and samples."""
    rows, known, times_ns = [], [], []
    with pinned(cores()[1]):
        for symbols in _TRADED:
            for batch in _BATCHES:
                count = min(20_000 if quick else 100_000, 4000 * batch)
                part_ns, distinct = _applied_ns(Trades.make(count, symbols).events(), batch, 2 if quick else 5)
                rows.append((f"{symbols}", f"{batch}", f"{distinct:.1f}", figure_text(part_ns)))
                known.append((1 / batch, distinct / batch, 1.0))
                times_ns.append(part_ns)
    # Relative errors count: a batch of one takes fifty times as long as a trade of many.
    weights = 1 / np.array(times_ns)
    (call, symbol, trade), *_ = np.linalg.lstsq(np.array(known) * weights[:, None], np.ones(len(known)), rcond=None)
    return "\n".join(
        [
            columns([("symbols", "batch", "touched in a batch", "ns a trade"), *rows]),
            "",
            f"Fitted: {call:,.0f} ns a call + {symbol:,.0f} ns a touched symbol + {trade:.0f} ns a trade.",
            "A touched symbol's six rows are written once a batch, and its state may have left the caches.",
            "",
            _sampled(f"apply_again({5 if quick else 40})"),
        ]
    )


def burst(quick: bool) -> str:
    """One worker, socket to published bars: what reading and the kernel take alone, the rest, and samples."""
    count = 60_000 if quick else 300_000
    total_ns = 1e9 / statistics.median(intake_per_s(count, 200, klshm_worker) for _ in range(1 if quick else 3))
    payloads = Trades.make(count, 200, 5000).payloads(max(1, 5000 * 2000 // count))
    slots = {name: slot for slot, name in enumerate(names(200))}
    reader, engine, batch = FrameReader(slots, {}), filled_engine(200), EventBatch()
    parts = [payloads[at : at + _TURN_FRAMES] for at in range(0, len(payloads), _TURN_FRAMES)]
    events: list[Any] = []

    def read() -> None:
        for part in parts:
            reader.read(part, batch)
            events.append(batch.take())

    def apply() -> None:
        for part in events:
            engine.apply(part, int(part["time"][-1]) + 5)

    with pinned(cores()[1]):
        read_ns, apply_ns = (best_of(1, 1, work) / len(payloads) for work in (read, apply))
    stages = {
        f"read, {_TURN_FRAMES} frames at once": read_ns,
        "kernel": apply_ns,
        "socket, WebSocket frames, loop (the rest)": total_ns - read_ns - apply_ns,
        "all": total_ns,
    }
    lines = [(name, figure_text(ns), f"{ns / total_ns:.0%}") for name, ns in stages.items()]
    return columns([("stage", "ns a message", "share"), *lines]) + "\n\n" + _sampled(f"take_burst({count})")


def latency(quick: bool) -> str:
    """Socket to visible at 10,000 messages a second: the way of every message, by the moments that are noted."""
    return latency_stages(10_000, 1.0 if quick else 5.0)


def wake(quick: bool) -> str:
    """A waiting reader woken by futex: the writer's call, the scheduler, the reader's own code."""
    return wake_stages(100 if quick else 1000)


def cut(quick: bool) -> str:
    """An exact cut of 600 symbols x 6 intervals, and a snapshot made of it."""
    calls = 500 if quick else 5000
    with segment_of(make_layout(_SYMBOLS)) as segment:
        filled_market(segment)
        with klshm.attach(segment.path.name.removeprefix("klshm.")) as reader:
            views = reader.source.views
            source = np.ones(_SYMBOLS * len(INTERVALS) * 16, dtype=np.int64)
            target = np.empty_like(source)
            alone = {
                "take_cuts": best_of(5, calls // 10, lambda: take_cuts(views)),
                "Reader.snapshot": best_of(5, calls // 10, reader.snapshot),
                "memory of a cut asked for and filled": best_of(5, calls // 10, source.copy),
                "memcpy into warm memory": best_of(5, calls // 10, lambda: np.copyto(target, source)),
            }
            lines = [(name, figure_text(ns / 1000)) for name, ns in alone.items()]
            return "\n\n".join(
                [
                    columns([("alone, best of five loops", "us"), *lines]),
                    f"take_cuts, {calls} calls:\n{_profiled(lambda: take_cuts(views), calls)}",
                    f"Reader.snapshot, {calls} calls:\n{_profiled(reader.snapshot, calls)}",
                ]
            )


def bulk(quick: bool) -> str:
    """Bars in bulk into 3,600 tables, as backfill stores them."""
    batches = 2 if quick else 12
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as directory:
        archive = Archive(Path(directory) / "klines.db", StoreConfig())
        archive.write(wave_of(_SYMBOLS, 0))
        given = [bars_of(_SYMBOLS, range(at * 16, at * 16 + 16), 1000, 1000) for at in range(batches)]
        waiting = iter(given)
        text = _profiled(lambda: archive.write(next(waiting)), batches)
        archive.close()
    return f"{sum(map(len, given)):,} rows; the tables are there:\n{text}"


PROFILES: Final[dict[str, Callable[[bool], str]]] = {
    each.__name__: each for each in (kernel, burst, latency, wake, cut, bulk)
}


def main(arguments: list[str] | None = None) -> int:
    """Profile, print and write; return 2 for unknown names."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(PROFILES)}")
    parser.add_argument("--quick", action="store_true", help="shorter")
    parser.add_argument("--directory", type=Path, default=_RESULTS, help="where profile-NAME.txt goes")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in PROFILES]
    if unknown:
        print(f"bench.profile: no profile {unknown[0]!r}; profiles are {', '.join(PROFILES)}", file=sys.stderr)
        return 2
    origin = about("bench.profile")
    for name in options.names:
        title = (PROFILES[name].__doc__ or name).splitlines()[0]
        text = f"{name}: {title}\n{origin_text(origin)}\n\n{PROFILES[name](options.quick)}"
        print(text, flush=True)
        options.directory.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        (options.directory / f"profile-{name}.txt").write_text(lines + "\n", encoding="utf-8")
    return 0


def _applied_ns(events: Any, batch: int, rounds: int) -> tuple[float, float]:
    """Return ns per trade in the quickest of some rounds, and the symbols that a batch touches."""
    parts = [events[at : at + batch] for at in range(0, len(events), batch)]
    distinct = float(np.mean([len(np.unique(part["slot"])) for part in parts[:1000]]))
    best_ns = float("inf")
    for _ in range(rounds):
        engine = filled_engine(_SYMBOLS)

        def work(engine: Any = engine) -> None:
            for part in parts:
                engine.apply(part, int(part["time"][-1]) + 5)

        best_ns = min(best_ns, best_of(1, 1, work))
    return best_ns / len(events), distinct


def apply_again(rounds: int) -> None:
    """Let fresh engines apply the same trades, in batches of 4096, under the name that is sampled."""
    events = Trades.make(100_000, _SYMBOLS).events()
    parts = [events[at : at + 4096] for at in range(0, len(events), 4096)]
    print(write_map(), flush=True)
    for _ in range(rounds):
        engine = filled_engine(_SYMBOLS)
        _COMM.write_text(_SAMPLED)
        for part in parts:
            engine.apply(part, int(part["time"][-1]) + 5)
        _COMM.write_text("other")


def take_burst(count: int) -> None:
    """Let a worker of the name that is sampled take a burst."""

    def work(segment: Segment, worker: int, port: int) -> None:
        _COMM.write_text(_SAMPLED)
        klshm_worker(segment, worker, port)

    print(write_map(), flush=True)  # of this process: the worker's memory counts as its parent's
    intake_per_s(count, 200, work)


def _sampled(call: str) -> str:
    """Return where `perf` finds the sampled process while a function of this module runs."""
    perf = shutil.which("perf")
    if perf is None:
        return "Samples: perf is not on PATH, none were taken."
    with tempfile.NamedTemporaryFile() as file:
        command = [perf, "record", "-q", "-e", "cpu-clock", "-F", "1999", "-o", file.name]
        command += [sys.executable, "-c", f"from bench import profile; profile.{call}"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        if done.returncode:
            return f"Samples: perf failed: {(done.stderr.strip() or 'no reason').splitlines()[-1]}"
        command = [perf, "report", "-i", file.name, "--stdio", "--comms", _SAMPLED, "--percentage", "relative"]
        command += ["--sort", "dso,symbol", "--percent-limit", "0.5"]
        found = subprocess.run(command, capture_output=True, text=True).stdout
    for name in done.stdout.split():
        Path(name).unlink(missing_ok=True)
    # The last two columns are those of a processor with branch records.
    lines = [line.removesuffix("-      -").rstrip() for line in map(str.rstrip, found.splitlines())]
    kept = [line for line in lines if line and not line.startswith("#")][:_LINES]
    return "\n".join([f"Samples (perf, cpu-clock) of {call}; compiled kernels are [JIT]:", *kept])


def _profiled(work: Callable[[], Any], calls: int) -> str:
    profiler = cProfile.Profile()
    with profiler:
        for _ in range(calls):
            work()
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(_LINES)
    return "\n".join(line for line in out.getvalue().splitlines() if line.strip())


if __name__ == "__main__":
    # Before NumPy in every process: a thread pool would be forked along, and measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
