"""Running measurements and judging rows."""

from __future__ import annotations

from typing import Any

import pytest

from bench.rows import EXTRA, ROWS, Row, modules_of
from bench.runner import Outcome, Results, run, run_once


LESS = Row("less", "", "a:x", "us", "less", 10)
MORE = Row("more", "", "a:x", "1/s", "more", 10)
RATIO = Row("ratio", "", "a:x", "us", "less", None, "a:y", 2)


def results(*values: float, other: tuple[float, ...] = (), module: str = "a") -> Results:
    runs: dict[str, list[dict[str, float]]] = {"a": [{"x": value} for value in values]}
    for number, value in enumerate(other):
        if module == "a":
            runs["a"][number]["y"] = value
        else:
            runs.setdefault(module, []).append({"y": value})
    return Results(runs)


@pytest.mark.parametrize(
    ("row", "values", "verdict"),
    [
        (LESS, (30, 20, 9), "met"),
        (LESS, (30, 20, 11), "met"),  # by the best run, and within a tenth
        (LESS, (30, 20, 11.2), "not met"),
        (MORE, (1, 2, 9), "met"),
        (MORE, (1, 2, 8.9), "not met"),
    ],
)
def test_an_absolute_target_is_missed_below_nine_tenths_by_the_best_run(
    row: Row, values: tuple[float, ...], verdict: str
) -> None:
    assert Outcome.of(row, results(*values)).verdict == verdict


def test_the_ratio_is_taken_within_each_run() -> None:
    outcome = Outcome.of(RATIO, results(10, 30, 50, other=(10, 10, 50)))
    assert (outcome.figure, outcome.low, outcome.high, outcome.reference) == (30, 10, 50, 10)
    assert (outcome.ratio, outcome.verdict) == (1, "met")
    assert Outcome.of(RATIO, results(10, 30, 50, other=(1, 10, 10))).verdict == "not met"


def test_a_ratio_across_modules_is_that_of_the_medians() -> None:
    row = Row("ratio", "", "a:x", "us", "more", None, "b:y", 2)
    outcome = Outcome.of(row, results(10, 30, 20, other=(5, 10), module="b"))
    assert (outcome.ratio, outcome.verdict) == (20 / 7.5, "met")


def test_a_row_whose_measurement_or_reference_failed_says_why() -> None:
    assert Outcome.of(LESS, Results(failures={"a": "no room"})).verdict == "failed: no room"
    assert Outcome.of(LESS, Results()).verdict == "failed: no figure a:x"
    row = Row("ratio", "", "a:x", "us", "less", 10, "b:y", 2)
    failed = Results(runs=results(1).runs, failures={"b": "not installed"})
    assert Outcome.of(row, failed).verdict == "failed: reference: not installed"
    assert Outcome.of(row, failed).figure == 1


def test_a_row_without_target_is_only_shown() -> None:
    row = Row("shown", "", "a:x", "us", reference="a:y")
    outcome = Outcome.of(row, results(6, other=(3,)))
    assert (outcome.ratio, outcome.verdict) == (2, "shown")
    assert Outcome.of(row, results(6, other=(0,))).ratio is None


def test_a_measurement_runs_in_its_own_process_and_one_that_fails_stops_nothing() -> None:
    told: list[str] = []
    found = run(["nothing_here", "micro.ring"], True, told.append)
    assert told == ["nothing_here 1", "micro.ring 1", "micro.ring 2", "micro.ring 3"]
    assert "No module named bench.nothing_here" in found.failures["nothing_here"]
    assert len(found.values("micro.ring:append_ns")) == 3


@pytest.mark.parametrize("module", ["micro.publish", "micro.kernel", "micro.amend", "micro.live", "micro.journal"])
def test_a_quick_measurement_prints_figures_above_zero(module: str) -> None:
    figures = run_once(module, True)
    assert figures
    assert all(value > 0 for value in figures.values())


def test_every_figure_of_the_table_has_a_module_and_every_row_its_own_name() -> None:
    every = ROWS + EXTRA
    assert len({row.name for row in every}) == len(every)
    assert all(row.target is not None or row.ratio is not None for row in ROWS)
    assert all(row.target is None and row.ratio is None for row in EXTRA)
    modules: list[Any] = modules_of(every)
    assert len(modules) == len(set(modules))


def test_a_target_reads_as_it_is_judged() -> None:
    assert LESS.target_text == "<= 10 us"
    assert MORE.target_text == ">= 10 1/s"
    assert RATIO.target_text == "<= 2 x"
    assert Row("both", "", "a:x", "ns", "less", 60, "b:y", 0.2).target_text == "<= 60 ns and <= 0.2 x"
    assert Row("none", "", "a:x", "ns").target_text == "-"
