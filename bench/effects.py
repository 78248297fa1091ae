"""What each switch and trick of the engine is worth: measured with and without it, in turns, in the same run.

Writes bench/results/effects.json and the table in bench/REPORT.md.

    python -m bench.effects
    python -m bench.effects --quick busy_poll gc_freeze
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.about import about
from bench.report import columns, figure_text, origin_text, write_section
from bench.switched import EFFECTS, Figures, NotMeasurable


__all__ = ["MARKERS", "Effect", "main", "markdown"]

MARKERS: Final = ("<!-- effects: begin, written by python -m bench.effects -->", "<!-- effects: end -->")
_HERE: Final = Path(__file__).parent
_RUNS_TO_JUDGE: Final = 5
"""Of fewer, one way is often quicker in all by chance."""
_HEAD: Final = ("effect", "figure", "with (spread)", "without (spread)", "ratio", "found")


@dataclass(frozen=True)
class Effect:
    """What was measured of one thing.

    Attributes:
        name: What it is called on the command line.
        figures: By name, runs with and without it.
        reason: Why there are none; empty: there are.
    """

    name: str
    figures: Figures
    reason: str = ""

    @classmethod
    def of(cls, name: str, quick: bool) -> Effect:
        """Measure it."""
        try:
            return cls(name, EFFECTS[name](quick))
        except NotMeasurable as error:
            return cls(name, {}, f"not measured: {error}")
        except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
            return cls(name, {}, f"failed: {type(error).__name__}: {error}")

    @property
    def what(self) -> str:
        """What it is, for people."""
        return (EFFECTS[self.name].__doc__ or "").splitlines()[0]

    def cells(self) -> list[tuple[str, ...]]:
        """Return its lines of the table."""
        if self.reason:
            return [(self.name, "-", "-", "-", "-", self.reason)]
        return [(self.name, name, *_compared(name, runs)) for name, runs in self.figures.items()]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; return 1 if a measurement failed, 2 for unknown names."""
    parser = argparse.ArgumentParser(prog="python -m bench.effects", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EFFECTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="two short rounds instead of five")
    parser.add_argument("--json", type=Path, default=_HERE / "results" / "effects.json", metavar="FILE")
    parser.add_argument("--report", type=Path, default=_HERE / "REPORT.md", metavar="FILE", help="where the table goes")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in EFFECTS]
    if unknown:
        print(f"bench.effects: no effect {unknown[0]!r}; effects are {', '.join(EFFECTS)}", file=sys.stderr)
        return 2
    origin = about("bench.effects")
    effects = []
    for name in options.names or EFFECTS:
        print(name, file=sys.stderr, flush=True)
        effects.append(Effect.of(name, options.quick))
    print(columns([_HEAD, *(cells for effect in effects for cells in effect.cells())]))
    if not options.names:  # a part must not take the place of the whole
        document = {"about": origin, "effects": {each.name: _entry(each) for each in effects}}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        write_section(options.report, markdown(effects, origin), MARKERS)
    return int(any(effect.reason.startswith("failed") for effect in effects))


def markdown(effects: list[Effect], origin: dict[str, Any]) -> str:
    """Return the table as Markdown, and what the names mean."""
    lines = [origin_text(origin), "", f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    for effect in effects:
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in effect.cells()]
    return "\n".join([*lines, "", *(f"* `{effect.name}`: {effect.what}" for effect in effects)])


def _entry(effect: Effect) -> dict[str, Any]:
    return {"what": effect.what, "figures": effect.figures} | ({"reason": effect.reason} if effect.reason else {})


def _compared(name: str, runs: Mapping[str, list[float]]) -> tuple[str, ...]:
    with_it, without = runs["with"], runs["without"]
    ratio = statistics.median(with_it) / statistics.median(without)
    if len(with_it) < _RUNS_TO_JUDGE:
        found = "-"
    elif max(with_it) < min(without) or min(with_it) > max(without):
        found = "better" if (ratio < 1) != name.endswith("_per_s") else "worse"
    else:
        found = "within the spread"
    return _spread(with_it), _spread(without), f"{figure_text(ratio)} x", found


def _spread(runs: list[float]) -> str:
    return f"{figure_text(statistics.median(runs))} ({figure_text(min(runs))}..{figure_text(max(runs))})"


if __name__ == "__main__":
    # Before NumPy in every process: a thread pool would be forked along, and measured.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
