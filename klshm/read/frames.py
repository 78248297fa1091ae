"""Bars as data frames; each library is loaded only when it is asked for."""

from __future__ import annotations

import html
import importlib
from typing import Any, Final

import numpy as np

from klshm.errors import KlshmError
from klshm.intervals import INTERVALS
from klshm.read.bars import COLUMNS, close_times, flag_words
from klshm.read.snapshot import Snapshot
from klshm.shm.layout import STATE_EMPTY, STATE_NAMES


__all__ = ["to_arrow", "to_html", "to_pandas", "to_polars"]

Rows = np.ndarray[Any, Any]
Columns = dict[str, np.ndarray[Any, Any] | list[str]]
"""Numbers as arrays, times in UTC ms; words as lists."""

_TIMES: Final = ("open_time", "close_time")


def to_pandas(rows: Rows | Snapshot) -> Any:
    """Return bars as a pandas frame.

    Args:
        rows: What `history` or `snapshot` returned.

    Returns:
        Columns in the exchange's REST order; times are UTC timestamps, values float64, state
        and flags are words. A snapshot's frame begins with symbol and interval.

    Raises:
        KlshmError: If pandas is not installed.
    """
    library = _library("pandas")
    frame = library.DataFrame(_columns(rows))
    for name in _TIMES:
        frame[name] = library.to_datetime(frame[name], unit="ms", utc=True)
    return frame


def to_polars(rows: Rows | Snapshot) -> Any:
    """Return bars as a polars frame; columns as in `to_pandas`.

    Raises:
        KlshmError: If polars is not installed.
    """
    library = _library("polars")
    frame = library.DataFrame(_columns(rows))
    return frame.with_columns(library.col(*_TIMES).cast(library.Datetime("ms", "UTC")))


def to_arrow(rows: Rows | Snapshot) -> Any:
    """Return bars as an Arrow table; columns as in `to_pandas`.

    Raises:
        KlshmError: If pyarrow is not installed.
    """
    library = _library("pyarrow")
    arrays = {name: library.array(values) for name, values in _columns(rows).items()}
    for name in _TIMES:
        arrays[name] = arrays[name].cast(library.timestamp("ms", tz="UTC"))
    return library.table(arrays)


def to_html(status: dict[str, Any]) -> str:
    """Return a status document as a small HTML table, for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(_in_words(value))}</td></tr>"
        for name, value in status.items()
        if name != "processes"
    )
    return f"<table>{rows}</table>"


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    return "-" if value is None else str(value)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise KlshmError(f"{name} is not installed, this needs it; pip install {name}") from None


def _columns(bars: Rows | Snapshot) -> Columns:
    if not isinstance(bars, Snapshot):
        return _columns_of(bars)
    rows = bars.rows.reshape(-1)
    present = np.flatnonzero(rows["state"] != STATE_EMPTY)
    symbols = [bars.symbols[index] for index in (present // len(bars.intervals)).tolist()]
    rows = rows[present]
    intervals = [INTERVALS[code] for code in rows["interval"].tolist()]
    return {"symbol": symbols, "interval": intervals, **_columns_of(rows)}


def _columns_of(rows: Rows) -> Columns:
    columns: Columns = {}
    for name in COLUMNS:
        if name == "close_time":
            columns[name] = close_times(rows)
        elif name == "state":
            columns[name] = [STATE_NAMES[state] for state in rows[name].tolist()]
        elif name == "flags":
            columns[name] = [",".join(flag_words(flags)) for flags in rows[name].tolist()]
        else:
            columns[name] = np.ascontiguousarray(rows[name])
    return columns
