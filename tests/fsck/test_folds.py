"""Folds against the exchange simulator's arithmetic in integers, and against faults put in on purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klshm.fsck.folds import differences, units
from klshm.shm import layout as lay
from klshm.shm.exact import nearest, residual
from klshm.shm.layout import KLINE


MINUTE = 60_000
START = 1_760_000_100_000 // (5 * MINUTE) * 5 * MINUTE
SUMS = ("volume", "taker_buy_volume", "quote_volume", "taker_buy_quote_volume")

def bar(time: int, interval: str, prices: tuple[int, int, int, int], sums: list[int], count: int) -> Any:
    """Return a confirmed bar of integers in units of 2 and 3 decimals."""
    row = np.zeros(1, dtype=KLINE)
    row["open_time"], row["state"] = time, lay.STATE_CONFIRMED
    row["price_decimals"], row["quantity_decimals"] = 2, 3
    for name, price in zip(("open", "high", "low", "close"), prices, strict=True):
        row[name] = price / 100
    for name, value, decimals in zip(SUMS, sums, (3, 3, 5, 5), strict=True):
        row[name] = nearest(value, 10**decimals)
    for name, value, kept in (
        ("quote_residual", sums[2], "quote_volume"), ("taker_quote_residual", sums[3], "taker_buy_quote_volume")
    ):
        row[name] = residual(value, float(row[kept][0]), 10**5)
    row["trade_count"], row["flags"] = count, 0 if count else lay.FLAG_FILLED
    return row


@st.composite
def five_minutes(draw: st.DrawFn, most: int = 1 << 57) -> tuple[Any, Any]:
    """Return five minutes and the bar they make, by arithmetic of its own."""
    parts, last = [], 100
    for _ in range(5):
        count = draw(st.integers(0, 3))
        price = [draw(st.integers(1, 1 << 30)) for _ in range(4)] if count else [last] * 4
        prices = (price[0], max(price), min(price), price[3])
        base = [draw(st.integers(0, min(most, 1 << 47))) if count else 0 for _ in range(2)]
        quote = [draw(st.integers(0, most)) if count else 0 for _ in range(2)]
        parts.append((prices, [*base, *quote], count))
        last = prices[3]
    traded = [prices for prices, _, count in parts if count]
    flat = (parts[-1][0][3],) * 4
    prices = (
        (traded[0][0], max(p[1] for p in traded), min(p[2] for p in traded), parts[-1][0][3]) if traded else flat
    )
    sums = [sum(values[k] for _, values, _ in parts) for k in range(4)]
    children = np.concatenate([bar(START + n * MINUTE, "1m", *part) for n, part in enumerate(parts)])
    return children, bar(START, "5m", prices, sums, sum(count for _, _, count in parts))


@settings(max_examples=150)
@given(five_minutes())
def test_what_adds_up_is_not_blamed(made: tuple[Any, Any]) -> None:
    children, parent = made
    assert differences(parent, children, "5m", "1m") == []


@settings(max_examples=150)
@given(five_minutes(1 << 40), st.sampled_from(SUMS), st.integers(1, 1 << 20), st.booleans())
def test_one_unit_too_much_is_found(made: tuple[Any, Any], name: str, more: int, derived: bool) -> None:
    children, parent = made
    scale = 10 ** (5 if "quote" in name else 3)
    parent[name] = nearest(round(float(parent[name][0]) * scale) + more, scale)
    parent["flags"] |= lay.FLAG_DERIVED if derived else 0
    found = differences(parent, children, "5m", "1m")
    assert found == [(START, derived, (name,))]


@pytest.mark.parametrize("more", [1, -1, 300])
def test_one_unit_is_found_where_a_float_cannot_hold_it(more: int) -> None:
    huge = (1 << 58) + 12_345
    children = np.concatenate(
        [bar(START + n * MINUTE, "1m", (1, 1, 1, 1), [1, 1, huge + 2 * n + 1, 1], 1) for n in range(5)]
    )
    total = 5 * huge + 25
    assert differences(bar(START, "5m", (1, 1, 1, 1), [5, 5, total, 5], 5), children, "5m", "1m") == []
    wrong = bar(START, "5m", (1, 1, 1, 1), [5, 5, total + more, 5], 5)
    assert [one.fields for one in differences(wrong, children, "5m", "1m")] == [("quote_volume",)]


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "trade_count"])
def test_prices_and_count_must_agree(name: str) -> None:
    children = np.concatenate(
        [bar(START + n * MINUTE, "1m", (100 + n, 110 + n, 90 + n, 105 + n), [10, 5, 1000, 500], 2) for n in range(5)]
    )
    parent = bar(START, "5m", (100, 114, 90, 109), [50, 25, 5000, 2500], 10)
    assert differences(parent, children, "5m", "1m") == []
    parent[name] += 1
    (found,) = differences(parent, children, "5m", "1m")
    assert found.fields == (name,)


def test_only_confirmed_bars_with_all_their_parts_are_compared() -> None:
    children = np.concatenate([bar(START + n * MINUTE, "1m", (1, 1, 1, 1), [1, 1, 1, 1], 1) for n in range(5)])
    wrong = bar(START, "5m", (2, 2, 2, 2), [9, 9, 9, 9], 9)
    assert len(differences(wrong, children, "5m", "1m")) == 1
    assert differences(wrong, children[1:], "5m", "1m") == []
    assert differences(wrong[:0], children, "5m", "1m") == []
    young = children.copy()
    young["state"][2] = lay.STATE_CLOSED
    assert differences(wrong, young, "5m", "1m") == []
    wrong["state"] = lay.STATE_CLOSED
    assert differences(wrong, children, "5m", "1m") == []


def test_decimals_that_grew_between_bars_are_no_difference() -> None:
    children = np.concatenate(
        [bar(START + n * MINUTE, "1m", (1, 1, 1, 1), [1, 1, 1 << 52, 1], 1) for n in range(5)]
    )
    parent = bar(START, "5m", (1, 1, 1, 1), [5, 5, 5 << 52, 5], 5)
    children["quantity_decimals"] = 4  # of the series by now; rows without residual have none of their own
    assert differences(parent, children, "5m", "1m") == []


@given(st.integers(0, (1 << 61) - 1), st.integers(0, 9))
def test_units_are_restored_as_the_engine_restores_them(count: int, decimals: int) -> None:
    value = nearest(count, 10**decimals)
    left = residual(count, value, 10**decimals)
    found = units(np.array([value]), np.array([left], dtype=np.int64), np.array([10**decimals], dtype=np.int64))
    assert found[0] == count
