"""Intake at its edges: ids that start anew or cannot be, prefixes near their limit, frames in any order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from klshm.core import state as st
from klshm.core.kernel.intake import rebase_prefix
from klshm.shm.compile import COMPILED
from tests.core.feed import CLOSED, CONFIRMED, FILLED, LIVE, PARTIAL, PROVISIONAL, Feed, volumes
from tests.core.feed import begun as begun_at_ten


def begun() -> Feed:
    feed = Feed()
    feed.trade(1000, 5010, 5010, 4, 50.0)
    feed.frame(5010, 4, 1, first=5010)
    return feed


def restart_ids(feed: Feed, time_s: float) -> None:
    """Send the first trades of ids that start anew: 1, 2, 3."""
    for k in range(3):
        feed.trade(1 + k, 1 + k, 1 + k, 2, time_s + k)


# Ids that start anew


def test_the_third_old_id_with_a_new_time_starts_anew() -> None:
    feed = begun()
    for minute in (1, 2):
        feed.tick(minute)
    feed.trade(1, 1, 1, 2, 125)
    feed.trade(2, 2, 2, 2, 126)
    feed.assert_bar(0, 0, 2, state=LIVE)
    assert feed.count("id_resets_total") == 0
    feed.trade(3, 3, 3, 2, 127)
    assert (feed.count("id_resets_total"), feed.count("duplicates_total")) == (1, 3)
    feed.assert_bar(2, 1, 2, state=LIVE, flags=PARTIAL)
    feed.trade(4, 4, 4, 1, 128)
    feed.assert_bar(3, 2, 2, state=LIVE, flags=PARTIAL)
    feed.frame(4, 7, 4, first=1, minute=2)  # only the exchange knows what the first two were
    feed.assert_bar(7, 4, 2, state=LIVE, flags=0)
    feed.frame(4, 7, 4, first=1, minute=2, final=True, sent_s=180.1)
    feed.assert_bar(7, 4, 2, state=CONFIRMED, flags=0)


@pytest.mark.parametrize("between_s", [50.0, 100.0])
def test_an_old_id_with_an_old_time_begins_the_count_again(between_s: float) -> None:
    feed = begun()
    for minute in (1, 2):
        feed.tick(minute)
    feed.trade(1, 1, 1, 2, 125)
    feed.trade(2, 2, 2, 2, 126)
    feed.trade(999, 5009, 5009, 1, between_s, sent_s=126.5)  # a plain duplicate
    feed.trade(3, 3, 3, 2, 127)
    feed.trade(4, 4, 4, 2, 128)
    assert feed.count("id_resets_total") == 0
    feed.trade(5, 5, 5, 2, 129)
    assert feed.count("id_resets_total") == 1


def test_a_new_trade_begins_the_count_again() -> None:
    feed = begun()
    for minute in (1, 2):
        feed.tick(minute)
    feed.trade(1, 1, 1, 2, 125)
    feed.trade(2, 2, 2, 2, 126)
    feed.trade(1001, 5011, 5011, 1, 126.5)
    feed.trade(3, 3, 3, 2, 187)
    feed.trade(4, 4, 4, 2, 188)
    assert feed.count("id_resets_total") == 0


def test_starting_anew_leaves_final_bars_and_makes_the_others_partial() -> None:
    feed = begun()
    feed.frame(5010, 4, 1, first=5010, final=True, sent_s=60.1)
    feed.trade(1001, 5011, 5011, 3, 61)
    feed.tick(2)
    feed.settle(2)
    feed.assert_bar(3, 1, 1, state=CLOSED)
    restart_ids(feed, 125)
    feed.assert_bar(4, 1, 0, state=CONFIRMED, flags=0)
    assert feed.bar(1)["flags"] & PARTIAL
    feed.assert_bar(2, 1, 2, state=LIVE, flags=PARTIAL)
    feed.rest(3, 1, minute=1, age_s=31)
    feed.rest(3, 1, minute=1, age_s=36)
    feed.assert_bar(3, 1, 1, state=CONFIRMED)


def test_starting_anew_forgets_the_holes_of_the_old_ids() -> None:
    feed = begun()
    feed.trade(1003, 5015, 5015, 1, 55)
    feed.tick(2)
    feed.check()
    assert feed.need()["first_agg_id"] == 1001
    restart_ids(feed, 125)
    feed.check()
    assert feed.need()["first_agg_id"] == -1
    feed.trade(6, 8, 8, 1, 130)
    feed.tick(3)
    feed.check()
    assert (feed.need()["first_agg_id"], feed.need()["last_agg_id"]) == (4, 5)


def test_minutes_after_starting_anew_are_whole_again() -> None:
    feed = begun()
    feed.tick(2)
    restart_ids(feed, 125)
    feed.trade(4, 4, 4, 1, 181)
    feed.assert_bar(1, 1, 3, state=LIVE, flags=0)
    feed.trade(5, 5, 5, 1, 241)
    feed.assert_bar(1, 1, 3, state=CLOSED, flags=0)


# Prefixes near their limit

HUGE = 10_000_000
"""A trade of so much at 1,000,000 takes 10^18 units of quote; a prefix begins again at 2^60."""


def huge_feed(minutes: int) -> Feed:
    feed = Feed(joined_s=0)
    for minute in range(minutes):
        feed.trade(1 + minute, 10 + minute, 10 + minute, HUGE, minute * 60 + 1, p=1_000_000)
    return feed


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # only differences of prefixes are used
def test_prefixes_begin_again_before_they_overflow_and_no_bar_notices() -> None:
    feed = huge_feed(30)
    for minute in range(1, 30):
        row = feed.bar(minute)
        assert volumes(row) == (HUGE, 1)
        assert float(row["quote_volume"]) == 1e13
        assert row["flags"] & (PARTIAL | PROVISIONAL) == 0
    assert feed.count("trades_total") == 30


def test_a_prefix_that_begins_again_in_the_middle_of_a_minute_changes_no_sum() -> None:
    feed = huge_feed(2)
    feed.trade(3, 12, 14, 4, 70, p=100)
    feed.trade(4, 15, 15, 5, 71, p=100)
    feed.assert_bar(HUGE + 9, 5, 1, state=LIVE, flags=0)
    feed.frame(13, HUGE + 2, 3, first=11, minute=1, prices=(1_000_000, 1_000_000, 100, 100), quote=1e13 + 200)
    feed.assert_bar(HUGE + 9, 5, 1, state=LIVE, flags=0)
    assert feed.count("frames_cut_exact_total") == 1
    feed.trade(5, 16, 16, 1, 72, p=100)
    feed.frame(16, HUGE + 10, 6, first=11, minute=1, prices=(1_000_000, 1_000_000, 100, 100), quote=1e13 + 1000)
    feed.assert_bar(HUGE + 10, 6, 1, state=LIVE, flags=0)
    assert feed.count("frames_clean_equal_total") == 1


@pytest.mark.skipif(COMPILED, reason="compiled kernels have no way in from Python but one")
def test_beginning_again_at_any_moment_changes_nothing() -> None:
    plain, rebased = Feed(), Feed()
    steps: list[Callable[[Feed], None]] = [
        lambda feed: feed.trade(1, 10, 10, 4, 50),
        lambda feed: feed.frame(10, 4, 1),
        lambda feed: feed.trade(4, 15, 18, 3, 52),
        lambda feed: feed.trade(2, 11, 12, 2, 51),
        lambda feed: feed.frame(16, 9, 6),
        lambda feed: feed.trade(3, 13, 14, 1, 51.5),
        lambda feed: feed.trade(5, 19, 22, 8, 59.99),
        lambda feed: feed.trade(6, 23, 23, 1, 61),
        lambda feed: feed.frame(23, 5, 3, first=21, minute=1),
        lambda feed: feed.frame(20, 14, 11, final=True),
    ]
    for step in steps:
        for feed in (plain, rebased):
            step(feed)
        rebase_prefix(rebased.engine.memory, 0)
        for minute in (0, 1) if plain.bar(1) is not None else (0,):
            assert volumes(rebased.bar(minute)) == volumes(plain.bar(minute))
            assert rebased.bar(minute)["flags"] == plain.bar(minute)["flags"]
            assert rebased.bar(minute)["state"] == plain.bar(minute)["state"]
    assert plain.bar(0)["state"] == CONFIRMED
    for name in ("frames_clean_equal_total", "frames_cut_exact_total", "contradictions_total"):
        assert rebased.count(name) == plain.count(name)


# Trades older than the ring reaches back


def with_hole_then(trades: int) -> Feed:
    """Trade 2 is missing; so many trades of 0.001 have come since, all in minute 0 after 50 s."""
    feed = begun_at_ten()
    for k in range(trades):
        feed.trade(3 + k, 12 + k, 12 + k, 0.001, 51 + k * 0.01)
    return feed


@pytest.mark.parametrize("trades", [1, st.RING - 2, st.RING - 1, st.RING, st.RING + 1])
def test_a_missing_trade_is_filled_in_wherever_the_ring_begins(trades: int) -> None:
    feed = with_hole_then(trades)
    small = trades / 1000
    assert feed.live()["volume"] == pytest.approx(4 + small)
    assert feed.live()["flags"] == PARTIAL
    feed.trade(2, 11, 11, 2, 50.5, sent_s=58)
    assert feed.live()["volume"] == pytest.approx(6 + small)
    assert feed.count("holes_filled_total") == 1
    feed.trade(3 + trades, 12 + trades, 12 + trades, 1, 59)
    assert feed.live()["volume"] == pytest.approx(7 + small)
    assert feed.live()["trade_count"] == 3 + trades


def test_missing_trades_are_filled_in_from_both_ends_and_from_the_middle() -> None:
    orders = ((2, 3, 4), (4, 3, 2), (3, 2, 4), (3, 4, 2), (2, 4, 3), (4, 2, 3))
    for order in orders:
        feed = begun_at_ten()
        feed.trade(5, 14, 14, 1, 55)
        for a in order:
            feed.assert_bar(5 + sum(each for each in order[: order.index(a)]), 2 + order.index(a), flags=PARTIAL)
            feed.trade(a, 9 + a, 9 + a, a, 50 + a, sent_s=56)
        feed.assert_bar(14, 5, state=LIVE, flags=0)
        feed.frame(14, 14, 5)
        feed.assert_bar(14, 5, state=LIVE, flags=0)
        assert feed.count("frames_clean_equal_total") == 1


# Ids that cannot be


@pytest.mark.parametrize(("f", "l"), [(10, 11), (9, 9), (11, 13), (12, 14), (13, 13)])
def test_a_missing_trade_whose_ids_are_taken_is_refused(f: int, l: int) -> None:
    feed = begun_at_ten()
    feed.trade(3, 13, 14, 1, 55)
    feed.trade(2, f, l, 2, 52, sent_s=56)
    feed.assert_bar(5, 3, flags=PARTIAL)
    assert feed.count("refused_total") == 1
    feed.trade(2, 11, 12, 2, 52, sent_s=57)
    feed.assert_bar(7, 5, flags=0)


def test_a_new_trade_whose_ids_are_taken_is_refused() -> None:
    feed = begun_at_ten()
    feed.trade(2, 10, 11, 2, 52)
    feed.assert_bar(4, 1, flags=0)
    assert feed.count("refused_total") == 1
    feed.trade(2, 11, 11, 2, 52)
    feed.assert_bar(6, 2, flags=0)


def test_an_id_beyond_all_reason_is_refused_and_hides_no_honest_one() -> None:
    feed = begun_at_ten()
    refused = feed.count("refused_total")
    far = 10 + (1 << 32) + 1
    feed.trade(far, far, far, 1, 51)
    feed.frame(far, 9, 2, first=10)
    assert feed.count("refused_total") == refused + 2
    feed.ticker(far)
    feed.trade(2, 11, 11, 2, 52)
    feed.frame(11, 6, 2)
    feed.assert_bar(6, 2, flags=0)
    feed.at(58)
    feed.check()
    assert feed.count("doubts_total") == 0


def test_a_trade_missing_in_a_minute_of_its_own_opens_its_bar() -> None:
    feed = begun_at_ten()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    feed.trade(4, 14, 14, 1, 125)
    feed.trade(2, 11, 12, 2, 65, p=101, sent_s=126)
    feed.trade(3, 13, 13, 3, 70, p=99, sent_s=127)
    feed.assert_bar(5, 3, 1, state=CLOSED)
    assert [feed.bar(1)[cell] for cell in ("open", "high", "low", "close")] == [101, 101, 99, 99]
    feed.assert_bar(1, 1, 2, state=LIVE, flags=0)


def test_a_ticker_ahead_of_the_trades_puts_them_in_doubt_until_one_comes() -> None:
    feed = begun_at_ten()
    feed.ticker(10)
    feed.at(54)
    feed.check()
    feed.assert_bar(4, 1, flags=0)
    feed.ticker(12)
    feed.at(54.5)
    feed.check()
    feed.assert_bar(4, 1, flags=0)
    feed.at(55.1)
    feed.check()
    feed.assert_bar(4, 1, flags=PARTIAL)
    assert (feed.count("doubts_total"), feed.count("symbols_silent")) == (1, 1)
    feed.trade(2, 11, 12, 1, 55)
    feed.check()
    feed.assert_bar(5, 3, flags=0)
    assert feed.count("symbols_silent") == 0


# Final frames that come out of order, without ids, or against what is known


def test_final_frames_in_the_wrong_order_confirm_both_minutes() -> None:
    feed = begun_at_ten()
    feed.trade(2, 11, 11, 2, 59)
    feed.trade(3, 12, 12, 2, 61)
    feed.frame(12, 2, 1, first=12, minute=1, final=True, sent_s=120.1)
    feed.trade(4, 13, 13, 1, 121)
    feed.frame(11, 6, 2, final=True)
    feed.assert_bar(6, 2, state=CONFIRMED, flags=0)
    feed.assert_bar(2, 1, 1, state=CONFIRMED, flags=0)
    feed.assert_bar(1, 1, 2, state=LIVE, flags=0)


def test_a_frame_that_cuts_the_crossing_group_itself_is_made_good_by_the_next() -> None:
    feed = begun_at_ten()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.frame(13, 2, 1, first=13, minute=1, sent_s=60.1)
    assert feed.bar(1)["volume"] == 2
    feed.trade(3, 15, 15, 1, 60.2)
    feed.frame(15, 5, 3, first=13, minute=1, sent_s=60.4)
    assert feed.bar(0)["volume"] == 10
    feed.assert_bar(5, 3, 1, state=LIVE, flags=0)


def test_a_final_frame_without_trades_against_trades_that_are_held_is_a_contradiction() -> None:
    feed = begun_at_ten()
    feed.frame(-1, 0, 0, first=-1, final=True, sent_s=60.1)
    feed.assert_bar(4, 1)
    assert feed.count("contradictions_total") == 1
    feed.frame(10, 4, 1, final=True)
    feed.frame(-1, 0, 0, first=-1, final=True)
    feed.assert_bar(4, 1, state=CONFIRMED)
    assert feed.count("contradictions_total") == 2


def test_a_second_final_frame_that_differs_is_a_contradiction_and_changes_nothing() -> None:
    feed = begun_at_ten()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    feed.frame(11, 5, 2, final=True)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    assert feed.count("contradictions_total") == 1


def test_a_final_frame_with_trades_against_a_proven_empty_minute_is_a_contradiction() -> None:
    feed = begun_at_ten()
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True, sent_s=122.1)
    feed.frame(11, 5, 1, first=11, minute=1, final=True, sent_s=122.5)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("contradictions_total") == 1


def test_a_frame_whose_first_id_follows_a_final_minute_proves_the_long_silence_between() -> None:
    feed = begun_at_ten()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    for minute in range(1, 9):
        feed.tick(minute)
        feed.settle(minute)
        feed.check()
        feed.frame(-1, 0, 0, first=-1, minute=minute, sent_s=minute * 60 + 2.4)
    feed.frame(11, 2, 1, first=11, minute=8, sent_s=485)
    assert [int(feed.bar(minute)["state"]) for minute in range(3, 8)] == [CONFIRMED] * 5
    feed.assert_bar(2, 1, 8, state=LIVE)


def test_a_frame_whose_first_id_leaves_a_gap_proves_nothing() -> None:
    feed = begun_at_ten()
    feed.frame(10, 4, 1, final=True, sent_s=60.1)
    for minute in range(1, 9):
        feed.tick(minute)
        feed.settle(minute)
    feed.frame(12, 2, 1, first=12, minute=8, sent_s=485)
    assert [int(feed.bar(minute)["state"]) for minute in range(3, 8)] == [CLOSED] * 5


def test_a_final_frame_without_ids_confirms_and_a_later_one_tells_them() -> None:
    feed = begun_at_ten()
    feed.frame(-2, 9, 3, first=-1, final=True, sent_s=60.1)
    feed.assert_bar(9, 3, state=CONFIRMED, flags=0)
    feed.trade(2, 11, 14, 8, 59.9, sent_s=60.2)
    feed.assert_bar(9, 3, state=CONFIRMED)
    feed.frame(12, 9, 3, final=True)
    feed.assert_bar(9, 3, state=CONFIRMED)
    assert feed.bar(1)["trade_count"] == 2  # what is left of the group belongs here
    assert feed.count("contradictions_total") == 0
