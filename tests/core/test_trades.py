"""Trades by their ids: holes and what fills them, duplicates, ids that start anew, trades that come too late."""

from __future__ import annotations

import pytest

from klshm.core import state as st
from tests.core.feed import CLOSED, CONFIRMED, FILLED, LATE, PARTIAL, PROVISIONAL, START, Feed, begun, volumes


# Holes


def test_a_trade_outside_every_hole_is_a_duplicate() -> None:
    feed = begun()
    feed.trade(1, 10, 10, 4, 50.0)
    feed.trade(3, 12, 12, 1, 51)
    feed.trade(3, 12, 12, 1, 51)
    feed.assert_bar(5, 2)
    assert feed.count("duplicates_total") == 2


def test_a_hole_is_filled_from_either_end_and_from_the_middle() -> None:
    for order in ([2, 3, 4], [4, 3, 2], [3, 2, 4], [3, 4, 2]):
        feed = begun()
        feed.trade(5, 14, 14, 1, 54)
        for a in order:
            feed.trade(a, 9 + a, 9 + a, 1, 49 + a, p=100 + a)
        feed.assert_bar(8, 5, flags=0)
        assert (feed.bar()["high"], feed.bar()["close"]) == (104, 100)
        feed.frame(13, 7, 4)
        feed.assert_bar(8, 5, flags=0)


def test_what_overlaps_its_neighbours_is_refused() -> None:
    feed = begun()
    feed.trade(4, 14, 14, 1, 54)
    feed.trade(2, 10, 11, 1, 52)  # reaches into the one before
    feed.trade(3, 13, 14, 1, 53)  # reaches into the one after
    feed.trade(5, 14, 15, 1, 55)  # a new one that does not lie beyond the newest
    feed.assert_bar(5, 2, flags=PARTIAL)
    assert feed.count("refused_total") == 3


def test_more_holes_than_can_be_kept_give_up_the_oldest() -> None:
    feed = begun()
    for k in range(st.HOLES + 1):
        feed.trade(3 + 2 * k, 12 + 2 * k, 12 + 2 * k, 1, 51 + k / 10)
    feed.trade(2, 11, 11, 1, 50.5)  # given up
    assert feed.count("duplicates_total") == 1
    for k in range(1, st.HOLES + 1):
        feed.trade(2 + 2 * k, 11 + 2 * k, 11 + 2 * k, 1, 51 + k / 10)
    feed.assert_bar(4 + 2 * st.HOLES + 1, 2 * st.HOLES + 2, flags=PARTIAL)
    last = 12 + 2 * st.HOLES
    feed.frame(last, 4 + 2 * st.HOLES + 2, 2 * st.HOLES + 3)
    feed.assert_bar(4 + 2 * st.HOLES + 2, 2 * st.HOLES + 3, flags=0)


def test_the_oldest_hole_is_given_up_wherever_it_is_kept() -> None:
    feed = begun()
    for k in range(st.HOLES):
        feed.trade(3 + 2 * k, 12 + 2 * k, 12 + 2 * k, 1, 51 + k / 10)
    feed.trade(2, 11, 11, 1, 50.5)  # filled: the newest hole is kept in its place now
    for k in range(st.HOLES, st.HOLES + 2):
        feed.trade(3 + 2 * k, 12 + 2 * k, 12 + 2 * k, 1, 51 + k / 10)
    feed.trade(4, 13, 13, 1, 51)  # given up
    assert feed.count("duplicates_total") == 1
    for k in range(2, st.HOLES + 2):
        feed.trade(2 + 2 * k, 11 + 2 * k, 11 + 2 * k, 1, 51 + k / 10)
    assert feed.count("duplicates_total") == 1


def test_a_hole_is_not_split_when_there_is_no_room_for_a_second() -> None:
    feed = begun()
    for k in range(st.HOLES):
        feed.trade(5 + 4 * k, 14 + 4 * k, 14 + 4 * k, 1, 51 + k / 10)
    feed.trade(3, 12, 12, 1, 50.5)
    assert feed.count("refused_total") == 1
    feed.trade(2, 11, 11, 1, 50.4)
    feed.trade(3, 12, 12, 1, 50.5)
    assert feed.count("refused_total") == 1


def test_a_hole_that_confirmed_bars_cover_is_forgotten_at_the_next_tick() -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 51)
    feed.frame(12, 6, 3)
    feed.frame(12, 6, 3, final=True, sent_s=60)
    feed.tick(1)
    feed.tick(2)
    feed.trade(2, 11, 11, 1, 50.5)
    assert feed.count("duplicates_total") == 1


def test_a_hole_over_minutes_stays_until_all_of_them_are_confirmed() -> None:
    feed = begun()
    feed.trade(4, 14, 14, 1, 130)
    feed.rest(5, 2, age_s=60)
    feed.tick(3)
    feed.trade(2, 11, 11, 1, 50.5)
    feed.trade(3, 12, 12, 1, 70)
    assert feed.count("holes_filled_total") == 1
    feed.assert_bar(1, 1, 1)
    feed.assert_bar(5, 2, state=CONFIRMED)


def test_every_minute_of_a_hole_is_partial() -> None:
    feed = begun()
    feed.trade(4, 14, 14, 1, 190)
    for minute in range(4):
        assert feed.bar(minute)["flags"] & PARTIAL
    assert feed.bar(1)["flags"] & FILLED


# Fills


def test_a_fill_before_the_first_trade_of_a_minute_becomes_its_open() -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 61, p=103)
    feed.trade(2, 11, 11, 2, 60.5, p=99)
    row = feed.bar(1)
    assert volumes(row) == (3, 2)
    assert [row[cell] for cell in ("open", "high", "low", "close")] == [99, 103, 99, 103]
    assert row["flags"] == 0


def test_a_fill_at_the_end_of_a_minute_becomes_its_close() -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 61)
    feed.trade(2, 11, 11, 2, 59, p=98)
    row = feed.bar(0)
    assert volumes(row) == (6, 2)
    assert (row["low"], row["close"], row["high"]) == (98, 98, 100)
    feed.assert_bar(1, 1, 1, flags=0)


def test_a_fill_of_a_minute_that_held_nothing() -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 121)
    feed.assert_bar(0, 0, 1)
    feed.trade(2, 11, 11, 2, 61)
    feed.assert_bar(2, 1, 1, state=CLOSED, flags=0)
    feed.assert_bar(1, 1, 2, flags=0)


def test_a_filled_group_that_crosses_its_minute_is_split_like_any_other() -> None:
    feed = begun()
    feed.trade(3, 15, 15, 1, 60.2)
    feed.trade(2, 11, 14, 10, 59.980)
    feed.assert_bar(14, 5)
    feed.frame(12, 10, 3, final=True)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(5, 3, 1)
    feed.frame(15, 5, 3, first=13, minute=1)
    feed.assert_bar(5, 3, 1, flags=0)


def test_a_fill_of_a_final_minute_changes_only_what_lies_behind_it() -> None:
    feed = begun()
    feed.frame(14, 14, 5, final=True, sent_s=60)
    feed.trade(3, 15, 15, 1, 60.2)
    feed.assert_bar(1, 1, 1)
    feed.trade(2, 11, 14, 10, 55)
    feed.assert_bar(14, 5, state=CONFIRMED)
    feed.assert_bar(1, 1, 1)
    feed.trade(4, 16, 16, 1, 61)
    feed.assert_bar(2, 2, 1, flags=0)


def test_the_tail_of_a_filled_group_goes_to_the_next_minute() -> None:
    feed = begun()
    feed.frame(12, 10, 3, final=True, sent_s=60)
    feed.trade(3, 15, 15, 1, 60.2)
    feed.trade(2, 11, 14, 10, 59.98)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(5, 3, 1)


@pytest.mark.parametrize("last", [11, 12, 13, 14])
def test_a_frame_inside_a_hole_is_measured_again_when_the_hole_is_filled(last: int) -> None:
    feed = begun()
    feed.trade(4, 15, 15, 1, 56)
    feed.frame(last, 4 + 2 * (last - 10), last - 9)
    assert feed.bar()["volume"] >= 4 + 2 * (last - 10)
    feed.trade(2, 11, 12, 4, 54)
    feed.trade(3, 13, 14, 4, 55)
    feed.assert_bar(13, 6, flags=0)
    feed.trade(5, 16, 16, 1, 57)
    feed.assert_bar(14, 7, flags=0)


def test_a_fill_is_counted_as_approximate_when_it_holds_several_ids() -> None:
    feed = begun()
    feed.trade(3, 16, 16, 1, 56)
    feed.trade(2, 11, 15, 5, 55)
    feed.tick(1)
    feed.trade(4, 17, 17, 1, 61)
    feed.assert_bar(10, 7, state=CLOSED, flags=PROVISIONAL)


def test_a_fill_older_than_the_ring_into_the_middle_of_a_minute_is_exact() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 1, 1, 1, 1)
    feed.frame(1, 1, 1, first=1)
    for k in range(3, st.RING + 5):
        feed.trade(k, k, k, 1, 2 + k / 100)
    feed.trade(2, 2, 2, 7, 1.5)
    feed.assert_bar(st.RING + 3 + 7, st.RING + 4)


def test_a_fill_older_than_the_ring_at_the_end_of_a_minute_is_known_to_be_lost() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 1, 1, 1, 1)
    feed.frame(1, 1, 1, first=1)
    feed.tick(1)
    for k in range(3, st.RING + 5):
        feed.trade(k, k, k, 1, 61 + k / 100)
    feed.trade(2, 2, 2, 7, 59.5)
    assert feed.bar(0)["flags"] & PARTIAL
    feed.assert_bar(st.RING + 2, st.RING + 2, 1)
    feed.frame(2, 8, 2, first=1, final=True)
    feed.assert_bar(8, 2, state=CONFIRMED, flags=0)


def test_a_fill_right_behind_the_oldest_trade_of_a_full_ring() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 1, 1, 1, 1)
    feed.frame(1, 1, 1, first=1)
    for k in range(3, st.RING + 2):
        feed.trade(k, k, k, 1, 2 + k / 100)
    feed.trade(2, 2, 2, 7, 1.5)
    feed.assert_bar(st.RING + 7, st.RING + 1)


def test_a_fill_after_a_restart_with_a_full_ring() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 1, 1, 1, 1)
    feed.frame(1, 1, 1, first=1)
    again = Feed(joined_s=None, memory=feed.words)
    again.at(2)
    again.add()
    for k in range(3, st.RING + 3):
        again.trade(k, k, k, 1, 2 + k / 100)
    again.trade(2, 2, 2, 7, 1.5)
    again.assert_bar(st.RING + 1, st.RING + 1, flags=PARTIAL)
    again.frame(st.RING + 2, st.RING + 8, st.RING + 2, first=1)
    again.assert_bar(st.RING + 8, st.RING + 2, flags=0)


# Ids that start anew


def test_three_old_ids_with_much_newer_times_begin_anew() -> None:
    feed = begun()
    for minute in (1, 2, 3):
        feed.tick(minute)
    feed.frame(12, 1, 1, first=12, minute=3, sent_s=180.5)
    feed.trade(1, 1, 1, 1, 181)
    feed.trade(1, 2, 2, 1, 182)
    assert feed.count("duplicates_total") == 2
    feed.trade(1, 3, 3, 1, 183)
    assert feed.count("id_resets_total") == 1
    feed.assert_bar(1, 1, 3, flags=PARTIAL)
    feed.trade(2, 4, 4, 2, 184)
    feed.frame(4, 6, 5, first=0, minute=3)
    feed.assert_bar(6, 5, 3, flags=0)
    assert feed.bar(0)["flags"] & PARTIAL


def test_a_newer_trade_in_between_takes_the_suspicion_back() -> None:
    feed = begun()
    feed.trade(1, 1, 1, 1, 181)
    feed.trade(1, 2, 2, 1, 182)
    feed.trade(1, 10, 10, 4, 50)
    feed.trade(1, 3, 3, 1, 183)
    assert feed.count("id_resets_total") == 0


def test_ids_that_start_anew_after_a_long_silence() -> None:
    feed = begun()
    for minute in range(1, 9):
        feed.tick(minute)
    for k in range(3):
        feed.trade(1, 1 + k, 1 + k, 1, 481 + k)
    feed.assert_bar(4, 1, state=CLOSED)
    feed.assert_bar(0, 0, 7, state=CLOSED, flags=FILLED | PARTIAL | PROVISIONAL)
    feed.assert_bar(1, 1, 8, flags=PARTIAL)


def test_what_was_final_before_a_reset_stays_final() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60)
    feed.tick(3)
    for k in range(3):
        feed.trade(1, k, k, 1, 181 + k)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)


# Too late


def test_a_trade_of_a_minute_without_a_record_marks_its_bar_partial() -> None:
    feed = begun()
    for minute in range(1, 9):
        feed.tick(minute)
        feed.settle(minute)
    feed.logged()
    feed.trade(2, 11, 11, 1, 59)
    feed.assert_bar(4, 1, state=CLOSED)
    assert feed.bar()["flags"] & PARTIAL
    assert [int(row["open_time"]) for row in feed.logged() if row["interval"] == 0] == [START]
    feed.trade(3, 12, 12, 1, 59)
    assert len([row for row in feed.logged() if row["interval"] == 0]) == 0
    feed.check()
    assert feed.need()["from_ms"] == START


def test_a_trade_of_a_minute_that_is_confirmed_or_not_there_says_nothing() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60)
    for minute in range(1, 9):
        feed.tick(minute)
    feed.trade(2, 11, 11, 1, 61)
    feed.trade(3, 12, 12, 1, 61)
    feed.trade(4, 13, 13, 1, -30 * 60)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)


def test_a_late_trade_after_settling_is_flagged_late_and_logged_at_the_next_tick() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.logged()
    feed.trade(2, 11, 11, 1, 59.9)
    feed.assert_bar(5, 2, state=CLOSED)
    assert feed.bar()["flags"] & LATE
    assert len(feed.logged()) == 0
    feed.tick(2)
    rows = [row for row in feed.logged() if row["open_time"] == START and row["interval"] == 0]
    assert [volumes(row) for row in rows] == [(5, 2)]
    assert feed.count("late_total") == 1


def test_a_change_of_flags_alone_after_settling_is_not_logged_by_itself() -> None:
    feed = begun()
    feed.trade(2, 11, 12, 2, 59.95)
    feed.tick(1)
    feed.settle(1)
    feed.logged()
    feed.assert_bar(6, 3, flags=PROVISIONAL)
    feed.trade(3, 13, 13, 1, 61)
    feed.frame(12, 6, 3)
    feed.assert_bar(6, 3, state=CLOSED, flags=0)
    feed.tick(2)
    assert not [row for row in feed.logged() if row["open_time"] == START]


def test_trades_that_lag_behind_the_frames_are_late_and_not_mute() -> None:
    feed = begun()
    feed.frame(14, 14, 5, sent_s=51)
    feed.trade(2, 11, 11, 1, 51.5)
    feed.at(52.5)
    feed.check()
    assert feed.count("symbols_silent") == 0
    feed.at(52.7)
    feed.check()
    assert feed.count("symbols_silent") == 1
