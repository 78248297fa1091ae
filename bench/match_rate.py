"""How often a bar is right before the exchange confirms it: at its tick, when it settles, and without frames.

Starts the simulator (groups across minute ends and skipped ids on, as on the exchange) and an engine
against it, lets minutes close, and prints the share of minutes with trades whose nine fields all
equalled the exchange's final row already then. "aggtrade only" is what a plain sum of aggTrades by
their time gives in the same run.

    python bench/match_rate.py --symbols 100 --rate 1000 --minutes 10
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from demo import attach_live, demo_engine, save

import klshm
from klshm.shm.counters import WORKER, Counters


_CONFIRMED_AFTER_S = 75.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000.0, help="trades per second over all symbols")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=int, default=10, help="minutes that close while it is measured")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    settings = {"segment__max_symbols": options.symbols, "sim__symbols": options.symbols, "sim__rate": options.rate}
    with demo_engine("match-rate", options.workers, **settings, sim__start_at="2026-11-18T12:00:01Z") as (engine, _):
        with attach_live("match-rate", engine, options.symbols) as reader:
            figures = measure(reader, options.minutes)
    for name, value in figures.items():
        print(f"{name:32} {value:>12.4f}")
    if options.json:
        save(options.json, figures)
    return 0


def measure(reader: klshm.Reader, minutes: int) -> dict[str, float]:
    """Return the rates over so many minutes, from the first on that was watched from its beginning."""
    time.sleep(60 + _CONFIRMED_AFTER_S)
    before = counted(reader)
    time.sleep(minutes * 60)
    after = counted(reader)
    found = {name: after[name] - before[name] for name in after}
    figures = {f"traded_equal_at_{moment}": traded_rate(found, moment) for moment in ("tick", "settle")}
    figures["aggtrade_only_equal"] = found["match_aggtrade_equal_total"] / found["match_aggtrade_compared_total"]
    return figures | {name.removeprefix("match_").removesuffix("_total"): value for name, value in found.items()}


def counted(reader: klshm.Reader) -> dict[str, int]:
    """Return the sums of all workers' counters about matches, those by field left out."""
    workers = [Counters(view.block, WORKER).as_dict() for view in reader.source.views]
    names = [name for name in WORKER if name.startswith("match_") and "_unequal_" not in name]
    return {name: sum(worker[name] for worker in workers) for name in names}


def traded_rate(found: dict[str, int], moment: str) -> float:
    """Return the share of minutes with trades that were right: what `klshm status` calls the match rate."""
    equal = compared = found[f"match_{moment}_confirmed_total"]
    for group in ("traded", "provisional", "partial"):
        compared += found[f"match_{moment}_{group}_compared_total"]
        equal += found[f"match_{moment}_{group}_equal_total"] if group != "partial" else 0
    looked_empty = found[f"match_{moment}_filled_compared_total"] - found[f"match_{moment}_filled_equal_total"]
    return equal / (compared + looked_empty)


if __name__ == "__main__":
    sys.exit(main())
