"""Bars as they close: each once, at its moment, none lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import klshm
from klshm.errors import EngineGone, UnknownInterval, UnknownSymbol, WaitTimeout
from klshm.read import Bar
from klshm.shm import layout as lay
from tests.support.desk import MINUTE, START, Desk


PROVISIONAL = lay.FLAG_PROVISIONAL
CONFIRMED = lay.STATE_CONFIRMED


def drain(bars: Iterator[Bar]) -> list[Bar]:
    """Take what is there."""
    taken = []
    with pytest.raises(WaitTimeout):
        for bar in bars:
            taken.append(bar)  # noqa: PERF402
    return taken


def minutes(bars: list[Bar]) -> list[int]:
    return [(bar.open_time - START) // MINUTE for bar in bars]


@pytest.fixture
def reader(desk: Desk) -> Iterator[klshm.Reader]:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for interval, step in (("1m", MINUTE), ("5m", 5 * MINUTE)):
            desk.live(symbol, interval, START // step * step)
    desk.settle(START)
    desk.publish(closed_through_ms=START)
    with klshm.attach("test") as reader:
        yield reader


@pytest.mark.parametrize("wait", ["futex", "spin"])
def test_a_bar_comes_once_at_the_tick(desk: Desk, reader: klshm.Reader, wait: klshm.read.reader.Wait) -> None:
    reader._wait = wait
    bars = reader.closed(when="tick", timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL, volume=1)
    desk.publish()
    assert next(bars).volume == 1
    desk.log("BTCUSDT", "1m", START, revision=2, volume=2)
    desk.log("BTCUSDT", "1m", START, revision=3, volume=2, state=CONFIRMED)
    desk.publish()
    assert drain(bars) == []


def test_a_provisional_bar_waits_for_its_settling(desk: Desk, reader: klshm.Reader) -> None:
    def follow() -> Iterator[Bar]:
        return reader.closed(timeout_s=0.02)

    bars = follow()
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL, volume=1)
    desk.publish()
    assert drain(bars) == []
    bars = follow()
    desk.settle(START + MINUTE)
    assert [b.volume for b in drain(bars)] == [1], "no entry tells that a bar settled unchanged"


@pytest.mark.parametrize(
    "settled", [{"flags": 0}, {"flags": PROVISIONAL, "state": CONFIRMED}], ids=["not-provisional", "confirmed"]
)
def test_settle_yields_the_amended_bar(desk: Desk, reader: klshm.Reader, settled: dict[str, Any]) -> None:
    bars = reader.closed(timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL, volume=1)
    desk.log("BTCUSDT", "1m", START, revision=2, volume=2, **settled)
    desk.publish()
    assert [b.volume for b in drain(bars)] == [2]


def test_settling_yields_the_newest_revision_seen(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL, volume=1)
    desk.log("BTCUSDT", "1m", START, revision=3, volume=3, flags=PROVISIONAL)
    desk.log("BTCUSDT", "1m", START, revision=2, volume=2, flags=PROVISIONAL)
    desk.publish()
    desk.settle(START + MINUTE)
    assert [(b.revision, b.volume) for b in drain(bars)] == [(3, 3)]


def test_confirmed_bars_may_come_out_of_order(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(when="confirmed", intervals=["1m"], timeout_s=0.02)
    for minute in range(3):
        desk.tick("BTCUSDT", "1m", START + minute * MINUTE)
    desk.settle(START + 3 * MINUTE)
    for minute in (2, 0, 1, 2):
        desk.log("BTCUSDT", "1m", START + minute * MINUTE, revision=2, state=CONFIRMED)
    desk.publish()
    assert sorted(minutes(drain(bars))) == [0, 1, 2]


def test_confirmation_of_bars_that_closed_before_the_call(desk: Desk, reader: klshm.Reader) -> None:
    for minute in range(2):
        desk.tick("BTCUSDT", "1m", START + minute * MINUTE, state=CONFIRMED if minute == 0 else lay.STATE_CLOSED)
    desk.publish()
    bars = reader.closed(when="confirmed", timeout_s=0.02)
    desk.log("BTCUSDT", "1m", START, revision=2, state=CONFIRMED, flags=lay.FLAG_CORRECTED)
    desk.log("BTCUSDT", "1m", START + MINUTE, revision=2, state=CONFIRMED)
    desk.publish()
    assert minutes(drain(bars)) == [1], "minute 0 had been confirmed before"


def test_bars_under_way_at_the_call_settle_after_it(desk: Desk, reader: klshm.Reader) -> None:
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL)
    desk.tick("ETHUSDT", "1m", START)
    desk.publish()
    bars = reader.closed(timeout_s=0.02)
    desk.settle(START + MINUTE)
    assert [b.symbol for b in drain(bars)] == ["BTCUSDT"], "ETHUSDT had its moment before the call"


def test_revisions_are_yielded_when_wanted(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(when="tick", revisions=True, timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START, volume=1)
    desk.log("BTCUSDT", "1m", START, volume=1)
    desk.log("BTCUSDT", "1m", START, volume=1, state=CONFIRMED)
    desk.log("BTCUSDT", "1m", START, volume=2, revision=2, state=CONFIRMED, flags=lay.FLAG_CORRECTED)
    desk.log("BTCUSDT", "1m", START - MINUTE, volume=9, revision=5)
    desk.publish()
    assert [(b.volume, b.state, b.flags) for b in drain(bars)] == [
        (1, "closed", ()),
        (1, "confirmed", ()),
        (2, "confirmed", ("corrected",)),
    ]


def test_since_replays_and_follows_without_gap_or_repeat(desk: Desk, reader: klshm.Reader) -> None:
    for minute in range(-6, 0):
        desk.keep("BTCUSDT", "1m", START + minute * MINUTE)
    desk.keep("BTCUSDT", "5m", START // (5 * MINUTE) * 5 * MINUTE - 5 * MINUTE)
    bars = reader.closed(symbols=["BTCUSDT"], since=START - 4 * MINUTE + 1, timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START)
    desk.publish()
    taken = [b for b in drain(bars) if b.interval == "1m"]
    assert minutes(taken) == [-4, -3, -2, -1, 0]


def test_since_puts_the_bars_of_all_symbols_in_order(desk: Desk, reader: klshm.Reader) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for minute in (-2, -1):
            desk.keep(symbol, "1m", START + minute * MINUTE)
    taken = drain(reader.closed(intervals=["1m"], since=START - 2 * MINUTE, timeout_s=0.02))
    assert [b.symbol for b in taken] == ["BTCUSDT", "ETHUSDT"] * 2, "oldest first"
    assert minutes(taken) == [-2, -2, -1, -1]


def test_only_what_is_wanted_comes(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(symbols=["ETHUSDT"], intervals=["5m"], when="tick", timeout_s=0.02)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        desk.tick(symbol, "1m", START)
        desk.tick(symbol, "5m", START // (5 * MINUTE) * 5 * MINUTE)
    desk.publish()
    assert [(b.symbol, b.interval) for b in drain(bars)] == [("ETHUSDT", "5m")]


def test_a_new_listing_appears_by_itself(desk: Desk, reader: klshm.Reader) -> None:
    for when in ("tick", "settle", "confirmed"):
        bars = reader.closed(when=when, timeout_s=0.02)  # type: ignore[arg-type]
        name = f"NEW{when.upper()}USDT"
        desk.list_symbol(name)
        desk.tick(name, "1m", START, state=CONFIRMED)
        desk.tick(name, "1m", START + MINUTE, state=CONFIRMED)
        desk.publish()
        assert [b.open_time for b in drain(bars) if b.symbol == name] == [START, START + MINUTE]


def test_a_bar_that_was_never_logged_is_taken_from_history(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(when="tick", timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START)
    desk.keep("BTCUSDT", "1m", START + MINUTE)
    desk.tick("BTCUSDT", "1m", START + 2 * MINUTE)
    desk.publish()
    assert minutes(drain(bars)) == [0, 1, 2]


def test_a_bar_that_is_repaired_later_still_comes(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed(when="tick", intervals=["1m"], timeout_s=0.02)
    desk.tick("BTCUSDT", "1m", START + MINUTE)
    desk.keep("BTCUSDT", "1m", START)
    desk.tick("BTCUSDT", "1m", START + 2 * MINUTE)
    desk.publish()
    assert sorted(minutes(drain(bars))) == [0, 1, 2]


@pytest.mark.parametrize("when", ["tick", "settle", "confirmed"])
def test_nothing_is_lost_when_the_log_overruns(make_desk: Callable[..., Desk], when: Any) -> None:
    desk = make_desk(log_rows=16)
    for name in ("BTCUSDT", "ETHUSDT"):
        desk.list_symbol(name)
        desk.live(name, "1m", START)
    desk.publish(closed_through_ms=START)
    desk.set_clock(START + 100)
    with klshm.attach("test") as reader:
        bars = reader.closed(intervals=["1m"], when=when, timeout_s=0.02)
        desk.list_symbol("NEWUSDT")
        for minute in range(20):
            for name in ("BTCUSDT", "ETHUSDT", "NEWUSDT"):
                desk.tick(name, "1m", START + minute * MINUTE, flags=PROVISIONAL)
                desk.log(name, "1m", START + minute * MINUTE, revision=2, state=CONFIRMED)
            desk.publish()
        taken = drain(bars)
        for name in ("BTCUSDT", "ETHUSDT", "NEWUSDT"):
            times = [b.open_time for b in taken if b.symbol == name]
            assert sorted(times) == [START + minute * MINUTE for minute in range(20)]


def test_mistakes_are_told_at_the_call(reader: klshm.Reader) -> None:
    with pytest.raises(UnknownSymbol):
        reader.closed(symbols=["XRPUSDT"])
    with pytest.raises(UnknownInterval):
        reader.closed(intervals=["2h"])
    with pytest.raises(ValueError, match="when = 'later'"):
        reader.closed(when="later")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lists of names"):
        reader.closed(symbols="BTCUSDT")


def test_following_ends_with_the_engine(desk: Desk, reader: klshm.Reader) -> None:
    bars = reader.closed()
    desk.words[lay.H_STATE] = lay.STATE_CLOSED
    with pytest.raises(EngineGone, match="stopped"):
        next(bars)


def test_the_waiting_reader_is_woken(desk: Desk, reader: klshm.Reader) -> None:
    taken: list[Bar] = []
    bars = reader.closed(when="tick", timeout_s=30)
    thread = threading.Thread(target=lambda: taken.append(next(bars)))
    thread.start()
    desk.tick("BTCUSDT", "1m", START)
    desk.publish()
    thread.join()
    assert minutes(taken) == [0]


def test_a_wait_looks_for_settling_which_moves_no_log(desk: Desk, reader: klshm.Reader) -> None:
    follower = reader._follower(None, None, None, "settle", False)
    desk.tick("BTCUSDT", "1m", START, flags=PROVISIONAL)
    desk.publish()
    assert follower.poll() == []
    assert not follower.wait(600), "without a look at the settling this runs into the test's own timeout"


def test_the_asynchronous_iterator_yields_the_same(desk: Desk, reader: klshm.Reader) -> None:
    async def follow() -> list[Bar]:
        taken: list[Bar] = []
        with pytest.raises(WaitTimeout):
            async for bar in reader.aclosed(when="tick", since=START - MINUTE, timeout_s=0.02):
                taken.append(bar)
                desk.tick("BTCUSDT", "1m", START)
                desk.publish()
        return taken

    desk.keep("BTCUSDT", "1m", START - MINUTE)
    assert minutes(asyncio.run(follow())) == [-1, 0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["tick", "amend", "confirm", "settle", "poll"]), st.integers(0, 9)), max_size=60
    ),
    when=st.sampled_from(["tick", "settle", "confirmed"]),
)
def test_each_bar_comes_exactly_once(make_desk: Callable[..., Desk], steps: list[tuple[str, int]], when: Any) -> None:
    """Whatever the order of entries, every bar comes once and no earlier than its moment."""
    test_each_bar_comes_exactly_once.count += 1  # type: ignore[attr-defined]
    desk = make_desk(f"h{test_each_bar_comes_exactly_once.count}", log_rows=16)  # type: ignore[attr-defined]
    desk.list_symbol("BTCUSDT")
    desk.live("BTCUSDT", "1m", START)
    desk.publish(closed_through_ms=START)
    ticked, confirmed, settled, revision = 0, set(), 0, 1
    taken: list[Bar] = []
    with klshm.attach(desk.segment.path.name.removeprefix("klshm.")) as reader:
        follower = reader._follower(None, ["1m"], None, when, False)
        for step, number in steps:
            desk.beat()
            revision += 1
            open_time = START + number * MINUTE
            if step == "tick":
                desk.tick("BTCUSDT", "1m", START + ticked * MINUTE, flags=PROVISIONAL, revision=revision)
                ticked += 1
            elif step == "amend" and number < ticked and number not in confirmed:
                desk.log("BTCUSDT", "1m", open_time, flags=PROVISIONAL, revision=revision)
            elif step == "confirm" and number < ticked:
                confirmed.add(number)
                desk.log("BTCUSDT", "1m", open_time, state=CONFIRMED, revision=revision)
            elif step == "settle":
                settled = max(settled, min(number, ticked))
                desk.settle(START + settled * MINUTE)
            desk.publish()
            if step == "poll":
                taken += follower.poll()
        taken += follower.poll()
        del follower
    expected = {
        "tick": set(range(ticked)),
        "settle": set(range(settled)) | confirmed,
        "confirmed": confirmed,
    }[when]
    assert sorted(minutes(taken)) == sorted(expected)


test_each_bar_comes_exactly_once.count = 0  # type: ignore[attr-defined]
