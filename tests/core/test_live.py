"""Live rows are written straight from the open bars; what they say is what the record of a closed bar says."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest

from klshm.core import state as st
from klshm.core.kernel.folds import scratch_fold
from klshm.core.kernel.rows import pack
from klshm.shm import layout as lay
from klshm.shm.compile import COMPILED
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


@pytest.mark.skipif(COMPILED, reason="compiled kernels have no way in from Python but one")
def test_every_word_of_a_live_row_is_what_a_packed_bar_has() -> None:
    rng = random.Random(6)
    feed = begun()
    m, last = feed.engine.memory, 10
    image = int(m.state[st.C_IMAGE])
    for number in range(2, 40):
        first, last = last + 1, last + rng.randrange(1, 4)
        feed.trade(number, first, last, rng.randrange(1, 10**6) / 1000, 49 + number / 4, rng.randrange(1, 10**7) / 100)
        for interval in range(feed.layout.intervals):
            at = feed.layout.live_offset(0) // 8 + interval * lay.ROW_WORDS
            live = feed.words[at : at + lay.ROW_WORDS]
            bar = scratch_fold(m, interval)
            flags = int(live[lay.W_FLAGS]) & 0xFFFF
            pack(m, 0, interval, m.state[bar + st.F_TIME], bar + st.F_CELLS, LIVE, flags, 0)
            assert live[1:].tolist() == m.state[image + 1 : image + lay.ROW_WORDS].tolist()
