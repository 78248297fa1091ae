"""Hours without an engine: what a worker makes of a seeded segment claims nothing, and ends as the exchange's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm import intervals
from klshm.core.engine import partition_layout
from klshm.shm import layout as lay
from klshm.shm.layout import SYMBOL
from klshm.shm.segment import Segment, create_segment
from klshm.store.remains import remains
from klshm.store.restore import Seeding
from klshm.store.state import State
from tests.core.feed import CONFIRMED, LIVE, MINUTE, MONDAY, PARTIAL, Feed


NAMES = ("1m", "5m", "30m", "4h", "1d", "1w")
START = MONDAY + 100_000 * 5 * MINUTE
KNOWN = 40
"""Minutes that closed before the engine ended."""
DEPTH = 128


@pytest.fixture
def segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Segment]]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    made = [create_segment(name, partition_layout(1, history_rows=DEPTH), b"{}") for name in ("one", "two")]
    yield made
    for segment in made:
        segment.unlink()


def official(minute: int) -> dict[str, Any]:
    """Return what the exchange says of a minute."""
    low = 100 + minute % 9
    return {"v": 1 + minute % 7, "n": 1 + minute % 5, "prices": (low + 1, low + 3, low, low + 2)}


def wanted(open_time: int, length: int) -> tuple[float, ...]:
    """Return the fold of the exchange's minutes."""
    first = (open_time - START) // MINUTE
    rows = [official(minute) for minute in range(first, first + length // MINUTE)]
    prices = [row["prices"] for row in rows]
    extremes = prices[0][0], max(p[1] for p in prices), min(p[2] for p in prices), prices[-1][3]
    return (*extremes, sum(row["v"] for row in rows), sum(row["n"] for row in rows))


def cells(row: Any) -> tuple[float, ...]:
    return tuple(float(row[name]) for name in ("open", "high", "low", "close", "volume", "trade_count"))


def table() -> Any:
    rows = np.zeros(1, dtype=SYMBOL)
    rows["name"], rows["status"], rows["onboard_ms"] = b"ETHUSDT", lay.SYMBOL_TRADING, START
    return rows


def run_and_die(segment: Segment) -> Feed:
    """Know `KNOWN` minutes, and something of the next."""
    feed = Feed(start=START, joined_s=None, memory=segment.words, history_rows=DEPTH)
    feed.at(KNOWN * 60 + 49)
    feed.add(0, symbol=0, origin=START)
    for minute in range(KNOWN):
        feed.rest(minute=minute, age_s=120, **official(minute))
    feed.now = START + KNOWN * MINUTE + 50_000
    feed.trade(1, 10, 10, 1, KNOWN * 60 + 50)
    feed.frame(10, 1, 1, minute=KNOWN)
    feed.engine.publish(1)
    Seeding(segment, table()).put_symbols()
    return feed


@pytest.mark.parametrize("gap", [0, 1, 3, 60, 600, 3 * 7 * 1440])
def test_after_a_gap_bars_claim_nothing_and_end_equal(segments: list[Segment], gap: int) -> None:
    one, two = segments
    run_and_die(one)
    now_minute = KNOWN + gap
    seeding = Seeding(two, table())
    left = remains(one, whole=True)
    seeding.put_state(left)
    seeding.put_live([left], START + now_minute * MINUTE + 55_000)
    seeding.put_symbols()
    assert seeding.report.not_resumed == (gap > 499)
    feed = Feed(start=START, joined_s=None, memory=two.words, history_rows=DEPTH)
    feed.at(now_minute * 60 + 55)
    feed.engine.recover()
    feed.add(0, symbol=0, origin=START)
    feed.tick(now_minute)
    feed.check()
    # What is known is known as before; of the rest nothing is claimed.
    oldest = max(0, now_minute - (DEPTH - 2))
    for minute in range(oldest, now_minute):
        row = feed.stored(START + minute * MINUTE)
        if minute < KNOWN:
            assert cells(row) == wanted(START + minute * MINUTE, MINUTE)
        else:
            assert row is None or row["flags"] & PARTIAL
    for name in NAMES:
        live = feed.live(name)
        assert live["state"] == (LIVE if gap <= 499 else lay.STATE_EMPTY)
        assert live["state"] == lay.STATE_EMPTY or live["flags"] & PARTIAL
    if 0 < gap <= 60:
        assert (feed.need()["from_ms"], feed.need()["to_ms"]) == (
            START + KNOWN * MINUTE,
            START + (now_minute - 1) * MINUTE,
        )
    # The exchange's rows make it good, and all that is folded from them.
    for minute in range(max(KNOWN, oldest), now_minute):
        feed.rest(minute=minute, age_s=120, **official(minute))
    for name in ("1m", "5m", "30m"):
        length = intervals.length_ms(name)
        first = -(-(START + oldest * MINUTE) // length) * length
        opened = range(first, intervals.open_time_of(name, START + now_minute * MINUTE), length)
        assert name == "30m" or len(opened)
        for open_time in opened:
            row = feed.stored(open_time, name)
            assert row is not None and cells(row) == wanted(open_time, length), (name, open_time)
            assert row["state"] == CONFIRMED and not row["flags"] & PARTIAL
    feed.check()
    assert feed.need()["reason"] == 0


def test_what_was_backfilled_while_no_engine_ran_is_not_closed_over(segments: list[Segment]) -> None:
    one, two = segments
    run_and_die(one)
    left = remains(one, whole=True)
    end = KNOWN + 18
    later = [KNOWN + 10 + number for number in range(8)]
    minutes = np.concatenate(tuple(left.closed))
    backfilled = minutes[minutes["interval"] == 0][: len(later)].copy()
    backfilled["open_time"] = [START + minute * MINUTE for minute in later]
    state = State("snapshot", left.symbols, left.live, (minutes, backfilled), START + end * MINUTE)
    seeding = Seeding(two, table())
    seeding.put_state(state)
    seeding.put_live([state], START + end * MINUTE + 5000)
    seeding.put_symbols()
    feed = Feed(start=START, joined_s=None, memory=two.words, history_rows=DEPTH)
    feed.at(end * 60 + 5)
    feed.engine.recover()
    feed.add(0, symbol=0, origin=START)
    feed.tick(end)
    feed.check()
    for minute, row in zip(later, backfilled, strict=True):
        found = feed.stored(START + minute * MINUTE)
        assert found["state"] == CONFIRMED and cells(found) == cells(row)
    # The hole before them is asked for.
    assert (feed.need()["from_ms"], feed.stored(START + (KNOWN + 5) * MINUTE)) == (START + KNOWN * MINUTE, None)
