from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.errors import ArchiveError, JournalError
from klshm.shm import layout as lay
from klshm.shm.counters import Counters
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.intake import HistorianIntake, LogIntake
from klshm.store.journal import Journal
from klshm.store.segment_rows import Namer
from tests.store.engine import MINUTE, START, Engine, bars


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    yield journal
    journal.close()


def counters(engine: Engine) -> Counters:
    return engine.counters


def intake(engine: Engine, journal: Journal) -> LogIntake:
    return LogIntake(engine.segment, journal, Namer(engine.segment), counters(engine))


def journaled(journal: Journal) -> list[tuple[str, int]]:
    return [
        (block.listings[row["slot"]].name, int(row["open_time"] - START) // MINUTE)
        for _, block in journal.read(0, 1 << 30)
        if block
        for row in block.rows
    ]


def minutes(first: int, last: int, **fields: Any) -> Any:
    return bars(START + np.arange(first, last) * MINUTE, **fields)


def test_every_log_is_taken_once(engine: Engine, journal: Journal) -> None:
    engine.log(minutes(0, 10), 0)
    engine.log(minutes(0, 5, slot=1), 1)
    engine.log(minutes(90, 95), 0, publish=False)
    logs = intake(engine, journal)
    assert (logs.behind, logs.take(), logs.take(), logs.behind) == (15, 15, 0, 0)
    engine.logs[0].publish()
    assert intake(engine, journal).take() == 5  # a new process goes on where the last commit ended
    assert journaled(journal) == [
        *(("BTCUSDT", minute) for minute in range(10)),
        *(("ETHUSDT", minute) for minute in range(5)),
        *(("BTCUSDT", minute) for minute in range(90, 95)),
    ]
    assert counters(engine).get("journal_rows_total") == 20


def test_what_was_not_committed_is_taken_again(
    engine: Engine, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("klshm.store.journal._MAX_MAP_BYTES", 1)
    monkeypatch.setattr(Journal, "_grow", lambda self: (_ for _ in ()).throw(JournalError("full")))
    engine.log(minutes(0, 200), 0, keep=False)
    logs = intake(engine, journal)
    journal._environment.set_mapsize(journal._environment.info()["last_pgno"] * 4096)
    with pytest.raises(JournalError, match="full"):
        logs.take()
    assert logs.behind == 200
    journal._environment.set_mapsize(1 << 26)
    assert logs.take() == 200
    assert len(journaled(journal)) == 200


def test_an_overrun_is_counted_and_the_walk_owed(engine: Engine, journal: Journal) -> None:
    logs = intake(engine, journal)
    engine.log(minutes(0, 300), 0)  # the ring holds 256
    taken = logs.take()
    assert 200 < taken < 256
    assert journal.owed_walks(engine.segment.uuid) == ["log/0"]
    found = counters(engine)
    assert (found.get("overruns_total"), found.get("lost_rows_total")) == (1, 300 - taken)
    assert [minute for _, minute in journaled(journal)] == list(range(300 - taken, 300))


def test_rows_without_a_name_are_counted_and_passed(engine: Engine, journal: Journal) -> None:
    engine.log(bars([START], slot=9), 0, keep=False)
    logs = intake(engine, journal)
    assert logs.take() == 1
    assert logs.behind == 0
    assert counters(engine).get("rows_refused_total") == 1
    assert intake(engine, journal).take() == 0


# -- the historian's log -----------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "klines.db", StoreConfig())
    yield archive
    archive.close()


def backfill(engine: Engine, archive: Archive) -> HistorianIntake:
    return HistorianIntake(engine.segment, archive, Namer(engine.segment), counters(engine), engine.persister_block)


def test_backfill_goes_to_the_archive_and_gives_room(engine: Engine, archive: Archive) -> None:
    historian = backfill(engine, archive)
    engine.backfill.append(minutes(0, 256, state=lay.STATE_CONFIRMED))
    engine.backfill.publish()
    assert (engine.backfill.room(), historian.behind) == (0, 256)
    assert (historian.take(), historian.take(), historian.behind) == (256, 0, 0)
    assert engine.backfill.room() == 256
    assert archive.historian_cursor == (engine.segment.uuid, 256)
    engine.persister_block[lay.B_CURSOR] = 0
    assert backfill(engine, archive).behind == 0  # a new process goes on where the last commit ended
    assert engine.backfill.room() == 256
    reader = ArchiveReader(archive.path)
    assert len(reader.read_series("BTCUSDT", "1m")) == 256
    reader.close()


def test_backfill_that_was_not_committed_is_taken_again(
    engine: Engine, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setattr("klshm.store.archive._LOCK_TRIES", 1)
    historian = backfill(engine, archive)
    engine.backfill.append(minutes(0, 10))
    engine.backfill.publish()
    other = sqlite3.connect(archive.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ArchiveError, match="locked"):
        historian.take()
    assert engine.backfill.room() == 246
    other.close()
    assert historian.take() == 10
    assert engine.backfill.room() == 256


def test_an_overrun_of_the_historians_log_is_counted(engine: Engine, archive: Archive) -> None:
    historian = backfill(engine, archive)
    engine.backfill.append(minutes(0, 300))  # as if nobody had waited for the cursor
    engine.backfill.publish()
    taken = historian.take()
    assert counters(engine).get("lost_rows_total") == 300 - taken > 0
    assert engine.backfill.room() == engine.backfill.capacity


def test_a_new_segment_starts_at_its_first_entry(make_engine: Callable[..., Engine], archive: Archive) -> None:
    first, second = make_engine(instance="a"), make_engine(instance="b")
    for engine in (first, second):
        engine.backfill.append(minutes(0, 3))
        engine.backfill.publish()
        assert backfill(engine, archive).take() == 3
