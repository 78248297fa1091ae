"""Traps that others fell into, LESSONS section 4: a bar on its way to readers and to the disk.

`test_traps.py` lists the rows that no test is made for.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import klshm
from klshm import intervals
from klshm.core import events as ev
from klshm.core.engine import Engine, partition_layout
from klshm.exchange.models import Listing
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.shm.segment import create_segment
from klshm.store.intake import LogIntake
from klshm.store.journal import Journal
from klshm.store.segment_rows import Namer
from tests.core.feed import CELLS, MINUTE, MONDAY, START, event, volumes
from tests.lessons.support import INSTANCE, Station
from tests.support.processes import forked


MakeStation = Callable[..., Station]
KEPT = ("1m", "5m", "30m", "4h", "1d", "1w")


def test_trap_a_quiet_symbol_stays_constant_over_many_swaps(make_station: MakeStation) -> None:
    """Readers see it flat at its last price, minute after minute, while another one moves."""
    station = make_station("QUIETUSDT", "BUSYUSDT")
    station.trade(1, 10, 10, 4, 50, p=123.45, slot=0)
    with klshm.attach(INSTANCE) as reader:
        for number in range(40):
            minute = number // 10
            station.tick(minute)
            moment_s = max(50, 60 * minute) + number % 10
            station.trade(1 + number, 10 + number, 10 + number, 1, moment_s, slot=1)
            station.engine.publish(number)
            quiet, busy = (reader.snapshot().bar(name, "1m") for name in ("QUIETUSDT", "BUSYUSDT"))
            assert (quiet.open, quiet.high, quiet.low, quiet.close) == (123.45,) * 4
            assert quiet.volume == (4 if minute == 0 else 0)
            assert quiet == reader.live("QUIETUSDT", "1m") and busy == reader.live("BUSYUSDT", "1m")


def test_trap_the_final_bar_in_the_database_equals_the_sum_of_all_its_trades(make_station: MakeStation) -> None:
    """In all six intervals, which end together; the symbol was listed five minutes before."""
    station = make_station("BTCUSDT", start=MONDAY - 5 * MINUTE, joined_s=0)
    ids = range(1, 301)
    for number in ids:
        station.trade(number, number, number, number / 1000, number - 0.001, p=100 + number % 7, sent_s=number - 0.001)
        if number % 60 == 0:
            station.tick(number // 60)
    station.settle(5)
    station.store()
    prices = [100 + number % 7 for number in ids]
    turnover = sum(number * price for number, price in zip(ids, prices, strict=True)) / 1000
    total = sum(ids) / 1000
    for interval in KEPT[1:]:
        row = station.archived(intervals.open_time_of(interval, station.start), interval)
        assert [row[name] for name in CELLS] == [101, 106, 100, 106, total, turnover, 300, total, turnover], interval
    for minute in range(5):
        row = station.archived(station.start + minute * MINUTE)
        assert volumes(row) == (sum(ids[60 * minute : 60 * minute + 60]) / 1000, 60)


def test_trap_a_reader_in_another_process_never_sees_an_entry_before_its_bar(station: Station) -> None:
    """The bar of minute k is of k mod 5 + 1 trades: nothing else may ever be found at its place."""
    minutes, ahead = 400, 32
    cursor = station.segment.block(station.layout.persister_offset)[lay.B_CURSOR : lay.B_CURSOR + 1]

    def write() -> None:
        number = 0
        for minute in range(minutes):
            for _ in range(minute % 5 + 1):
                number += 1
                station.trade(number, number, number, 1, minute * 60 + 50)
            station.tick(minute + 1)
            while int(station.block[lay.B_TAIL]) - int(cursor[0]) > ahead:  # wait for the reader
                pass

    view, seen = station.view, 0
    log = view.log(0)
    with forked(write):
        while seen < minutes:
            found = log.take()
            for row in found[found["interval"] == intervals.code_of("1m")]:
                opened = int(row["open_time"])
                minute = (opened - START) // MINUTE
                assert minute <= seen
                seen = max(seen, minute + 1)
                (kept,) = view.history(0, 0, opened, opened)
                assert volumes(row) == volumes(kept) == (minute % 5 + 1, minute % 5 + 1)
            cursor[0] = log.cursor
    assert log.lost == 0


def test_trap_all_bars_that_close_at_once_are_logged_and_journaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All symbols, all periods, with the week: 10,002 bars in one wave."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    symbols = 1_667
    layout = dataclasses.replace(partition_layout(symbols, history_rows=32), log_rows=1 << 14)
    segment = create_segment("wave", layout, b"{}")
    SymbolBook(segment).add([Listing(f"S{slot}USDT", 2, 3) for slot in range(symbols)], {})
    engine = Engine(segment.words, layout)
    events = np.repeat(event(kind=ev.SYMBOL_ADD, open_time=MONDAY - MINUTE), symbols)
    events["slot"] = events["l"] = np.arange(symbols)
    events["price_decimals"], events["quantity_decimals"] = 2, 3
    engine.apply(events, MONDAY - MINUTE)
    events["kind"], events["time"], events["open_time"] = ev.TRADE, MONDAY - 100, MONDAY - 200
    events["a"] = events["f"] = events["open"] = events["volume"] = events["l"] = 1 + np.arange(symbols)
    engine.apply(events, MONDAY - 100)
    logged = engine.apply(event(kind=ev.TICK, time=MONDAY), MONDAY)
    assert logged == 6 * symbols
    journal = Journal(tmp_path / "journal")
    assert LogIntake(segment, journal, Namer(segment), Counters(np.zeros(256, np.int64), PERSISTER)).take() == logged
    found: dict[tuple[str, int], tuple[int, float]] = {}
    for _, batch in journal.read(0, 1 << 20):
        assert batch is not None
        for row in batch.rows:
            key = batch.listings[row["slot"]].name, int(row["interval"])
            found[key] = int(row["open_time"]), float(row["volume"])
    journal.close()
    segment.unlink()
    opened = {intervals.code_of(name): intervals.open_time_of(name, MONDAY - 1) for name in KEPT}
    assert found == {
        (f"S{slot}USDT", code): (time, (slot + 1) / 1000) for slot in range(symbols) for code, time in opened.items()
    }


def test_trap_weeks_open_on_monday_at_midnight() -> None:
    day = datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC)
    while day.year < 2036:
        monday = day - datetime.timedelta(days=day.weekday())
        for time in (day, day + datetime.timedelta(hours=23, minutes=59, seconds=59)):
            assert intervals.open_time_of("1w", round(time.timestamp() * 1000)) == round(monday.timestamp() * 1000)
        day += datetime.timedelta(days=1)
