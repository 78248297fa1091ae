"""A worker killed between any two steps of a closing wave: what readers see then, what its successor makes of it."""

from __future__ import annotations

import mmap
import signal
from typing import Any

import numpy as np
import pytest

from klshm.core.engine import partition_layout
from klshm.intervals import length_ms
from klshm.shm import layout as lay
from klshm.shm.crash import IN_KERNELS
from klshm.shm.layout import KLINE, ROW_WORDS
from tests.core.feed import CELLS, MINUTE, MONDAY, Feed
from tests.support.processes import exit_code, fork


SLOTS = 3
OPEN = MONDAY - MINUTE
"""The minute whose end closes a bar of every interval."""
INTERVALS = ("1m", "5m", "30m", "4h", "1d", "1w")


def shared_words() -> Any:
    """Return words that a forked process shares with this one."""
    return np.frombuffer(mmap.mmap(-1, partition_layout(SLOTS).total_bytes), dtype=np.int64)


def traded() -> Feed:
    """Return a feed whose symbols have traded in the week's last minute; half of it is published.

    What the exchange confirms in the end is a little less than they traded for: bars change then.
    """
    feed = Feed(SLOTS, start=OPEN, memory=shared_words())
    for slot in range(SLOTS):
        feed.trade(1, 10, 10, 4, 50.0, 100 + slot, slot=slot)
        feed.frame(10, 4, 1, slot=slot, prices=(100 + slot,) * 4)
        feed.engine.publish(1)
        feed.trade(2, 11, 12, 2, 55.0, 100 + slot, slot=slot)
    return feed


def wave(feed: Feed) -> None:
    """The minute ends: every bar closes, settles and is confirmed."""
    feed.tick(1)
    feed.engine.publish(2)
    feed.settle(1)
    for slot in range(SLOTS):
        feed.frame(12, 6, 3, slot=slot, final=True, prices=(100 + slot,) * 4)
    feed.engine.publish(3)


def killed(point: str, passes: int) -> Feed | None:
    """Return the feed of an engine that died there; None: it never passed so often."""
    feed = traded()

    def worker() -> None:
        feed.engine.crash_at(IN_KERNELS[point] << 32 | passes)
        wave(feed)

    code = exit_code(fork(worker))
    assert code in (0, -signal.SIGKILL)
    return feed if code else None


def entries(feed: Feed) -> list[Any]:
    """Return every log entry before the tail."""
    at = feed.layout.log_offset(0) // 8
    tail = int(feed.block[lay.B_TAIL])
    return list(feed.words[at : at + tail * ROW_WORDS].copy().view(KLINE))


def cells(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in CELLS)


def newest(rows: list[Any]) -> dict[tuple[int, int, int], Any]:
    """Return the last entry of every bar."""
    return {(int(row["slot"]), int(row["interval"]), int(row["open_time"])): row for row in rows}


def check_what_readers_see(feed: Feed) -> None:
    """A log entry is in history; a live bar has the closed one before it; the half is whole."""
    for row in entries(feed):
        interval = INTERVALS[feed.layout.interval_codes.index(int(row["interval"]))]
        kept = feed.stored(int(row["open_time"]), interval, int(row["slot"]) - 7)
        assert kept is not None and kept["revision"] >= row["revision"]
    for slot in range(SLOTS):
        for interval in INTERVALS:
            row = feed.live(interval, slot)
            assert row["sequence"] % 2 == 0
            if row["open_time"] == MONDAY:
                last = feed.stored(OPEN if interval == "1m" else MONDAY - length_ms(interval), interval, slot)
                assert last is not None
    generation = int(feed.block[lay.B_GENERATION])
    assert int(feed.block[lay.B_INTENT]) - generation in (0, 1)


@pytest.fixture(scope="module")
def undisturbed() -> dict[tuple[int, int, int], Any]:
    feed = traded()
    wave(feed)
    return newest(entries(feed))


@pytest.mark.parametrize("point", IN_KERNELS)
def test_killed_at_every_passing_of_a_point(point: str, undisturbed: dict[tuple[int, int, int], Any]) -> None:
    passes = 0
    while (left := killed(point, passes + 1)) is not None:
        passes += 1
        check_what_readers_see(left)
        after = Feed(SLOTS, start=OPEN, joined_s=None, memory=left.words)
        after.now = left.now
        after.engine.recover()
        for slot in range(SLOTS):
            after.add(slot)
        wave(after)
        check_what_readers_see(after)
        found = newest(entries(after))
        assert found.keys() == undisturbed.keys(), f"passing {passes}"
        for key, row in found.items():
            assert cells(row) == cells(undisturbed[key]), f"passing {passes}: {key}"
            assert row["state"] == undisturbed[key]["state"], f"passing {passes}: {key}"
    assert passes >= 1, "the wave passes it"


def test_a_crash_word_of_another_point_or_none_kills_nobody() -> None:
    feed = traded()
    for word in (0, 99 << 32 | 1, IN_KERNELS["worker.swapped"] << 32 | 1_000_000):
        feed.engine.crash_at(word)
        assert exit_code(fork(lambda: wave(feed))) == 0
