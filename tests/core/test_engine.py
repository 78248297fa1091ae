"""An engine over memory that outlives it: what a killed worker left is made whole and gone on from."""

from __future__ import annotations

import numpy as np
import pytest

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.engine import Engine, partition_layout
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, ROW_WORDS
from tests.core.feed import CLOSED, CONFIRMED, DERIVED, FILLED, LIVE, MINUTE, PARTIAL, START, Feed, event, volumes


def begun(**more: int) -> Feed:
    feed = Feed(**more)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    return feed


def again(before: Feed, at_s: float, slots: int = 1) -> Feed:
    """Start another engine over the memory of one that is no more."""
    feed = Feed(slots, start=before.start, joined_s=None, memory=before.words)
    feed.at(at_s)
    feed.engine.recover()
    for slot in range(slots):
        feed.add(slot)
    return feed


def row_at(feed: Feed, at: int) -> np.void:
    return feed.words[at : at + ROW_WORDS].copy().view(KLINE)[0]


def live_at(feed: Feed) -> int:
    return feed.layout.live_offset(0) // 8


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
    assert row_at(feed, half).tobytes() == row_at(feed, live_at(feed)).tobytes()
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


# After a crash


def test_a_torn_live_row_is_taken_from_the_readable_half_and_is_partial() -> None:
    feed = begun()
    feed.engine.publish(1)
    feed.trade(2, 11, 11, 2, 51)
    at = live_at(feed)
    feed.words[at] |= 1
    feed.words[at + lay.W_VOLUME] = -1
    after = again(feed, 52)
    assert volumes(after.live()) == (4, 1)
    assert after.live()["flags"] & PARTIAL
    assert after.live()["sequence"] % 2 == 0


def test_a_torn_row_of_the_other_half_too() -> None:
    feed = begun()
    feed.engine.publish(1)
    feed.trade(2, 11, 11, 2, 51)
    feed.engine.publish(2)
    feed.words[live_at(feed)] |= 1
    assert volumes(again(feed, 52).live()) == (6, 2)


def test_entries_beyond_the_tail_are_adopted_and_replayed() -> None:
    feed = begun()
    tail = int(feed.block[lay.B_TAIL])
    feed.tick(1)
    bar = feed.stored(START)
    history = feed.layout.history_offset(0) // 8
    history += (feed.layout.history_row(0, 0) + (START // MINUTE) % 128) * ROW_WORDS
    feed.words[history : history + ROW_WORDS] = 0  # killed after the entry, before the history row
    feed.block[lay.B_TAIL] = tail
    feed.engine = Engine(feed.words, feed.layout)
    assert feed.engine.recover() == 2
    assert feed.block[lay.B_TAIL] == tail + 2
    found = feed.stored(START)
    assert volumes(found) == volumes(bar)
    assert (found["state"], found["revision"]) == (bar["state"], bar["revision"])


@pytest.mark.parametrize(("word", "value"), [("slot", 99), ("interval", 12)])
def test_entries_of_nobody_are_adopted_but_not_replayed(word: str, value: int) -> None:
    feed = begun()
    tail = int(feed.block[lay.B_TAIL])
    feed.tick(1)
    entry = feed.layout.log_offset(0) // 8 + tail * ROW_WORDS
    row = feed.words[entry : entry + ROW_WORDS].view(KLINE)
    row[word] = value
    row["open_time"] += MINUTE
    feed.block[lay.B_TAIL] = tail
    feed.engine = Engine(feed.words, feed.layout)
    assert feed.engine.recover() == 2
    assert feed.stored(START + MINUTE) is None


def test_every_row_counts_as_changed_for_two_swaps() -> None:
    feed = begun()
    feed.engine.publish(1)
    after = again(feed, 52)
    rows = after.layout.slots * after.layout.intervals
    assert after.engine.publish(1) == after.engine.publish(2) == rows


# Going on


def test_a_bar_goes_on_from_its_own_row() -> None:
    feed = begun()
    after = again(feed, 52)
    after.assert_bar(4, 1, state=LIVE, flags=PARTIAL)  # in doubt until the next trade
    after.trade(2, 11, 12, 2.5, 53)
    after.assert_bar(6.5, 3, state=LIVE, flags=0)
    after.frame(12, 6.5, 3)
    after.tick(1)
    after.frame(12, 6.5, 3, final=True)
    after.assert_bar(6.5, 3, state=CONFIRMED)


def test_what_was_missed_is_a_hole_with_exact_bounds() -> None:
    feed = begun()
    after = again(feed, 52)
    after.trade(4, 14, 14, 1, 55)
    after.assert_bar(5, 2, flags=PARTIAL)
    after.trade(2, 11, 12, 3, 51)
    after.trade(3, 13, 13, 1, 52)
    after.assert_bar(9, 5, flags=0)
    after.frame(14, 9, 5)
    after.assert_bar(9, 5, flags=0)


def test_what_a_frame_had_covered_is_not_counted_again() -> None:
    feed = begun()
    feed.frame(14, 14, 5)
    after = again(feed, 52)
    after.assert_bar(14, 5)
    after.trade(2, 11, 12, 6, 50.9)
    after.assert_bar(14, 5)
    after.trade(3, 13, 15, 5, 51)  # the frame had cut this one
    assert after.bar()["volume"] >= 14
    after.trade(4, 16, 16, 1, 52)
    after.frame(16, 16, 7)
    after.assert_bar(16, 7, flags=0)


def test_a_hole_that_a_frame_had_covered_adds_nothing_when_it_is_filled() -> None:
    feed = begun()
    feed.frame(14, 14, 5)
    after = again(feed, 52)
    after.trade(3, 15, 15, 1, 52)
    after.trade(2, 11, 14, 10, 51)
    after.assert_bar(15, 6)


def test_a_partial_bar_stays_partial_until_a_frame_covers_it() -> None:
    feed = Feed()
    feed.trade(1, 50, 50, 4, 50)
    after = again(feed, 52)
    after.trade(2, 51, 51, 1, 53)
    after.assert_bar(5, 2, flags=PARTIAL)
    after.frame(51, 105, 41)
    after.assert_bar(105, 41, flags=0)


def test_an_own_row_is_no_frame_that_could_prove_anything() -> None:
    feed = begun()
    after = again(feed, 52)
    after.frame(11, 1, 1, first=11, minute=1, sent_s=60.5)
    assert after.bar(0)["state"] == CLOSED
    assert after.count("confirmed_by_next_frame_total") == 0


def test_a_filled_minute_goes_on_too() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.tick(1)
    after = again(feed, 70)
    after.assert_bar(0, 0, 1, state=LIVE, flags=FILLED | PARTIAL)
    after.trade(2, 11, 11, 2, 75, p=101)
    after.assert_bar(2, 1, 1, flags=0)
    assert [after.bar(1)[cell] for cell in ("open", "high", "low", "close")] == [101] * 4


def test_the_minutes_of_the_outage_are_partial_and_asked_for() -> None:
    feed = begun()
    after = again(feed, 200)
    after.tick(3)
    for minute in (0, 1, 2):
        assert after.bar(minute)["flags"] & PARTIAL
    after.check()
    assert (after.need()["from_ms"], after.need()["to_ms"]) == (START, START + 2 * MINUTE)
    assert after.need()["reason"] & lay.NEED_DOUBT and after.need()["reason"] & lay.NEED_UNCONFIRMED


def test_killed_between_history_and_live_the_next_minute_is_open() -> None:
    feed = begun()
    old = feed.words[live_at(feed) : live_at(feed) + 6 * ROW_WORDS].copy()
    feed.trade(2, 11, 11, 3, 60.2)
    feed.words[live_at(feed) : live_at(feed) + 6 * ROW_WORDS] = old
    after = again(feed, 61)
    after.assert_bar(4, 1, state=CLOSED)
    after.assert_bar(0, 0, 1, state=LIVE, flags=FILLED | PARTIAL)
    after.trade(3, 12, 12, 1, 61)
    after.assert_bar(1, 1, 1, flags=PARTIAL)
    after.trade(2, 11, 11, 3, 60.2)
    after.assert_bar(4, 2, 1, flags=0)
    after.assert_bar(4, 1, state=CLOSED)


@pytest.mark.parametrize("how", ["final", "rest", "late trade", "lesser row"])
def test_a_bar_found_closed_is_the_exchanges_to_change(how: str) -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 55)  # one is missing
    feed.tick(1)
    feed.settle(1)
    after = again(feed, 61)
    after.tick(1)
    if how == "final":
        after.frame(12, 7, 3, final=True)
        after.assert_bar(7, 3, state=CONFIRMED)
    elif how == "rest":
        after.rest(7, 3, age_s=31)
        after.assert_bar(7, 3, state=CLOSED)
        after.rest(7, 3, age_s=36)
        after.assert_bar(7, 3, state=CONFIRMED)
    elif how == "late trade":
        after.trade(4, 13, 13, 9, 59)
        after.assert_bar(5, 2, state=CLOSED)
        assert after.bar()["flags"] & PARTIAL
    else:
        after.frame(12, 5, 2, final=True)  # fewer trades than we had counted: the exchange still knows better
        after.assert_bar(5, 2, state=CONFIRMED)
        assert after.count("contradictions_total") == 0


def test_a_bar_found_confirmed_stays() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.tick(1)
    after = again(feed, 61)
    after.frame(11, 5, 2, final=True)
    after.assert_bar(4, 1, state=CONFIRMED, flags=0)
    assert after.count("contradictions_total") == 1


def test_flags_found_in_history_are_kept() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.trade(2, 11, 11, 1, 59.9)  # late
    feed.rest(6, 3, age_s=40)  # and corrected
    flags = int(feed.bar()["flags"])
    assert flags & lay.FLAG_LATE and flags & lay.FLAG_CORRECTED
    after = again(feed, 101)
    after.frame(12, 6, 3, final=True)
    after.assert_bar(6, 3, state=CONFIRMED)
    assert after.bar()["flags"] == flags & ~lay.FLAG_PROVISIONAL


def test_a_minute_that_history_lacks_is_partial_whatever_comes() -> None:
    feed = begun()
    after = again(feed, 61)
    history = feed.layout.history_offset(0) // 8
    after.tick(2)
    feed.words[history : history + feed.layout.history_rows_per_symbol * ROW_WORDS] = 0
    last = again(after, 122)
    last.tick(2)
    last.trade(2, 11, 11, 3, 70)
    row = last.bar(1)
    assert row["flags"] & PARTIAL
    last.check()
    assert last.need()["from_ms"] <= START + MINUTE


def test_an_empty_minute_found_confirmed_stays_empty() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.tick(2)
    feed.trade(2, 11, 11, 1, 130)
    feed.assert_bar(0, 0, 1, state=CONFIRMED)
    after = again(feed, 131)
    after.frame(12, 3, 1, first=12, minute=1, final=True)
    after.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert after.count("contradictions_total") == 1


def test_folds_go_on_from_history() -> None:
    feed = Feed(start=START // 300_000 * 300_000)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.tick(1)
    feed.trade(2, 11, 11, 2, 70)
    after = again(feed, 80)
    after.trade(3, 12, 12, 1, 90)
    assert volumes(after.live("5m")) == (7, 3)
    assert after.live("5m")["flags"] & DERIVED
