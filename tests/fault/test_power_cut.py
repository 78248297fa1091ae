"""What a power cut leaves, played write by write: kill -9 cannot show it, for what a killed process wrote is kept.

Files are copied before and after a commit; then every state that the disk could be in between is
made (whole writes, torn ones, writes out of order) and opened. Whatever was durable before must be
there, what was half done must not, and the journal still holds what the archive lacks.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from klshm.store.schema import PAGE_BYTES
from tests.store.engine import MINUTE, START, bars


pytestmark = pytest.mark.fault

STORE = StoreConfig()
LISTINGS = {0: Listing("BTCUSDT", START), 1: Listing("币安人生USDT", START)}
WAL_HEADER_BYTES, FRAME_BYTES = 32, 24 + PAGE_BYTES
UUID = "0" * 32


def batch(first: int, last: int) -> Batch:
    """Return a batch of two symbols' minutes, some more than a page of each table."""
    minutes = START + np.arange(first, last) * MINUTE
    return Batch(LISTINGS, np.concatenate([bars(minutes), bars(minutes, slot=1)]))


# -- what durability rests on ---------------------------------------------------------------------------


def test_a_commit_of_the_archive_is_on_disk_before_the_journal_is_trimmed(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "klines.db", STORE)
    try:
        wanted = {"synchronous": 2, "journal_mode": "wal", "page_size": PAGE_BYTES, "locking_mode": "normal"}
        for name, value in wanted.items():
            assert archive._connection.execute(f"PRAGMA {name}").fetchone()[0] == value, name
    finally:
        archive.close()


def test_a_commit_of_the_journal_is_synced(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    try:
        flags = journal._environment.flags()
        assert flags["sync"] and flags["metasync"]
        assert not flags["writemap"] and not flags["map_async"] and not flags["readonly"]
    finally:
        journal.close()


# -- the archive ----------------------------------------------------------------------------------------


class Cut:
    """An archive with a flush that was durable, and one during which the power went.

    Args:
        directory: Where.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        path = directory / "klines.db"
        archive = Archive(path, STORE)
        archive.write(batch(0, 200), watermark=(UUID, 1))
        self.database, self.before = path.read_bytes(), wal(path).read_bytes()
        archive.write(batch(200, 400), watermark=(UUID, 2))
        assert path.read_bytes() == self.database, "no checkpoint came between"
        self.after = wal(path).read_bytes()
        archive.close()  # folds the log into the file
        self.folded = path.read_bytes()

    def open(self, database: bytes, log: bytes) -> tuple[int, list[int]]:
        """Open what was left, then flush what the journal holds; return what there was at first."""
        path = self.directory / "cut" / "klines.db"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(database)
        wal(path).write_bytes(log)
        archive = Archive(path, STORE)
        found = sound_minutes(path)
        assert archive.watermark is not None and archive.watermark[0] == UUID
        sequence = archive.watermark[1]
        if sequence < 2:  # the journal was not trimmed yet
            archive.write(batch(200, 400), watermark=(UUID, 2))
        archive.close()
        assert sound_minutes(path) == list(range(400))
        return sequence, found


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def sound_minutes(path: Path) -> list[int]:
    """Return the minutes both tables hold, every row and the file sound."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    reader = ArchiveReader(path)
    found = []
    for listing in LISTINGS.values():
        assert reader.damaged_ms(next(s.table for s in reader.series() if s.symbol == listing.name)) == []
        times = reader.read_series(listing.name, "1m", limit=1 << 20)["open_time"]
        found.append([int(minute) for minute in (times - START) // MINUTE])
    reader.close()
    assert found[0] == found[1]
    return found[0]


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    return Cut(tmp_path_factory.mktemp("power"))


def test_the_power_goes_at_every_write_of_a_flush(cut: Cut) -> None:
    frames = range(len(cut.before), len(cut.after), FRAME_BYTES)
    assert (len(cut.before) - WAL_HEADER_BYTES) % FRAME_BYTES == 0 and len(frames) > 10
    for start in frames:
        for length in (0, 24 + PAGE_BYTES // 2, FRAME_BYTES - 1):
            assert cut.open(cut.database, cut.after[: start + length]) == (1, list(range(200)))
    assert cut.open(cut.database, cut.after) == (2, list(range(400)))


def test_the_disk_wrote_a_flush_out_of_order(cut: Cut) -> None:
    frames = range(len(cut.before), len(cut.after), FRAME_BYTES)
    for start in frames:
        lost = bytearray(cut.after)
        lost[start : start + 512] = bytes(512)
        assert cut.open(cut.database, bytes(lost)) == (1, list(range(200)))


def test_the_power_goes_at_every_write_of_a_checkpoint(cut: Cut) -> None:
    pages = range(0, len(cut.folded), PAGE_BYTES)
    for mixed in (cut.folded[:at] + cut.database[at:] for at in pages):
        assert cut.open(mixed, cut.after) == (2, list(range(400)))
    for at in pages:  # only this page was written
        mixed = cut.database.ljust(len(cut.folded), b"\0")
        mixed = mixed[:at] + cut.folded[at : at + PAGE_BYTES] + mixed[at + PAGE_BYTES :]
        assert cut.open(mixed, cut.after) == (2, list(range(400)))


# -- the journal ----------------------------------------------------------------------------------------


def journal_states(directory: Path, commit: Callable[[Journal], Any]) -> Iterator[tuple[bool, bytes]]:
    """Yield every state of the file during a commit, and whether the commit had ended."""
    data = directory / "data.mdb"
    journal = Journal(directory)
    journal.append([batch(0, 300)], UUID, {"log/0": 600})
    before = data.read_bytes()
    commit(journal)
    after = data.read_bytes()
    journal.close()
    size = 4096
    padded = before.ljust(len(after), b"\0")
    changed = [at for at in range(0, len(after), size) if padded[at : at + size] != after[at : at + size]]
    pages, heads = [at for at in changed if at >= 2 * size], [at for at in changed if at < 2 * size]
    assert len(pages) > 2 and len(heads) == 1, "a commit writes its pages, syncs, then one of two heads"
    for count in range(len(pages) + 1):
        yield False, with_pages(padded, after, pages[:count], size)
        yield False, with_pages(padded, after, pages[count:], size)  # the disk's own order
    yield False, with_pages(padded, after, pages, size)[: len(before)].ljust(len(after), b"\0")
    yield True, with_pages(padded, after, [*pages, *heads], size)


def with_pages(before: bytes, after: bytes, pages: list[int], size: int) -> bytes:
    mixed = bytearray(before)
    for at in pages:
        mixed[at : at + size] = after[at : at + size]
    return bytes(mixed)


def found_in(directory: Path, data: bytes) -> tuple[int | None, int, int]:
    """Open a journal with this content; return its cursor, its blocks and their rows."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "data.mdb").write_bytes(data)
    journal = Journal(directory)
    try:
        blocks = journal.read(0, 1 << 20)
        assert all(block is not None for _, block in blocks)
        return journal.cursor(UUID, "log/0"), len(blocks), sum(len(block) for _, block in blocks if block)
    finally:
        journal.close()


def test_the_power_goes_at_every_write_of_an_append(tmp_path: Path) -> None:
    def append(journal: Journal) -> None:
        journal.append([batch(300, 400)], UUID, {"log/0": 800})

    for ended, data in journal_states(tmp_path / "journal", append):
        cursor, _, rows = found_in(tmp_path / "cut", data)
        assert (cursor, rows) == ((800, 800) if ended else (600, 600)), "a ring entry is journaled exactly once"


def test_the_power_goes_at_every_write_of_a_trim(tmp_path: Path) -> None:
    for ended, data in journal_states(tmp_path / "journal", lambda journal: journal.trim(1)):
        assert found_in(tmp_path / "cut", data) == ((600, 1, 88) if ended else (600, 2, 600))
