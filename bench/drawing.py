"""Line drawings as SVG, written by hand: no plotting library is needed to look at a result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final, Literal


__all__ = ["Panel", "Scale", "draw"]

Scale = Literal["linear", "log", "tail"]
"""How an axis is spaced; "tail": percentiles, as far apart from 90 to 99 as from 99 to 99.9."""

_WIDTH: Final = 860
_HEIGHT: Final = 150
_LEFT: Final = 70
_RIGHT: Final = 24
_TOP: Final = 30
_GAP: Final = 50
_MARKED: Final = 20
"""Up to so many x are measured points: each is marked and named on the axis."""
_TICK_WIDTH: Final = 7
"""Pixels of a digit and of the space that it needs."""
_FONT: Final = 'font-family="sans-serif" font-size="11"'
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
_PLACES: Final[dict[Scale, Callable[[float], float]]] = {
    "linear": lambda value: value,
    "log": lambda value: math.log10(max(value, 1e-9)),
    "tail": lambda percent: -math.log10(1 - percent / 100),
}


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        title: What is drawn, with its unit.
        x: Where it was measured.
        lines: Name to values, one per x.
        x_scale: How x is spaced.
        y_scale: How values are spaced; linear begins at 0.
    """

    title: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"


def draw(path: Path, panels: Sequence[Panel], title: str, x_title: str = "minutes") -> None:
    """Write panels, one below the other.

    Args:
        path: The SVG file.
        panels: What is drawn.
        title: Stands above all.
        x_title: Stands below all.
    """
    height = _TOP + len(panels) * (_HEIGHT + _GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _TOP + number * (_HEIGHT + _GAP) + 16)
    parts += [
        f'<text x="{_WIDTH / 2:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_title)}</text>',
        "</svg>",
    ]
    path.write_text("\n".join(parts) + "\n")


class _Axis:
    """Where values lie between two ends, in pixels.

    Args:
        scale: How it is spaced.
        least: The value at `begin`.
        most: The value at `end`.
        begin: Pixels.
        end: Pixels.
    """

    def __init__(self, scale: Scale, least: float, most: float, begin: float, end: float) -> None:
        self._place = _PLACES[scale]
        self._least, most_place = self._place(least), self._place(most)
        self._begin, self._per_unit = begin, (end - begin) / ((most_place - self._least) or 1.0)

    def __call__(self, value: float) -> float:
        return self._begin + (self._place(value) - self._least) * self._per_unit


def _panel(panel: Panel, top: float) -> list[str]:
    values = [value for line in panel.lines.values() for value in line]
    right, bottom = _WIDTH - _RIGHT, top + _HEIGHT
    x_axis = _Axis(panel.x_scale, min(panel.x, default=0.0), max(panel.x, default=1.0), _LEFT + 10, right - 10)
    marks = _marks(panel.y_scale, values)
    y_axis = _Axis(panel.y_scale, marks[0], marks[-1], bottom, top)
    parts = [
        f'<text x="{_LEFT}" y="{top - 4:.0f}">{escape(panel.title)}</text>',
        f'<rect x="{_LEFT}" y="{top:.0f}" width="{right - _LEFT}" height="{_HEIGHT}" fill="none" stroke="#999"/>',
    ]
    for mark in marks:
        y = y_axis(mark)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{_number(mark)}</text>')
    parts += _x_ticks(panel, x_axis, bottom)
    name_right = float(right)
    for number, (name, line) in reversed(list(enumerate(panel.lines.items()))):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(x_axis(x), y_axis(y)) for x, y in zip(panel.x, line, strict=True)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        if len(points) <= _MARKED:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        if len(panel.lines) > 1:
            parts.append(
                f'<text x="{name_right:.0f}" y="{top - 4:.0f}" text-anchor="end" fill="{colour}">{escape(name)}</text>'
            )
        name_right -= _TICK_WIDTH * len(name) + 12
    return parts


def _x_ticks(panel: Panel, axis: _Axis, bottom: float) -> list[str]:
    """Name the measured x, or ends and middle of many; one that would stand upon the one before has no name."""
    first, last = min(panel.x, default=0.0), max(panel.x, default=1.0)
    ticks = sorted(set(panel.x)) if len(panel.x) <= _MARKED else [first, (first + last) / 2, last]
    parts, free = [], 0.0
    for tick in ticks:
        x, text = axis(tick), _number(tick)
        half = _TICK_WIDTH * len(text) / 2
        parts.append(f'<line x1="{x:.1f}" y1="{bottom:.0f}" x2="{x:.1f}" y2="{bottom + 4:.0f}" stroke="#999"/>')
        if x - half >= free:
            parts.append(f'<text x="{x:.0f}" y="{bottom + 16:.0f}" text-anchor="middle">{text}</text>')
            free = x + half
    return parts


def _marks(scale: Scale, values: Sequence[float]) -> list[float]:
    """Return the values named on the y axis; the first and the last are its ends."""
    highest = max(values, default=0.0)
    if scale == "linear" or highest <= 0:
        step = _round_step((highest if highest > 0 else 1.0) / 3)
        return [step * number for number in range(math.ceil(highest / step) + 1 if highest > 0 else 4)]
    least = math.floor(math.log10(min(value for value in values if value > 0)))
    most = max(math.ceil(math.log10(highest)), least + 1)
    return [10.0**power for power in range(least, most + 1)]


def _round_step(least: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((digit * power for digit in (1, 2, 5) if digit * power >= least), 10 * power)


def _number(value: float) -> str:
    """Return a number as short as it can be told: 50, 0.25, 1.5k, 1M."""
    for size, sign in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 9.9995 or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:.4g}{sign}"
    return f"{value:.4g}"
