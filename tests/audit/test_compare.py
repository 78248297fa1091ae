"""One bar against one row, in every way they can stand to each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from klshm.audit.compare import FIELDS, Report, compare_series
from klshm.exchange.models import RestKline
from klshm.historian.rows import kline_rows
from klshm.shm import layout as lay


M = 60_000
T0 = 29_000_000 * M


def official(index: int = 0) -> RestKline:
    opened = T0 + index * M
    return RestKline(opened, "2.1", "3.3", "1.7", "2.9", "5.123", opened + M - 1, "10.70707", 4, "2.001", "4.20021")


def stored(*rows: RestKline, sent_ms: int = T0 + 1000 * M) -> Any:
    return kline_rows(rows, "1m", slot=0, price_decimals=2, quantity_decimals=3, sent_ms=sent_ms)


def compared(rows: list[RestKline], held: Any) -> Report:
    report = Report(T0, T0 + 100 * M)
    compare_series(report, "BTCUSDT", "1m", rows, held)
    return report


def test_equal_bars_pass() -> None:
    rows = [official(index) for index in range(5)]
    report = compared(rows, stored(*rows))
    assert report.passed and report.differing == []
    document = report.document()
    assert (document["compared"], document["equal"], document["missing"], document["unconfirmed"]) == (5, 5, 0, 0)
    tallies = {"compared": 5, "equal": 5, "missing": 0, "unconfirmed": 0, "extra": 0, "no_row": 0}
    assert document["per_interval"] == {"1m": tallies}


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_counts_to_the_last_bit(name: str) -> None:
    held = stored(official())
    held[name] = held[name][0] + 1 if name == "trade_count" else np.nextafter(held[name][0], np.inf)
    report = compared([official()], held)
    assert not report.passed and report.total("equal") == 0
    assert report.per_field == {**dict.fromkeys(FIELDS, 0), name: 1}
    (bar,) = report.differing
    wanted = float(getattr(official(), name))
    assert bar["problem"] == "different" and bar["fields"] == {
        name: {"archive": float(held[name][0]), "exchange": wanted}
    }


def test_a_bar_that_is_not_stored_or_still_open_is_missing() -> None:
    held = stored(official(0), official(1))
    held["state"][1] = lay.STATE_LIVE
    report = compared([official(0), official(1), official(2)], held)
    assert not report.passed
    assert (report.total("compared"), report.total("equal"), report.total("missing")) == (1, 1, 2)
    assert [bar["problem"] for bar in report.differing] == ["missing", "missing"]


def test_an_equal_bar_that_nobody_confirmed_does_not_pass() -> None:
    report = compared([official()], stored(official(), sent_ms=T0 + M + 1))
    assert not report.passed and report.total("equal") == 1 and report.total("unconfirmed") == 1
    assert report.differing[0]["state"] == "closed" and report.differing[0]["problem"] == "unconfirmed"


def test_a_bar_that_the_exchange_does_not_have_does_not_pass() -> None:
    held = stored(official(0), official(1))
    held["flags"] = lay.FLAG_FILLED | lay.FLAG_DERIVED
    report = compared([official(0)], held)
    assert not report.passed and report.total("extra") == 1 and report.document()["extra"] == 1
    assert report.differing[0]["flags"] == ["filled", "derived"]


def test_a_bar_that_stands_in_for_a_minute_without_a_row_and_says_so_is_counted_apart() -> None:
    held = stored(official(0), official(1))
    held["state"][1], held["flags"][1] = lay.STATE_CLOSED, lay.FLAG_FILLED | lay.FLAG_PARTIAL
    report = compared([official(0)], held)
    assert report.passed and report.document()["no_row"] == 1 and report.document()["extra"] == 0
    held["state"][1] = lay.STATE_CONFIRMED  # but it must not claim more
    assert not compared([official(0)], held).passed


def test_only_the_first_twenty_are_kept() -> None:
    report = compared([official(index) for index in range(30)], stored())
    assert report.total("missing") == 30
    assert [bar["open_time"] for bar in report.differing] == [T0 + index * M for index in range(20)]
