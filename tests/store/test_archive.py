from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.shm import layout as lay
from klshm.store import rows as codec
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.batch import Batch, Listing
from tests.store.engine import MINUTE, START, bars


BTC = Listing("BTCUSDT")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data" / "klines.db", StoreConfig())
    yield archive
    archive.close()


def store(archive: Archive, rows: Any, *, listing: Listing = BTC, **options: Any) -> None:
    archive.write(Batch((listing,), rows), **options)


def read(archive: Archive, symbol: str = "BTCUSDT", interval: str = "1m", **options: Any) -> Any:
    reader = ArchiveReader(archive.path)
    try:
        return reader.read_series(symbol, interval, **options)
    finally:
        reader.close()


def damaged(archive: Archive) -> list[int]:
    reader = ArchiveReader(archive.path)
    try:
        return [open_ms for series in reader.series() for open_ms in reader.damaged_ms(series.table)]
    finally:
        reader.close()


def test_bars_of_many_series_come_back(archive: Archive) -> None:
    listings = (BTC, Listing("币安人生USDT"), Listing("BTCUSDT_241227"))
    rows = np.concatenate([bars(START + np.arange(50) * MINUTE, slot=slot) for slot in range(3)])
    np.random.default_rng(1).shuffle(rows)
    archive.write(Batch(listings, rows))
    for slot, listing in enumerate(listings):
        got = read(archive, listing.name)
        want = np.sort(rows[rows["slot"] == slot], order="open_time")
        for name in ("open_time", *codec.CELLS[:-1], "state", "revision", "price_decimals"):
            assert np.array_equal(got[name], want[name]), name
    assert damaged(archive) == []


# -- which bar stays ------------------------------------------------------------------------------

KINDS = {
    "open": (lay.STATE_LIVE, 0, 0),
    "partial": (lay.STATE_CLOSED, lay.FLAG_PARTIAL | lay.FLAG_PROVISIONAL, 1),
    "closed": (lay.STATE_CLOSED, lay.FLAG_PROVISIONAL, 2),
    "confirmed": (lay.STATE_CONFIRMED, lay.FLAG_DERIVED, 3),
}


def bar(kind: str, revision: int, close: float = 100.5) -> Any:
    state, flags, _ = KINDS[kind]
    return bars([START], state=state, flags=flags, revision=revision, close=close)


@settings(max_examples=60, deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.sampled_from(["partial", "closed", "confirmed"]), st.integers(1, 4)), min_size=1),
    split=st.integers(0, 8),
    seed=st.randoms(use_true_random=False),
)
def test_the_order_of_arrival_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[str, int]], split: int, seed: Any
) -> None:
    best = max(arrivals, key=lambda arrival: (KINDS[arrival[0]][2], arrival[1]))
    rows = [bar(kind, revision, close=KINDS[kind][2] * 10 + revision) for kind, revision in arrivals]
    rows += seed.choices(rows, k=3)
    seed.shuffle(rows)
    archive = Archive(tmp_path_factory.mktemp("order") / "klines.db", StoreConfig())
    try:
        for part in (rows[:split], rows[split:]):
            if part:
                store(archive, np.concatenate(part))
        (got,) = read(archive)
        assert got["close"] == KINDS[best[0]][2] * 10 + best[1]
        assert damaged(archive) == []
    finally:
        archive.close()


def test_open_bars_grow_and_give_way(archive: Archive) -> None:
    store(archive, bar("open", 0, 101.0))
    store(archive, bar("open", 0, 102.0))
    assert read(archive)["close"] == 102.0
    store(archive, bar("partial", 0, 103.0))
    store(archive, bar("open", 9, 104.0))
    assert read(archive)["close"] == 103.0


def test_an_old_sessions_high_revision_does_not_refuse_the_official_bar(archive: Archive) -> None:
    store(archive, bar("closed", 900, 101.0))
    store(archive, bar("confirmed", 1, 102.0))
    assert read(archive)["close"] == 102.0


def test_an_official_bar_that_differs_corrects_a_confirmed_one_once(archive: Archive) -> None:
    store(archive, bar("confirmed", 7, 101.0))
    for _ in range(3):
        store(archive, bar("confirmed", 1, 102.0), official=True)
    (got,) = read(archive)
    assert (got["close"], got["revision"]) == (102.0, 8)
    assert got["flags"] == lay.FLAG_DERIVED | lay.FLAG_CORRECTED
    assert damaged(archive) == []
    store(archive, bar("confirmed", 20, 103.0), official=True)
    assert read(archive)["revision"] == 20


def test_two_official_bars_in_one_batch_correct_in_turn(archive: Archive) -> None:
    two = np.concatenate([bar("confirmed", 1, 102.0), bar("confirmed", 1, 103.0)])
    store(archive, bar("confirmed", 7, 101.0))
    store(archive, two, official=True)
    (got,) = read(archive)
    assert (got["close"], got["revision"]) == (103.0, 9)
    store(archive, two, listing=Listing("NEWUSDT"), official=True)
    (got,) = read(archive, "NEWUSDT")
    assert (got["close"], got["revision"]) == (103.0, 2)


def test_an_equal_official_bar_between_does_not_hide_the_stored_revision(archive: Archive) -> None:
    store(archive, bar("confirmed", 7, 101.0))
    store(archive, np.concatenate([bar("confirmed", 1, 101.0), bar("confirmed", 1, 102.0)]), official=True)
    (got,) = read(archive)
    assert (got["close"], got["revision"]) == (102.0, 8)


@pytest.mark.parametrize("official", [False, True])
def test_a_batch_of_many_pieces_is_as_if_bars_came_one_by_one(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, official: bool
) -> None:
    """Pieces end anywhere: within a series, between two words about one bar."""
    monkeypatch.setattr("klshm.store.archive._PIECE_ROWS", 7)
    random = np.random.default_rng(2)
    rows = bars(
        START + random.integers(0, 12, 300) * MINUTE,
        slot=random.integers(0, 3, 300),
        state=random.choice([lay.STATE_CLOSED, lay.STATE_CONFIRMED], 300),
        revision=random.integers(1, 4, 300),
        close=100 + random.integers(0, 3, 300) / 4,
        price_decimals=random.integers(0, 3, 300),
    )
    listings = tuple(Listing(f"S{n}USDT") for n in range(3))
    archive.write(Batch(listings, rows), official=official)
    single = Archive(archive.path.with_name("single.db"), StoreConfig())
    for row in rows:
        single.write(Batch(listings, row.reshape(1)), official=official)
    single.close()
    for listing in listings:
        assert np.array_equal(read(archive, listing.name), read(single, listing.name))
    assert damaged(archive) == []


def test_an_official_bar_that_is_not_confirmed_does_not_correct(archive: Archive) -> None:
    store(archive, bar("confirmed", 7, 101.0))
    store(archive, bar("closed", 9, 102.0), official=True)
    assert read(archive)["close"] == 101.0


def test_a_remembered_bar_of_lower_revision_does_not_correct(archive: Archive) -> None:
    store(archive, bar("confirmed", 7, 101.0))
    store(archive, bar("confirmed", 1, 102.0))
    assert read(archive)["close"] == 101.0
    store(archive, bar("confirmed", 8, 103.0))
    assert read(archive)["close"] == 103.0


# -- progress ---------------------------------------------------------------------------------------


def test_progress_is_stored_with_the_rows_or_not_at_all(archive: Archive) -> None:
    store(archive, bar("closed", 1), watermark=("journal", 4), historian_cursor=("segment", 9))
    assert (archive.watermark, archive.historian_cursor) == (("journal", 4), ("segment", 9))
    broken = np.concatenate([bar("closed", 2, 7.0), bars([START], slot=5)])
    with pytest.raises(IndexError):
        store(archive, broken, watermark=("journal", 5))
    with pytest.raises(ArchiveError, match="NOT NULL"):
        store(archive, bar("closed", 3, np.nan), listing=Listing("NEWUSDT"), watermark=("journal", 6))
    assert archive.watermark == ("journal", 4)
    assert read(archive)["revision"] == 1
    store(archive, bar("closed", 1), listing=Listing("NEWUSDT"))  # its table was rolled back, and is made again
    again = Archive(archive.path, StoreConfig())
    assert (again.watermark, again.historian_cursor) == (("journal", 4), ("segment", 9))
    again.close()
    reader = ArchiveReader(archive.path)
    assert reader.mark("watermark") == ("journal", 4)
    assert reader.mark("nothing") is None
    reader.close()


def test_rows_and_progress_are_one_transaction(archive: Archive) -> None:
    statements: list[str] = []
    archive._connection.set_trace_callback(statements.append)
    store(archive, bar("closed", 1), watermark=("journal", 4), historian_cursor=("segment", 9))
    archive._connection.set_trace_callback(None)
    assert statements[0] == "BEGIN IMMEDIATE"
    assert [statement for statement in statements if statement == "COMMIT"] == statements[-1:]
    assert sum("watermark" in statement or "historian_cursor" in statement for statement in statements) == 2


def test_an_empty_batch_moves_the_watermark(archive: Archive) -> None:
    archive.write(Batch((), bars([])), watermark=("journal", 2))
    assert archive.watermark == ("journal", 2)


def test_prune_deletes_what_is_older(archive: Archive) -> None:
    store(archive, bars(START + np.arange(10) * MINUTE))
    store(archive, bars([START // (5 * MINUTE) * 5 * MINUTE], interval="5m"))
    assert archive.prune("1m", START + 4 * MINUTE) == 4
    assert archive.prune("1d", START) == 0
    assert read(archive)["open_time"][0] == START + 4 * MINUTE
    assert len(read(archive, interval="5m")) == 1


def test_prune_reaches_ended_listings_and_bars_nobody_confirmed(archive: Archive) -> None:
    store(archive, bars(START + np.arange(10) * MINUTE, state=lay.STATE_CLOSED, flags=lay.FLAG_PARTIAL))
    later = START + 100 * MINUTE
    store(archive, bars(later + np.arange(10) * MINUTE), listing=Listing("BTCUSDT", later))
    assert archive.prune("1m", START + 4 * MINUTE) == 4
    with closing(ArchiveReader(archive.path)) as reader:
        assert [series.retired for series in reader.series()] == [False, True]
    assert archive.prune("1m", later + 1) == 6 + 1
    assert read(archive)["open_time"][0] == later + MINUTE


def test_pruned_pages_are_used_again(archive: Archive) -> None:
    """An archive whose bars are kept for so long and no longer stays as large as it is."""
    listings = tuple(Listing(f"S{n}USDT") for n in range(20))

    def days(first: int, count: int) -> None:
        times = START + np.repeat(np.arange(first, first + count), 20) * MINUTE
        archive.write(Batch(listings, bars(times, slot=np.tile(np.arange(20), count))))

    days(0, 1000)
    sizes = []
    for day in range(10):
        archive.prune("1m", START + (day + 1) * 100 * MINUTE)
        days(1000 + day * 100, 100)
        sizes.append(archive._connection.execute("PRAGMA page_count").fetchone()[0])
    assert max(sizes) <= sizes[0] * 1.02
    assert len(read(archive, "S7USDT", limit=5000)) == 1000


def test_a_long_write_shows_life(tmp_path: Path) -> None:
    beats: list[int] = []
    archive = Archive(tmp_path / "klines.db", StoreConfig(), beat=lambda: beats.append(1))
    listings = tuple(Listing(f"S{i}USDT") for i in range(600))
    archive.write(Batch(listings, bars(np.full(600, START), slot=np.arange(600))))
    assert len(beats) == 3
    archive.close()


# -- other programs, other states of the file ---------------------------------------------------------


def test_a_lock_is_waited_for_and_then_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.archive._LOCK_TRIES", 4)
    beats: list[int] = []
    other = sqlite3.connect(":memory:")

    def beat() -> None:
        beats.append(1)
        if len(beats) == 2 and other.in_transaction:
            other.rollback()

    archive = Archive(tmp_path / "klines.db", StoreConfig(), beat=beat)
    other.close()
    other = sqlite3.connect(archive.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store(archive, bar("closed", 1))
    assert len(beats) >= 2
    other.execute("BEGIN IMMEDIATE")
    beats.extend([1, 1])
    with pytest.raises(ArchiveError, match="locked by another program; close"):
        store(archive, bar("closed", 2))
    other.close()
    store(archive, bar("closed", 2))
    archive.close()


def test_a_full_wal_is_shrunk_unless_a_reader_holds_it(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "klines.db", StoreConfig(wal_limit_bytes=100_000))
    reader = sqlite3.connect(archive.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM series").fetchall()
    for minute in range(20):
        store(archive, bars(START + (minute * 200 + np.arange(200)) * MINUTE))
    assert archive.wal_bytes > 100_000
    assert not archive.has_room()
    reader.execute("COMMIT")
    assert archive.has_room()
    assert archive.wal_bytes == 0
    reader.close()
    archive.close()
    assert archive.wal_bytes == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database at all" * 100, "is damaged"),
        ("CREATE TABLE t (a)", "another program"),
        ("CREATE TABLE meta (key, value)", "schema unknown"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes | str, message: str) -> None:
    path = tmp_path / "klines.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute(content)
        connection.close()
    for opened in (lambda: Archive(path, StoreConfig()), lambda: ArchiveReader(path)):
        with pytest.raises(ArchiveError, match=message) as caught:
            opened()
        assert "\n" not in str(caught.value)


def test_a_newer_schema_is_refused_and_an_empty_file_used(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    path.touch()
    Archive(path, StoreConfig()).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = 3 WHERE key = 'version'")
    connection.close()
    with pytest.raises(ArchiveError, match="has schema 3, this klshm writes 2"):
        Archive(path, StoreConfig())


def test_an_unusable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="cannot use .*data.directory that you may write to"):
        Archive(tmp_path / "file" / "klines.db", StoreConfig())
    with pytest.raises(ArchiveError, match="unable to open"):
        (tmp_path / "klines.db").mkdir()
        Archive(tmp_path / "klines.db", StoreConfig())
