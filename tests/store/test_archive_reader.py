from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.intervals import code_of
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader, has_archive
from klshm.store.batch import Batch, Listing
from tests.store.engine import MINUTE, START, bars


TIMES = START + np.arange(100) * MINUTE


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "klines.db", StoreConfig())
    rows = bars(TIMES, state=np.where(np.arange(100) < 60, lay.STATE_CONFIRMED, lay.STATE_CLOSED))
    archive.write(Batch((Listing("BTCUSDT"),), rows))
    yield archive
    archive.close()


@pytest.fixture
def reader(archive: Archive) -> Iterator[ArchiveReader]:
    reader = ArchiveReader(archive.path)
    yield reader
    reader.close()


def test_ranges_and_limits(reader: ArchiveReader) -> None:
    def times(**options: int) -> list[int]:
        return [int(t - START) // MINUTE for t in reader.read_series("BTCUSDT", "1m", **options)["open_time"]]

    assert times() == list(range(100))
    assert times(limit=3) == [97, 98, 99]
    assert times(limit=3, newest=False) == [0, 1, 2]
    assert times(first_ms=START + 10 * MINUTE, last_ms=START + 12 * MINUTE) == [10, 11, 12]
    assert times(first_ms=START + 200 * MINUTE) == []
    assert len(reader.read_series("NOUSDT", "1m")) == 0


def test_rows_say_what_they_are(reader: ArchiveReader) -> None:
    row = reader.read_series("BTCUSDT", "1m", limit=1)[0]
    assert (row["interval"], row["state"], row["price_decimals"]) == (code_of("1m"), lay.STATE_CLOSED, 2)


def test_newest_confirmed(reader: ArchiveReader) -> None:
    assert reader.last_confirmed_ms("BTCUSDT", "1m") == START + 59 * MINUTE
    assert reader.last_confirmed_ms("BTCUSDT", "5m") is None


def test_a_reader_sees_commits_and_holds_no_snapshot(archive: Archive, reader: ArchiveReader) -> None:
    assert len(reader.read_series("BTCUSDT", "1m", limit=1000)) == 100
    archive.write(Batch((Listing("BTCUSDT"),), bars([START + 100 * MINUTE])))
    assert len(reader.read_series("BTCUSDT", "1m", limit=1000)) == 101
    connection = sqlite3.connect(archive.path)
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert busy == 0


def test_it_cannot_write(reader: ArchiveReader) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._connection.execute("DELETE FROM k_btc_1m")


def test_a_flipped_bit_is_found(archive: Archive, reader: ArchiveReader) -> None:
    connection = sqlite3.connect(archive.path)
    connection.execute("UPDATE k_btc_1m SET close = close + 1e-13 WHERE open_time = ?", (int(TIMES[7]),))
    connection.commit()
    connection.close()
    assert reader.damaged_ms("k_btc_1m") == [int(TIMES[7])]


def test_no_archive_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no archive"):
        ArchiveReader(tmp_path / "nothing.db")


def test_an_archive_whose_creation_was_cut_off_is_none(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    assert not has_archive(path)
    path.touch()
    assert not has_archive(path)
    with pytest.raises(ArchiveError, match="no archive in .* yet"):
        ArchiveReader(path)
    Archive(path, StoreConfig()).close()
    assert has_archive(path)


def test_damage_inside_is_one_clear_line(archive: Archive) -> None:
    archive.close()
    data = bytearray(archive.path.read_bytes())
    data[1024:] = b"\xff" * (len(data) - 1024)
    archive.path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is damaged"):
        reader = ArchiveReader(archive.path)
        reader.series()


def test_a_reader_needs_neither_lmdb_nor_numba() -> None:
    script = (
        "import sys, klshm.store.archive_reader; "
        "print([name for name in ('lmdb', 'numba', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
