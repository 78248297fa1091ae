"""The short way of a trade: never another result than the long way, and most trades take it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from klshm.core import state as st
from klshm.shm import layout as lay
from klshm.shm.compile import COMPILED
from tests.core.feed import MINUTE, START, Feed, begun
from tests.core.play import Arrivals, Play
from tests.core.test_properties import CALM, ROUGH, market_of


def unsteady(feed: Feed, slot: int = 0) -> bool:
    state = feed.engine.memory.state
    at = int(state[st.C_SYMBOLS]) + slot * st.S_WORDS + st.S_STEADY
    steady = bool(state[at] != st.FOREVER)
    state[at] = st.FOREVER
    return steady


def lasting(feed: Feed) -> Any:
    """Return the private memory but for what is scratch and for which way the next trade takes."""
    unsteady(feed)
    state = feed.engine.memory.state.copy()
    state[state[st.C_SCRATCH] : state[st.C_IMAGE]] = 0
    return state


class LongWay(Play):
    """Lets every trade take the long way."""

    steady = 0

    def apply(self, one: Any) -> None:
        self.steady += unsteady(self.feed)
        super().apply(one)


@pytest.mark.parametrize("order", CALM + ROUGH, ids=lambda order: order.__name__)
def test_both_ways_make_the_same_memory(order: Callable[..., Arrivals]) -> None:
    was_steady = 0
    for seed in range(4 if COMPILED else 1):
        plays = []
        for kind in (Play, LongWay):
            rng = random.Random(seed)
            market = market_of(rng, rate=1.0, deep=0.3)
            play = kind(market)
            play.run(order(rng, (market.groups(), market.frames(rng))), then_ms=70_000)
            plays.append(play)
        short, long = plays
        assert isinstance(long, LongWay)
        was_steady += long.steady
        assert np.array_equal(short.feed.words, long.feed.words)
        assert np.array_equal(lasting(short.feed), lasting(long.feed))
    assert was_steady > 0


def steady_feed() -> Feed:
    feed = begun()
    feed.trade(2, 11, 11, 1, 51.0)
    assert unsteady(feed)
    feed.trade(3, 12, 12, 1, 52.0)
    return feed


@pytest.mark.parametrize(
    "happens",
    [
        lambda feed: feed.frame(12, 6, 3),
        lambda feed: feed.tick(1),
        lambda feed: feed.settle(1),
        lambda feed: feed.down(53.0),
        lambda feed: feed.trade(3, 12, 12, 1, 52.0),
        lambda feed: feed.trade(5, 14, 14, 1, 53.0),
        lambda feed: feed.rest(4, 1, age_s=3, minute=0),
        lambda feed: feed.trade(4, 12, 13, 1, 53.0),
    ],
    ids=["frame", "tick", "settle", "down", "duplicate", "hole", "row", "overlap"],
)
def test_whatever_else_happens_sends_the_next_trade_the_long_way(happens: Callable[[Feed], None]) -> None:
    feed = steady_feed()
    happens(feed)
    assert not unsteady(feed)


def test_a_trade_that_the_minute_before_may_still_share_is_not_steady() -> None:
    feed = begun()
    feed.frame(15, 10, 6, final=True)
    feed.trade(2, 11, 12, 2, 61.0)
    assert not unsteady(feed)
    feed.trade(3, 13, 15, 4, 61.1)
    assert not unsteady(feed)
    feed.trade(4, 16, 16, 1, 61.2)
    assert unsteady(feed)


@pytest.mark.parametrize("p, q", [(2**30 / 100, 1), (1, 2**30 / 1000)], ids=["price", "quantity"])
def test_a_large_number_is_looked_at_closely_and_taken(p: float, q: float) -> None:
    feed = steady_feed()
    feed.trade(4, 13, 13, q, 53.0, p)
    row = feed.live()
    assert (row["volume"], row["close"]) == (6 + q, p)


def test_a_trade_that_meets_the_frame_ahead_of_it_measures_the_offset() -> None:
    feed = steady_feed()
    feed.frame(15, 10, 6)
    feed.trade(4, 13, 13, 1, 53.0)
    feed.trade(5, 14, 14, 1, 53.1)
    assert unsteady(feed)
    clean = feed.count("frames_clean_total")
    feed.trade(6, 15, 15, 2, 53.2)
    assert feed.count("frames_clean_total") == clean + 1
    feed.assert_bar(10, 6)


def test_sums_too_large_for_the_short_way_are_refused_by_the_long_one() -> None:
    feed = steady_feed()
    state = feed.engine.memory.state
    prefix = int(state[st.C_SYMBOLS]) + st.S_PREFIX
    record = int(state[st.C_RECORDS]) + (START // MINUTE % st.RECORDS) * st.M_WORDS
    state[record + st.M_OFF] = state[prefix] - (1 << 61)
    feed.trade(4, 13, 13, 1, 53.0)
    assert feed.count("overflows_total") == 1
    assert feed.count("trades_total") == 3


def test_records_begin_with_a_cache_line() -> None:
    feed = Feed(3)
    memory = feed.engine.memory
    for region in (st.C_SYMBOLS, st.C_RECORDS):
        assert (memory.state.ctypes.data + int(memory.state[region]) * 8) % (st.LINE * 8) == 0
    assert lay.ROW_WORDS % st.LINE == 0
