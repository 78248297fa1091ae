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

from demo import demo_engine, save

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
    with demo_engine("match-rate", options.workers, **settings, sim__start_at="2026-11-18T12:00:01Z"):
        figures = measure(options.symbols, options.minutes)
    for name, value in figures.items():
        print(f"{name:32} {value:>12.4f}")
    if options.json:
        save(options.json, figures)
    return 0


def measure(symbols: int, minutes: int) -> dict[str, float]:
    """Return the rates once so many minutes have closed and been confirmed."""
    with attach_live(symbols) as reader:
        time.sleep(minutes * 60 + _CONFIRMED_AFTER_S)
        rates = reader.status()["match_rate"]
        workers = [Counters(view.block, WORKER) for view in reader.source.views]
        figures = {f"traded_equal_at_{moment}": rates[moment] for moment in ("tick", "settle")}
        figures["aggtrade_only_equal"] = rates["aggtrade_only"]
        for moment in ("tick", "settle"):
            figures[f"{moment}_confirmed"] = sum(worker.get(f"match_{moment}_confirmed_total") for worker in workers)
            for group in ("traded", "provisional", "partial", "filled"):
                for what in ("compared", "equal"):
                    name = f"match_{moment}_{group}_{what}_total"
                    figures[f"{moment}_{group}_{what}"] = sum(worker.get(name) for worker in workers)
    return figures


def attach_live(symbols: int) -> klshm.Reader:
    """Return a reader once all symbols are live."""
    deadline_s = time.monotonic() + 300
    while time.monotonic() < deadline_s:
        try:
            reader = klshm.attach("match-rate")
        except klshm.KlshmError:
            time.sleep(0.5)
            continue
        if reader.status()["symbols"]["live"] >= symbols:
            return reader
        reader.close()
        time.sleep(0.5)
    raise SystemExit("the engine was not live within 300 s")


if __name__ == "__main__":
    sys.exit(main())
