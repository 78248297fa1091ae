from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.fsck.archive import check_archive
from klshm.fsck.report import Report
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader, Series
from klshm.store.batch import Batch, Listing
from tests.store.engine import MINUTE, START, bars


DAY = 1440 * MINUTE


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "klines.db", StoreConfig())
    yield archive
    archive.close()


def series(archive: Archive) -> dict[str, Series]:
    reader = ArchiveReader(archive.path)
    try:
        return {found.table: found for found in reader.series()}
    finally:
        reader.close()


def store(archive: Archive, listing: Listing, open_time: int, interval: str = "1m", **fields: int) -> None:
    archive.write(Batch((listing,), bars([open_time], interval=interval, **fields)))


def test_colliding_names_are_told_apart_for_ever(archive: Archive, tmp_path: Path) -> None:
    symbols = ["BTCUSDT", "BTC", "btc", "BTC__2"]
    for round_ in range(2):
        for number, symbol in enumerate(symbols):
            store(archive, Listing(symbol), START + round_ * MINUTE, trade_count=number)
        archive.close()
        archive = Archive(tmp_path / "klines.db", StoreConfig())
    assert {found.symbol: found.table for found in series(archive).values()} == {
        "BTCUSDT": "k_btc_1m",
        "BTC": "k_btc__2_1m",
        "btc": "k_btc__3_1m",
        "BTC__2": "k_btc__2__2_1m",
    }
    reader = ArchiveReader(archive.path)
    for number, symbol in enumerate(symbols):
        assert reader.read_series(symbol, "1m")["trade_count"].tolist() == [number, number]
    reader.close()


def test_decimals_only_grow(archive: Archive) -> None:
    store(archive, Listing("AUSDT"), START, price_decimals=2, quantity_decimals=3)
    store(archive, Listing("AUSDT"), START, price_decimals=4, quantity_decimals=0)
    store(archive, Listing("AUSDT"), START, price_decimals=1, quantity_decimals=1)
    found = series(archive)["k_a_1m"]
    assert (found.price_decimals, found.quantity_decimals) == (4, 3)


def test_a_reused_ticker_gets_new_tables(archive: Archive) -> None:
    day = START // DAY * DAY
    old, new = Listing("LUNAUSDT", day), Listing("LUNAUSDT", day + 30 * DAY)
    for interval in ("1m", "1w"):
        store(archive, old, day, interval)
    store(archive, new, day + 30 * DAY)
    store(archive, old, day + MINUTE)  # a straggler of the old listing retires nothing again
    found = series(archive)
    assert {table: found[table].retired for table in found} == {
        "k_luna_1m": False,
        "k_luna_1m__20251009": True,
        "k_luna_1w__20251009": True,
    }
    assert found["k_luna_1m"].onboard_ms == day + 30 * DAY
    store(archive, new, day + 28 * DAY, "1w")
    reader = ArchiveReader(archive.path)
    assert reader.read_series("LUNAUSDT", "1w")["open_time"].tolist() == [day + 28 * DAY]
    reader.close()


def test_a_ticker_reused_twice_within_a_day_keeps_every_listing(archive: Archive) -> None:
    day = START // DAY * DAY
    begins = [day + 240 * MINUTE * number for number in range(4)]
    for begin in begins:
        archive.write(Batch((Listing("LUNAUSDT", begin), Listing("BTCUSDT", 1)), bars([begin] * 2, slot=[0, 1])))
    found = {table: one for table, one in series(archive).items() if one.symbol == "LUNAUSDT"}
    assert {table: (one.onboard_ms, one.retired) for table, one in found.items()} == {
        "k_luna_1m__20251009": (begins[0], True),
        "k_luna_1m__20251009_2": (begins[1], True),
        "k_luna_1m__20251009_3": (begins[2], True),
        "k_luna_1m": (begins[3], False),
    }
    reader = ArchiveReader(archive.path)
    assert reader.read_series("LUNAUSDT", "1m")["open_time"].tolist() == begins[3:]
    assert reader.read_series("BTCUSDT", "1m")["open_time"].tolist() == begins
    reader.close()
    report = Report()
    assert not check_archive(archive.path, report, None, progress=lambda symbol: None).broken
    assert "format" not in report.problems


def test_a_later_onboard_date_of_a_trading_symbol_moves_nothing(archive: Archive) -> None:
    store(archive, Listing("AUSDT", 0), START)
    store(archive, Listing("AUSDT", START - DAY), START + MINUTE)
    store(archive, Listing("AUSDT", START), START + 2 * MINUTE)
    assert list(series(archive)) == ["k_a_1m"]
    assert series(archive)["k_a_1m"].onboard_ms == START


def test_an_unknown_onboard_date_is_that_of_the_first_bar(archive: Archive) -> None:
    archive.write(Batch((Listing("AUSDT"),), bars(np.array([DAY, 2 * DAY]))))
    store(archive, Listing("AUSDT", 5 * DAY), 5 * DAY)
    assert set(series(archive)) == {"k_a_1m", "k_a_1m__19700102"}
