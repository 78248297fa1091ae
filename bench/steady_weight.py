"""What a healthy engine costs in request weight once it runs: confirmations, clock, listings.

Starts the simulator and an engine without backfill, lets it run in, and prints the weight of the
minutes after that by what it was for, as a share of what the exchange grants. Most symbols of a
market trade seldom, so most of the weight goes to minutes that merely seem empty.

    python bench/steady_weight.py --symbols 800 --rate 1000 --minutes 15
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from demo import attach_live, demo_engine, save

import klshm


_RUN_IN_S = 180.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=800)
    parser.add_argument("--rate", type=float, default=1000.0, help="trades per second over all symbols")
    parser.add_argument("--minutes", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    settings = {
        "historian__concurrency": 0,
        "segment__max_symbols": options.symbols,
        "segment__log_rows": 65536,
        "sim__symbols": options.symbols,
        "sim__rate": options.rate,
    }
    with demo_engine("steady-weight", options.workers, **settings) as (engine, _):
        with attach_live("steady-weight", engine, options.symbols) as reader:
            figures = measure(reader, options.minutes)
    for name, value in figures.items():
        print(f"{name:32} {value:>12.2f}")
    if options.json:
        save(options.json, figures)
    return 0


def measure(reader: klshm.Reader, minutes: int) -> dict[str, float]:
    """Return weight and bars per minute after the engine has run in."""
    time.sleep(_RUN_IN_S)
    before = reader.status()
    time.sleep(60.0 * minutes)
    after = reader.status()
    limit = after["exchange"]["weight_limit"]
    figures: dict[str, float] = {"minutes": minutes, "weight_limit_per_minute": limit}
    total = 0
    for name, weight in after["exchange"]["weights"].items():
        spent = weight - before["exchange"]["weights"][name]
        total += spent
        figures[f"{name}_per_minute"] = spent / minutes
    figures["share_of_limit_percent"] = 100 * total / minutes / limit
    confirming = figures["confirm_per_minute"] + figures["repair_per_minute"]
    figures["confirmation_and_repair_percent"] = 100 * confirming / limit
    figures["answers_429_418"] = counter(after, "limited_total")
    for name in ("closed", "confirmed", "filled", "partial"):
        figures[f"bars_{name}_per_minute"] = (after["bars"][name] - before["bars"][name]) / minutes
    return figures


def counter(status: dict[str, Any], name: str) -> float:
    """Return one of the historian's counters."""
    return float(status["counters"]["historian"][name])


if __name__ == "__main__":
    sys.exit(main())
