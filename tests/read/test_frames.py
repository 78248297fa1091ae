"""Bars as data frames, where the libraries are installed; clear words where they are not."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import pytest

import klshm
from klshm.errors import KlshmError
from klshm.read import frames
from klshm.shm import layout as lay
from tests.support.desk import MINUTE, START, Desk


NAMES = [
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "state",
    "flags",
    "revision",
]


@pytest.fixture
def rows(desk: Desk) -> Any:
    for minute in (1, 2):
        desk.keep("BTCUSDT", "1m", START - minute * MINUTE, volume=0.1 * minute, flags=lay.FLAG_LATE | lay.FLAG_DERIVED)
    desk.live("BTCUSDT", "1m", START, volume=0.3)
    with klshm.attach("test") as reader:
        return reader.history("BTCUSDT", "1m", 10, include_live=True)


def test_columns_are_in_the_exchanges_order(rows: Any) -> None:
    columns = frames._columns(rows)
    assert list(columns) == NAMES
    assert list(columns["volume"]) == [0.2, 0.1, 0.3]
    assert columns["state"] == ["closed", "closed", "live"]
    assert columns["flags"] == ["late,derived", "late,derived", ""]
    assert list(columns["close_time"]) == [START - MINUTE - 1, START - 1, START + MINUTE - 1]


def test_a_snapshots_columns_begin_with_names(desk: Desk) -> None:
    desk.live("ETHUSDT", "5m", START)
    desk.publish()
    with klshm.attach("test") as reader:
        columns = frames._columns(reader.snapshot())
    assert list(columns) == ["symbol", "interval", *NAMES]
    assert columns["symbol"] == ["ETHUSDT"] and columns["interval"] == ["5m"]


@pytest.mark.parametrize("name", ["pandas", "polars", "pyarrow"])
def test_a_missing_library_is_named(rows: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    convert = {"pandas": klshm.to_pandas, "polars": klshm.to_polars, "pyarrow": klshm.to_arrow}[name]
    with pytest.raises(KlshmError, match=f"^{name} is not installed, this needs it; pip install {name}$"):
        convert(rows)


def _library(name: str) -> Any:
    return pytest.importorskip(name, reason=f"{name} is optional and not installed")


def test_pandas(rows: Any) -> None:
    _library("pandas")
    frame = klshm.to_pandas(rows)
    assert list(frame.columns) == NAMES
    assert frame["open_time"].iloc[-1] == datetime.datetime.fromtimestamp(START / 1000, datetime.UTC)
    assert frame["volume"].tolist() == [0.2, 0.1, 0.3]


def test_polars(rows: Any) -> None:
    _library("polars")
    frame = klshm.to_polars(rows)
    assert frame.columns == NAMES
    assert frame["open_time"][-1] == datetime.datetime.fromtimestamp(START / 1000, datetime.UTC)
    assert frame["volume"].to_list() == [0.2, 0.1, 0.3]


def test_arrow(rows: Any) -> None:
    _library("pyarrow")
    table = klshm.to_arrow(rows)
    assert table.column_names == NAMES
    assert table["open_time"][-1].as_py() == datetime.datetime.fromtimestamp(START / 1000, datetime.UTC)
    assert table["volume"].to_pylist() == [0.2, 0.1, 0.3]


def test_status_as_html_escapes_what_it_shows() -> None:
    text = frames.to_html({"instance": "<b>", "lag_ms": {"p50": 1.5, "p99": None}, "processes": [1]})
    assert "&lt;b&gt;" in text and "p50 1.5, p99 -" in text and "processes" not in text
