"""The market watch: who is mute, who is new, and what is not ours to judge."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.config import ExchangeConfig
from klshm.historian import watch as watch_module
from klshm.historian.health import Health
from klshm.historian.inbox import worker_inbox
from klshm.historian.symbols import SymbolBook
from klshm.historian.watch import MarketWatch, Mutes
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.shm.rows import write_row
from tests.historian.support import Consumers, listing, make_role
from tests.support.exchange import Exchange, exchange
from tests.support.segments import segment


T0 = 1_790_000_000_000
JOINED = T0 + 10_000


def joined(seen_id: int = 100) -> Mutes:
    mutes = Mutes()
    mutes.look(1, seen_id, T0)
    return mutes


def test_bar_that_stands_still_behind_the_exchange_is_in_doubt_since_it_stood_still() -> None:
    mutes = joined()
    assert mutes.look(1, 101, JOINED) is None
    mutes.tell(1, 105, JOINED)
    assert mutes.look(1, 101, JOINED + 2_000) is None
    assert mutes.look(1, 101, JOINED + 2_001) == JOINED
    assert mutes.doubted == 1
    assert mutes.look(1, 101, JOINED + 9_000) is None  # said once
    assert mutes.look(1, 106, JOINED + 9_500) is None and mutes.doubted == 0
    mutes.tell(1, 110, JOINED + 9_600)
    assert mutes.look(1, 106, JOINED + 12_000) == JOINED + 9_500  # and again when it happens again


def test_bar_that_moves_is_not_in_doubt_though_it_is_behind() -> None:
    mutes = joined()
    for step in range(20):
        now_ms = JOINED + step * 1_000
        mutes.tell(1, 1_000 + step, now_ms)
        assert mutes.look(1, 101 + step, now_ms) is None


def test_bar_that_is_level_is_not_in_doubt_however_long_nothing_trades() -> None:
    mutes = joined()
    mutes.tell(1, 100, JOINED)
    assert all(mutes.look(1, 100, JOINED + seconds * 1000) is None for seconds in range(100))
    mutes.tell(1, 101, JOINED + 100_000)  # its frame is under way
    assert mutes.look(1, 100, JOINED + 100_001) is None
    assert mutes.look(1, 101, JOINED + 100_300) is None


def test_trades_before_a_symbol_was_subscribed_are_not_missed() -> None:
    mutes = joined(-1)
    mutes.tell(1, 50, T0 + 4_999)
    assert all(mutes.look(1, -1, T0 + seconds * 1000) is None for seconds in range(60))
    mutes.tell(1, 51, T0 + 60_000)
    assert mutes.look(1, -1, T0 + 62_500) is not None


def test_symbol_that_left_begins_anew() -> None:
    mutes = joined()
    mutes.tell(1, 200, JOINED)
    assert mutes.look(1, 100, JOINED + 60_000) is not None
    mutes.forget(1)
    assert mutes.doubted == 0
    mutes.forget(1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 3_000)), max_size=60))
def test_doubt_needs_two_seconds_behind_without_a_move(steps: list[tuple[bool, int, int]]) -> None:
    mutes, now_ms, told, seen = joined(0), JOINED, -1, 0
    level_ms = T0  # when the bar last moved or was level
    for is_told, number, pause_ms in steps:
        now_ms += pause_ms
        if is_told:
            told = max(told, number)
            mutes.tell(1, number, now_ms)
        else:
            if number != seen or told <= number:
                level_ms = now_ms
            seen = number
            since_ms = mutes.look(1, seen, now_ms)
            if since_ms is not None:
                assert since_ms == level_ms and now_ms - since_ms > 2_000 and told > seen


class World:
    """A watch wired to the simulator, a table of its symbols and live bars that stand still."""

    def __init__(self, made: Any, sim: Exchange) -> None:
        self.made, self.sim = made, sim
        role = make_role(made, sim.rest_url)
        self.role = role
        health = Health(role)
        self.counters = health.counters
        self.book = SymbolBook(made)
        info = sim.get("/fapi/v1/exchangeInfo")["symbols"]
        trading = [s for s in info if s["status"] == "TRADING" and s["quoteAsset"] == "USDT"]
        self.book.add([listing(s["symbol"], s["onboardDate"]) for s in trading], {})
        self.asked = 0
        inboxes = [worker_inbox(made, w) for w in (0, 1)]
        config = ExchangeConfig(rest_url=sim.rest_url, ws_url=sim.rest_url.replace("http", "ws"))
        self.watch = MarketWatch(role, made, config, self.book, inboxes, health, now_ms, on_contract=self.on_contract)
        self.consumers = Consumers(made)

    def on_contract(self) -> None:
        self.asked += 1

    def live(self, slot: int, last_trade_id: int) -> None:
        """Write a live 1m bar as a worker does."""
        entry, layout = self.book.entries[slot], self.made.layout
        row = np.zeros(1, dtype=KLINE)
        row["state"], row["last_trade_id"] = lay.STATE_LIVE, last_trade_id
        at = layout.live_offset(entry.worker) // 8 + entry.local_slot * layout.intervals * lay.ROW_WORDS
        write_row(self.made.words, at, row.view(np.int64), 0)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def with_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Callable[[World], Coroutine[Any, Any, None]], *options: str
) -> None:
    monkeypatch.setattr(watch_module, "_JOIN_MS", 0)
    monkeypatch.setattr(watch_module, "_MUTE_MS", 300)
    monkeypatch.setattr(watch_module, "_REFRESH_S", 0.05)

    async def run(sim: Exchange) -> None:
        with segment(tmp_path, monkeypatch) as made:
            await main(World(made, sim))

    with exchange("--symbols", "4", "--rate", "80", *options) as sim:
        asyncio.run(run(sim))


def test_worker_of_a_mute_symbol_is_told_and_the_alarm_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main(world: World) -> None:
        for entry in world.book.entries[1:]:
            world.live(entry.slot, 1 << 60)  # ahead of everything the exchange can tell
        world.live(0, 7)
        began_ms = now_ms()
        task = asyncio.create_task(world.watch.run())
        await world.consumers.until(lambda: len(world.consumers.commands(lay.COMMAND_DOUBT)) > 0)
        (doubt,) = world.consumers.commands(lay.COMMAND_DOUBT)
        assert doubt["slot"] == 0 and began_ms <= doubt["open_time"] < now_ms() - 200
        assert len(world.consumers.inbox[world.book.entries[0].worker]) == 1
        assert world.counters.get("mutes_total") == 1 and world.counters.get("symbols_mute") == 1
        world.live(0, 1 << 60)
        await world.consumers.until(lambda: world.counters.get("symbols_mute") == 0)
        assert world.counters.get("mutes_total") == 1
        task.cancel()
        await asyncio.wait([task])

    with_world(tmp_path, monkeypatch, main)
    alarms = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(alarms) == 1 and "streams mute symbols=1 new=1" in alarms[0] and "exchange.ws_url" in alarms[0]


def test_announcements_that_come_together_are_one_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        task = asyncio.create_task(world.watch.run())
        await world.consumers.until(lambda: any(c["streams"] == 2 for c in world.sim.get("/sim/state")["connections"]))
        world.sim.fault(name="list_symbol", symbol="NEWUSDT", delay_s=60)
        await world.consumers.until(lambda: world.asked > 0)
        frame = b'{"stream":"!contractInfo","data":{"e":"contractInfo","s":"AUSDT"}}'
        before = world.asked
        for _ in range(10):
            world.watch.take(frame)
        await world.consumers.until(lambda: world.asked > before)
        await asyncio.sleep(0.2)
        assert world.asked == before + 1
        task.cancel()
        await asyncio.wait([task])

    with_world(tmp_path, monkeypatch, main)


def test_rows_of_other_markets_and_frames_that_make_no_sense_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        name = world.book.entries[0].name
        world.watch.look()

        def frame(row: str) -> bytes:
            return f'{{"stream":"!ticker@arr","data":[{row}]}}'.encode()

        world.watch.take(frame(f'{{"s":"{name}","L":9,"st":2}}'))
        world.watch.take(frame('{"s":"BTCUSD_PERP","L":9,"st":2},{"s":"OTHERUSDT","L":9,"st":1}'))
        for bad in (b"{", b'{"stream":"!ticker@arr","data":{}}', frame('{"s":"A","L":"x"}'), b"\xff"):
            world.watch.take(bad)
        assert world.watch.bad_frames == 4
        world.watch.take(b'{"stream":"other","data":[]}')
        await asyncio.sleep(0.4)
        world.watch.look()
        assert world.counters.get("mutes_total") == 0
        world.watch.take(frame(f'{{"s":"{name}","L":9}}'))  # `st` is younger than the stream
        await asyncio.sleep(0.4)
        world.watch.look()
        assert world.counters.get("mutes_total") == 1

    with_world(tmp_path, monkeypatch, main)
    assert caplog.text.count("market frame refused") == 1


def test_row_of_a_killed_worker_and_symbols_that_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.live(0, 7)
        entry, layout = world.book.entries[0], world.made.layout
        at = layout.live_offset(entry.worker) // 8 + entry.local_slot * layout.intervals * lay.ROW_WORDS
        world.made.words[at] |= 1  # for ever half written
        world.watch.look()
        gone = world.book.entries[1]
        world.watch.take(f'{{"stream":"!ticker@arr","data":[{{"s":"{gone.name}","L":9}}]}}'.encode())
        world.book.replace([dataclasses.replace(gone, status=lay.SYMBOL_DELISTED)])
        await asyncio.sleep(0.4)
        world.watch.look()
        assert world.counters.get("mutes_total") == 0

    with_world(tmp_path, monkeypatch, main)
