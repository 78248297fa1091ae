"""Hours of an engine under load and faults: does anything grow that must not?

Starts the simulator and an engine, lets history fill, then samples memory, descriptors, lag, file
sizes and match rates until the time is over. Writes one CSV, one drawing (SVG) and one JSON with the
verdict into a directory: memory and descriptors count as flat if a straight line through the second
half of the samples rises by less than five percent of their level an hour, or 1 MiB an hour.

    python bench/soak.py --minutes 30 --symbols 60 --rate 500 --faults --out bench/results

With `--faults` the simulator closes connections, mutes streams, sends twice, late and never, and
the soak kills one process of the engine after the other, by a seed that is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from demo import ROOT, attach_live, demo_engine, save
from drawing import Panel, draw
from support.memory import proportional_bytes

import klshm


FLAT_SHARE_PER_HOUR: Final = 0.05
FLAT_MIB_PER_HOUR: Final = 1.0
INSTANCE: Final = "soak"
RUN_IN_S: Final = 120.0
KILL_EVERY_S: Final = 180.0
FAULT_EVERY_S: Final = 45


def main() -> int:
    """Run, sample, judge; return 0 if nothing grew and every bar is equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--symbols", type=int, default=60)
    parser.add_argument("--rate", type=float, default=500.0, help="trades per second over all symbols")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=10.0, metavar="S", help="seconds between samples")
    parser.add_argument("--faults", action="store_true", help="let the exchange and processes fail")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    settings: dict[str, Any] = {
        "segment__max_symbols": options.symbols + 4,
        "sim__symbols": options.symbols,
        "sim__rate": options.rate,
        "sim__seed": options.seed % 2**31,
    }
    if options.faults:
        settings["sim__faults"] = json.dumps(schedule(random.Random(options.seed), options.minutes * 60 + RUN_IN_S))
        settings["chaos__kill_worker_after_s"] = 0.0  # this program kills itself, and any role
    with demo_engine(INSTANCE, options.workers, **settings) as (engine, directory):
        with attach_live(INSTANCE, engine, options.symbols) as reader:
            samples = soak(reader, directory, options)
        audit = judge_bars()
    name = options.out / f"soak-{options.minutes:.0f}min"
    write_samples(name.with_suffix(".csv"), samples)
    draw(name.with_suffix(".svg"), panels(samples), f"{options.symbols} symbols, {options.rate:.0f} trades/s")
    figures = verdict(samples) | audit | {"seed": options.seed, "samples": len(samples)}
    save(name.with_suffix(".json"), figures)
    for key, value in figures.items():
        print(f"{key:44} {value}")
    return 0 if figures["flat"] and figures["audit_equal"] == figures["audit_compared"] else 1


def schedule(chosen: random.Random, seconds: float) -> list[dict[str, Any]]:
    """Return faults of the exchange, one every three quarters of a minute."""
    kinds: list[dict[str, Any]] = [
        {"name": "duplicate", "probability": 0.1, "seconds": 20},
        {"name": "close"},
        {"name": "freeze", "seconds": 5},
        {"name": "reorder", "delay_ms": 400, "seconds": 20},
        {"name": "delay_x", "delay_ms": 3000, "seconds": 20},
        {"name": "delay_x", "probability": 1.0, "seconds": 20},
        {"name": "mute", "stream": "aggTrade", "seconds": 15},
        {"name": "mute", "stream": "kline", "seconds": 15},
    ]
    return [{"at_s": at_s, **chosen.choice(kinds)} for at_s in range(60, int(seconds), FAULT_EVERY_S)]


def soak(reader: klshm.Reader, directory: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Return samples, one every few seconds, after the engine has run in."""
    chosen = random.Random(options.seed)
    time.sleep(RUN_IN_S)
    began_s = time.monotonic()
    kill_s = KILL_EVERY_S
    samples = []
    while (elapsed_s := time.monotonic() - began_s) < options.minutes * 60:
        samples.append({"elapsed_s": round(elapsed_s, 1)} | sample(reader.status(), directory))
        if options.faults and elapsed_s >= kill_s:
            kill_s += KILL_EVERY_S
            kill_one(reader.status(), chosen)
        time.sleep(max(0.0, began_s + len(samples) * options.every - time.monotonic()))
    return samples


def sample(status: dict[str, Any], directory: Path) -> dict[str, float]:
    """Return what the engine is now: memory and descriptors by role, levels, sizes."""
    taken: dict[str, float] = {}
    for process in status["processes"]:
        role, pid = process["role"], process["pid"]
        if role == "simulator" or not pid:
            continue
        taken[f"{role}_mib"] = taken.get(f"{role}_mib", 0.0) + memory_mib(pid)
        taken[f"{role}_fds"] = taken.get(f"{role}_fds", 0.0) + descriptors(pid)
    taken["memory_mib"] = sum(value for name, value in taken.items() if name.endswith("_mib"))
    taken["descriptors"] = sum(value for name, value in taken.items() if name.endswith("_fds"))
    taken |= {f"lag_{name}_ms": status["lag_ms"][name] or 0.0 for name in ("p50", "p99")}
    taken["messages_per_s"] = status["messages_per_s"] or 0.0
    taken |= {f"bars_{name}": status["bars"][name] for name in ("closed", "confirmed", "partial", "corrected")}
    taken["match_settle"] = status["match_rate"]["settle"] or 0.0
    taken["journal_behind_rows"] = status["journal"]["behind_rows"]
    taken["restarts"] = sum(process["restarts"] for process in status["processes"])
    for name, path in (("db", "klines.db"), ("wal", "klines.db-wal"), ("journal", "journal/data.mdb")):
        file = directory / path
        taken[f"{name}_file_mib"] = file.stat().st_size / 2**20 if file.exists() else 0.0
    return taken


def memory_mib(pid: int) -> float:
    """Return the proportional memory of a process without the segment, 0 if it has just ended."""
    try:
        return proportional_bytes(pid) / 2**20
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def descriptors(pid: int) -> int:
    """Return how many descriptors a process holds, 0 if it has just ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return 0


def kill_one(status: dict[str, Any], chosen: random.Random) -> None:
    """Kill a worker, the historian or the persister."""
    victims = [p for p in status["processes"] if p["role"] in ("worker", "historian", "persister") and p["pid"]]
    victim = chosen.choice(victims)
    print(f"kill {victim['role']} {victim['index']}")
    os.kill(victim["pid"], signal.SIGKILL)


def judge_bars() -> dict[str, Any]:
    """Return what an audit of the last hours says."""
    command = [sys.executable, "-m", "klshm", "audit", "--json", "--instance", INSTANCE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return {f"audit_{name}": found[name] for name in ("compared", "equal", "missing", "unconfirmed", "extra")}


def verdict(samples: list[dict[str, float]]) -> dict[str, Any]:
    """Return levels and rises by the hour of the second half, and whether memory and descriptors are flat."""
    half = samples[len(samples) // 2 :]
    hours = [taken["elapsed_s"] / 3600 for taken in half]
    found: dict[str, Any] = {"flat": True}
    for name in ("memory_mib", "descriptors"):
        level, rise = line_through(hours, [taken[name] for taken in half])
        found[f"{name}_level"], found[f"{name}_rise_per_hour"] = round(level, 2), round(rise, 2)
        found["flat"] = bool(found["flat"] and rise < max(FLAT_SHARE_PER_HOUR * level, FLAT_MIB_PER_HOUR))
    last = samples[-1]
    found["lag_p99_ms_median"] = sorted(taken["lag_p99_ms"] for taken in samples)[len(samples) // 2]
    found |= {name: last[name] for name in ("bars_closed", "bars_confirmed", "match_settle", "restarts")}
    found |= {f"{name}_file_mib": round(last[f"{name}_file_mib"], 2) for name in ("db", "wal", "journal")}
    return found


def line_through(hours: list[float], values: list[float]) -> tuple[float, float]:
    """Return mean and slope of the least-squares line."""
    middle, level = sum(hours) / len(hours), sum(values) / len(values)
    spread = sum((hour - middle) ** 2 for hour in hours)
    moved = sum((hour - middle) * (value - level) for hour, value in zip(hours, values, strict=True))
    return level, moved / spread if spread else 0.0


def write_samples(path: Path, samples: list[dict[str, float]]) -> None:
    """Write the samples as CSV."""
    names = sorted({name for taken in samples for name in taken}, key=lambda name: (name != "elapsed_s", name))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval=0)
        writer.writeheader()
        writer.writerows({k: round(v, 3) for k, v in taken.items()} for taken in samples)


def panels(samples: list[dict[str, float]]) -> list[Panel]:
    """Return what is drawn, one below the other."""
    minutes = [taken["elapsed_s"] / 60 for taken in samples]

    def panel(title: str, *names: str) -> Panel:
        return Panel(title, minutes, {name: [taken.get(name, 0.0) for taken in samples] for name in names})

    return [
        panel("memory, MiB (proportional, without the segment)", "worker_mib", "historian_mib", "persister_mib"),
        panel("descriptors", "descriptors"),
        panel("lag, ms", "lag_p50_ms", "lag_p99_ms"),
        panel("files, MiB", "db_file_mib", "wal_file_mib", "journal_file_mib"),
        panel("match rate at settle", "match_settle"),
    ]


if __name__ == "__main__":
    sys.exit(main())
