"""Curves and their drawings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import growth


ROOT = Path(__file__).resolve().parents[2]


def test_a_curve_is_measured_written_and_drawn(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.growth", "--quick", "wave", "--directory", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "results" / "growth.json").read_text())
    assert document["failures"] == {}
    curve = document["curves"]["wave"]
    assert len(curve["x"]) == len(curve["wave ms"]) == 4
    assert min(curve["wave ms"]) > 0
    drawing = (tmp_path / "results" / "growth-wave.svg").read_text()
    assert drawing.startswith("<svg ")
    assert "symbols of one worker" in drawing


def test_an_unknown_curve_is_refused() -> None:
    command = [sys.executable, "-m", "bench.growth", "waves"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "invalid choice: 'waves'" in done.stderr


def test_lines_share_a_panel_where_they_share_a_scale() -> None:
    load = {"x": [1.0, 2.0], "a p50": [1.0, 2.0], "a p99": [3.0, 4.0], "b p50": [5.0, 6.0], "b p99": [7.0, 8.0]}
    median, tail = growth.panels("load", load)
    assert (set(median.lines), set(tail.lines)) == ({"a p50", "b p50"}, {"a p99", "b p99"})
    lines = {"x": [50.0, 95.0, 99.0], "klshm": [1.0, 2.0, 3.0], "plain stack": [4.0, 5.0, 6.0]}
    typical, near, every = growth.panels("distribution", lines)
    assert {panel.x_scale for panel in (typical, near, every)} == {"tail"}
    assert {panel.x_scale for panel in (median, tail)} == {"log"}
    assert (typical.x, typical.lines) == ([50.0, 95.0], {"klshm": [1.0, 2.0]})
    assert (set(near.lines), set(every.lines)) == ({"klshm"}, {"klshm", "plain stack"})
    assert [panel.title for panel in growth.panels("wave", {"x": [1.0], "wave ms": [2.0]})] == ["wave ms"]


def test_without_a_reader_there_is_no_snapshot_to_draw() -> None:
    curve = {"x": [0.0, 2.0, 8.0], "messages per s": [3.0, 2.0, 1.0], "snapshot us": [0.0, 5.0, 6.0]}
    speed, snapshot = growth.panels("readers", curve)
    assert (speed.x, snapshot.x) == ([0.0, 2.0, 8.0], [2.0, 8.0])
    assert snapshot.lines == {"snapshot us": [5.0, 6.0]}


def test_every_curve_has_a_title_and_a_name_for_its_axis() -> None:
    assert set(growth._X_TITLES) == set(growth.CURVES)
    assert all(curve.__doc__ for curve in growth.CURVES.values())


def test_what_is_offered_and_taken_share_a_panel() -> None:
    curve = {"x": [10.0, 20.0], "klshm": [10.0, 19.0], "all that is sent": [10.0, 20.0]}
    (panel,) = growth.panels("throughput", curve)
    assert (panel.x_scale, panel.y_scale) == ("log", "log")
    assert set(panel.lines) == {"klshm", "all that is sent"}
