"""What ids prove: minutes without trades, whole minutes, and where the next one begins."""

from __future__ import annotations

import pytest

from tests.core.feed import CLOSED, CONFIRMED, FILLED, LIVE, PROVISIONAL, begun


def test_adjacency_reaches_over_empty_minutes() -> None:
    feed = begun()
    feed.tick(1)
    feed.tick(2)
    feed.tick(3)
    feed.frame(11, 1, 1, first=11, minute=3, sent_s=181)
    feed.assert_bar(4, 1, state=CONFIRMED)
    for minute in (1, 2):
        feed.assert_bar(0, 0, minute, state=CONFIRMED, flags=FILLED)
    assert feed.count("confirmed_by_next_frame_total") == 1
    assert feed.count("confirmed_empty_total") == 2


def test_adjacency_to_a_minute_long_ago_proves_all_between_empty() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60)
    for minute in range(1, 12):
        feed.tick(minute)
    feed.frame(11, 1, 1, first=11, minute=11, sent_s=661)
    for minute in range(1, 11):
        feed.assert_bar(0, 0, minute, state=CONFIRMED, flags=FILLED)
    feed.check()
    assert feed.need()["reason"] == 0


def test_a_contiguous_trade_long_after_proves_all_between_empty() -> None:
    feed = begun()
    for minute in range(1, 12):
        feed.tick(minute)
    feed.rest(4, 1, age_s=620)
    feed.trade(2, 11, 11, 1, 661)
    for minute in range(1, 11):
        feed.assert_bar(0, 0, minute, state=CONFIRMED, flags=FILLED)


def test_ids_that_leave_room_prove_nothing() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 1, 55)  # no frame tells where this minute ends
    feed.tick(1)
    feed.tick(2)
    feed.settle(2)
    feed.frame(13, 1, 1, first=13, minute=2, sent_s=121)
    feed.assert_bar(5, 2, state=CLOSED)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED)


def test_a_minute_that_traded_unframed_ends_the_search() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 1, 61)
    feed.frame(12, 1, 1, first=12, minute=2, sent_s=121)
    feed.assert_bar(1, 1, 1, state=CLOSED)
    assert feed.count("confirmed_by_next_frame_total") == 0


def test_a_group_that_may_reach_over_proves_nothing_of_the_minute_it_may_reach() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.trade(3, 15, 15, 1, 190)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED | PROVISIONAL)
    feed.assert_bar(0, 0, 2, state=CONFIRMED, flags=FILLED)
    feed.frame(14, 14, 5, final=True)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED | PROVISIONAL)
    feed.frame(15, 1, 1, first=15, minute=3)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_a_group_that_is_known_to_end_in_its_minute_proves_the_next_empty() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.frame(14, 14, 5, final=True, sent_s=62)
    feed.trade(3, 15, 15, 1, 190)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_a_cut_is_handed_over_though_the_next_minute_is_final_too() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60)
    feed.frame(11, 1, 1, first=11, minute=1, final=True, sent_s=120)
    feed.frame(13, 4, 2, first=12, minute=2, sent_s=130)
    feed.trade(2, 11, 13, 5, 119.98)  # in minute 1 by its time, all but one of it in minute 2
    feed.trade(3, 14, 14, 1, 131)
    feed.assert_bar(1, 1, 1, state=CONFIRMED)
    feed.assert_bar(5, 3, 2, flags=0)


def test_a_cut_within_a_group_changes_no_minute_that_is_final_already() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.frame(15, 6, 3, first=13, minute=1, final=True, sent_s=120.1)
    feed.frame(12, 9, 3, final=True)
    feed.assert_bar(9, 3, state=CONFIRMED)
    feed.assert_bar(6, 3, 1, state=CONFIRMED)


def test_a_final_minute_whose_last_trade_never_came_hands_nothing_over() -> None:
    feed = begun()
    feed.frame(12, 7, 3, final=True, sent_s=60)
    feed.trade(2, 13, 13, 2, 61)
    feed.assert_bar(2, 1, 1)
    feed.assert_bar(7, 3, state=CONFIRMED)


@pytest.mark.parametrize("later", [False, True])
def test_a_cut_is_not_handed_over_past_a_minute_that_a_row_has_emptied(later: bool) -> None:
    feed = begun()
    feed.trade(2, 11, 11, 1, 61)
    feed.tick(2)
    feed.settle(2)
    feed.rest(0, 0, age_s=31, minute=1)
    if later:
        feed.trade(3, 12, 12, 1, 152)
    feed.frame(10, 4, 1, final=True)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(0, 0, 1, state=CLOSED)
    feed.assert_bar(int(later), int(later), 2, state=LIVE)
