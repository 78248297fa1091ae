"""What `backfill` leaves for the next start."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from klshm.config import StoreConfig
from klshm.exchange.models import Listing
from klshm.historian.start_file import write_start_file
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.batch import Batch
from klshm.store.batch import Listing as Stored
from klshm.store.snapshot import read_snapshot, write_snapshot
from klshm.store.state import State, symbol_names
from tests.store.engine import MINUTE, START, bars
from tests.store.test_snapshot import symbols


NAMES = ("1m", "5m")
NOW = START + 1000


def listing(name: str, contract: str = "PERPETUAL") -> Listing:
    return Listing(name, 2, 3, pair=name, contract_type=contract, onboard_date=1000)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    made = Archive(tmp_path / "klines.db", StoreConfig())
    for name in ("AUSDT", "BUSDT"):
        rows = bars([START - minute * MINUTE for minute in range(40, 0, -1)], state=lay.STATE_CONFIRMED)
        made.write(Batch((Stored(name, 1000),), rows))
    made.close()
    return tmp_path / "klines.db"


def written(archive: Path, *listings: Listing) -> Any:
    skew_ms = NOW - time.time_ns() // 1_000_000
    write_start_file(archive, "main", NAMES, listings, NOW, skew_ms)
    return read_snapshot(archive.parent / "initial_state.bin")


def test_symbols_and_the_newest_closed_bars(archive: Path) -> None:
    file = written(archive, listing("AUSDT"), listing("BUSDT", "TRADIFI_PERPETUAL"), listing("a b"))
    assert (file.instance, file.intervals, len(file.state.live)) == ("main", NAMES, 0)
    assert symbol_names(file.state.symbols) == ["AUSDT", "BUSDT"]
    assert file.state.symbols["contract"].tolist() == [1, 2]
    rows = file.state.closed[0]
    assert rows["open_time"][rows["slot"] == 1].tolist() == [START - minute * MINUTE for minute in range(8, 0, -1)]
    assert file.age_s(time.time_ns() // 1_000_000) < 100


def test_what_an_earlier_one_knows_of_others_is_kept(archive: Path) -> None:
    live = bars([START] * 2, slot=[0, 1], state=lay.STATE_LIVE, volume=[1.0, 2.0])
    closed = bars([START - MINUTE] * 2, slot=[0, 1], volume=[3.0, 4.0])
    earlier = State("snapshot", symbols("BUSDT", "CUSDT"), live, (closed,), START, 0)
    write_snapshot(archive.parent / "initial_state.bin", "main", ("1m", "15m"), earlier)
    file = written(archive, listing("AUSDT"), listing("BUSDT"))
    assert file.intervals == ("1m", "5m", "15m")
    assert symbol_names(file.state.symbols) == ["AUSDT", "BUSDT", "CUSDT"]
    assert file.state.live["slot"].tolist() == [1, 2]
    assert file.state.live["volume"].tolist() == [1.0, 2.0]
    rows = file.state.closed[0]
    assert [len(rows[rows["slot"] == slot]) for slot in range(3)] == [8, 8, 1]
    assert rows["volume"][rows["slot"] == 2].tolist() == [4.0]
    assert written(archive, listing("AUSDT"), listing("BUSDT")).bytes == file.bytes  # it does not grow


def test_a_damaged_one_is_replaced(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    (archive.parent / "initial_state.bin").write_bytes(b"rubbish")
    assert len(written(archive, listing("AUSDT")).state.symbols) == 1
    assert "the snapshot that was there is replaced: " in caplog.text


def test_without_an_archive_it_names_the_symbols(tmp_path: Path) -> None:
    assert written(tmp_path / "klines.db", listing("AUSDT")).state.closed_rows == 0


def test_what_cannot_be_written_is_said(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive.write_bytes(b"x" * 50_000)
    write_start_file(archive, "main", NAMES, [listing("AUSDT")], NOW, 0)
    assert "no snapshot for the next start: " in caplog.text
