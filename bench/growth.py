"""How throughput and latency grow or bend: with symbols, workers, history, readers and load.

Writes growth.json and drawings into bench/results/.

    python -m bench.growth
    python -m bench.growth --quick wave history
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

import klshm
from bench.about import about
from bench.baselines.bare_recv import run_bare_recv
from bench.baselines.plain_stack import run_plain_stack
from bench.drawing import Panel, draw
from bench.micro.kernel import filled_market
from bench.scenario.burst import Work, intake_per_s, klshm_worker
from bench.scenario.latency import bytes_seen, latencies_us, trade_seen
from bench.scenario.readers import SnapshotReaders
from bench.scenario.wave import wave_ns
from bench.support.figures import best_of
from bench.support.market import BEGIN_MS
from bench.support.stage import cores, make_layout, pinned, run_worker, segment_of
from klshm.core.engine import Engine
from klshm.core.events import EVENT, TICK
from klshm.shm.segment import Segment


__all__ = ["CURVES", "main", "panels"]

RESULTS: Final = Path(__file__).parent / "results"
_PERCENTS: Final = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
_TYPICAL_PERCENT: Final = 95

Curve = Mapping[str, Sequence[float]]
"""`x` and one list per line."""


def symbols(quick: bool) -> Curve:
    """Messages per second of one worker against its symbols; each 512 have a connection and a sender."""
    x = [50, 500, 1000] if quick else [50, 100, 200, 350, 500, 750, 1000]
    return {"x": x, "messages per s": [_burst(quick, number) for number in x]}


def workers(quick: bool) -> Curve:
    """Messages per second of several workers together, 200 symbols each; every one has a sender beside it."""
    x = [1, 2, 4] if quick else [1, 2, 3, 4]
    return {"x": x, "messages per s": [_burst(quick, 200, workers=number) for number in x]}


def history(quick: bool) -> Curve:
    """Messages per second and a wave against the closed bars kept per series, and reading them all."""
    x = [96, 1024] if quick else [96, 512, 1024, 2048, 4096]
    with pinned(cores()[1]):
        waves = [_wave_ms(quick, 150, history_rows=rows) for rows in x]
        reads = [_read_all_us(rows) for rows in x]
    bursts = [_burst(quick, 100, history_rows=rows) for rows in x]
    return {"x": x, "messages per s": bursts, "wave ms": waves, "read of all us": reads}


def readers(quick: bool) -> Curve:
    """Messages per second of one worker while readers take a snapshot each 50 ms."""
    x = [0, 2, 8] if quick else [0, 1, 2, 4, 8]
    speeds, snapshots = [], []
    for number in x:
        reading = SnapshotReaders(number)
        speeds.append(_burst(quick, 200, readers=[reading] * number))
        snapshots.append(reading.mean_us)
    return {"x": x, "messages per s": speeds, "snapshot us": snapshots}


def wave(quick: bool) -> Curve:
    """A closing wave against the symbols of a worker."""
    x = [50, 150, 500, 1000] if quick else [50, 100, 150, 300, 500, 750, 1000]
    with pinned(cores()[1]):
        return {"x": x, "wave ms": [_wave_ms(quick, number) for number in x]}


def throughput(quick: bool) -> Curve:
    """Messages that are visible against messages that are sent, per second, of one worker."""
    x = [10_000, 100_000, 1_000_000] if quick else [5000 * 2**power for power in range(9)]
    works: dict[str, tuple[Work, int]] = {
        "klshm": (klshm_worker, 300_000),
        "plain stack": (lambda segment, worker, port: run_plain_stack(segment, port), 30_000),
    }
    lines: dict[str, list[float]] = {"x": [float(rate) for rate in x]}
    for name, (work, most_per_s) in works.items():
        # Beyond what it takes, a burst of a second or two takes longer; more messages would tell nothing more.
        counts = [min(rate, most_per_s) * (1 if quick else 2) for rate in x]
        lines[name] = [
            intake_per_s(count, 200, work, offered_per_s=rate) for rate, count in zip(x, counts, strict=True)
        ]
    return lines | {"all that is sent": lines["x"]}


def load(quick: bool) -> Curve:
    """Latency against messages per second."""
    x = [1000, 10_000, 50_000] if quick else [1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]
    lines: dict[str, list[float]] = {"x": [float(rate) for rate in x]}
    for name in ("bare recv", "klshm", "busy_poll"):
        for percent in (50, 99):
            lines[f"{name} p{percent}"] = []
        for rate in x:
            found = _latencies(name, rate, 2.0 if quick else 4.0)
            for percent in (50, 99):
                lines[f"{name} p{percent}"].append(float(np.percentile(found, percent)))
    return lines


def distribution(quick: bool) -> Curve:
    """Latency at 10,000 messages per second: microseconds at each percentile."""
    lines: dict[str, list[float]] = {"x": list(_PERCENTS)}
    for name in ("bare recv", "klshm", "busy_poll", "plain stack"):
        found = _latencies(name, 10_000, 2.0 if quick else 8.0)
        lines[name] = [float(value) for value in np.percentile(found, _PERCENTS)]
    return lines


CURVES: Final[dict[str, Callable[[bool], Curve]]] = {
    each.__name__: each for each in (symbols, workers, history, readers, wave, throughput, load, distribution)
}


def main() -> int:
    """Measure, write and draw; return 1 if a curve failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *CURVES], metavar="NAME", help=f"of {', '.join(CURVES)}")
    parser.add_argument("--quick", action="store_true", help="fewer points, shorter")
    parser.add_argument("--directory", type=Path, default=RESULTS, help="where results go")
    options = parser.parse_args()
    chosen, curves, failures = options.names or list(CURVES), {}, {}
    origin = about("bench.growth")
    for name in chosen:
        print(name, file=sys.stderr, flush=True)
        try:
            curves[name] = CURVES[name](options.quick)
        except (RuntimeError, AssertionError, TimeoutError, OSError) as error:
            failures[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: failed: {error}", file=sys.stderr)
    options.directory.mkdir(parents=True, exist_ok=True)
    document = {"about": origin, "curves": curves, "failures": failures}
    (options.directory / "growth.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, curve in curves.items():
        _draw(options.directory / f"growth-{name}.svg", name, curve)
    return int(bool(failures))


def _draw(path: Path, name: str, curve: Curve) -> None:
    title = (CURVES[name].__doc__ or name).splitlines()[0]
    draw(path, panels(name, curve), title, _X_TITLES[name])


def panels(name: str, curve: Curve) -> list[Panel]:
    """Return what is drawn: lines share a panel where they share a unit and a scale."""
    x = curve["x"]
    lines = {line: values for line, values in curve.items() if line != "x"}
    if name == "load":
        return [
            Panel(
                f"{percent}, us",
                x,
                {line: values for line, values in lines.items() if line.endswith(percent)},
                "log",
                "log",
            )
            for percent in ("p50", "p99")
        ]
    if name == "throughput":
        return [Panel("visible per second", x, lines, "log", "log")]
    if name == "distribution":
        near = {line: values for line, values in lines.items() if line != "plain stack"}
        count = sum(percent <= _TYPICAL_PERCENT for percent in x)
        typical = {line: values[:count] for line, values in near.items()}
        return [
            Panel(f"us, up to the {_TYPICAL_PERCENT}th percentile", x[:count], typical, "tail"),
            Panel("us, with the tail", x, near, "tail", "log"),
            Panel("us, with the plain stack", x, lines, "tail", "log"),
        ]
    if name == "readers":
        snapshots = lines.pop("snapshot us")
        at_work = Panel("snapshot us", x[1:], {"snapshot us": snapshots[1:]})  # without a reader there is none
        return [*(Panel(line, x, {line: values}) for line, values in lines.items()), at_work]
    return [Panel(line, x, {line: values}) for line, values in lines.items()]


_X_TITLES: Final = {
    "symbols": "symbols of one worker",
    "workers": "workers",
    "history": "closed bars kept per series",
    "readers": "readers",
    "wave": "symbols of one worker",
    "throughput": "messages sent per second",
    "load": "messages per second",
    "distribution": "percentile",
}


def _burst(quick: bool, number: int, **more: Any) -> float:
    count = 60_000 if quick else 300_000
    return statistics.median(intake_per_s(count, number, klshm_worker, **more) for _ in range(1 if quick else 3))


def _wave_ms(quick: bool, number: int, history_rows: int = 96) -> float:
    return statistics.median(wave_ns(number, None, history_rows) / 1e6 for _ in range(3 if quick else 7))


def _latencies(name: str, rate: int, seconds: float) -> Any:
    twins = {"bare recv": (run_bare_recv, bytes_seen), "plain stack": (run_plain_stack, trade_seen)}
    work, seen = twins.get(name, (_serve, trade_seen))
    return latencies_us(rate, seconds, work, seen, name == "busy_poll")


def _serve(segment: Segment, port: int) -> None:
    run_worker(segment)


def _read_all_us(rows: int) -> float:
    """Return the microseconds of reading all closed minutes of one symbol that memory holds."""
    with segment_of(make_layout(4, history_rows=rows)) as segment:
        engine: Engine = filled_market(segment, 100)
        tick = np.zeros(1, dtype=EVENT)
        tick["kind"] = TICK
        for minute in range(1, rows):
            tick["time"] = BEGIN_MS + minute * 60_000
            engine.apply(tick, int(tick["time"][0]) + 1)
        with klshm.attach(segment.path.name.removeprefix("klshm.")) as reader:
            if len(reader.history("B0000USDT", "1m", rows - 2)) < rows - 2:
                raise AssertionError(f"history holds less than {rows - 2} bars")
            return best_of(5, 20, lambda: reader.history("B0000USDT", "1m", rows - 2)) / 1000


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
