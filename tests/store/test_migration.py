"""Archives that an older klshm wrote: brought up to date in one transaction, or left as they were."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from klshm.config import StoreConfig
from klshm.errors import ArchiveError
from klshm.store import migration, schema
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader, has_archive
from tests.store.engine import MINUTE, START


OLD = Path(__file__).with_name("files") / "archive-1.db.gz"
"""Written by klshm with schema 1: two current series, two of an ended listing, one bar with a changed bit."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "klines.db"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    return path


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all series, without their checks."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [table for (table,) in connection.execute("SELECT table_name FROM series")]
        return {table: [row[:-1] for row in connection.execute(f'SELECT * FROM "{table}"')] for table in tables}


def test_an_archive_of_version_1_is_brought_up_to_date_where_it_lies(old: Path) -> None:
    before, beats = rows(old), [0]
    with pytest.raises(ArchiveError, match="has schema 1, this klshm reads 2; start the engine: it brings the file"):
        has_archive(old)
    with closing(Archive(old, StoreConfig(), beat=lambda: beats.append(1))) as archive:
        assert archive.watermark == ("j", 3)
    assert rows(old) == before and len(before) == 4 and len(beats) >= 4
    with closing(ArchiveReader(old)) as reader:
        damaged = {series.table: reader.damaged_ms(series.table) for series in reader.series()}
        confirmed = reader.read_confirmed("BTCUSDT", "1m", 0, 1 << 60)
    # What was damaged is still seen to be; nothing else is.
    assert {table: found for table, found in damaged.items() if found} == {"k_币安人生_1m": [START + 3 * MINUTE]}
    assert len(confirmed) == 0  # the bars of the ended listing lie in the retired table
    Archive(old, StoreConfig()).close()  # once is enough


def test_a_step_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: sqlite3.Connection, beat: migration.Beat) -> None:
        connection.execute("ALTER TABLE series ADD COLUMN colour TEXT")
        raise sqlite3.OperationalError("disk I/O error")

    before = old.read_bytes()
    monkeypatch.setitem(migration.STEPS, 2, fail)
    monkeypatch.setattr(schema, "VERSION", 3)
    with pytest.raises(ArchiveError, match="disk I/O error"):
        Archive(old, StoreConfig())
    monkeypatch.undo()
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone() == (1,)
        assert "colour" not in [row[1] for row in connection.execute("PRAGMA table_info(series)")]
        connection.execute("PRAGMA journal_mode = delete")
    assert len(old.read_bytes()) == len(before)


def test_steps_are_taken_in_turn(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setitem(migration.STEPS, 2, lambda connection, beat: taken.append(2))
    monkeypatch.setitem(migration.STEPS, 3, lambda connection, beat: taken.append(3))
    monkeypatch.setattr(schema, "VERSION", 4)
    Archive(old, StoreConfig()).close()
    with closing(ArchiveReader(old)) as reader:
        assert taken == [2, 3] and reader.damaged_ms("k_btc_5m__20251009") == []


def test_there_is_a_step_from_every_version() -> None:
    assert sorted(migration.STEPS) == list(range(1, schema.VERSION))
