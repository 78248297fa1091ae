"""Drawings: where points lie, what the axes name."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.drawing import Panel, Scale, draw


def drawn(path: Path, panel: Panel) -> tuple[list[tuple[float, float]], list[str]]:
    """Return the marked points and all texts; the file must be well-formed."""
    draw(path, [panel], "a < b", "x & y")
    root = ElementTree.fromstring(path.read_text())
    points = [
        (float(each.attrib["cx"]), float(each.attrib["cy"])) for each in root.iter("{http://www.w3.org/2000/svg}circle")
    ]
    return points, [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("scale", "x"),
    [("linear", [10, 20, 30]), ("log", [1000, 10_000, 100_000]), ("tail", [90, 99, 99.9])],
)
def test_what_is_even_on_a_scale_lies_evenly_and_is_named(tmp_path: Path, scale: Scale, x: list[float]) -> None:
    points, texts = drawn(tmp_path / "a.svg", Panel("us", x, {"a": [1.0, 2.0, 3.0]}, scale))
    first, second, third = (x for x, _ in points)
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert {"linear": {"10", "20", "30"}, "log": {"1k", "10k", "100k"}, "tail": {"90", "99", "99.9"}}[scale] <= set(
        texts
    )
    assert {"a < b", "x & y"} <= set(texts)


def test_values_on_a_log_scale_lie_between_powers_of_ten(tmp_path: Path) -> None:
    points, texts = drawn(tmp_path / "a.svg", Panel("us", [1, 2, 3], {"a": [20.0, 200.0, 2000.0]}, "linear", "log"))
    first, second, third = (y for _, y in points)
    assert first - second == pytest.approx(second - third, abs=0.2)
    assert {"10", "100", "1k", "10k"} <= set(texts)


def test_values_on_a_linear_scale_begin_at_nought_and_marks_are_round(tmp_path: Path) -> None:
    _, texts = drawn(tmp_path / "a.svg", Panel("us", [1, 2], {"a": [41.3, 45.42]}))
    assert ["0", "20", "40", "60"] == [text for text in texts if re.fullmatch("[0-9]?0", text)]


def test_names_of_near_points_do_not_stand_upon_each_other(tmp_path: Path) -> None:
    x = [1000.0, 1001.0, 5000.0]
    points, texts = drawn(tmp_path / "a.svg", Panel("us", x, {"a": [1.0, 2.0, 3.0]}))
    assert len(points) == 3
    assert "1k" in texts
    assert "1001" not in texts
    assert "5k" in texts


def test_many_points_are_a_line_only(tmp_path: Path) -> None:
    x = [float(number) for number in range(101)]
    points, texts = drawn(tmp_path / "a.svg", Panel("MiB", x, {"a": x, "b": x}))
    assert points == []
    assert {"0", "50", "100", "a", "b"} <= set(texts)


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0]])
def test_flat_lines_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    for scale in ("linear", "log"):
        points, _ = drawn(tmp_path / "a.svg", Panel("us", [1.0, 1.0], {"a": values}, "linear", scale))
        assert len(points) == 2
