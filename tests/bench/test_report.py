"""The table on a terminal and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report import BEGIN, END, figure_text, markdown, table, write_section
from bench.rows import Row
from bench.runner import Outcome


ROW = Row("kernel", "one trade", "a:x", "ns", "less", 60, "b:y", 0.2)
MET = Outcome(ROW, 54.321, 51, 1234.5, 388.4, 0.14, "met")
FAILED = Outcome(ROW, verdict="failed: a | b")
ORIGIN = {
    "machine": {"cpu": "Some CPU", "cores": 2, "linux": "6.1", "load_average_1m": 0.5},
    "versions": {"python": "3.11.7"},
    "peers": {"polars": "2.1.0"},
    "commit": "abc",
    "time": "2026-11-20T00:00:00+00:00",
    "command": "python -m bench",
}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3333, "0.333"), (12.34, "12.3"), (99.99, "100"), (123.4, "123"), (123_456, "123,000"), (-5.678, "-5.68")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert figure_text(value) == text


def test_the_table_has_columns() -> None:
    head, met, failed = table([MET, FAILED]).splitlines()
    assert met.split("  ")[0] == "kernel"
    assert "<= 60 ns and <= 0.2 x" in met
    assert "54.3 ns (51..1,230)" in met
    assert "388 ns" in met
    assert "0.14 x" in met
    assert met.endswith("met")
    assert failed.endswith("failed: a | b")
    assert head.index("target") == met.index("<=")


def test_markdown_says_where_the_figures_come_from() -> None:
    text = markdown([MET, FAILED], ORIGIN)
    assert text.startswith("Some CPU, 2 cores, Linux 6.1, load 0.5 before the run; commit abc")
    assert "| kernel | one trade | <= 60 ns and <= 0.2 x | 54.3 ns (51..1,230) | 388 ns | 0.14 x | met |" in text
    assert "failed: a / b |" in text
    assert text.endswith("Peers: polars 2.1.0.")


def test_a_report_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "REPORT.md"
    for text in ("nothing\n", f"{BEGIN}\n", f"{END}\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="expected the lines"):
            write_section(path, "new")
        assert path.read_text() == text
