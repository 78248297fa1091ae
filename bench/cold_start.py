"""From nothing to everything: a first start with many symbols, within the exchange's request weight.

Starts the simulator (which counts weight as the exchange does and answers 429) and an engine without
any history, and prints when all symbols were live, when history was full, what weight it took and
what for, beside the least that so many rows can cost.

    python bench/cold_start.py --symbols 800 --rate 1000
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from demo import attach_live, demo_engine, save

import klshm


_DEPTHS = {"1m": 1000, "5m": 1000, "30m": 1000, "4h": 1000, "1d": 1000, "1w": 200}
_ROWS_PER_WEIGHT = 499 / 2
_LIMIT_S = 1800.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--rate", type=float, default=1000.0, help="trades per second over all symbols")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    settings = {
        "segment__max_symbols": options.symbols,
        "segment__log_rows": 65536,
        "segment__history": "{1m=1000,5m=500,30m=500,4h=500,1d=500,1w=200}",
        "sim__symbols": options.symbols,
        "sim__rate": options.rate,
        "sim__history_days": 1400,
    }
    with demo_engine("cold-start", options.workers, **settings) as (engine, _):
        with attach_live("cold-start", engine, 0) as reader:
            figures = measure(reader, options.symbols)
    for name, value in figures.items():
        print(f"{name:32} {value:>12.1f}")
    if options.json:
        save(options.json, figures)
    return 0


def measure(reader: klshm.Reader, symbols: int) -> dict[str, float]:
    """Follow an engine until its history is full."""
    began_s = reader_began_s(reader)
    figures: dict[str, float] = {}
    while time.monotonic() - began_s < _LIMIT_S:
        status = reader.status()
        historian = status["counters"]["historian"]
        ended = historian["backfill_done"] + historian["backfill_failed"]
        if "all_live_s" not in figures and status["symbols"]["live"] >= symbols:
            figures["all_live_s"] = time.monotonic() - began_s
        if "first_pass_s" not in figures and ended >= symbols:
            figures["first_pass_s"] = time.monotonic() - began_s
        if "all_live_s" in figures and ended >= historian["backfill_tasks"] > symbols:
            return figures | totals(status, began_s, symbols)
        time.sleep(1)
    raise SystemExit(f"history was not full after {_LIMIT_S:.0f} s")


def totals(status: dict[str, Any], began_s: float, symbols: int) -> dict[str, float]:
    """Return what it took in the end."""
    historian = status["counters"]["historian"]
    figures = {"full_history_s": time.monotonic() - began_s, "answers_429_418": historian["limited_total"]}
    figures |= {f"weight_{name}": weight for name, weight in status["exchange"]["weights"].items()}
    figures["weight_floor_backfill"] = symbols * sum(_DEPTHS.values()) / _ROWS_PER_WEIGHT
    figures["backfill_rows"] = historian["backfill_rows_total"]
    figures["backfill_failed"] = historian["backfill_failed"]
    return figures


def reader_began_s(reader: klshm.Reader) -> float:
    """Return when the engine started, on CLOCK_MONOTONIC."""
    return time.monotonic() - (time.time() - reader.status()["started_ms"] / 1000)


if __name__ == "__main__":
    sys.exit(main())
