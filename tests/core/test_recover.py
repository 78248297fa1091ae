"""What a new worker makes whole of the memory that a killed one left."""

from __future__ import annotations

from typing import Any

import pytest

from klshm import intervals
from klshm.shm import layout as lay
from klshm.shm.layout import ROW_WORDS
from tests.core.feed import (
    CLOSED,
    LIVE,
    MINUTE,
    PARTIAL,
    START,
    Feed,
    begun,
    volumes,
)


def after(old: Feed) -> Feed:
    """A new worker over the memory of an old one, before its first event."""
    feed = Feed(old.layout.slots, memory=old.words, joined_s=None)
    feed.now = old.now
    return feed


def live_at(feed: Feed, interval: str = "1m", slot: int = 0) -> int:
    """Return the first word of a live row."""
    return feed.layout.live_offset(0) // 8 + (slot * feed.layout.intervals + feed.index(interval)) * ROW_WORDS


def log_at(feed: Feed, position: int) -> int:
    """Return the first word of a log entry."""
    return feed.layout.log_offset(0) // 8 + (position & (feed.layout.log_rows - 1)) * ROW_WORDS


def history(feed: Feed) -> Any:
    """Return the words of all history."""
    at = feed.layout.history_offset(0) // 8
    return feed.words[at : at + feed.layout.slots * feed.layout.history_rows_per_symbol * ROW_WORDS]


def killed_before_the_tail(closings: int = 1, slots: int = 1) -> tuple[Feed, int]:
    """An engine killed after its log entries and before all else of a closing; and how many entries that were."""
    old = begun(slots)
    tail, rows = int(old.block[lay.B_TAIL]), history(old).copy()
    for minute in range(1, closings + 1):
        old.tick(minute)
    end = int(old.block[lay.B_TAIL])
    assert end > tail
    old.block[lay.B_TAIL] = tail
    history(old)[:] = rows
    return old, end - tail


# Live rows


@pytest.mark.parametrize("swaps", [1, 2])
def test_a_live_row_killed_in_mid_write_comes_from_the_half_that_readers_have(swaps: int) -> None:
    old = begun()
    for swap in range(swaps):
        assert old.engine.publish(swap + 1) > 0
    old.trade(2, 11, 11, 2, 51)  # no swap has seen this one
    at = live_at(old)
    old.words[at] += 1
    old.words[at + lay.W_VOLUME] = -1
    feed = after(old)
    feed.engine.recover()
    assert feed.words[at] & 1 == 0
    assert volumes(feed.live()) == (4, 1)
    assert feed.live()["flags"] & PARTIAL
    assert volumes(feed.live("5m")) == (6, 2)  # whole rows stay as they are


def test_a_live_row_killed_in_mid_write_comes_from_the_newest_half() -> None:
    old = begun()
    old.engine.publish(1)
    old.trade(2, 11, 11, 2, 51)
    old.engine.publish(2)
    old.words[live_at(old)] += 1
    feed = after(old)
    feed.engine.recover()
    assert volumes(feed.live()) == (6, 2)


def test_what_a_live_row_lost_comes_back_with_the_next_frame() -> None:
    old = begun()
    old.engine.publish(1)
    old.trade(2, 11, 11, 2, 51)
    old.words[live_at(old)] += 1
    feed = after(old)
    feed.engine.recover()
    feed.add()
    feed.trade(3, 12, 12, 1, 53)
    feed.assert_bar(5, 2, state=LIVE, flags=PARTIAL)
    feed.frame(12, 7, 3)
    feed.assert_bar(7, 3, state=LIVE, flags=0)


def test_all_rows_are_copied_in_the_two_swaps_after_a_restart() -> None:
    old = begun(slots=2)
    while old.engine.publish(1):
        pass
    feed = after(old)
    feed.engine.recover()
    rows = 2 * feed.layout.intervals
    assert [feed.engine.publish(2), feed.engine.publish(3), feed.engine.publish(4)] == [rows, rows, 0]


# The log


def test_entries_beyond_the_tail_become_visible_and_reach_history() -> None:
    old, entries = killed_before_the_tail()
    assert old.stored(START) is None
    feed = after(old)
    assert feed.engine.recover() == entries
    logged = feed.logged()
    [entry] = [row for row in logged if row["interval"] == feed.layout.interval_codes[0]]
    assert volumes(entry) == volumes(feed.stored(START)) == (4, 1)
    assert (feed.stored(START)["state"], feed.stored(START)["revision"]) == (CLOSED, entry["revision"])
    assert len(logged) == entries


def test_entries_of_higher_intervals_reach_history_too() -> None:
    old, _ = killed_before_the_tail(closings=6)
    feed = after(old)
    feed.engine.recover()
    assert [volumes(feed.stored(START + minute * MINUTE)) for minute in range(6)] == [(4, 1)] + [(0, 0)] * 5
    opened = intervals.open_time_of("5m", START)
    assert volumes(feed.stored(opened, "5m")) == (4, 1)
    assert volumes(feed.stored(opened + 5 * MINUTE, "5m")) == (0, 0)


def test_the_next_entry_follows_those_adopted() -> None:
    old, entries = killed_before_the_tail()
    tail = int(old.block[lay.B_TAIL])
    feed = after(old)
    feed.engine.recover()
    feed.add()
    feed.tick(1)
    feed.trade(2, 11, 11, 1, 65)
    feed.tick(2)
    logged = feed.logged()
    assert len(logged) > entries
    assert int(feed.block[lay.B_TAIL]) == tail + len(logged)


def test_an_entry_in_mid_write_is_not_adopted() -> None:
    old, entries = killed_before_the_tail(closings=2)
    old.words[log_at(old, int(old.block[lay.B_TAIL]) + 1)] -= 1
    feed = after(old)
    assert feed.engine.recover() == 1
    assert len(feed.logged()) == 1 < entries


def test_an_entry_of_a_symbol_that_is_not_here_is_adopted_and_reaches_no_history() -> None:
    old, entries = killed_before_the_tail()
    at = log_at(old, int(old.block[lay.B_TAIL]))
    old.words[at + lay.W_REVISION_SLOT] ^= 1 << 40
    feed = after(old)
    assert feed.engine.recover() == entries
    assert feed.stored(START) is None


def test_an_entry_of_an_interval_that_is_not_kept_reaches_no_history() -> None:
    old, entries = killed_before_the_tail()
    at = log_at(old, int(old.block[lay.B_TAIL]))
    old.words[at + lay.W_REVISION_SLOT] |= 0x3F << 48
    feed = after(old)
    assert feed.engine.recover() == entries
    assert feed.stored(START) is None


def test_empty_slots_take_part_in_nothing() -> None:
    old, entries = killed_before_the_tail(slots=2)
    feed = after(old)
    assert feed.engine.recover() == entries
    assert volumes(feed.stored(START)) == (4, 1)
    assert feed.stored(START, slot=1) is None
    assert feed.live(slot=1)["open_time"] == 0


def test_memory_that_was_never_used_needs_nothing() -> None:
    feed = Feed(joined_s=None)
    assert feed.engine.recover() == 0
    feed.add()
    feed.trade(1, 10, 10, 4, 50)
    feed.assert_bar(4, 1)
