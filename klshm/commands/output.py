"""How commands print: JSON documents and lines for programs, tables for people."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any


__all__ = ["accept_any_name", "instant", "number", "print_json", "print_line", "print_table"]


def accept_any_name() -> None:
    """Escape what a terminal's encoding does not have, instead of failing: symbols may be Chinese."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(document: Any) -> None:
    """Print one JSON document on one line; floats in the shortest form that reads back equal."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print_line(json.dumps(document, ensure_ascii=not is_unicode, allow_nan=False))


def print_line(text: str = "") -> None:
    """Print one line and let it be seen at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under their names; text to the left, numbers to the right."""
    cells = [[number(cell) for cell in row] for row in rows]
    is_right = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(names))]
    widths = [max(_width(line[i]) for line in [list(names), *cells]) for i in range(len(names))]
    for line in [list(names), *cells]:
        padded = (
            _space(cell, width) + cell if right else cell + _space(cell, width)
            for cell, width, right in zip(line, widths, is_right, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    sys.stdout.flush()


def number(value: Any) -> str:
    """Return a value as text: floats in full, nothing as "-"."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def instant(time_ms: int) -> str:
    """Return a time for people, UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _width(text: str) -> int:
    """Return how many columns a terminal takes for a text; Chinese characters take two each."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def _space(text: str, width: int) -> str:
    return " " * (width - _width(text))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "-"
    return True
