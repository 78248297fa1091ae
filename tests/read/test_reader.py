"""The reader on real segments."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

import klshm
from klshm.errors import (
    EngineGone,
    ReadError,
    StaleData,
    UnknownInterval,
    UnknownSymbol,
    WaitTimeout,
)
from klshm.shm import layout as lay
from tests.support.desk import MINUTE, START, Desk


def test_live_returns_the_newest_state_of_the_open_bar(desk: Desk) -> None:
    desk.live("BTCUSDT", "1m", START, close=101.25, volume=float("13.551"), flags=lay.FLAG_PARTIAL)
    with klshm.attach("test") as reader:
        bar = reader.live("BTCUSDT", "1m")
        assert (bar.symbol, bar.interval, bar.open_time, bar.close_time) == (
            "BTCUSDT",
            "1m",
            START,
            START + MINUTE - 1,
        )
        assert bar.volume == float("13.551") and bar["close"] == 101.25
        assert (bar.state, bar.flags) == ("live", ("partial",))
        desk.live("BTCUSDT", "1m", START, close=102.0)
        assert reader.live("BTCUSDT", "1m").close == 102.0
        assert bar.close == 101.25, "what was handed out is a copy"


def test_a_symbol_without_a_bar_is_said_to_have_none(desk: Desk) -> None:
    with klshm.attach("test") as reader, pytest.raises(StaleData, match="ETHUSDT 1m has no bar yet"):
        reader.live("ETHUSDT", "1m")


def test_unknown_names_are_answered_with_known_ones(desk: Desk) -> None:
    with klshm.attach("test") as reader:
        with pytest.raises(UnknownSymbol, match="nearest are BTCUSDT"):
            reader.live("BTCUSD", "1m")
        with pytest.raises(UnknownSymbol, match="carries 2 symbols"):
            reader.history("XXXX", "1m", 5)
        with pytest.raises(UnknownInterval, match="kept are 1m, 5m"):
            reader.history("BTCUSDT", "2h", 5)


def test_history_is_oldest_first_and_leaves_out_what_is_missing(desk: Desk) -> None:
    for minute in (1, 2, 4, 5):
        desk.keep("BTCUSDT", "1m", START - minute * MINUTE, volume=minute)
    desk.live("BTCUSDT", "1m", START, volume=99)
    with klshm.attach("test") as reader:
        rows = reader.history("BTCUSDT", "1m", 4)
        assert rows["volume"].tolist() == [4, 2, 1]
        assert reader.history("BTCUSDT", "1m", 2, include_live=True)["volume"].tolist() == [2, 1, 99]
        assert len(reader.history("BTCUSDT", "1m", 0)) == 0
        assert rows.base is None or rows.flags.owndata or not np.shares_memory(rows, desk.words)
        with pytest.raises(ValueError, match="limit = -1"):
            reader.history("BTCUSDT", "1m", -1)


def test_history_of_a_symbol_without_an_open_bar_ends_at_the_exchange_clock(desk: Desk) -> None:
    desk.set_clock(START + 30_000)
    desk.keep("ETHUSDT", "1m", START - MINUTE, volume=7)
    with klshm.attach("test") as reader:
        assert reader.history("ETHUSDT", "1m", 3)["volume"].tolist() == [7]


def test_history_of_a_delisted_symbol_ends_with_its_delivery(desk: Desk) -> None:
    desk.set_clock(START + 5000 * MINUTE)
    desk.keep("ETHUSDT", "1m", START - MINUTE, volume=7)
    delivery = desk.layout.symbols_offset // 8 + desk.symbols["ETHUSDT"][0] * lay.SYMBOL_WORDS + 8
    desk.words[delivery] = START
    desk.set_status("ETHUSDT", lay.SYMBOL_DELISTED)
    with klshm.attach("test") as reader:
        assert reader.source.table.row(1)["delivery_ms"] == START
        assert reader.history("ETHUSDT", "1m", 3)["volume"].tolist() == [7]


def test_symbols_follow_the_table(desk: Desk) -> None:
    with klshm.attach("test") as reader:
        assert reader.symbols() == ["BTCUSDT", "ETHUSDT"]
        desk.list_symbol("币安人生USDT")
        desk.set_status("BTCUSDT", lay.SYMBOL_DELISTED)
        assert reader.symbols() == ["ETHUSDT", "币安人生USDT"]
        desk.live("币安人生USDT", "1m", START)
        assert reader.live("币安人生USDT", "1m").symbol == "币安人生USDT"


def test_a_snapshot_is_what_was_published(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(workers=2)
    for worker, name in enumerate(("BTCUSDT", "ETHUSDT")):
        desk.list_symbol(name, worker)
        desk.live(name, "1m", START, volume=1.0 + worker)
    desk.publish(closed_through_ms=START, exchange_ms=START + 20)
    desk.live("BTCUSDT", "1m", START, volume=50.0)
    with klshm.attach("test") as reader:
        taken = reader.snapshot()
        assert taken.symbols == ("BTCUSDT", "ETHUSDT") and taken.intervals == ("1m", "5m")
        assert taken.rows.shape == (2, 2)
        assert taken.bar("BTCUSDT", "1m").volume == 1.0
        assert taken.bar("ETHUSDT", "1m").volume == 2.0
        assert [(b.symbol, b.interval) for b in taken.bars()] == [("BTCUSDT", "1m"), ("ETHUSDT", "1m")]
        assert taken.cut_exchange_ms == (START + 20, START + 20)
        assert taken.closed_through_ms == START
        with pytest.raises(UnknownSymbol):
            taken.bar("XRPUSDT", "1m")
        with pytest.raises(UnknownInterval):
            taken.bar("BTCUSDT", "1w")


@pytest.mark.parametrize("wait", ["futex", "spin"])
def test_a_snapshot_can_wait_for_a_minute_to_close_everywhere(desk: Desk, wait: klshm.read.reader.Wait) -> None:
    desk.live("BTCUSDT", "1m", START)
    desk.publish(closed_through_ms=START)
    with klshm.attach("test", wait=wait) as reader:
        with pytest.raises(WaitTimeout, match=f"closed through {START}, waited 0.05 s"):
            reader.snapshot(closed_through=START + MINUTE, timeout_s=0.05)

        def close_the_minute() -> None:
            time.sleep(0.05)
            desk.tick("BTCUSDT", "1m", START)
            desk.publish(closed_through_ms=START + MINUTE)

        thread = threading.Thread(target=close_the_minute)
        thread.start()
        assert reader.snapshot(closed_through=START + MINUTE).bar("BTCUSDT", "1m").open_time == START + MINUTE
        thread.join()


def test_a_worker_without_symbols_holds_no_snapshot_back(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(workers=2)
    desk.list_symbol("BTCUSDT", 0)
    desk.live("BTCUSDT", "1m", START)
    desk.publish(closed_through_ms=START)
    desk.words[desk.block(1) + lay.B_CUT : desk.block(1) + lay.B_CUT + 8] = 0
    with klshm.attach("test") as reader:
        assert reader.snapshot(closed_through=START, timeout_s=0.0).closed_through_ms == START


def test_a_snapshot_is_closed_through_what_all_workers_have_closed(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(workers=2)
    for worker, name in enumerate(("BTCUSDT", "ETHUSDT")):
        desk.list_symbol(name, worker)
        desk.live(name, "1m", START)
    desk.publish(closed_through_ms=START)
    for half in (0, 1):
        desk.words[desk.block(1) + lay.B_CUT + half * lay.CUT_WORDS + lay.CUT_CLOSED_THROUGH_MS] = START - MINUTE
    with klshm.attach("test") as reader:
        assert reader.snapshot().closed_through_ms == START - MINUTE
        with pytest.raises(WaitTimeout):
            reader.snapshot(closed_through=START, timeout_s=0.0)


def test_reads_of_a_silent_worker_are_refused(make_desk: Callable[..., Desk]) -> None:
    desk = make_desk(workers=2)
    for worker, name in enumerate(("BTCUSDT", "ETHUSDT")):
        desk.list_symbol(name, worker)
        desk.live(name, "1m", START)
    desk.publish()
    with klshm.attach("test", stale_after_s=0.3, gone_after_s=600.0) as reader:
        assert reader.live("ETHUSDT", "1m")
        with pytest.raises(StaleData, match="worker 1 of .* last showed life"):
            while True:  # the last look is believed for a moment
                desk.beat_worker(1, 0.4)
                reader.live("ETHUSDT", "1m")
        assert reader.live("BTCUSDT", "1m"), "the other worker's rows are fresh"
        with pytest.raises(StaleData):
            reader.snapshot()
        with pytest.raises(StaleData):
            reader.history("ETHUSDT", "1m", 1)
        desk.beat_worker(1, 601.0)
        with pytest.raises(EngineGone, match="more than 600 s"):
            reader.live("ETHUSDT", "1m")


@pytest.mark.parametrize(
    ("state", "words"), [(lay.STATE_CLOSED, "stopped"), (lay.STATE_SUPERSEDED, "was replaced by a new one")]
)
def test_a_reader_notices_that_the_engine_ended(desk: Desk, state: int, words: str) -> None:
    with klshm.attach("test") as reader:
        desk.words[lay.H_STATE] = state
        with pytest.raises(EngineGone, match=words):
            while True:
                reader.check()


def test_a_reader_notices_that_the_segment_was_replaced(desk: Desk, make_desk: Callable[..., Desk]) -> None:
    with klshm.attach("test") as reader:
        desk.segment.unlink()
        with pytest.raises(EngineGone, match="was removed"):
            while True:
                reader.check()
        make_desk("test")
        with pytest.raises(EngineGone, match="belongs to a new engine"):
            reader.check()


def maps(desk: Desk) -> int:
    with open("/proc/self/maps") as lines:
        return sum(str(desk.segment.path) in line for line in lines)


def test_a_closed_reader_leaves_no_map(desk: Desk) -> None:
    before = maps(desk)
    reader = klshm.attach("test")
    assert maps(desk) == before + 1
    rows = reader.history("BTCUSDT", "1m", 5, include_live=True)
    snapshot = reader.snapshot()
    reader.close()
    reader.close()
    assert maps(desk) == before
    assert len(rows) == 0 and len(snapshot) == 2


def test_a_reader_shows_what_it_is(desk: Desk) -> None:
    with klshm.attach("test") as reader:
        assert repr(reader) == "<klshm.Reader test symbols=2 intervals=1m,5m>"
        assert reader._repr_html_().startswith("<table>")
        assert reader.config.instance == "test"


def test_an_error_inside_the_block_is_the_one_that_is_seen(desk: Desk) -> None:
    before = maps(desk)
    with pytest.raises(UnknownSymbol) as raised, klshm.attach("test") as reader:
        reader.live("XRPUSDT", "1m")
    assert maps(desk) == before and raised.value.__traceback__, "though the error's frames are still held"
    with pytest.raises(WaitTimeout), klshm.attach("test") as reader:
        bars = reader.closed(timeout_s=0)
        next(bars)
    with pytest.raises(ReadError, match="this reader is closed; attach again"):
        reader.symbols()


def test_a_follower_ends_with_its_reader(desk: Desk) -> None:
    with klshm.attach("test") as reader:
        bars = reader.closed()
    with pytest.raises(ReadError, match="this reader is closed"):
        next(bars)


def test_closing_is_quiet_while_a_view_is_held(desk: Desk) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    reader = klshm.attach("test")
    view = reader.source.views[0]
    reader.close()
    assert view.generation == 0, "what is mapped stays mapped for those who look"
    del view, reader
    assert len(os.listdir("/proc/self/fd")) == descriptors
