"""What an engine needs: memory, shared memory, CPU and disk, measured on a whole engine.

Starts the simulator and an engine against it, waits until history is filled, then measures for a
while. Prints one table and, with `--json FILE`, the figures with machine and versions.

    python bench/footprint.py --symbols 100 --rate 1000 --seconds 60
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import psutil
from demo import demo_engine, save
from support.memory import proportional_bytes

import klshm


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    settings = {
        "segment__max_symbols": options.symbols,
        "segment__log_rows": 16384,
        "segment__history": "{1m=1000,5m=500,30m=500,4h=500,1d=500,1w=200}",
        "sim__symbols": options.symbols,
        "sim__rate": options.rate,
    }
    with demo_engine("footprint", options.workers, **settings) as (engine, directory):
        figures = measure(engine.pid, options, directory)
    for name, value in figures.items():
        print(f"{name:32} {value:>12.2f}")
    if options.json:
        save(options.json, figures)
    return 0


def measure(pid: int, options: argparse.Namespace, directory: Path) -> dict[str, float]:
    """Wait until the engine is full, then measure it.

    Args:
        pid: The launcher's.
        options: The command's.
        directory: Its data directory.
    """
    reader = wait_until_full(options.symbols)
    roles = {row["pid"]: row["role"] for row in reader.status()["processes"]}
    processes = {psutil.Process(number): role for number, role in roles.items()}
    before = {process: process.cpu_times() for process in processes}
    stored_before = stored_bytes(directory)
    began_s = time.monotonic()
    time.sleep(options.seconds)
    elapsed_s = time.monotonic() - began_s
    figures: dict[str, float] = {"segment_mib": reader.status()["segment"]["bytes"] / 2**20}
    for process, role in processes.items():
        times = process.cpu_times()
        spent = times.user + times.system - before[process].user - before[process].system
        private = proportional_bytes(process.pid)
        figures[f"cpu_{role}_cores"] = figures.get(f"cpu_{role}_cores", 0.0) + spent / elapsed_s
        figures[f"memory_{role}_mib"] = figures.get(f"memory_{role}_mib", 0.0) + private / 2**20
    figures["cpu_cores"] = sum(value for name, value in figures.items() if name.startswith("cpu_"))
    figures["memory_mib"] = sum(value for name, value in figures.items() if name.startswith("memory_"))
    figures["archive_mib"] = stored_before / 2**20
    reader.close()
    return figures


def wait_until_full(symbols: int) -> klshm.Reader:
    """Return a reader once all symbols are live and backfill has come to rest."""
    deadline_s = time.monotonic() + 300
    stored = -1
    while time.monotonic() < deadline_s:
        try:
            reader = klshm.attach("footprint")
        except klshm.KlshmError:
            time.sleep(0.5)
            continue
        status = reader.status()
        kept = reader.intervals if reader.symbols() else ()
        now = sum(len(reader.history("BTCUSDT", name, 500)) for name in kept)
        if status["symbols"]["live"] >= symbols and now == stored and status["journal"]["behind_rows"] == 0:
            return reader
        stored = now
        reader.close()
        time.sleep(5)
    raise SystemExit("the engine did not come to rest within 300 s")


def stored_bytes(directory: Path) -> int:
    """Return the size of everything the engine has stored."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
