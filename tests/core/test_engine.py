"""What callers see of an engine: cuts, counters, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.engine import Engine, partition_layout
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_WORDS
from tests.core.feed import (
    CLOSED,
    MINUTE,
    START,
    Feed,
    begun,
    event,
)


def row_at(feed: Feed, at: int) -> Any:
    return feed.words[at : at + ROW_WORDS].copy().view(KLINE)[0]


# Publication


def test_apply_says_how_many_entries_became_visible() -> None:
    feed = begun()
    assert feed.apply(event(kind=ev.TICK, time=START + MINUTE)) == 2
    assert feed.apply(event(kind=ev.TICK, time=START + MINUTE)) == 0
    minute, five = feed.logged()
    assert (minute["open_time"], minute["interval"], minute["state"]) == (START, 0, CLOSED)
    assert (five["open_time"], five["interval"], five["state"]) == (START - 4 * MINUTE, 2, CLOSED)


def test_a_cut_holds_what_was_live_and_is_published_only_after_a_change() -> None:
    feed = begun()
    assert feed.engine.publish(5) > 0
    assert feed.engine.publish(6) > 0  # what changed before the first is carried forward once
    assert feed.engine.publish(7) == 0
    generation = int(feed.block[lay.B_GENERATION])
    half = feed.layout.half_offset(0, generation & 1) // 8
    assert row_at(feed, half).tobytes() == row_at(feed, feed.layout.live_offset(0) // 8).tobytes()
    cut = lay.B_CUT + (generation & 1) * lay.CUT_WORDS
    assert feed.block[cut + lay.CUT_MONO_NS] == 6
    assert feed.block[cut + lay.CUT_EXCHANGE_MS] == feed.now


def test_a_closing_wave_publishes_a_cut_of_its_own() -> None:
    feed = begun()
    generation = int(feed.block[lay.B_GENERATION])
    feed.tick(1)
    assert feed.block[lay.B_GENERATION] == generation + 1
    cut = lay.B_CUT + ((generation + 1) & 1) * lay.CUT_WORDS
    assert feed.block[cut + lay.CUT_CLOSED_THROUGH_MS] == START + MINUTE
    feed.tick(1)
    assert feed.block[lay.B_GENERATION] == generation + 1


def test_settling_is_told_after_the_entries_it_logs() -> None:
    feed = begun()
    feed.tick(1)
    assert feed.block[lay.B_SETTLED_THROUGH_MS] == 0
    feed.settle(1)
    assert feed.block[lay.B_SETTLED_THROUGH_MS] == START + MINUTE


def test_a_symbol_without_any_price_has_no_bar() -> None:
    feed = Feed()
    feed.tick(1)
    assert feed.live()["open_time"] == 0
    assert feed.stored(START) is None
    assert len(feed.logged()) == 0


def test_nothing_is_published_when_nothing_changed() -> None:
    feed = begun()
    while feed.engine.publish(1):
        pass
    generation = int(feed.block[lay.B_GENERATION])
    assert feed.engine.publish(2) == 0
    assert int(feed.block[lay.B_GENERATION]) == generation
    feed.trade(2, 11, 11, 2, 51)
    assert feed.engine.publish(3) == feed.layout.intervals
    assert int(feed.block[lay.B_GENERATION]) == generation + 1


# Settings, counters, refusals


def test_counters_and_records_are_told_by_name() -> None:
    feed = begun()
    assert feed.engine.counter("trades_total") == 1
    assert feed.engine.record(0, START)["M_BASE_L"] == 10
    assert feed.engine.record(0, START + 3 * MINUTE) == {}


def test_minutes_are_amended_for_as_long_as_configured() -> None:
    layout = partition_layout(1)
    words = np.zeros(layout.total_bytes // 8, np.int64)
    for minutes in (0, 1, 5):
        engine = Engine(words, layout, amend_minutes=minutes)
        assert engine.memory.state[st.C_AMEND_MS] == minutes * MINUTE
    with pytest.raises(ValueError, match="records reach back 5 minutes"):
        Engine(words, layout, amend_minutes=6)


def test_a_measured_lag_keeps_bars_provisional_for_longer() -> None:
    flags = []
    for lag_ms in (0, 500):
        feed = begun()
        feed.engine.set_lag(lag_ms)
        feed.tick(1)
        feed.settle(1)
        flags.append(int(feed.bar(0)["flags"]))
    assert flags == [0, lay.FLAG_PROVISIONAL]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": ev.TRADE, "slot": 9},
        {"kind": ev.TRADE, "slot": -1},
        {"kind": 99},
        {"kind": ev.TRADE, "a": -1, "l": 1},
        {"kind": ev.TRADE, "f": 2, "l": 1, "open_time": START},
        {"kind": ev.FRAME, "open_time": START + 1},
        {"kind": ev.FRAME, "open_time": START + 2 * MINUTE, "flag": 1},
        {"kind": ev.FRAME, "open_time": START, "trade_count": 2, "f": 5, "l": 5},
        {"kind": ev.FRAME, "open_time": START, "open": 1, "high": 2, "low": 3, "close": 2},
    ],
)
def test_what_cannot_be_is_refused_and_counted(fields: dict[str, int]) -> None:
    feed = begun()
    before = feed.live()
    feed.apply(event(**fields))
    assert feed.count("refused_total") == 1
    assert feed.live() == before
