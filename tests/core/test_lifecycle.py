"""Symbols that join, come back after a restart, change places, and leave."""

from __future__ import annotations

from typing import Any

from klshm.core import events as ev
from klshm.shm import layout as lay
from tests.core.feed import (
    CLOSED,
    CONFIRMED,
    DERIVED,
    FILLED,
    LIVE,
    MINUTE,
    PARTIAL,
    PROVISIONAL,
    START,
    Feed,
    begun,
    event,
    volumes,
)


HALF_HOUR = 30 * MINUTE


def restarted(old: Feed, *, symbol: int | None = None, decimals: Any = (2, 3)) -> Feed:
    """The next worker over the same memory; it joins where the old one stood."""
    feed = Feed(old.layout.slots, memory=old.words, joined_s=None)
    feed.now = old.now
    feed.engine.recover()
    feed.add(0, symbol=symbol, decimals=decimals)
    return feed


def live_words(feed: Feed) -> Any:
    """Return where the live rows of slot 0 lie."""
    at = feed.layout.live_offset(0) // 8
    return feed.words[at : at + feed.layout.intervals * lay.ROW_WORDS]


# Coming back


def test_a_restart_in_a_minute_goes_on_from_its_live_row() -> None:
    feed = restarted(begun())
    feed.assert_bar(4, 1, state=LIVE, flags=PARTIAL)  # in doubt until the next trade
    feed.trade(2, 11, 11, 2, 55)
    feed.assert_bar(6, 2, state=LIVE, flags=0)
    feed.trade(2, 11, 11, 2, 55)
    feed.assert_bar(6, 2)
    assert feed.count("duplicates_total") == 1
    feed.frame(11, 6, 2, final=True, sent_s=60.1)
    feed.assert_bar(6, 2, state=CONFIRMED, flags=0)


def test_what_was_missed_during_a_restart_is_a_hole_with_exact_bounds() -> None:
    feed = restarted(begun())
    feed.trade(4, 13, 13, 1, 57)
    feed.assert_bar(5, 2, flags=PARTIAL)
    feed.tick(1)
    feed.check()
    assert (feed.need()["first_agg_id"], feed.need()["last_agg_id"]) == (2, 3)
    feed.rest(10, 4, age_s=31)
    feed.rest(10, 4, age_s=35)
    feed.assert_bar(10, 4, state=CONFIRMED)


def test_what_was_missed_during_a_restart_is_filled_in() -> None:
    feed = restarted(begun())
    feed.trade(4, 13, 13, 1, 57)
    feed.trade(2, 11, 11, 2, 55)
    feed.assert_bar(7, 3, flags=PARTIAL)
    feed.trade(3, 12, 12, 3, 56)
    feed.assert_bar(10, 4, state=LIVE, flags=0)


def test_a_minute_that_was_partial_stays_so_after_a_restart() -> None:
    old = begun()
    old.trade(3, 12, 12, 1, 55)
    old.assert_bar(5, 2, flags=PARTIAL)
    feed = restarted(old)
    feed.trade(4, 13, 13, 1, 57)
    feed.assert_bar(6, 3, flags=PARTIAL)
    feed.frame(13, 9, 4)
    feed.assert_bar(9, 4, flags=0)


def test_a_restart_in_a_minute_without_trades() -> None:
    old = begun()
    old.tick(1)
    feed = restarted(old)
    feed.assert_bar(0, 0, 1, state=LIVE, flags=FILLED | PARTIAL)
    feed.trade(2, 11, 11, 2, 65, p=101)
    feed.assert_bar(2, 1, 1, state=LIVE, flags=0)
    assert feed.bar(1)["open"] == 101
    feed.assert_bar(4, 1, state=CLOSED)


def test_a_worker_that_was_killed_between_closing_and_the_live_row() -> None:
    old = begun()
    before = live_words(old).copy()
    old.tick(1)
    live_words(old)[:] = before
    feed = restarted(old)
    feed.assert_bar(4, 1, state=CLOSED)
    feed.tick(1)
    feed.trade(2, 11, 11, 2, 65)
    feed.assert_bar(4, 1, state=CLOSED)
    feed.assert_bar(2, 1, 1, state=LIVE)


def test_a_restart_after_some_time_asks_for_what_it_missed() -> None:
    old = begun()
    old.frame(10, 4, 1, final=True, sent_s=60.1)
    old.now = START + 4 * MINUTE + 5_000
    feed = restarted(old)
    feed.tick(4)
    feed.check()
    assert (feed.need()["from_ms"], feed.need()["to_ms"]) == (START + MINUTE, START + 3 * MINUTE)
    assert feed.need()["reason"] & lay.NEED_DOUBT
    feed.assert_bar(4, 1, state=CONFIRMED)
    feed.assert_bar(0, 0, 2, state=CLOSED)
    assert feed.bar(2)["flags"] & (FILLED | PARTIAL) == FILLED | PARTIAL


def test_closed_minutes_of_before_a_restart_keep_what_they_said() -> None:
    old = begun()
    old.trade(3, 12, 12, 1, 55)  # trade 2 is missing
    old.trade(4, 13, 13, 1, 61)
    old.trade(5, 14, 14, 1, 121)
    old.tick(3)
    old.settle(3)
    feed = restarted(old)
    feed.tick(4)
    feed.frame(14, 1, 1, first=14, minute=2, final=True)
    feed.assert_bar(1, 1, 2, state=CONFIRMED, flags=0)
    feed.rest(5, 2, age_s=31)
    feed.assert_bar(5, 2, state=CONFIRMED, flags=0)
    feed.rest(1, 1, minute=1, age_s=31)
    feed.assert_bar(1, 1, 1, state=CONFIRMED, flags=0)


def test_a_trade_of_a_closed_minute_that_history_lacks_leaves_it_partial() -> None:
    feed = Feed()
    feed.tick(2)
    feed.trade(1, 10, 10, 4, 65, sent_s=120.2)  # nothing was known of the symbol when minute 1 closed
    feed.assert_bar(4, 1, 1, state=CLOSED)
    assert feed.bar(1)["flags"] & PARTIAL


def test_empty_minutes_confirmed_before_a_restart_stay_confirmed() -> None:
    old = begun()
    old.trade(2, 11, 11, 1, 185)
    assert old.bar(1)["state"] == CONFIRMED
    feed = restarted(old)
    feed.down(186)
    feed.rest(0, 0, minute=1, age_s=70)
    feed.assert_bar(0, 0, 1, state=CONFIRMED, flags=FILLED)
    assert feed.count("rest_differs_from_final_total") == 0


def test_late_and_corrected_are_kept_over_a_restart() -> None:
    old = begun()
    old.frame(10, 4, 1, final=True, sent_s=60.1)
    old.rest(5, 2, age_s=61)
    old.rest(5, 2, age_s=65)
    flags = old.bar(0)["flags"]
    assert flags
    feed = restarted(old)
    feed.rest(6, 2, age_s=70)
    feed.rest(6, 2, age_s=75)
    feed.assert_bar(6, 2, state=CONFIRMED, flags=flags)


def test_decimals_of_before_a_restart_are_kept() -> None:
    old = begun()
    old.apply(
        event(
            kind=ev.TRADE,
            time=old.start + 52_100,
            open_time=old.start + 52_000,
            a=2,
            f=11,
            l=11,
            price_decimals=4,
            quantity_decimals=4,
            open=1_000_001,
            volume=12_345,
        )
    )
    old.assert_bar(5.2345, 2)
    feed = restarted(old)
    assert (feed.live()["price_decimals"], feed.live()["quantity_decimals"]) == (4, 4)
    feed.trade(3, 12, 12, 1, 55)
    feed.assert_bar(6.2345, 3)
    assert feed.live()["high"] == 100.0001


# Joining


def test_a_repeated_command_changes_nothing() -> None:
    feed = begun()
    feed.add(0)
    feed.trade(2, 11, 11, 2, 55)
    feed.assert_bar(6, 2, flags=0)


def test_a_slot_given_to_another_symbol_holds_nothing_of_the_one_before() -> None:
    feed = begun()
    for minute in range(1, 7):
        feed.tick(minute)
    assert feed.stored(START) is not None
    feed.add(0, symbol=8)
    assert feed.stored(START) is None
    assert feed.live()["open_time"] == 0
    feed.trade(500, 900, 900, 3, 365, p=7)
    feed.assert_bar(3, 1, 6, state=LIVE)
    assert (feed.live()["slot"], feed.live()["open"]) == (8, 7)
    assert volumes(feed.live("5m")) == (3, 1)
    assert feed.bar(0) is None


def test_a_slot_given_to_another_symbol_while_the_worker_was_away() -> None:
    old = begun()
    old.tick(1)
    feed = restarted(old, symbol=8)
    assert feed.stored(START) is None
    feed.trade(1, 10, 10, 3, 65, p=7)
    feed.assert_bar(3, 1, 1, state=LIVE)
    assert feed.live()["low"] == 7


def test_symbols_share_nothing() -> None:
    feed = begun(slots=2)
    feed.trade(1, 10, 10, 9, 52, slot=1, p=5)
    feed.apply(event(kind=ev.SYMBOL_REMOVE, slot=0))
    feed.tick(1)
    assert volumes(feed.bar(0, slot=1)) == (9, 1)
    assert feed.live(slot=1)["state"] == LIVE
    assert feed.live(slot=0)["state"] == lay.STATE_EMPTY


# Leaving


def test_a_symbol_that_leaves_closes_what_it_has_and_keeps_its_history() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.trade(2, 11, 11, 2, 65)
    feed.apply(event(kind=ev.SYMBOL_REMOVE))
    for interval in ("1m", "5m", "1d"):
        assert (feed.live(interval)["state"], feed.live(interval)["open_time"]) == (lay.STATE_EMPTY, 0)
    assert volumes(feed.stored(START + MINUTE)) == (2, 1)
    assert feed.stored(START + MINUTE)["state"] == CLOSED
    assert volumes(feed.stored(START + MINUTE, "5m")) == (2, 1)
    assert volumes(feed.stored(START // HALF_HOUR * HALF_HOUR, "30m")) == (6, 2)
    assert feed.stored(START + MINUTE, "5m")["flags"] & DERIVED
    feed.trade(3, 12, 12, 1, 66)
    assert feed.count("refused_total") == 1
    feed.check()
    assert feed.need()["reason"] == 0


def test_a_symbol_that_leaves_without_a_trade_in_its_open_minute_closes_no_minute_more() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.logged()
    feed.apply(event(kind=ev.SYMBOL_REMOVE))
    assert feed.stored(START + MINUTE) is None
    assert feed.stored(START + MINUTE, "5m") is None
    assert volumes(feed.stored(START // HALF_HOUR * HALF_HOUR, "30m")) == (4, 1)
    assert set(feed.logged()["interval"]) == set(feed.layout.interval_codes[2:])


def test_changes_that_met_no_moment_yet_are_logged_when_the_symbol_leaves() -> None:
    feed = begun()
    feed.tick(1)
    feed.settle(1)
    feed.trade(2, 11, 11, 5, 59.99, sent_s=61)
    feed.logged()
    feed.apply(event(kind=ev.SYMBOL_REMOVE))
    assert (9.0, 2) in [volumes(row) for row in feed.logged() if row["open_time"] == START]


def test_a_symbol_comes_back_to_its_slot() -> None:
    feed = begun()
    feed.tick(1)
    feed.apply(event(kind=ev.SYMBOL_REMOVE))
    feed.add(0)
    feed.trade(1, 10, 10, 3, 65)
    feed.assert_bar(4, 1)
    feed.assert_bar(3, 1, 1, state=LIVE)


def test_a_symbol_that_never_had_a_price_leaves() -> None:
    feed = Feed()
    feed.apply(event(kind=ev.SYMBOL_REMOVE))
    assert feed.live()["state"] == lay.STATE_EMPTY
    assert len(feed.logged()) == 0


# What the exchange can have


def test_bars_before_the_origin_are_not_missing() -> None:
    feed = Feed(joined_s=None)
    feed.at(49)
    feed.add(0, origin=START - 1000 * MINUTE)
    feed.trade(1, 10, 10, 4, 50)
    feed.rest(7, 2, minute=-20, age_s=5)
    feed.tick(1)
    feed.check()
    assert feed.need()["from_ms"] == START - 20 * MINUTE
    feed.apply(event(kind=ev.SYMBOL_ORIGIN, open_time=START))
    feed.check()
    assert feed.need()["from_ms"] == START


def test_a_stream_that_is_down_for_all_puts_every_symbol_in_doubt() -> None:
    feed = Feed(3)
    for slot in (0, 1):
        feed.trade(1, 10, 10, 4, 50, slot=slot)
        feed.frame(10, 4, 1, slot=slot)
    feed.apply(event(kind=ev.SYMBOL_REMOVE, slot=2))
    feed.down(55, slot=-1)
    assert [int(feed.bar(0, slot=slot)["flags"]) for slot in (0, 1)] == [PARTIAL, PARTIAL]
    assert feed.count("doubts_total") == 2


def test_the_clock_and_the_settling_pass_over_empty_slots() -> None:
    feed = Feed(2, joined_s=None)
    feed.add(1)
    feed.trade(1, 10, 10, 4, 50, slot=1)
    feed.tick(1)
    feed.settle(1)
    feed.check()
    assert volumes(feed.bar(0, slot=1)) == (4, 1)
    assert feed.bar(0, slot=1)["state"] == CLOSED
    assert feed.live(slot=0)["open_time"] == 0


def test_a_trade_missed_before_all_that_is_held_is_filled_in_too() -> None:
    feed = restarted(begun())
    feed.trade(4, 13, 13, 1, 61)
    feed.trade(2, 11, 11, 2, 55, sent_s=62)
    feed.trade(3, 12, 12, 3, 56, sent_s=62)
    feed.assert_bar(9, 3, state=CLOSED, flags=PROVISIONAL)
    feed.assert_bar(1, 1, 1, state=LIVE)
    feed.rest(9, 3, age_s=61)
    feed.assert_bar(9, 3, state=CONFIRMED, flags=0)


def test_a_symbol_of_which_only_frames_were_seen_comes_back() -> None:
    old = Feed()
    old.frame(10, 4, 1)
    feed = restarted(old)
    feed.assert_bar(4, 1, state=LIVE, flags=PARTIAL)
    feed.trade(1, 11, 11, 2, 55)
    feed.frame(11, 6, 2)
    feed.assert_bar(6, 2, state=LIVE, flags=0)


def test_a_row_of_a_minute_before_the_symbol_joined_is_taken() -> None:
    feed = Feed(joined_s=305)
    feed.rest(4, 1, minute=3, age_s=31)
    feed.assert_bar(4, 1, 3, state=CONFIRMED)
    assert feed.bar(3)["flags"] == 0, "history is no correction of ours"
    assert feed.engine.counter("corrected_total") == 0


def test_a_row_that_was_ahead_of_its_trades_holds_them_when_they_come_after_a_restart() -> None:
    old = begun()
    old.frame(14, 9, 5)
    feed = restarted(old)
    feed.frame(14, 9, 5)  # the other connection says it again
    feed.trade(2, 11, 12, 2, 52)
    feed.trade(3, 13, 14, 3, 53)
    feed.assert_bar(9, 5, state=LIVE, flags=0)
    feed.trade(4, 15, 15, 1, 54)
    feed.assert_bar(10, 6, state=LIVE, flags=0)
