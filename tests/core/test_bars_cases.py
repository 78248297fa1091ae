"""The numbered cases of the specification of a bar, each under its number.

Every case begins with a trade of 4 at 50.000 s that an official frame has measured.
"""

from __future__ import annotations

import numpy as np
import pytest

from klshm.core import events as ev
from klshm.core import state as st
from tests.core.feed import CLOSED, CONFIRMED, FILLED, LIVE, PARTIAL, PROVISIONAL, Feed, event, volumes


def begun() -> Feed:
    feed = Feed()
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    feed.assert_bar(4, 1, state=LIVE, flags=0)
    return feed


def test_case_1_a_frame_that_cuts_a_group_leaves_the_rest_exact() -> None:
    feed = begun()
    feed.frame(11, 6, 2)
    feed.assert_bar(6, 2, state=LIVE, flags=0)
    feed.trade(2, 11, 14, 10, 55)
    feed.assert_bar(14, 5, state=LIVE, flags=0)


def test_case_2_a_cut_after_the_trade_takes_nothing_away() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 55)
    feed.assert_bar(14, 5)
    feed.frame(11, 6, 2)
    feed.assert_bar(14, 5, state=LIVE, flags=0)
    assert feed.count("frames_cut_exact_total") == 1


def test_case_3_a_late_copy_does_not_replace_the_final_frame() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 55)
    feed.frame(14, 14, 5, final=True)
    feed.assert_bar(14, 5, state=CONFIRMED, flags=0)
    feed.frame(12, 10, 3)
    feed.assert_bar(14, 5, state=CONFIRMED, flags=0)
    assert feed.count("frames_stale_total") == 1


def test_case_4_a_hole_is_flagged_until_its_last_trade_is_there() -> None:
    feed = begun()
    feed.trade(4, 17, 17, 1, 56)
    feed.assert_bar(5, 2, flags=PARTIAL)
    feed.trade(2, 11, 12, 3, 54)
    feed.assert_bar(8, 4, flags=PARTIAL)
    feed.trade(3, 13, 16, 4, 55)
    feed.assert_bar(12, 8, flags=0)
    feed.tick(1)
    feed.trade(5, 18, 18, 1, 60.5)
    feed.assert_bar(12, 8, state=CLOSED, flags=PROVISIONAL)  # only its count may differ


def test_case_5_trades_add_nothing_to_an_adopted_row() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.rest(9, 2, age_s=31)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.trade(2, 11, 11, 5, 59.990)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.rest(9, 2, age_s=36)
    feed.assert_bar(9, 2, state=CONFIRMED)


def test_case_5b_a_stale_row_is_refused_an_equal_one_confirms() -> None:
    feed = Feed()
    feed.trade(1, 10, 14, 14, 50)
    feed.frame(14, 14, 5)
    feed.tick(1)
    feed.settle(1)
    feed.rest(13, 4, age_s=3)
    feed.assert_bar(14, 5, state=CLOSED)
    assert feed.count("rest_stale_total") == 1
    feed.rest(14, 5, age_s=3)
    feed.assert_bar(14, 5, state=CONFIRMED, flags=0)


def test_case_6_the_tail_of_a_crossing_group_opens_the_next_minute() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.980, p=105)
    feed.assert_bar(14, 5)
    feed.frame(12, 10, 3, final=True, sent_s=60.01, prices=(100, 105, 100, 105), quote=1030)
    feed.assert_bar(10, 3, state=CONFIRMED, flags=0)
    feed.assert_bar(4, 2, 1)
    assert feed.bar(1)["open"] == 105
    feed.trade(3, 15, 15, 1, 60.2)
    feed.assert_bar(5, 3, 1, state=LIVE)
    feed.frame(15, 5, 3, first=13, minute=1, prices=(105, 105, 100, 100), quote=520)
    feed.assert_bar(5, 3, 1, state=LIVE, flags=0)
    assert feed.count("frames_clean_equal_total") == 1  # the frame of minute 0 had no offset to check before it


def test_case_7_the_next_minutes_frame_splits_the_group_without_a_final_one() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.980)
    feed.assert_bar(14, 5)
    feed.trade(3, 15, 15, 1, 60.2)
    feed.assert_bar(14, 5)
    feed.assert_bar(1, 1, 1)
    assert feed.bar(0)["flags"] & PROVISIONAL
    feed.frame(15, 5, 3, first=13, minute=1)
    assert feed.bar(0)["volume"] == 10
    assert feed.bar(0)["state"] == CLOSED
    feed.assert_bar(5, 3, 1)


def test_case_8_a_late_final_frame_confirms_what_was_right_all_along() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 5, 59.980)
    feed.assert_bar(9, 2)
    feed.frame(12, 2, 1, first=12, minute=1, sent_s=60.2)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.assert_bar(2, 1, 1)
    feed.trade(3, 12, 12, 2, 60.2)
    feed.assert_bar(9, 2, state=CLOSED)
    feed.assert_bar(2, 1, 1)
    feed.frame(11, 9, 2, final=True)
    feed.assert_bar(9, 2, state=CONFIRMED, flags=0)
    feed.assert_bar(2, 1, 1, flags=0)
    assert feed.count("confirmed_by_final_frame_total") == 1


def test_case_8_the_adjacent_frame_confirms_without_a_final_one() -> None:
    feed = begun()
    feed.trade(2, 11, 11, 5, 59.980)
    feed.frame(11, 9, 2)
    feed.frame(12, 2, 1, first=12, minute=1, sent_s=60.2)
    feed.assert_bar(9, 2, state=CONFIRMED, flags=0)
    feed.assert_bar(2, 1, 1)
    assert feed.count("confirmed_by_next_frame_total") == 1


def test_case_9_a_tail_goes_to_the_next_minute_even_if_it_has_no_other_trade() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.980, p=105)
    feed.frame(12, 10, 3, final=True, sent_s=60.01, prices=(100, 105, 100, 105), quote=1030)
    feed.trade(3, 15, 15, 1, 130, p=99)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(4, 2, 1, state=CLOSED)
    assert [feed.bar(1)[cell] for cell in ("open", "high", "low", "close")] == [105] * 4
    assert not feed.bar(1)["flags"] & FILLED
    feed.assert_bar(1, 1, 2, state=LIVE)


def test_case_10_an_empty_frame_is_no_base() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=62.004)
    feed.frame(-1, 0, 0, first=-1, minute=1, sent_s=62.4)
    feed.assert_bar(0, 0, 1, state=LIVE, flags=FILLED)
    feed.trade(2, 11, 11, 3, 65)
    feed.assert_bar(3, 1, 1, flags=0)
    feed.frame(-1, 0, 0, first=-1, minute=1, sent_s=65.2)
    feed.assert_bar(3, 1, 1, state=LIVE, flags=0)
    assert feed.count("frames_empty_total") == 2


def test_case_11_what_happened_before_the_join_is_missing_until_a_frame_says_it() -> None:
    feed = Feed()
    feed.trade(1, 50, 50, 4, 50)
    feed.assert_bar(4, 1, flags=PARTIAL)
    feed.trade(2, 51, 51, 2, 51)
    feed.assert_bar(6, 2, flags=PARTIAL)
    feed.frame(50, 104, 40)
    feed.assert_bar(106, 41, flags=0)


def test_case_12_an_id_beyond_the_final_frame_beats_the_time() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.trade(2, 11, 11, 5, 59.999)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(5, 1, 1, state=LIVE)
    assert feed.count("id_beats_time_total") == 1


def test_case_14_a_burst_overruns_the_ring_while_the_frames_are_stalled() -> None:
    """3,000 aggregate trades a second, 30 in a turn, frames every 250 ms; for 5.1 s none arrives."""
    feed, rng = begun(), np.random.default_rng(14)
    stalled, number = 15_300, 18_000
    last = 10 + np.cumsum(rng.integers(1, 4, number))  # newest trade id of each group
    volume = 4_000 + np.cumsum(rng.integers(1, 5_000, last[-1] - 9))  # by id from 10 on, in units
    volume -= volume[0] - 4_000
    trades = np.repeat(event(kind=ev.TRADE, price_decimals=2, quantity_decimals=3, open=10_000), number)
    trades["a"], trades["l"] = 2 + np.arange(number), last
    trades["f"][0], trades["f"][1:] = 11, last[:-1] + 1
    trades["volume"] = np.diff(volume[last - 10], prepend=4_000)
    trades["open_time"] = feed.start + 51_000 + np.arange(number) // 3
    trades["time"] = trades["open_time"] + 1
    frames: list[int] = []
    wrong: list[str] = []
    unreachable = 0

    def check(last_id: int) -> None:
        if volumes(feed.live()) != (volume[last_id - 10] / 1_000, last_id - 9):
            wrong.append(f"trades through {last_id}: {volumes(feed.live())}")

    for begin in range(0, number, 30):
        feed.at((int(trades["time"][begin + 29]) - feed.start) / 1_000)
        feed.apply(trades[begin : begin + 30])
        newest = begin + 29
        check(int(last[newest]))
        if begin % 750 == 0:
            frames.append(int(trades["f"][begin]))
        if newest >= stalled:
            for L in frames:
                unreachable += L < trades["f"][newest - st.RING + 1]
                feed.frame(L, volume[L - 10] / 1_000, L - 9)
                check(int(last[newest]))
            frames.clear()
    assert wrong == []
    assert feed.count("frames_skipped_total") == unreachable == stalled // 750
    reached = 1 + number // 750 - unreachable  # one before the burst
    assert feed.count("frames_clean_total") + feed.count("frames_cut_exact_total") == reached
    feed.tick(1)
    feed.frame(int(last[-1]), volume[-1] / 1_000, int(last[-1]) - 9, final=True)
    feed.assert_bar(volume[-1] / 1_000, int(last[-1]) - 9, state=CONFIRMED, flags=0)


# Also


def test_a_frame_beyond_a_hole_heals_the_minute_and_keeps_the_hole() -> None:
    feed = begun()
    feed.trade(4, 17, 17, 1, 56)
    feed.assert_bar(5, 2, flags=PARTIAL)
    feed.frame(17, 12, 8)
    feed.assert_bar(12, 8, flags=0)
    feed.tick(1)
    feed.check()
    assert (feed.need()["first_agg_id"], feed.need()["last_agg_id"]) == (2, 3)
    feed.trade(2, 11, 12, 3, 54)
    feed.trade(3, 13, 16, 4, 55)
    feed.assert_bar(12, 8, state=CLOSED)
    feed.check()
    assert feed.need()["first_agg_id"] == -1
    assert feed.count("holes_filled_total") == 1


def test_a_lost_stream_leaves_its_minutes_in_doubt() -> None:
    feed = begun()
    feed.down(55)
    feed.assert_bar(4, 1, flags=PARTIAL)
    feed.tick(1)
    feed.tick(2)
    feed.settle(2)
    assert feed.bar(0)["flags"] & PARTIAL
    assert feed.bar(1)["flags"] & PARTIAL
    feed.assert_bar(0, 0, 2, flags=FILLED | PARTIAL)


def test_a_contiguous_trade_ends_the_doubt() -> None:
    feed = begun()
    feed.down(55)
    feed.tick(1)
    feed.settle(1)
    feed.trade(2, 11, 11, 1, 70)
    feed.assert_bar(4, 1, state=CLOSED, flags=0)
    feed.assert_bar(1, 1, 1, flags=0)


def test_a_doubt_that_ends_in_a_hole_stays_partial() -> None:
    feed = begun()
    feed.down(55)
    feed.tick(1)
    feed.settle(1)
    feed.trade(3, 12, 12, 1, 70)
    assert feed.bar(0)["flags"] & PARTIAL
    feed.assert_bar(1, 1, 1, flags=PARTIAL)


def test_an_official_row_ends_the_doubt_of_its_minute() -> None:
    feed = begun()
    feed.down(55)
    feed.tick(1)
    feed.settle(1)
    feed.rest(6, 2, age_s=31)
    feed.assert_bar(6, 2, state=CLOSED)
    assert not feed.bar(0)["flags"] & PARTIAL
    feed.rest(6, 2, age_s=36)
    feed.assert_bar(6, 2, state=CONFIRMED)


def test_two_gaps_in_one_second_are_both_known_and_both_filled() -> None:
    feed = begun()
    feed.trade(3, 12, 12, 1, 55.1)
    feed.trade(5, 14, 14, 1, 55.9)
    feed.assert_bar(6, 3, flags=PARTIAL)
    feed.trade(4, 13, 13, 1, 55.5)
    feed.assert_bar(7, 4, flags=PARTIAL)
    feed.trade(2, 11, 11, 1, 55.0)
    feed.assert_bar(8, 5, flags=0)
    assert feed.count("holes_total") == feed.count("holes_filled_total") == 2


def test_the_last_missing_trade_joins_the_epochs_again() -> None:
    feed = begun()
    feed.trade(4, 14, 14, 1, 56)
    feed.trade(2, 11, 12, 3, 54)
    feed.trade(3, 13, 13, 4, 55)
    feed.frame(12, 7, 3)  # measured before the hole was known, checked after it was filled
    feed.assert_bar(12, 5, flags=0)
    assert feed.count("frames_clean_equal_total") == 1
    feed.tick(1)
    feed.trade(5, 15, 15, 1, 61)
    feed.assert_bar(12, 5, state=CLOSED, flags=0)


def test_a_trade_of_the_next_minute_before_the_tick_closes_this_one() -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    feed.trade(2, 11, 11, 3, 60.1)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(3, 1, 1, state=LIVE)
    feed.tick(1)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(3, 1, 1, state=LIVE)


def test_a_final_frame_25_s_late_after_ten_frames_of_the_next_minute() -> None:
    feed = begun()
    feed.trade(2, 11, 14, 10, 59.980)
    feed.tick(1)
    feed.settle(1)
    for k in range(10):
        feed.trade(3 + k, 15 + k, 15 + k, 1, 61 + k)
        feed.frame(15 + k, 5 + k, 3 + k, first=13, minute=1, sent_s=61 + k)
        feed.assert_bar(5 + k, 3 + k, 1)
        assert feed.bar(0)["volume"] == 10
    feed.frame(12, 10, 3, final=True, sent_s=85)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(14, 12, 1, flags=0)


def test_a_corrected_close_moves_the_filled_minutes_behind_it() -> None:
    feed = begun()
    feed.trade(2, 12, 12, 1, 55, p=101)
    for minute in (1, 2, 3):
        feed.tick(minute)
        feed.settle(minute)
    assert feed.bar(1)["close"] == feed.bar(2)["close"] == feed.live()["close"] == 101
    feed.rest(9, 4, age_s=180, prices=(100, 103, 100, 103), quote=910)
    feed.assert_bar(9, 4, state=CONFIRMED)
    for row in (feed.bar(1), feed.bar(2), feed.live()):
        assert row["flags"] & FILLED
        assert [row[cell] for cell in ("open", "high", "low", "close")] == [103] * 4
        assert volumes(row) == (0, 0)


@pytest.mark.parametrize("kind", ["ids", "frame", "rest"])
def test_emptiness_needs_proof(kind: str) -> None:
    feed = begun()
    feed.frame(10, 4, 1, final=True, sent_s=60.0)
    feed.tick(1)
    feed.tick(2)
    feed.settle(2)
    feed.frame(-1, 0, 0, first=-1, minute=1, sent_s=122.4)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED)
    if kind == "ids":
        feed.trade(2, 11, 11, 1, 130)
    elif kind == "frame":
        feed.frame(11, 1, 1, first=11, minute=2, sent_s=130)
    else:
        feed.rest(0, 0, age_s=31, minute=1)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
