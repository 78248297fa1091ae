"""Traps that others fell into, LESSONS section 4: what a bar is made of.

Rows without a test here or in `test_traps_on_the_way.py`:

| row | why |
|---|---|
| an empty or shrunken list of symbols removes nothing | `test_exchange.py` |
| a database exception does not stop recording | the store in trouble: tests/store/test_persister.py |
| a full LMDB map grows in mid-batch, nothing lost | the journal: tests/store/test_journal.py |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from klshm.config import ExchangeConfig
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.exchange.governor import Governor
from klshm.exchange.rest import RestClient
from klshm.historian.health import Health
from klshm.historian.inbox import worker_inbox
from klshm.historian.needs import Needs
from klshm.historian.source import RowSource
from klshm.shm import layout as lay
from klshm.worker.inbox import Inbox
from tests.core.feed import (
    CELLS,
    CLOSED,
    CONFIRMED,
    CORRECTED,
    FILLED,
    LATE,
    LIVE,
    MINUTE,
    PARTIAL,
    START,
    volumes,
)
from tests.historian.support import KlineServer, SetClock, http_server, make_role
from tests.lessons.support import Station


MakeStation = Callable[..., Station]


def test_trap_a_late_trade_after_the_clock_close_neither_resets_nor_overwrites(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50, p=110)
    station.frame(10, 4, 1, prices=(110,) * 4, quote=440)
    station.trade(3, 12, 12, 1, 61)
    station.tick(1)
    station.settle(1)
    station.store()
    assert station.archived(START)["volume"] == 4
    opened = station.live()
    station.trade(2, 11, 11, 2, 59.9, p=90)
    row = station.bar()
    assert [row[name] for name in CELLS] == [110, 110, 90, 90, 6, 620, 2, 6, 620]
    assert row["flags"] & LATE
    assert volumes(station.live()) == volumes(opened) == (1, 1)
    assert station.live()["open"] == opened["open"] == 100
    station.frame(11, 6, 2, final=True, prices=(110, 110, 90, 90), quote=620)
    station.assert_bar(6, 2, state=CONFIRMED)
    station.store()
    stored = station.archived(START)
    assert [stored[name] for name in ("state", *CELLS)] == [CONFIRMED, 110, 110, 90, 90, 6, 620, 2, 6, 620]


@pytest.mark.parametrize("ticks", [(True, False), (False, True), (True, True)], ids=["before", "after", "both"])
def test_trap_the_first_trade_of_a_new_bar_is_counted_in_it_once(station: Station, ticks: tuple[bool, bool]) -> None:
    """Whichever closes the old bar first: the clock, the trade, or the one and then again the other."""
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    if ticks[0]:
        station.tick(1)
    station.trade(2, 11, 12, 3, 60.0, p=101)  # at the boundary itself
    if ticks[1]:
        station.tick(1)
    station.trade(2, 11, 12, 3, 60.0, p=101)  # and once more, from a second connection
    station.assert_bar(4, 1)
    station.assert_bar(3, 2, 1, state=LIVE)
    station.frame(12, 3, 2, first=11, minute=1, prices=(101,) * 4, quote=303)
    station.assert_bar(4, 1)
    station.assert_bar(3, 2, 1, state=LIVE, flags=0)
    assert station.live()["open"] == 101
    assert volumes(station.live("30m")) == (7, 3)


def test_trap_two_gaps_within_a_second_are_both_repaired(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    station.trade(3, 12, 12, 1, 55.1)
    station.trade(6, 15, 15, 1, 55.9)
    station.tick(1)
    wanted = []
    for missing in (0, 2, 4, 5):
        if missing:
            station.trade(missing, 9 + missing, 9 + missing, 1, 55 + missing / 10)
        station.check()
        need = station.need()
        wanted.append((int(need["first_agg_id"]), int(need["last_agg_id"]), int(need["reason"]) & lay.NEED_HOLE))
        assert bool(station.bar()["flags"] & PARTIAL) == (missing < 5)
    assert wanted == [(2, 2, 1), (4, 5, 1), (5, 5, 1), (-1, -1, 0)]
    station.assert_bar(9, 6, state=CLOSED)


def test_trap_an_error_of_rest_during_a_repair_keeps_what_is_to_be_repaired(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    station.trade(9, 30, 30, 1, 130)
    station.check()
    server = KlineServer(START - 600 * MINUTE)
    server.refusal = (503, {})
    inbox = Inbox(station.segment, 0, lambda *_: None, lambda *_: None)

    def now_ms() -> int:
        return station.now

    async def scan(needs: Needs) -> int:
        """Let the historian look at what is needed and the worker at what it gets."""
        needs.scan()
        await asyncio.gather(*needs._running)
        rows = inbox.take()
        station.apply(rows)
        station.check()
        return len(rows)

    async def main() -> None:
        async with http_server(server) as url, RestClient(ExchangeConfig(rest_url=url), Governor(), now_ms) as client:
            outlets, health = [worker_inbox(station.segment, 0)], Health(make_role(station.segment, url))
            source, governor = RowSource(client, outlets, health, now_ms), client.governor
            clock = SetClock(now_ms)
            needs = Needs(station.segment, station.book, source, outlets, health, governor, clock, concurrency=2)
            assert await scan(needs) == 0 and len(server.asked) == 1
            assert (station.need()["from_ms"], station.need()["to_ms"]) == (START, START + MINUTE)
            assert station.bar()["flags"] & station.bar(1)["flags"] & PARTIAL
            server.refusal = None
            station.at(185)
            assert await scan(needs) == 2

    asyncio.run(main())
    for minute in (0, 1):
        station.assert_bar(5, 4, minute, state=CONFIRMED)
        assert not station.bar(minute)["flags"] & PARTIAL
    assert station.need()["reason"] == 0


def test_trap_trades_of_one_millisecond_at_the_edge_survive_a_recovery(station: Station) -> None:
    """Four trades of one millisecond: two before a kill, one lost with it, one after it; then the lost one."""
    station.trade(1, 10, 10, 4, 50)
    station.trade(2, 11, 11, 1, 55, p=101)
    again = station.after_kill(56)
    again.trade(2, 11, 11, 1, 55, p=101)  # known
    again.trade(4, 13, 13, 8, 55, p=99)
    again.assert_bar(13, 3)
    assert again.bar()["flags"] & PARTIAL
    again.trade(3, 12, 12, 2, 55, p=105)
    again.frame(13, 15, 4, prices=(100, 105, 99, 99), quote=1503)
    again.assert_bar(15, 4, state=LIVE, flags=0)
    assert [again.live()[cell] for cell in ("open", "high", "low", "close")] == [100, 105, 99, 99]
    assert again.count("frames_clean_total") == 1 and again.count("duplicates_total") == 1
    again.trade(5, 14, 14, 16, 55)
    again.assert_bar(31, 5, flags=0)


def test_trap_acknowledged_but_silent_raises_alarm_and_makes_no_final_zero_bars(station: Station) -> None:
    station.rest(4, 1, minute=-1, age_s=61)  # its history is here, its streams send nothing
    for minute in (1, 2, 3):
        station.tick(minute)
        station.settle(minute)
        station.check()
        station.assert_bar(0, 0, minute - 1, state=CLOSED)
    assert station.need()["reason"] & lay.NEED_EMPTY
    station.ticker(99)  # the exchange trades it
    station.at(183)
    station.ticker(120)
    station.check()
    station.at(185)
    station.check()
    assert station.count("symbols_silent") == station.count("doubts_total") == 1
    assert station.need()["reason"] & lay.NEED_DOUBT
    for minute in range(3):
        station.assert_bar(0, 0, minute, state=CLOSED)
    assert station.live()["flags"] & PARTIAL
    assert station.count("confirmed_empty_total") == 0


def test_trap_an_outage_over_minutes_is_suspect_then_official(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    station.down(55)
    station.trade(40, 90, 90, 1, 185)
    station.settle(3)
    for minute in range(3):
        assert station.bar(minute)["flags"] & PARTIAL and station.bar(minute)["state"] == CLOSED
    for minute in range(3):
        station.rest(20 + minute, 30, minute=minute, age_s=190 - 60 * minute, prices=(100, 102, 99, 101), quote=2000)
    for minute in range(3):
        station.assert_bar(20 + minute, 30, minute, state=CONFIRMED)
        assert [station.bar(minute)[cell] for cell in ("open", "high", "low", "close")] == [100, 102, 99, 101]
        assert station.bar(minute)["flags"] & (PARTIAL | CORRECTED | FILLED) == CORRECTED
    station.check()
    assert station.need()["from_ms"] == 0


def test_trap_tickers_of_other_markets_touch_no_bar_and_names_are_names(make_station: MakeStation) -> None:
    """Coin-margined, equity and Chinese contracts come in one array; COIN-M rows are told apart by `st` alone."""
    symbols = ("BTCUSDT", "XAUUSDT", "币安人生USDT")
    station = make_station(*symbols)
    for slot in range(3):
        station.trade(1, 10, 10, 4, 50, slot=slot)
        station.frame(10, 4, 1, slot=slot)
    found = (("BTCUSD_PERP", 900, 2), ("BTCUSDT", 900, 2), ("XAUUSDT", 10, 1), ("币安人生USDT", 11, 1))
    rows = [{"e": "24hrTicker", "E": station.now, "s": name, "L": last, "st": kind} for name, last, kind in found]
    batch = EventBatch()
    payload = json.dumps({"stream": "!ticker@arr", "data": rows}, ensure_ascii=False).encode()
    FrameDecoder({name: slot for slot, name in enumerate(symbols)}, {}).decode(payload, batch)
    station.apply(batch.take().copy())
    station.at(54)
    station.check()
    assert [bool(station.live(slot=slot)["flags"] & PARTIAL) for slot in range(3)] == [False, False, True]
    assert [volumes(station.live(slot=slot)) for slot in range(3)] == [(4, 1)] * 3
