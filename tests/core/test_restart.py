"""Bars go on over a restart from the rows that the killed worker left, and end as the exchange's own."""

from __future__ import annotations

import pytest

from klshm.shm import layout as lay
from klshm.shm.layout import ROW_WORDS
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    DERIVED,
    FILLED,
    LIVE,
    MINUTE,
    PARTIAL,
    START,
    Feed,
    begun,
    volumes,
)


def again(before: Feed, at_s: float, slots: int = 1) -> Feed:
    """Start another engine over the memory of one that is no more."""
    feed = Feed(slots, start=before.start, joined_s=None, memory=before.words)
    feed.at(at_s)
    feed.engine.recover()
    for slot in range(slots):
        feed.add(slot)
    return feed


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
    live = feed.layout.live_offset(0) // 8
    old = feed.words[live : live + 6 * ROW_WORDS].copy()
    feed.trade(2, 11, 11, 3, 60.2)
    feed.words[live : live + 6 * ROW_WORDS] = old
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
