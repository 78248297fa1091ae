"""Official frames against trades: clean, cut, ahead, beyond a hole, too old, contradicting."""

from __future__ import annotations

import numpy as np
import pytest

from klshm.core import events as ev
from klshm.core import state as st
from klshm.shm.layout import NEED_LOST_FRAME, NEED_UNCONFIRMED
from tests.core.feed import CLOSED, CONFIRMED, CORRECTED, FILLED, LIVE, MINUTE, PARTIAL, PROVISIONAL, START, Feed, begun


def test_frames_are_counted_by_how_they_meet_the_trades() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 51)
    feed.frame(14, 14, 5)
    feed.trade(3, 15, 18, 8, 52)
    feed.frame(16, 18, 7)
    feed.frame(20, 30, 9)
    assert feed.count("frames_total") == 4
    assert feed.count("frames_clean_total") == 2
    assert feed.count("frames_clean_equal_total") == feed.count("frames_clean_equal_count_total") == 1
    assert feed.count("frames_cut_total") == feed.count("frames_cut_exact_total") == 1


def test_skipped_ids_spoil_only_the_count_until_the_next_frame() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 51)
    feed.assert_bar(14, 5)
    feed.frame(14, 14, 4)
    feed.assert_bar(14, 4)
    assert feed.count("frames_clean_equal_total") == 1
    assert feed.count("frames_clean_equal_count_total") == 0


def test_a_frame_that_disagrees_with_the_trades_wins() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 1, 51)
    feed.frame(11, 7, 2)
    feed.assert_bar(7, 2)
    assert feed.count("frames_clean_equal_total") == 0
    feed.trade(3, 12, 12, 1, 52)
    feed.assert_bar(8, 3)


def test_a_frame_that_cuts_impossibly_is_measured_anew() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 51)
    feed.frame(12, 20, 3)
    feed.assert_bar(20, 3)
    assert feed.count("frames_cut_unresolved_total") == 1
    feed.trade(3, 15, 15, 1, 52)
    feed.assert_bar(21, 4)
    feed.frame(15, 27, 6)
    feed.assert_bar(27, 6, flags=0)


def test_the_first_id_of_a_frame_tells_the_lower_cut() -> None:
    feed = begun()
    feed.trade(2, 11, 12, 2, 59.95)  # may reach into the next minute
    feed.trade(3, 13, 16, 8, 61)
    feed.frame(14, 3, 2, first=13, minute=1)
    feed.assert_bar(8, 4, 1, flags=0)
    assert feed.count("frames_cut_exact_total") == 1
    feed.tick(2)
    feed.trade(4, 17, 17, 1, 121)
    feed.assert_bar(8, 4, 1, flags=PROVISIONAL)


@pytest.mark.parametrize("first", [11, 12])
def test_a_first_id_beyond_a_hole_or_inside_a_group_tells_nothing(first: int) -> None:
    feed = Feed()
    feed.trade(1, 10, 12, 3, 59.95)
    feed.trade(3, 15, 18, 8, 61)
    feed.frame(16, 9, 5, first=first, minute=1)
    assert feed.count("frames_cut_unresolved_total") == 1
    assert feed.bar(1)["volume"] == 9


def test_a_first_id_older_than_the_ring_tells_nothing() -> None:
    feed = Feed(joined_s=0)
    for k in range(1, st.RING + 10):
        feed.trade(k, 2 * k, 2 * k + 1, 2, 1 + k / 100)
    feed.frame(2 * st.RING, 1_500, 2 * st.RING - 3, first=2, prices=(100, 100, 100, 100))
    assert feed.count("frames_cut_unresolved_total") == 1
    assert feed.live()["volume"] >= 1_500


def test_the_first_trade_held_may_be_the_first_of_the_minute() -> None:
    feed = Feed(joined_s=0)
    feed.trade(1, 10, 13, 8, 1)
    feed.assert_bar(8, 4, flags=PARTIAL)
    feed.frame(11, 3, 2)
    feed.assert_bar(8, 4, flags=0)
    assert feed.count("frames_cut_exact_total") == 1


def test_a_joining_minute_stays_partial_while_what_lies_between_frame_and_trades_is_unknown() -> None:
    feed = Feed()
    feed.frame(40, 80, 31)
    feed.assert_bar(80, 31, flags=0)  # the frame itself
    feed.trade(9, 50, 50, 4, 51)
    feed.assert_bar(84, 32, flags=PARTIAL)
    feed.frame(50, 99, 40)
    feed.assert_bar(99, 40, flags=0)


def test_a_joining_minute_is_whole_when_the_trades_follow_the_frame() -> None:
    feed = Feed()
    feed.frame(49, 80, 40)
    feed.trade(9, 50, 50, 4, 51)
    feed.assert_bar(84, 41, flags=0)


def test_a_frame_that_the_trades_have_left_behind_for_good_is_skipped() -> None:
    feed = begun()
    for k in range(st.RING + 1):
        feed.trade(2 + k, 11 + k, 11 + k, 1, 51 + k / 100)
    before = feed.live()["volume"]
    feed.frame(10, 4, 1)
    assert feed.count("frames_stale_total") == 1
    feed.frame(11, 5, 2)
    assert feed.count("frames_skipped_total") == 1
    assert feed.live()["volume"] == before


def test_a_frame_left_behind_is_not_skipped_while_nothing_is_measured() -> None:
    feed = Feed(joined_s=0)
    for k in range(st.RING + 2):
        feed.trade(2 + k, 11 + k, 11 + k, 1, 1 + k / 100)
    feed.frame(10, 4, 1)
    assert feed.count("frames_skipped_total") == 1
    assert feed.live()["flags"] & PARTIAL
    feed.frame(st.RING + 12, st.RING + 6, st.RING + 3)
    assert not feed.live()["flags"] & PARTIAL


def test_a_final_frame_is_never_skipped() -> None:
    feed = begun()
    for k in range(st.RING + 1):
        feed.trade(2 + k, 11 + k, 11 + k, 1, 61 + k / 100)
    feed.frame(10, 4, 1, final=True)
    feed.assert_bar(4, 1, state=CONFIRMED)


def test_a_frame_of_a_minute_without_a_record_is_stale() -> None:
    feed = begun()
    for minute in range(1, 9):
        feed.tick(minute)
    feed.frame(11, 5, 2)
    assert feed.count("frames_stale_total") == 1
    feed.assert_bar(4, 1, state=CLOSED)


def test_an_empty_final_frame_where_trades_are_held_is_a_contradiction() -> None:
    feed = begun()
    feed.frame(-1, 0, 0, first=-1, final=True)
    assert feed.count("contradictions_total") == 1
    feed.assert_bar(4, 1, state=LIVE)


def test_an_empty_final_frame_names_the_price_and_ends_the_minute() -> None:
    feed = Feed()
    feed.frame(-1, 0, 0, first=-1, final=True, sent_s=62.0, prices=(97, 97, 97, 97))
    feed.assert_bar(0, 0, state=CONFIRMED, flags=FILLED)
    assert feed.bar()["close"] == feed.live()["close"] == 97
    feed.frame(-1, 0, 0, first=-1, final=True, sent_s=62.1, prices=(97, 97, 97, 97))
    assert feed.count("contradictions_total") == 0


def test_a_final_frame_ends_its_minute_before_our_clock_does() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.assert_bar(0, 0, 1, state=LIVE, flags=FILLED)


def test_a_frame_of_the_next_minute_closes_this_one() -> None:
    feed = begun()
    feed.frame(13, 2, 1, first=13, minute=1, sent_s=59.999)
    feed.assert_bar(4, 1, state=CLOSED)
    feed.assert_bar(2, 1, 1, state=LIVE)


def test_the_tail_of_a_group_is_not_known_where_nothing_was_measured() -> None:
    feed = Feed()
    feed.trade(1, 10, 14, 10, 59.98)
    feed.frame(12, 6, 3, first=9, final=True, sent_s=60.1)
    feed.assert_bar(6, 3, state=CONFIRMED)
    feed.assert_bar(0, 0, 1)
    feed.tick(2)
    assert feed.bar(1)["flags"] & PROVISIONAL
    feed.frame(14, 4, 2, first=13, minute=1)
    feed.assert_bar(4, 2, 1)


def test_continuous_klines_confirm_without_ids() -> None:
    feed = begun()
    feed.frame(-2, 9, 3, first=-2, final=True, sent_s=60.1)
    feed.assert_bar(9, 3, state=CONFIRMED)
    feed.frame(-2, 9, 3, first=-2, final=True)
    feed.frame(-2, 8, 2, first=-2, final=True)
    feed.assert_bar(9, 3, state=CONFIRMED)
    assert feed.count("contradictions_total") == 1
    feed.frame(-2, 0, 0, first=-2, minute=1, final=True, sent_s=122)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_a_continuous_kline_confirms_an_adopted_row() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 3, age_s=3)
    feed.frame(-2, 9, 3, first=-2, final=True)
    feed.assert_bar(9, 3, state=CONFIRMED, flags=CORRECTED)


@pytest.mark.parametrize("kind", ["final", "frame", "trade"])
def test_what_is_said_of_a_minute_before_the_symbol_joined_makes_no_bar_but_its_own(kind: str) -> None:
    feed = Feed(joined_s=None)
    feed.at(5 * 60 + 49)
    feed.add(origin=START - 100 * MINUTE)
    if kind == "trade":
        feed.trade(1, 10, 10, 4, 150, sent_s=350)
    else:
        feed.frame(10, 4, 1, minute=2, final=kind == "final")
    feed.assert_bar(4, 1, 2, state=CONFIRMED if kind == "final" else CLOSED)
    assert [feed.bar(minute) for minute in (1, 3, 4)] == [None] * 3


# Far ahead of what is open


@pytest.mark.parametrize("kind", ["trade", "frame"])
def test_what_is_many_minutes_ahead_closes_all_before_it(kind: str) -> None:
    feed = begun()
    feed.at(60 * 30)
    if kind == "trade":
        feed.trade(2, 11, 11, 1, 60 * 30)
    else:
        feed.frame(11, 1, 1, first=11, minute=30)
    feed.assert_bar(4, 1)
    for minute in range(1, 30):
        feed.assert_bar(0, 0, minute)
        assert feed.bar(minute)["flags"] & FILLED
    feed.assert_bar(1, 1, 30, state=LIVE)


# What cannot be


def frame_event(feed: Feed, **changes: int) -> np.void:
    one = feed.bar_event(ev.FRAME, 5, 2, (100, 101, 99, 100), None, time=feed.now, open_time=START, f=10, l=11)
    for name, value in changes.items():
        one[name] = value
    return one


@pytest.mark.parametrize(
    "changes",
    [
        {"open_time": START + 1},
        {"open_time": 0},
        {"open_time": START + 3 * MINUTE},
        {"time": START + 10 * MINUTE},
        {"f": 12},
        {"f": -1},
        {"l": 9},
        {"trade_count": 3},
        {"trade_count": -1},
        {"trade_count": 0},
        {"trade_count": 1 << 31},
        {"volume": 0},
        {"volume": -1},
        {"quote_volume": 0},
        {"taker_buy_volume": 5001},
        {"taker_buy_volume": -1},
        {"taker_buy_quote_volume": 1 << 40},
        {"taker_buy_quote_volume": -5},
        {"low": 0},
        {"low": 10001},
        {"high": 9999},
        {"open": 10102},
        {"close": 9899},
    ],
)
def test_an_impossible_frame_is_refused_and_counted(changes: dict[str, int]) -> None:
    feed = begun()
    feed.apply(frame_event(feed, **changes))
    feed.assert_bar(4, 1, state=LIVE, flags=0)
    assert feed.count("refused_total") == 1
    assert feed.count("frames_total") == 1
    feed.apply(frame_event(feed))
    feed.assert_bar(5, 2)


def test_a_final_frame_counts_as_lost_once_the_next_minute_has_frames() -> None:
    feed = begun()
    feed.tick(1)
    feed.check()
    assert feed.need()["reason"] & (NEED_UNCONFIRMED | NEED_LOST_FRAME) == NEED_UNCONFIRMED
    feed.frame(13, 1, 1, first=13, minute=1, sent_s=62)
    feed.check()
    assert feed.need()["reason"] & NEED_LOST_FRAME
    feed.frame(12, 6, 3, final=True, sent_s=63)
    feed.check()
    assert feed.need()["reason"] == 0


def test_continuous_klines_that_come_once_a_minute_are_not_mute() -> None:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50)
    feed.frame(-2, 4, 1, first=-2, final=True, sent_s=60.1)
    feed.trade(2, 11, 11, 1, 70)
    feed.at(75)
    feed.check()
    assert feed.count("symbols_silent") == 0


def test_the_needs_table_tells_how_many_trades_each_symbol_has_sent() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 1, 51)
    feed.check()
    assert feed.need()["trades_total"] == 2
