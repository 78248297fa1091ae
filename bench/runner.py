"""Runs measurements, each in a process of its own, several times; what fails says why and stops nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.rows import Row


__all__ = ["Outcome", "Results", "run", "run_once"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_PATIENCE_S: Final = 600
_RUNS: Final = 5
_SLOW: Final = ("scenario.engine", "scenario.restart", "scenario.backfill", "scenario.latency_rates")
"""They take long, most because they start whole engines: run less often."""
_SLOW_RUNS: Final = 3
_TOLERANCE: Final = 0.9


@dataclass
class Results:
    """Figures of every run of every module, and why a module has none.

    Attributes:
        runs: Module to its runs' figures.
        failures: Module to the reason.
    """

    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, figure: str) -> list[float]:
        """Return a figure of every run, `module:name`; none if it failed."""
        module, _, name = figure.partition(":")
        return [found[name] for found in self.runs.get(module, []) if name in found]


@dataclass(frozen=True)
class Outcome:
    """What a row has come to.

    Attributes:
        row: The row.
        figure: Median; None: failed.
        low: Lowest run.
        high: Highest run.
        reference: Median; None: there is none.
        ratio: Median over the runs of figure / reference, where both are of one run.
        verdict: "met", "not met", "shown" or "failed: reason".
    """

    row: Row
    figure: float | None = None
    low: float = 0.0
    high: float = 0.0
    reference: float | None = None
    ratio: float | None = None
    verdict: str = "shown"

    @classmethod
    def of(cls, row: Row, results: Results) -> Outcome:
        """Judge a row."""
        values = results.values(row.figure)
        if not values:
            reason = results.failures.get(row.figure.partition(":")[0], f"no figure {row.figure}")
            return cls(row, verdict=f"failed: {reason}")
        references = results.values(row.reference) if row.reference else []
        ratio = _ratio(row, values, references)
        verdict = "shown"
        if row.target is not None or row.ratio is not None:
            met = _meets_target(row, values) and (row.ratio is None or _is_within(row, ratio, row.ratio))
            verdict = "met" if met else "not met"
        if row.ratio is not None and not references:
            reason = results.failures.get(row.reference.partition(":")[0], "it has no figure")
            verdict = f"failed: reference: {reason}"
        reference = statistics.median(references) if references else None
        return cls(row, statistics.median(values), min(values), max(values), reference, ratio, verdict)


def run(modules: Iterable[str], quick: bool, tell: Callable[[str], None] = lambda text: None) -> Results:
    """Run modules several times each.

    Args:
        modules: Such as "micro.kernel".
        quick: Three short runs instead of five, one of what takes long.
        tell: Called with each line of progress.
    """
    results = Results()
    for module in modules:
        slow = module in _SLOW
        for number in range((1 if slow else 3) if quick else (_SLOW_RUNS if slow else _RUNS)):
            tell(f"{module} {number + 1}")
            try:
                results.runs.setdefault(module, []).append(run_once(module, quick))
            except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
                results.failures[module] = str(error)
                break
    return results


def run_once(module: str, quick: bool) -> dict[str, float]:
    """Run a module in a process of its own and return its figures.

    Args:
        module: Such as "micro.kernel".
        quick: Whether it makes it short.

    Raises:
        RuntimeError: If it failed; says its last line.
    """
    command = [sys.executable, "-m", f"bench.{module}", *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=_PATIENCE_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _ratio(row: Row, values: list[float], references: list[float]) -> float | None:
    if not references or not all(references):
        return None
    if row.figure.partition(":")[0] == row.reference.partition(":")[0]:
        return statistics.median(value / other for value, other in zip(values, references, strict=True))
    return statistics.median(values) / statistics.median(references)


def _meets_target(row: Row, values: list[float]) -> bool:
    if row.target is None:
        return True
    if row.better == "more":
        return max(values) >= row.target * _TOLERANCE
    return min(values) <= row.target / _TOLERANCE


def _is_within(row: Row, ratio: float | None, bound: float) -> bool:
    return ratio is not None and (ratio >= bound if row.better == "more" else ratio <= bound)
