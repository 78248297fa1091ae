"""Live rows are written straight from the open bars; what they say is what the record of a closed bar says."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from klshm.shm import layout as lay
from tests.core.feed import CELLS, LIVE, Feed, begun


SAME = (*CELLS, "price_decimals", "quantity_decimals", "last_agg_id", "last_trade_id", "event_time", "slot", "interval")
SMALL = 1 << 51


def test_a_closed_bar_says_what_its_live_row_said() -> None:
    rng = random.Random(5)
    feed = begun()
    last = 10
    for number in range(2, 60):
        first, last = last + 1, last + rng.randrange(1, 4)
        price, quantity = rng.randrange(1, 10**7) / 100, rng.randrange(1, 10**6) / 1000
        feed.trade(number, first, last, quantity, 50 + number / 10, price, taker=rng.random() < 0.5)
    live = feed.live()
    assert live["state"] == LIVE
    feed.tick(1)
    closed = feed.stored(feed.start)
    assert {name: closed[name] for name in SAME} == {name: live[name] for name in SAME}


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_sums_of_any_size_are_the_nearest_number(beyond: int) -> None:
    feed = Feed()
    total = 0
    for number, units in enumerate((SMALL // 2, SMALL // 2 + beyond), 1):
        feed.trade(number, number, number, units / 1000, 50 + number, 0.01)
        total += units
        row = feed.live("1w")
        assert Decimal(str(row["volume"])) == Decimal(repr(total / 1000))
        assert row["quote_volume"] == float(Decimal(total) / 10**5)
        assert row["flags"] & lay.FLAG_FILLED == 0
        assert row["quote_residual"] == 0
