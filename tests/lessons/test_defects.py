"""The defects of the original system, LESSONS section 1: one test per row that concerns bars.

Rows whose test is elsewhere (R9 has one here and one there):

| row | where |
|---|---|
| R10 to R13, R15: listings, connections, clock, request weight, start | `test_exchange.py` |
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import klshm
from klshm.core import events as ev
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.errors import RowBusy
from klshm.exchange.models import Listing
from klshm.shm import layout as lay
from klshm.store import names, rows
from klshm.store.archive_reader import ArchiveReader
from klshm.store.persister import serve
from tests.core.feed import CELLS, CLOSED, CONFIRMED, MINUTE, PARTIAL, START, event
from tests.lessons.support import INSTANCE, Station
from tests.store.engine import Engine, bars
from tests.support.processes import forked


MakeStation = Callable[..., Station]


def test_r1_a_quiet_symbol_is_the_same_in_every_published_half(make_station: MakeStation) -> None:
    station = make_station("QUIETUSDT", "BUSYUSDT")
    station.trade(1, 10, 10, 4, 50, slot=0)
    for number in range(20):
        station.trade(1 + number, 10 + number, 10 + number, 1, 50 + number / 10, slot=1)
        assert station.engine.publish(number) > 0
        cut = station.view.cut()
        assert cut.generation == number + 1
        assert cut.rows["volume"][0].tolist() == [4] * 6
        assert cut.rows["volume"][1].tolist() == [1 + number] * 6


def test_r2_the_final_bar_in_the_archive_equals_the_sum_of_all_its_trades(station: Station) -> None:
    quantities, prices = (4.001, 1.5, 0.25, 2.125, 0.007), (100, 103.5, 98.25, 101, 102.75)
    for index, (quantity, price) in enumerate(zip(quantities, prices, strict=True)):
        station.trade(1 + index, 10 + index, 10 + index, quantity, 59.5 + index / 10, price, sent_s=59.95)
        if index == 2:
            station.tick(1)  # two of its trades are still under way
    station.trade(6, 15, 15, 9, 60, 77, sent_s=60.001)  # the first of the next minute makes no part of it
    station.settle(1)
    station.store()
    turnover = sum(round(q * 1000) * round(p * 100) for q, p in zip(quantities, prices, strict=True)) / 100_000
    row = station.archived(START)
    assert [row[name] for name in CELLS] == [100, 103.5, 98.25, 102.75, 7.883, turnover, 5, 7.883, turnover]
    assert row["state"] == CLOSED


def test_r3_a_late_trade_is_added_to_its_closed_bar(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.tick(1)
    before = station.bar()["revision"]
    station.trade(2, 11, 11, 2, 59.99, p=90)  # of the minute that the clock has closed
    station.assert_bar(6, 2, state=CLOSED)
    row = station.bar()
    assert [row[cell] for cell in ("open", "high", "low", "close")] == [100, 100, 90, 90]
    assert row["revision"] > before
    station.assert_bar(0, 0, 1)  # the open bar has got nothing of it but its price
    assert station.live()["open_time"] == START + MINUTE and station.live()["close"] == 90


def test_r4_a_reader_never_sees_half_a_bar(station: Station) -> None:
    """Every trade is of 1 at 100, so a whole bar has volume = count = quote volume / 100."""
    trade = event(kind=ev.TRADE, time=START + 1, open_time=START + 1, price_decimals=2, open=10_000, volume=1)

    def write() -> None:
        number = 0
        while True:
            number += 1
            trade["a"] = trade["f"] = trade["l"] = number
            station.engine.apply(trade, START + 50_000)

    view, seen, reads = station.view, set(), 0
    with forked(write):
        while reads < 40_000 or len(seen) < 100:
            try:
                row = view.live_row(0, 0)
            except RowBusy:
                continue  # it says so rather than return what it has seen
            count = int(row["trade_count"])
            seen.add(count)
            reads += 1
            assert (row["volume"], row["quote_volume"], row["taker_buy_volume"]) == (count, 100 * count, count)
            assert row["last_agg_id"] == row["last_trade_id"] == count or count == 0


def test_r5_minutes_of_an_outage_are_never_final_and_empty(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    station.down(55)
    for minute in (1, 2, 3):
        station.tick(minute)
        station.settle(minute)
        assert station.bar(minute - 1)["flags"] & PARTIAL and station.bar(minute - 1)["state"] == CLOSED
    station.trade(40, 90, 90, 1, 185)  # the ids say that 38 are missing
    for minute in range(3):
        assert station.bar(minute)["flags"] & PARTIAL and station.bar(minute)["state"] == CLOSED
    station.check()
    need = station.need()
    assert (need["first_agg_id"], need["last_agg_id"]) == (2, 39)
    assert (need["from_ms"], need["to_ms"]) == (START, START + 2 * MINUTE)
    assert need["reason"] & lay.NEED_HOLE


def test_r6_ids_are_counted_late_trades_too_and_sums_are_decimal(station: Station) -> None:
    assert 0.1 + 0.2 != 0.3
    station.trade(1, 10, 13, 0.1, 50)  # four fills
    station.trade(2, 14, 14, 0.2, 51)
    station.assert_bar(0.3, 5)
    station.tick(1)
    station.settle(1)
    station.trade(4, 18, 18, 1, 61)
    station.trade(3, 15, 17, 0.3, 59)  # three more fills, found missing when the next trade came
    station.assert_bar(0.6, 8, state=CLOSED)
    assert station.bar()["quote_volume"] == 60


def test_r7_a_new_listing_begins_with_its_first_trade_not_with_a_ticker(station: Station) -> None:
    ticker = {"e": "24hrTicker", "s": "BTCUSDT", "o": "90", "h": "120", "l": "80", "c": "99", "v": "5000", "q": "1"}
    numbers = {"E": station.now, "F": 1, "L": 9, "n": 9, "st": 1}
    batch = EventBatch()
    payload = json.dumps({"stream": "!ticker@arr", "data": [{**ticker, **numbers}]}).encode()
    FrameDecoder({"BTCUSDT": 0}, {}).decode(payload, batch)
    assert batch.count == 1
    station.apply(batch.take().copy())
    station.tick(1)
    station.settle(1)
    assert station.stored(START) is None
    assert station.live()["state"] == lay.STATE_EMPTY
    station.trade(5, 10, 10, 2, 70, p=101)
    row = station.live()
    assert [row[name] for name in CELLS] == [101, 101, 101, 101, 2, 202, 1, 2, 202]


def test_r8_a_delisting_moves_no_slot_and_deletes_no_bar(make_station: MakeStation) -> None:
    station = make_station("AUSDT", "BUSDT", "CUSDT", room=1)
    for slot in range(3):
        station.trade(1, 10, 10, 1 + slot, 50, slot=slot)
    station.tick(1)
    station.settle(1)
    station.book.replace([dataclasses.replace(station.book.entries[1], status=lay.SYMBOL_DELISTED)])
    station.apply(event(kind=ev.SYMBOL_REMOVE, slot=1))
    for slot in range(3):
        station.trade(2, 11, 11, 10, 61, slot=slot)  # all three were under way
    assert [station.live(slot=slot)["volume"] for slot in range(3)] == [10, 0, 10]
    assert station.live(slot=1)["state"] == lay.STATE_EMPTY
    (new,) = station.book.add([Listing("DUSDT", 2, 3, "TRADING", "DUSDT", "PERPETUAL", "USDT")], {})
    assert (new.slot, new.local_slot) == (3, 3)
    with klshm.attach(INSTANCE) as reader:
        assert reader.symbols() == ["AUSDT", "CUSDT", "DUSDT"]
    assert [station.stored(START, slot=slot)["volume"] for slot in range(3)] == [1, 2, 3]
    station.store()
    assert [station.archived(START, symbol=name)["volume"] for name in ("AUSDT", "BUSDT", "CUSDT")] == [1, 2, 3]


def test_r9_the_bar_left_unfinished_by_a_stop_is_fetched_again(station: Station) -> None:
    station.trade(1, 10, 10, 4, 50)
    station.frame(10, 4, 1)
    again = station.after_kill(125)
    again.tick(2)
    again.check()
    need = again.need()
    assert (need["from_ms"], need["to_ms"]) == (START, START + MINUTE)
    assert again.bar()["flags"] & PARTIAL
    again.rest(9, 3, age_s=70)
    again.assert_bar(9, 3, state=CONFIRMED)
    assert not again.bar()["flags"] & PARTIAL


def test_r14_bars_that_a_full_log_has_dropped_are_stored_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    engine = Engine(tmp_path / "data", workers=1, log_rows=256)
    times = START + np.arange(90) * MINUTE
    for slot in range(4):
        engine.log(bars(times, slot=slot))
    role = engine.role()
    role.stop.set()
    serve(role)
    assert engine.counters.get("lost_rows_total") > 0  # the persister was too late for them
    with closing(ArchiveReader(names.archive_path(engine.directory))) as archive:
        for symbol in engine.symbols:
            assert archive.read_series(symbol, "1m", limit=1_000)["open_time"].tolist() == times.tolist()
    engine.segment.unlink()


def test_r16_bars_are_stored_as_numbers_and_come_back_bit_for_bit(station: Station) -> None:
    for index in range(3):  # sums beyond 2^53 units, which one float cannot hold
        station.trade(1 + index, 10 + index, 10 + index, 2_000_000.001 + index, 50 + index, p=83_091.73)
    station.tick(1)
    station.settle(1)
    station.store()
    kept, found = station.stored(START), station.archived(START)
    assert kept["quote_residual"] != 0
    for name in (*CELLS, "quote_residual", "taker_quote_residual", "state", "flags", "revision"):
        assert found[name] == kept[name], name
    path = names.archive_path(names.data_directory(station.config))
    with closing(sqlite3.connect(path)) as database:
        kinds = ", ".join(f'typeof("{column}")' for column in rows.COLUMNS)
        (stored,) = database.execute(f'SELECT {kinds} FROM "k_btc_1m"').fetchall()
    assert stored == ("integer", *["real"] * 8, *["integer"] * 6)
