"""Numbers with more decimals than announced: every cell stays exact, and what cannot be held is refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from klshm.core import events as ev
from klshm.core.kernel.scaling import cells_of_row, needed_decimals, to_units
from klshm.core.state import RING
from klshm.shm.compile import COMPILED
from klshm.shm.exact import MAX_SUM
from klshm.shm.layout import KLINE
from tests.core.feed import CLOSED, CONFIRMED, LIVE, MINUTE, PARTIAL, START, Feed, event, volumes


UNCOMPILED = pytest.mark.skipif(COMPILED, reason="compiled kernels have no way in from Python but one")


CELLS = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def trade(feed: Feed, a: int, price: str, quantity: str, time_s: float, *, taker: bool = True, **more: int) -> None:
    """Send a trade of one fill as it was written; its trade id is its aggregate id plus 9."""
    p, q = Decimal(price), Decimal(quantity)
    at = feed.start + round(time_s * 1000)
    feed.now = max(feed.now, at + 100)
    fields = dict(
        kind=ev.TRADE,
        time=at + 100,
        open_time=at,
        flag=int(not taker),
        a=a,
        f=a + 9,
        l=a + 9,
        price_decimals=-int(p.as_tuple().exponent),
        quantity_decimals=-int(q.as_tuple().exponent),
        open=int(p.scaleb(-p.as_tuple().exponent)),
        volume=int(q.scaleb(-q.as_tuple().exponent)),
    )
    feed.apply(event(**(fields | more)))


def official(feed: Feed, kind: int, n: int, price: str, volume: str, quote: str, **fields: int) -> None:
    """Send an official bar at one price as it was written."""
    p, v, q = Decimal(price), Decimal(volume), Decimal(quote)
    units = [int(each.scaleb(-each.as_tuple().exponent)) for each in (p, v, q)]
    feed.apply(
        event(
            kind=kind,
            price_decimals=-int(p.as_tuple().exponent),
            quantity_decimals=-int(v.as_tuple().exponent),
            quote_decimals=-int(q.as_tuple().exponent),
            open=units[0],
            high=units[0],
            low=units[0],
            close=units[0],
            volume=units[1],
            quote_volume=units[2],
            taker_buy_volume=units[1],
            taker_buy_quote_volume=units[2],
            trade_count=n,
            **fields,
        )
    )


def cells(row: Any) -> list[float]:
    """Return the cells that have decimals."""
    return [float(row[name]) for name in CELLS]


# Units


@UNCOMPILED
@given(some.integers(0, 10**12), some.integers(0, 9), some.integers(0, 9))
def test_a_written_number_is_brought_to_units_exactly_or_not_at_all(value: int, decimals: int, target: int) -> None:
    units = to_units(value, decimals, target)
    exact = Decimal(value).scaleb(target - decimals)
    assert units == (exact if exact == int(exact) and exact <= MAX_SUM else -1)


@UNCOMPILED
def test_a_number_too_large_for_its_units_is_not_brought_to_them() -> None:
    assert to_units(MAX_SUM // 10 + 1, 0, 1) == -1
    assert to_units(MAX_SUM // 10, 0, 1) == MAX_SUM // 10 * 10


@UNCOMPILED
@pytest.mark.parametrize(
    ("value", "decimals", "needed"), [(1200, 4, 2), (1234, 4, 4), (0, 5, 0), (100, 0, 0), (5, 3, 3)]
)
def test_zeros_at_the_end_need_no_decimals(value: int, decimals: int, needed: int) -> None:
    assert needed_decimals(value, decimals) == needed


# Finer units


def test_zeros_at_the_end_refine_nothing() -> None:
    feed = Feed()
    trade(feed, 1, "100.50000", "4.000000", 50)
    feed.assert_bar(4, 1)
    assert feed.live()["close"] == 100.5
    assert feed.count("rescales_total") == 0


@pytest.mark.parametrize(("price", "quantity", "decimals"), [("100.0001", "2", (4, 3)), ("100", "2.00001", (2, 5))])
def test_a_finer_trade_refines_its_symbol_in_the_middle_of_a_minute(price: str, quantity: str, decimals: Any) -> None:
    feed = Feed()
    trade(feed, 1, "100.01", "4", 50)
    feed.frame(10, 4, 1, prices=(100.01,) * 4, quote=400.04)
    before = cells(feed.live())
    trade(feed, 1, price, quantity, 51)  # a duplicate: it refines, and adds nothing
    assert feed.count("rescales_total") == 1
    assert cells(feed.live()) == before
    trade(feed, 2, price, quantity, 52)
    assert (feed.live()["price_decimals"], feed.live()["quantity_decimals"]) == decimals
    volume = Decimal(4) + Decimal(quantity)
    quote = Decimal("400.04") + Decimal(price) * Decimal(quantity)
    assert (feed.live()["volume"], feed.live()["quote_volume"]) == (float(volume), float(quote))
    feed.assert_bar(float(volume), 2, state=LIVE, flags=0)
    assert feed.count("rescales_total") == 1


def test_taker_cells_are_as_fine_as_the_others() -> None:
    feed = Feed()
    trade(feed, 1, "100.001", "4.0001", 50, taker=False)
    trade(feed, 2, "100.001", "2.0001", 51)
    row = feed.live()
    assert (row["volume"], row["taker_buy_volume"]) == (6.0002, 2.0001)
    assert row["taker_buy_quote_volume"] == float(Decimal("100.001") * Decimal("2.0001"))


def test_what_is_compared_later_is_refined_too() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 10, 10, 4, 50)
    feed.trade(2, 11, 11, 1, 61)
    feed.trade(4, 13, 13, 1, 66)  # trade 3 is missing
    trade(feed, 5, "100.00001", "1", 67)
    feed.trade(3, 12, 12, 2, 65)
    feed.frame(10, 4, 1, final=True)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    assert feed.count("match_tick_partial_equal_total") + feed.count("match_tick_provisional_equal_total") == 1
    assert feed.live()["quote_volume"] == float(Decimal("500.00001"))
    assert volumes(feed.live()) == (5, 4)
    feed.tick(2)
    feed.settle(2)
    official(feed, ev.FRAME, 4, "100", "5", "500.00001", f=11, l=14, flag=1, open_time=START + MINUTE, time=feed.now)
    assert feed.bar(1)["state"] == CONFIRMED
    assert feed.count("contradictions_total") == 0


def test_what_was_measured_before_a_hole_is_refined_for_when_it_is_filled() -> None:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    feed.frame(10, 4, 1)
    feed.trade(4, 15, 18, 3, 53)
    feed.frame(16, 8.5, 7)  # it cuts the group
    trade(feed, 1, "100.0001", "4.0001", 53.5)  # a duplicate: it refines, and adds nothing
    assert feed.count("rescales_total") == 1
    feed.trade(2, 11, 12, 2, 51, sent_s=54)
    feed.trade(3, 13, 14, 1, 52, sent_s=54)
    feed.assert_bar(10, 9, state=LIVE, flags=0)
    feed.trade(5, 19, 19, 1, 55)
    feed.assert_bar(11, 10, state=LIVE, flags=0)


def test_a_finer_official_row_refines_history_as_it_is_read() -> None:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    feed.at(122)
    official(feed, ev.REST_ROW, 1, "100.0", "4.0", "400.0", open_time=START, time=START + 122_000)
    feed.assert_bar(4, 1, state=CONFIRMED)
    assert (feed.count("rescales_total"), feed.count("rest_differs_from_final_total")) == (0, 0)
    for _ in range(2):
        official(feed, ev.REST_ROW, 1, "100.0001", "4.0", "400.0004", open_time=START, time=START + 122_000)
    assert feed.count("rescales_total") == 1
    assert (feed.bar(0)["open"], feed.bar(0)["quote_volume"]) == (100.0001, 400.0004)
    feed.trade(2, 11, 11, 1, 125)
    assert volumes(feed.live("30m")) == (5, 2)
    assert feed.live("30m")["quote_volume"] == 500.0004


def test_a_symbol_without_a_price_is_refined() -> None:
    feed = Feed(joined_s=None)
    feed.add(0, decimals=(0, 0))
    trade(feed, 1, "0.00001", "1.5", 50)
    assert (feed.live()["open"], feed.live()["volume"]) == (0.00001, 1.5)
    assert feed.live()["quote_volume"] == 0.000015


def test_what_was_traded_long_ago_does_not_keep_a_symbol_from_finer_units() -> None:
    feed = Feed(joined_s=0)
    trade(feed, 1, "1000000", "10000000", 1)
    for number in range(1, RING + 1):  # until nothing that is held reaches back to it
        trade(feed, 1 + number, "100", "1", number + 60)
    trade(feed, RING + 2, "100.001", "1", 1201)
    assert feed.count("rescales_total") == 1


# What does not fit


def test_more_decimals_than_units_can_hold_are_refused_and_counted() -> None:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    trade(feed, 2, "100.0000001", "1", 51)
    assert (feed.count("overflows_total"), feed.count("rescales_total")) == (1, 0)
    feed.assert_bar(4, 1)
    feed.frame(10, 4, 1)
    refused = feed.count("refused_total")
    official(feed, ev.FRAME, 2, "100.0000001", "5", "500.0000001", f=10, l=11, open_time=START, time=feed.now)
    assert feed.count("refused_total") == refused + 1
    feed.assert_bar(4, 1, flags=0)


def test_a_symbol_too_large_for_finer_units_stays_as_it_is() -> None:
    feed = Feed()
    trade(feed, 1, "1000000.00", "1000000.000", 50)
    before = feed.live()
    trade(feed, 2, "100.000001", "1", 51)
    assert (feed.count("overflows_total"), feed.count("rescales_total")) == (1, 0)
    assert feed.live() == before
    trade(feed, 2, "100", "1", 52)
    feed.assert_bar(1_000_001, 2, flags=PARTIAL)


@pytest.mark.parametrize(
    ("price", "quantity"), [("0", "1"), ("1", "0"), ("0.00", "0.000"), ("100000000000", "100000000")]
)
def test_a_trade_that_is_none_or_too_large_is_refused(price: str, quantity: str) -> None:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    trade(feed, 2, price, quantity, 51)
    feed.assert_bar(4, 1)
    assert feed.count("overflows_total") == 1
    feed.trade(2, 11, 11, 1, 52)
    feed.assert_bar(5, 2)


def test_a_minute_that_would_overflow_refuses_the_trade_and_keeps_the_rest() -> None:
    feed = Feed()
    for a in (1, 2):
        trade(feed, a, "1000000", "10000000", 50 + a)  # 10^18 units of quote each
    trade(feed, 3, "1000000", "10000000", 53)
    feed.assert_bar(20_000_000, 2)
    assert feed.count("overflows_total") == 1
    assert feed.live()["quote_volume"] == 2e13
    trade(feed, 3, "1000000", "10000000", 60.5)  # the next minute has room
    feed.assert_bar(10_000_000, 1, 1)


def test_an_official_bar_that_needs_more_decimals_of_quote_than_its_price_and_quantity_is_refused() -> None:
    feed = Feed()
    official(feed, ev.FRAME, 1, "100", "4", "400.000001", f=10, l=10, open_time=START, time=feed.now)
    assert (feed.count("overflows_total"), feed.count("refused_total")) == (1, 1)
    assert feed.live()["open_time"] == 0


def test_a_fold_that_would_overflow_is_partial_and_counted() -> None:
    feed = Feed(start=START + MINUTE)  # five minutes begin here
    for minute in range(3):
        trade(feed, 1 + minute, "1000000", "10000000", minute * 60 + 50)
        assert feed.live("5m")["quote_volume"] == min(minute + 1, 2) * 1e13
    assert feed.live("5m")["flags"] & PARTIAL
    assert feed.count("overflows_total") > 0
    assert feed.live()["quote_volume"] == 1e13


# Rows read back


def read_back(row: Any) -> Any:
    """Return a row as an event that says the same."""
    one = event(kind=ev.REST_ROW, open_time=int(row["open_time"]))
    one["price_decimals"], one["quantity_decimals"] = row["price_decimals"], row["quantity_decimals"]
    one["quote_decimals"] = one["price_decimals"] + one["quantity_decimals"]
    words = np.array([row], dtype=KLINE).view(np.int64).reshape(-1)
    to = one.view(np.int64).reshape(-1)
    cells_of_row(words, 0, to, 0)
    return one


@given(
    some.lists(
        some.tuples(some.integers(10**9, 10**10), some.integers(10**6, 3 * 10**7), some.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_a_row_is_read_back_exactly_however_large(trades: list[tuple[int, int, bool]]) -> None:
    feed = Feed()
    volume = quote = taker_volume = taker_quote = 0
    for a, (p, q, taker) in enumerate(trades, 1):
        trade(feed, a, f"{p}e-2", f"{q}e-3", 50 + a, taker=taker)
        volume, quote = volume + q, quote + p * q
        taker_volume, taker_quote = taker_volume + q * taker, taker_quote + p * q * taker
    one = read_back(feed.live())[0]
    assert (one["open"], one["close"]) == (trades[0][0], trades[-1][0])
    assert (one["high"], one["low"]) == (max(p for p, _, _ in trades), min(p for p, _, _ in trades))
    assert (one["volume"], one["quote_volume"]) == (volume, quote)
    assert (one["taker_buy_volume"], one["taker_buy_quote_volume"]) == (taker_volume, taker_quote)
    assert one["trade_count"] == len(trades)


@given(some.integers(2**53, 2**58), some.integers(2**53, 2**58))
def test_history_is_restored_exactly_whichever_way_its_floats_were_rounded(quote: int, taker_quote: int) -> None:
    low, high = sorted((quote, taker_quote))
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    feed.tick(1)
    feed.at(121)
    bar = dict(price_decimals=2, quantity_decimals=3, quote_decimals=5, open=10_000, high=10_000, low=10_000)
    bar |= dict(close=10_000, volume=10**6, quote_volume=high, taker_buy_volume=10**5, taker_buy_quote_volume=low)
    for minute in (-20, 0):
        said = event(kind=ev.REST_ROW, open_time=START + minute * MINUTE, time=feed.now, trade_count=1, **bar)
        feed.apply(said)
        assert feed.bar(minute)["state"] == CONFIRMED
        one = read_back(feed.bar(minute))[0]
        assert (one["quote_volume"], one["taker_buy_quote_volume"]) == (high, low)
        feed.apply(said)  # compared with what history restores: equal
    assert feed.count("rest_differs_from_final_total") == 0
    assert feed.bar(-20)["revision"] == 1
    assert feed.bar(0)["state"] != CLOSED
