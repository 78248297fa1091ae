"""The table for terminals, and the generated part of REPORT.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.runner import Outcome


__all__ = ["BEGIN", "END", "columns", "figure_text", "markdown", "origin_text", "table", "write_section"]

BEGIN: Final = "<!-- figures: begin, written by python -m bench --report -->"
END: Final = "<!-- figures: end -->"
_HEAD: Final = ("row", "target", "figure (spread)", "reference", "ratio", "")


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table in columns."""
    return columns([_HEAD, *(_cells(outcome) for outcome in outcomes)])


def columns(lines: list[tuple[str, ...]]) -> str:
    """Return lines of cells in columns, the first line being their heads."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(outcomes: Iterable[Outcome], origin: dict[str, Any]) -> str:
    """Return the table and where it comes from, as Markdown."""
    lines = [
        origin_text(origin),
        "",
        "| row | what | target | figure (spread) | reference | ratio | |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        name, *cells = _cells(outcome)
        lines.append(f"| {name} | {outcome.row.what} | {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", "Versions: " + ", ".join(f"{name} {found}" for name, found in origin["versions"].items()) + "."]
    lines += ["Peers: " + ", ".join(f"{name} {found}" for name, found in origin["peers"].items()) + "."]
    return "\n".join(lines)


def write_section(path: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Put text between the markers of a file.

    Args:
        path: The file.
        text: What stands there from now on.
        markers: The lines before and behind it.

    Raises:
        ValueError: If the file has no markers.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {markers[0]!r} and {markers[1]!r}; put them where it belongs")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def origin_text(origin: dict[str, Any]) -> str:
    """Return machine, commit, time and command in one line."""
    machine = origin["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['linux']}, load {machine['load_average_1m']:g} "
        f"before the run; commit {origin['commit']}, {origin['time']}, `{origin['command']}`."
    )


def figure_text(value: float) -> str:
    """Return a figure with three significant digits, thousands apart."""
    if abs(value) >= 100:
        digits = max(0, len(str(int(abs(value)))) - 3)
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row = outcome.row
    if outcome.figure is None:
        return (row.name, row.target_text, "-", "-", "-", outcome.verdict)
    spread = f"{figure_text(outcome.low)}..{figure_text(outcome.high)}"
    return (
        row.name,
        row.target_text,
        f"{figure_text(outcome.figure)} {row.unit} ({spread})",
        "-" if outcome.reference is None else f"{figure_text(outcome.reference)} {row.unit}",
        "-" if outcome.ratio is None else f"{figure_text(outcome.ratio)} x",
        outcome.verdict if outcome.verdict != "shown" else "",
    )
