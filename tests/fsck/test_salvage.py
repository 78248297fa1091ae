"""Rows out of pages, without SQLite."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.config import StoreConfig
from klshm.fsck.salvage import Known, known_series, pages, salvage, stored_rows
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.batch import Batch, Listing
from tests.fsck.world import World
from tests.store.engine import MINUTE, START, bars


def test_every_stored_row_is_found_in_the_pages(world: World) -> None:
    every = world.execute("SELECT symbol, interval FROM series")
    wanted = {row for series in every for row in world.raw(*series).values()}
    found = {row for page in pages(world.archive) for row in stored_rows(page)}
    assert wanted <= found and len(wanted) > 1000


@given(st.binary(max_size=300), st.integers(0, 200))
def test_no_page_is_too_strange(noise: bytes, count: int) -> None:
    list(stored_rows(b"\x0d\0\0" + count.to_bytes(2, "big") + noise))
    list(stored_rows(noise))


@given(st.lists(st.tuples(st.integers(8, 1023), st.integers(0, 255)), max_size=30))
def test_a_damaged_page_gives_only_rows_of_numbers(leaf: bytes, changes: list[tuple[int, int]]) -> None:
    page = bytearray(leaf)
    for at, value in changes:
        page[at] = value
    for row in stored_rows(bytes(page)):
        assert len(row) == 15 and all(isinstance(value, (int, float)) for value in row)


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a page full of bars, with integers of every length."""
    path = tmp_path_factory.mktemp("leaf") / "klines.db"
    with closing(Archive(path, StoreConfig())) as archive:
        rows = bars(START + np.arange(200) * MINUTE, trade_count=[0, 1, 127, 40_000] * 50, revision=2**20)
        rows["volume"][::3] = 0.0
        archive.write(Batch((Listing("BTCUSDT"),), rows))
    return next(page for page in pages(path) if len(list(stored_rows(page))) > 5)


def test_the_better_of_two_versions_stays_and_the_log_counts_too(tmp_path: Path) -> None:
    """A killed writer leaves a row twice: in the file, and amended in the write-ahead log."""
    path = tmp_path / "klines.db"
    rows = bars(START + np.arange(30) * MINUTE, trade_count=3)
    with closing(Archive(path, StoreConfig())) as archive:
        archive.write(Batch((Listing("BTCUSDT"),), rows), watermark=("ab" * 16, 3))
    archive = Archive(path, StoreConfig())
    rows["state"], rows["volume"] = lay.STATE_CONFIRMED, 77.0
    archive.write(Batch((Listing("BTCUSDT"),), rows[10:20]), watermark=("ab" * 16, 4), historian_cursor=("cd" * 16, 9))
    killed = tmp_path / "killed"
    killed.mkdir()
    for file in tmp_path.glob("klines.db*"):
        (killed / file.name).write_bytes(file.read_bytes())
    archive.close()
    path, aside = killed / "klines.db", killed / "old"
    known = known_series(path)
    assert known == [Known("BTCUSDT", "1m", 0, 2, 3)]
    expected = [*known, Known("ETHUSDT", "5m", 5, 1, 2), Known("OLDUSDT", "5m", 5, 1, 2, 1)]
    assert salvage(path, StoreConfig(), known, expected, aside) >= 40
    with closing(ArchiveReader(path)) as reader:
        found = reader.read_series("BTCUSDT", "1m")
        assert found["volume"].tolist() == [77.0 if 10 <= n < 20 else rows["open"][n] / 3 for n in range(30)]
        assert [(s.table, s.onboard_ms) for s in reader.series()] == [("k_btc_1m", 0), ("k_eth_5m", 5)]
        assert reader.mark("watermark") == ("ab" * 16, 4) and reader.mark("historian_cursor") == ("cd" * 16, 9)
    assert aside.exists() and Path(f"{aside}-wal").exists()
    assert not list(killed.glob("*.new*"))


def test_a_file_that_says_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    path.write_bytes(b"\xff" * 5000)
    assert known_series(path) == []
    assert salvage(path, StoreConfig(), [], [], tmp_path / "old") == 0
    with closing(ArchiveReader(path)) as reader:
        assert reader.series() == [] and reader.mark("watermark") is None
