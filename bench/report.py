"""The table for terminals, and the generated part of REPORT.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from bench.runner import Outcome


__all__ = ["BEGIN", "END", "figure_text", "markdown", "table", "write_section"]

BEGIN: Final = "<!-- figures: begin, written by python -m bench --report -->"
END: Final = "<!-- figures: end -->"
_HEAD: Final = ("row", "target", "figure (spread)", "reference", "ratio", "")


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table in columns."""
    lines = [_HEAD, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(outcomes: Iterable[Outcome], origin: dict[str, Any]) -> str:
    """Return the table and where it comes from, as Markdown."""
    machine, versions = origin["machine"], origin["versions"]
    about = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['linux']}, load {machine['load_average_1m']:g} "
        f"before the run; commit {origin['commit']}, {origin['time']}, `{origin['command']}`."
    )
    lines = [
        about,
        "",
        "| row | what | target | figure (spread) | reference | ratio | |",
        "|---|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        name, *cells = _cells(outcome)
        lines.append(f"| {name} | {outcome.row.what} | {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += ["", "Versions: " + ", ".join(f"{name} {found}" for name, found in versions.items()) + "."]
    lines += ["Peers: " + ", ".join(f"{name} {found}" for name, found in origin["peers"].items()) + "."]
    return "\n".join(lines)


def write_section(path: Path, text: str) -> None:
    """Put text between the markers of a file.

    Raises:
        ValueError: If the file has no markers.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path}: expected the lines {BEGIN!r} and {END!r}; put them where the figures belong")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


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
