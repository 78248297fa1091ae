"""Official rows: too young, old enough, the last word; and history that comes from nowhere else."""

from __future__ import annotations

import pytest

from klshm.shm.layout import FLAG_PROVISIONAL, NEED_UNCONFIRMED
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    CORRECTED,
    DERIVED,
    FILLED,
    MINUTE,
    MONDAY,
    PARTIAL,
    PROVISIONAL,
    START,
    Feed,
    volumes,
)


def closed_minute(**more: float) -> Feed:
    feed = Feed(**more)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    feed.tick(1)
    feed.settle(1)
    return feed


@pytest.mark.parametrize(("age_s", "state"), [(2.4, CLOSED), (2.5, CONFIRMED)])
def test_an_equal_row_confirms_when_it_is_old_enough(age_s: float, state: int) -> None:
    feed = closed_minute()
    feed.rest(4, 1, age_s=age_s)
    feed.assert_bar(4, 1, state=state)
    assert feed.count("rest_adopted_total") == 0
    assert feed.count("confirmed_by_rest_total") == (state == CONFIRMED)


@pytest.mark.parametrize(("age_s", "state"), [(29.9, CLOSED), (30, CONFIRMED)])
def test_a_different_row_is_adopted_and_confirmed_when_an_old_one_repeats_it(age_s: float, state: int) -> None:
    feed = closed_minute()
    feed.rest(5, 2, age_s=3)
    feed.assert_bar(5, 2, state=CLOSED, flags=PROVISIONAL | CORRECTED)
    assert feed.count("rest_adopted_total") == 1
    feed.rest(5, 2, age_s=age_s)
    feed.assert_bar(5, 2, state=state)


def test_an_adopted_row_that_moves_is_adopted_again() -> None:
    feed = closed_minute()
    feed.rest(5, 2, age_s=3)
    feed.rest(6, 3, age_s=31)
    feed.assert_bar(6, 3, state=CLOSED)
    feed.rest(6, 3, age_s=36)
    feed.assert_bar(6, 3, state=CONFIRMED, flags=CORRECTED)


def test_a_row_of_a_minute_is_the_last_word() -> None:
    feed = closed_minute()
    feed.rest(5, 2, age_s=60)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)


@pytest.mark.parametrize("v", [3.9, 4])
def test_a_row_behind_the_frame_is_stale_until_it_is_the_last_word(v: float) -> None:
    feed = closed_minute()
    feed.trade(2, 11, 11, 1, 59.9)
    feed.frame(11, 5, 2)
    feed.rest(v, 1, age_s=31)
    feed.assert_bar(5, 2, state=CLOSED)
    assert feed.count("rest_stale_total") == 1
    feed.rest(v, 1, age_s=60)
    feed.assert_bar(v, 1, state=CONFIRMED)


def test_an_equal_row_takes_the_doubt_but_waits_to_confirm() -> None:
    feed = closed_minute()
    feed.down(60.5)
    feed.tick(2)
    feed.down(59.5)
    assert feed.count("doubts_total") == 1
    feed.rest(0, 0, age_s=3, minute=1)
    feed.assert_bar(0, 0, 1, state=CLOSED, flags=FILLED | PROVISIONAL)
    feed.rest(0, 0, age_s=31, minute=1)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)


def test_a_row_of_a_partial_minute_keeps_its_id_only_when_it_confirms() -> None:
    feed = closed_minute()
    feed.down(60.2)
    feed.rest(4, 1, age_s=31)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.trade(2, 11, 11, 5, 59.99)  # its id lies beyond the last one of the minute
    feed.assert_bar(4, 1)
    feed.assert_bar(5, 1, 1)


def test_a_row_of_an_open_minute_or_read_before_its_end_says_nothing() -> None:
    feed = closed_minute()
    feed.rest(9, 9, age_s=5, minute=1)
    feed.assert_bar(0, 0, 1)
    feed.tick(2)
    feed.rest(9, 9, age_s=-1, minute=1)
    feed.assert_bar(0, 0, 1)


# Final frames and adopted rows


def test_a_final_frame_confirms_an_adopted_row_that_it_equals() -> None:
    feed = closed_minute()
    feed.rest(5, 2, age_s=3)
    feed.frame(11, 5, 2, final=True)
    feed.assert_bar(5, 2, state=CONFIRMED)
    assert feed.count("contradictions_total") == 0


def test_a_final_frame_with_more_trades_beats_an_adopted_row() -> None:
    feed = closed_minute()
    feed.rest(5, 2, age_s=3)
    feed.frame(12, 6, 3, final=True)
    feed.assert_bar(6, 3, state=CONFIRMED)
    assert feed.count("contradictions_total") == 1


def test_an_adopted_row_with_more_trades_beats_a_final_frame() -> None:
    feed = closed_minute()
    feed.rest(6, 3, age_s=3)
    feed.frame(11, 5, 2, final=True)
    feed.assert_bar(6, 3, state=CLOSED)
    assert feed.count("contradictions_total") == 1
    feed.check()
    assert feed.need()["from_ms"] == START


def test_a_confirmed_row_learns_its_last_id_from_an_equal_final_frame() -> None:
    feed = closed_minute()
    feed.trade(2, 11, 14, 10, 59.98)
    feed.rest(10, 3, age_s=60)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.frame(12, 10, 3, final=True)
    feed.assert_bar(10, 3, state=CONFIRMED)
    feed.assert_bar(4, 2, 1)  # the rest of the group
    feed.frame(13, 11, 4, final=True)
    assert feed.count("contradictions_total") == 1


def test_an_adopted_empty_row_gives_way_to_an_empty_final_frame() -> None:
    feed = closed_minute()
    feed.down(60.5)
    feed.tick(2)
    feed.rest(0, 0, age_s=3, minute=1)
    feed.frame(-1, 0, 0, first=-1, minute=1, final=True)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("confirmed_empty_total") == 1


# Confirmed bars


def confirmed_minute() -> Feed:
    feed = closed_minute()
    feed.frame(10, 4, 1, final=True)
    return feed


def test_a_confirmed_bar_changes_only_when_an_old_row_says_so_twice() -> None:
    feed = confirmed_minute()
    feed.rest(5, 2, age_s=59)
    feed.rest(5, 2, age_s=59.5)
    feed.rest(5, 2, age_s=60)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(6, 3, age_s=65)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    feed.rest(5, 2, age_s=70)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)
    assert feed.count("rest_differs_from_final_total") == 5
    assert feed.count("corrected_total") == 1


def test_an_equal_row_changes_nothing_of_a_confirmed_bar() -> None:
    feed = confirmed_minute()
    feed.logged()
    feed.rest(4, 1, age_s=70)
    assert len(feed.logged()) == 0


def test_a_minute_proven_empty_is_overruled_likewise() -> None:
    feed = confirmed_minute()
    feed.tick(2)
    feed.trade(2, 11, 11, 1, 130)
    feed.assert_bar(0, 0, 1, state=CONFIRMED)
    feed.rest(2, 1, age_s=70, minute=1, prices=(101, 101, 101, 101), quote=202)
    feed.rest(2, 1, age_s=75, minute=1, prices=(101, 101, 101, 101), quote=202)
    feed.assert_bar(2, 1, 1, state=CONFIRMED, flags=CORRECTED)


# Rows of minutes that have no record


def old_minute() -> Feed:
    feed = closed_minute()
    for minute in range(2, 12):
        feed.tick(minute)
        feed.settle(minute)
    return feed


def test_an_old_row_corrects_its_bar_and_the_filled_ones_behind_it() -> None:
    feed = old_minute()
    feed.logged()
    feed.rest(9, 3, age_s=700, prices=(100, 104, 100, 104), quote=920)
    feed.assert_bar(9, 3, state=CONFIRMED, flags=CORRECTED)
    for minute in range(1, 12):
        assert feed.bar(minute)["close"] == feed.bar(minute)["open"] == 104
    assert {int(row["open_time"]) for row in feed.logged() if row["interval"] == 0} == {
        START + minute * MINUTE for minute in range(11)
    }


def test_an_old_equal_row_confirms_without_a_correction() -> None:
    feed = old_minute()
    feed.rest(4, 1, age_s=700)
    feed.assert_bar(4, 1, state=CONFIRMED, flags=0)
    before = int(feed.bar()["revision"])
    feed.rest(4, 1, age_s=705)
    assert feed.bar()["revision"] == before


def test_an_old_confirmed_bar_changes_only_when_said_twice() -> None:
    feed = old_minute()
    feed.rest(4, 1, age_s=700)
    feed.rest(5, 2, age_s=705)
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.rest(5, 2, age_s=710)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=CORRECTED)


def test_an_old_filled_bar_that_traded_ends_the_correction_of_those_behind_it() -> None:
    feed = old_minute()
    feed.rest(1, 1, age_s=600, minute=2, prices=(105, 105, 105, 105), quote=105)
    feed.assert_bar(1, 1, 2, state=CONFIRMED, flags=CORRECTED)
    assert feed.bar(1)["close"] == 100
    assert feed.bar(3)["close"] == feed.bar(10)["close"] == feed.live()["close"] == 105
    feed.rest(4, 1, age_s=700, prices=(100, 101, 99, 101))
    assert feed.bar(1)["close"] == 101
    assert feed.bar(3)["close"] == 105


def test_a_filled_bar_that_nothing_moves_is_left_alone() -> None:
    feed = old_minute()
    feed.rest(4, 1, age_s=700)
    assert feed.bar(1)["revision"] == feed.bar(2)["revision"]
    revisions = [int(feed.bar(minute)["revision"]) for minute in range(1, 5)]
    feed.rest(0, 0, age_s=600, minute=1)
    assert [int(feed.bar(minute)["revision"]) for minute in range(2, 5)] == revisions[1:]


def test_backfilled_rows_are_stored_and_not_logged() -> None:
    feed = closed_minute()
    feed.logged()
    feed.rest(8, 2, age_s=900, minute=-20)
    feed.assert_bar(8, 2, -20, state=CONFIRMED, flags=0)
    assert len(feed.logged()) == 0
    feed.rest(0, 0, age_s=900, minute=-21)
    feed.assert_bar(0, 0, -21, state=CONFIRMED, flags=FILLED)


def test_a_backfilled_row_that_was_asked_for_is_logged() -> None:
    feed = Feed()
    for minute in range(1, 12):
        feed.tick(minute)  # nothing is known, so there is no bar; but it is asked for
    feed.check()
    assert feed.need()["from_ms"] == START and feed.need()["reason"] & NEED_UNCONFIRMED
    feed.rest(8, 2, age_s=600)
    assert [int(row["open_time"]) for row in feed.logged() if row["interval"] == 0] == [START]
    feed.check()
    assert feed.need()["from_ms"] == START + MINUTE


def test_a_young_backfilled_minute_is_provisional_and_asked_for_again() -> None:
    feed = Feed(joined_s=None)
    feed.at(2)
    feed.add(origin=START - 10 * MINUTE)
    feed.rest(8, 2, age_s=9, minute=-1)
    feed.assert_bar(8, 2, -1, state=CLOSED, flags=PROVISIONAL)
    feed.check()
    assert feed.need()["from_ms"] == START - MINUTE
    feed.rest(8, 2, age_s=31, minute=-1)
    feed.assert_bar(8, 2, -1, state=CONFIRMED)
    feed.check()
    assert feed.need()["reason"] == 0


def test_an_old_young_row_is_provisional_until_it_is_read_again() -> None:
    feed = Feed()
    feed.now += 20 * MINUTE
    for minute in range(1, 20):
        feed.tick(minute)
    opened = START + 3 * MINUTE
    before = feed.now
    feed.rest(8, 2, age_s=20, open_time=opened)
    assert feed.now == before
    assert feed.stored(opened)["flags"] & FLAG_PROVISIONAL
    feed.rest(9, 3, age_s=25, open_time=opened)  # what we hold is as good
    assert volumes(feed.stored(opened)) == (8, 2)
    feed.rest(8, 2, age_s=31, open_time=opened)
    assert feed.stored(opened)["state"] == CONFIRMED


def test_rows_beyond_what_history_can_hold_are_left_out() -> None:
    feed = closed_minute(history_rows=32)
    held = feed.bar()
    feed.rest(8, 2, age_s=3_000, minute=-32)
    assert feed.bar().tobytes() == held.tobytes()
    assert feed.stored(START - 32 * MINUTE) is None


def test_rows_of_before_the_symbol_joined_make_no_bars_but_their_own() -> None:
    feed = Feed(joined_s=None)
    feed.at(5 * 60 + 49)
    feed.add(origin=START - 100 * MINUTE)
    for minute in (2, 0, 3):
        feed.rest(8, 2, age_s=200, minute=minute)
        assert feed.stored(START + (minute + 1) * MINUTE) is None or minute == 0
    for minute in (1, 4):
        feed.rest(9, 2, age_s=61, minute=minute)
    for minute in range(5):
        assert feed.bar(minute)["revision"] == 1
        assert feed.bar(minute)["flags"] == 0
    assert feed.count("corrected_total") == 0


def test_the_close_of_the_newest_row_fills_the_open_minute() -> None:
    feed = Feed()
    feed.tick(1)
    feed.rest(8, 2, age_s=2, prices=(100, 107, 100, 107), quote=830)
    assert feed.live()["close"] == 107
    assert feed.live()["flags"] == FILLED | PARTIAL


# Higher intervals


def five_minutes() -> tuple[Feed, int]:
    feed = Feed(start=MONDAY)
    feed.trade(1, 10, 10, 4, 50.0)
    feed.frame(10, 4, 1)
    feed.frame(10, 4, 1, final=True, sent_s=60)
    for minute in range(1, 6):
        feed.tick(minute)
    feed.settle(5)
    return feed, MONDAY


def test_a_fold_the_exchange_confirms_is_no_longer_derived() -> None:
    feed, opened = five_minutes()
    assert feed.stored(opened, "5m")["flags"] & DERIVED
    feed.rest(4, 1, age_s=31, interval="5m")
    row = feed.stored(opened, "5m")
    assert (row["state"], row["flags"]) == (CONFIRMED, 0)
    assert feed.count("folds_compared_total") == feed.count("folds_equal_total") == 1
    feed.rest(4, 1, age_s=35, interval="5m")
    assert feed.stored(opened, "5m")["revision"] == row["revision"]


def test_a_young_row_does_not_freeze_a_fold() -> None:
    feed, opened = five_minutes()
    feed.rest(3, 1, age_s=1, interval="5m")
    assert volumes(feed.stored(opened, "5m")) == (4, 1)


def test_a_fold_of_all_its_children_takes_the_place_of_a_young_row() -> None:
    feed = Feed(start=MONDAY)
    feed.now += 5 * MINUTE
    for minute in range(1, 6):
        feed.tick(minute)
    feed.rest(3, 1, age_s=1, interval="5m")
    assert feed.stored(MONDAY, "5m")["flags"] == PROVISIONAL
    for minute in range(4):
        feed.rest(2, 1, age_s=400, minute=minute)
        assert volumes(feed.stored(MONDAY, "5m")) == (3, 1)
    feed.rest(2, 1, age_s=400, minute=4)
    row = feed.stored(MONDAY, "5m")
    assert volumes(row) == (10, 5)
    assert (row["state"], row["flags"]) == (CONFIRMED, DERIVED)


def test_a_confirmed_fold_is_overruled_only_when_said_twice_and_then_for_good() -> None:
    feed, opened = five_minutes()
    feed.trade(2, 11, 11, 1, 310)
    assert feed.stored(opened, "5m")["state"] == CONFIRMED
    feed.rest(9, 5, age_s=70, interval="5m")
    assert volumes(feed.stored(opened, "5m")) == (4, 1)
    feed.rest(9, 5, age_s=80, interval="5m")
    row = feed.stored(opened, "5m")
    assert volumes(row) == (9, 5)
    assert (row["state"], row["flags"]) == (CONFIRMED, CORRECTED)
    feed.rest(5, 2, age_s=700)
    feed.rest(5, 2, age_s=705)
    feed.assert_bar(5, 2)
    assert volumes(feed.stored(opened, "5m")) == (9, 5)  # the children cannot overrule it


def test_a_row_of_an_open_interval_is_left_out() -> None:
    feed, opened = five_minutes()
    feed.rest(9, 5, age_s=1, interval="30m")
    assert feed.stored(opened, "30m") is None


def test_contradictions_of_several_bars_are_remembered_side_by_side() -> None:
    feed = Feed(start=MONDAY)
    feed.now += 60 * MINUTE
    for minute in range(1, 61):
        feed.tick(minute)
    for minute in range(3):
        feed.rest(2, 1, age_s=900, minute=minute)
    for _ in range(2):
        for minute in range(3):
            feed.rest(3, 2, age_s=900, minute=minute)
    assert [volumes(feed.bar(minute)) for minute in range(3)] == [(3, 2)] * 3
