"""Measure klshm beside what one would use without it.

python -m bench                        all rows, median of five runs
python -m bench --quick kernel burst   two rows, briefly
python -m bench --report               all rows, and write them into bench/REPORT.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bench.about import about
from bench.peers.compare import PEERS, install
from bench.report import markdown, table, write_section
from bench.rows import EXTRA, ROWS, Row, modules_of
from bench.runner import Outcome, Results, run


__all__ = ["main"]

_REPORT: Final = Path(__file__).with_name("REPORT.md")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 1 if a target was missed or a measurement failed, 2 for unknown names."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these rows (default: all)")
    parser.add_argument("--quick", action="store_true", help="three short runs each instead of five")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions, commit and every run")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--report", action="store_true", help=f"write the table into {_REPORT.name}")
    parser.add_argument("--install-peers", action="store_true", help="make the environments of the other aggregators")
    options = parser.parse_args(arguments)
    rows = _chosen(options.names)
    if rows is None:
        return 2
    if options.install_peers:
        for peer in PEERS:
            print(install(peer), flush=True)
        return 0
    if options.list:
        for row in rows:
            print(f"{row.name:15} {row.target_text:26} {row.what}")
        return 0
    origin = about()
    results = run(modules_of(rows), options.quick, lambda text: print(text, file=sys.stderr, flush=True))
    outcomes = [Outcome.of(row, results) for row in rows]
    print(table(outcomes))
    print("peers: " + ", ".join(f"{name} {found}" for name, found in origin["peers"].items()))
    if options.json:
        _save(options.json, origin, results, outcomes)
    if options.report:
        write_section(_REPORT, markdown(outcomes, origin))
    return int(any(outcome.verdict not in ("met", "shown") for outcome in outcomes))


def _chosen(names: list[str]) -> tuple[Row, ...] | None:
    every = ROWS + EXTRA
    unknown = [name for name in names if name not in {row.name for row in every}]
    if unknown:
        print(f"bench: no row {unknown[0]!r}; rows are {', '.join(row.name for row in every)}", file=sys.stderr)
        return None
    return tuple(row for row in every if not names or row.name in names)


def _save(path: Path, origin: dict[str, object], results: Results, outcomes: list[Outcome]) -> None:
    document = {"about": origin, "rows": [asdict(outcome) for outcome in outcomes], **asdict(results)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    # Before NumPy in every process: a thread pool would be forked along, and measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        sys.exit(main())
    except (KeyboardInterrupt, subprocess.SubprocessError) as error:
        sys.exit(f"bench: ended: {type(error).__name__}")
