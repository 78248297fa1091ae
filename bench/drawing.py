"""Line drawings as SVG, written by hand: no plotting library is needed to look at a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final


__all__ = ["Panel", "draw"]

_WIDTH: Final = 860
_HEIGHT: Final = 150
_LEFT: Final = 70
_TOP: Final = 30
_GAP: Final = 50
_FONT: Final = 'font-family="sans-serif" font-size="11"'
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        title: What is drawn, with its unit.
        x: Minutes.
        lines: Name to values, one per x.
    """

    title: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]


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
    parts += [f'<text x="{_WIDTH / 2:.0f}" y="{height - 8}">{escape(x_title)}</text>', "</svg>"]
    path.write_text("\n".join(parts) + "\n")


def _panel(panel: Panel, top: float) -> list[str]:
    values = [value for line in panel.lines.values() for value in line]
    highest = max(values, default=0.0) or 1.0
    first, last = min(panel.x, default=0.0), max(panel.x, default=1.0)
    span = (last - first) or 1.0
    width = _WIDTH - _LEFT - 20
    parts = [
        f'<text x="{_LEFT}" y="{top - 4:.0f}">{escape(panel.title)}</text>',
        f'<rect x="{_LEFT}" y="{top:.0f}" width="{width}" height="{_HEIGHT}" fill="none" stroke="#999"/>',
    ]
    for share in (0.0, 0.5, 1.0):
        y = top + _HEIGHT * (1 - share)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{highest * share:.4g}</text>')
        x = _LEFT + width * share
        parts.append(
            f'<text x="{x:.0f}" y="{top + _HEIGHT + 14:.0f}" text-anchor="middle">{first + span * share:.4g}</text>'
        )
    for number, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_LEFT + width * (x - first) / span:.1f},{top + _HEIGHT * (1 - y / highest):.1f}"
            for x, y in zip(panel.x, line, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        parts.append(
            f'<text x="{_WIDTH - 24 - 110 * (len(panel.lines) - 1 - number)}" y="{top - 4:.0f}" text-anchor="end"'
            f' fill="{colour}">{escape(name)}</text>'
        )
    return parts
