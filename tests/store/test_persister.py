from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from klshm.config import StoreConfig
from klshm.errors import JournalError
from klshm.shm import layout as lay
from klshm.store import names
from klshm.store.archive import Archive
from klshm.store.archive_reader import ArchiveReader
from klshm.store.batch import Batch, Listing
from klshm.store.journal import Journal
from klshm.store.persister import ALARM_ARCHIVE, ALARM_JOURNAL
from klshm.store.recovery import load_latest
from tests.store.engine import MINUTE, START, Engine, bars
from tests.store.served import Served, archived, journal_blocks, minutes, serving, state_of


def test_bars_reach_the_archive_and_the_journal_is_trimmed(engine: Engine) -> None:
    engine.log(minutes(0, 10), 0)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(10)))
        engine.log(minutes(0, 5, slot=3), 1)
        engine.backfill.append(minutes(0, 200, slot=1, state=lay.STATE_CONFIRMED))
        engine.backfill.publish()
        served.until(lambda: archived(engine, "币安人生USDT") == list(range(5)))
        served.until(lambda: len(archived(engine, "ETHUSDT")) == 200)
        served.until(lambda: engine.backfill.room() == engine.backfill.capacity)
        assert int(served.role.block[lay.B_ROLE_STATE]) == lay.ROLE_LIVE
    found = served.counters.as_dict()
    assert found["journal_rows_total"] == 15
    assert found["archive_rows_total"] == 215
    assert found["trimmed_total"] >= 2
    assert found["archive_sequence"] == found["journal_sequence"]
    assert (found["alarm"], found["failures_total"], found["journal_behind_rows"]) == (0, 0, 0)
    assert int(served.role.block[lay.B_ROLE_STATE]) == lay.ROLE_STOPPED
    assert journal_blocks(engine) == 0


def test_a_stop_drains_what_came_before_it(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(store=StoreConfig(flush_interval_s=3600.0))
    with serving(engine) as served:
        served.until(lambda: served.counters.get("runs_total") == 1)
        engine.log(minutes(0, 200), 0)
        engine.backfill.append(minutes(0, 200, slot=1))
        engine.backfill.publish()
        engine.trade(bars([START], slot=2, state=lay.STATE_LIVE, close=9.0))
        engine.publish_halves()
    assert archived(engine, "BTCUSDT") == list(range(200))
    assert archived(engine, "ETHUSDT") == list(range(200))
    assert load_latest(engine.directory)["BTCUSDT_241227", "1m"]["close"] == 9.0


def test_logs_are_journaled_while_the_archive_is_busy(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.persister._BREATH_S", 0.0)
    write, behind = Archive.write, []

    def slow_write(self: Archive, *args: Any, **options: Any) -> None:
        if len(behind) < 3:
            engine.log(minutes(100, 110), 0)
        self._beat()
        behind.append(engine.logs[0].position - engine.counters.get("journal_rows_total"))
        write(self, *args, **options)

    monkeypatch.setattr(Archive, "write", slow_write)
    engine.log(minutes(0, 1), 0)
    with serving(engine) as served:
        served.until(lambda: len(behind) > 0)
    assert set(behind) == {0}


def test_a_long_journal_is_archived_in_pieces(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.archive_feed._FLUSH_ROWS", 10)
    journal = Journal(names.journal_path(engine.directory))
    journal.append([Batch((Listing("OLDUSDT"),), minutes(n, n + 10)) for n in range(0, 300, 10)])
    journal.close()
    with serving(engine) as served:
        served.until(lambda: served.counters.get("archive_flushes_total") == 30)
    assert archived(engine, "OLDUSDT") == list(range(300))


def test_open_bars_are_stored_while_it_runs(make_engine: Callable[..., Engine], monkeypatch: Any) -> None:
    monkeypatch.setattr("klshm.store.open_bars._LOOK_S", 0.0)
    engine = make_engine(store=StoreConfig(flush_interval_s=0.01, open_bars=True))
    with serving(engine) as served:
        for count in (1, 2):
            engine.trade(bars([START], state=lay.STATE_LIVE, close=float(count)))
            engine.publish_halves()
            served.until(lambda count=count: served.counters.get("open_rows_total") == count)
        served.until(lambda: archived(engine, "BTCUSDT") == [0])
    reader = ArchiveReader(names.archive_path(engine.directory))
    row = reader.read_series("BTCUSDT", "1m")[0]
    reader.close()
    assert row["state"] == lay.STATE_LIVE


def test_an_overrun_log_is_made_good_from_history(engine: Engine) -> None:
    engine.log(minutes(0, 300), 0)
    engine.keep(minutes(0, 50, slot=2))
    with serving(engine) as served:
        served.until(lambda: served.counters.get("walks_total") == 1)
    assert served.counters.get("overruns_total") == 1
    assert archived(engine, "BTCUSDT_241227") == list(range(50))
    assert set(archived(engine, "BTCUSDT")) >= set(range(204, 300))  # as much as 96 rows of history hold


def test_commit_comes_before_trim_and_the_cursor_word_after_the_commit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []
    write, trim = Archive.write, Journal.trim

    def durable() -> int:
        connection = sqlite3.connect(names.archive_path(engine.directory))
        found = connection.execute("SELECT value FROM meta WHERE key = 'watermark'").fetchone()
        connection.close()
        return int(found[0].rpartition(":")[2]) if found else 0

    def traced_write(self: Archive, *args: Any, **options: Any) -> None:
        events.append(("cursor word", int(role_block[lay.B_CURSOR])))
        write(self, *args, **options)

    def traced_trim(self: Journal, through: int) -> int:
        events.append(("trim", through - durable()))
        return trim(self, through)

    monkeypatch.setattr(Archive, "write", traced_write)
    monkeypatch.setattr(Journal, "trim", traced_trim)
    role_block = engine.persister_block
    with serving(engine):
        engine.log(minutes(0, 20), 0)
        engine.backfill.append(minutes(0, 5, slot=1))
        engine.backfill.publish()
    trims = [number for name, number in events if name == "trim"]
    assert trims
    assert set(trims) == {0}  # what is trimmed is in a committed archive, never more
    assert ("cursor word", 5) not in events[: events.index(("cursor word", 0)) + 1]
    assert int(role_block[lay.B_CURSOR]) == 5


# -- disks in trouble -----------------------------------------------------------------------------------


def test_a_locked_archive_stops_nothing_but_itself(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.archive._LOCK_TRIES", 1)
    Archive(names.archive_path(engine.directory), StoreConfig()).close()
    other = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with serving(engine) as served:
        engine.log(minutes(0, 20), 0)
        served.until(lambda: served.counters.get("alarm") == ALARM_ARCHIVE)
        served.until(lambda: served.counters.get("journal_rows_total") == 20)
        beat = int(served.role.block[lay.B_HEARTBEAT_NS])
        served.until(lambda: int(served.role.block[lay.B_HEARTBEAT_NS]) > beat)
        length = int(served.role.block[lay.B_ERROR_LENGTH])
        assert b"locked" in served.role.block[lay.B_ERROR_TEXT :].tobytes()[:length]
        other.close()
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(20)))
        served.until(lambda: served.counters.get("alarm") == 0)


def test_a_wal_beyond_its_limit_pauses_the_archive(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(store=StoreConfig(flush_interval_s=0.01, wal_limit_bytes=20_000))
    engine.log(minutes(0, 1), 0)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == [0])
        reader = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM series").fetchall()
        last = 1
        while served.counters.get("alarm") == 0:
            engine.log(minutes(last, last + 100), 0)
            last += 100
            served.until(lambda last=last: served.counters.get("journal_rows_total") == last)
        sequence = served.counters.get("archive_sequence")
        engine.log(minutes(last, last + 10), 0)
        served.until(lambda: served.counters.get("journal_rows_total") == last + 10)
        assert served.counters.get("alarm") == ALARM_ARCHIVE
        assert served.counters.get("archive_sequence") == sequence
        reader.close()
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(last + 10)))
        served.until(lambda: served.counters.get("alarm") == 0)


def test_no_data_directory_is_an_alarm_until_there_is_one(engine: Engine) -> None:
    engine.directory.parent.mkdir(parents=True)
    engine.directory.write_text("in the way")
    engine.log(minutes(0, 20), 0)
    with serving(engine) as served:
        served.until(lambda: served.counters.get("alarm") & ALARM_JOURNAL)
        assert served.counters.get("journal_behind_rows") in (0, 20)
        engine.directory.unlink()
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(20)))
        assert served.counters.get("alarm") == 0


def test_a_disk_that_stays_full_is_tried_ever_less_often(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[float] = []

    def full(self: Journal, *args: Any) -> int:
        tries.append(time.monotonic())
        raise JournalError("no space left")

    engine.log(minutes(0, 20), 0)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        served = Served(engine)
        served.until(lambda: len(tries) >= 3)
        assert served.counters.get("alarm") == ALARM_JOURNAL
    assert tries[2] - tries[1] > 1.5 * (tries[1] - tries[0])
    served.until(lambda: archived(engine, "BTCUSDT") == list(range(20)))
    served.stop()
    assert served.counters.get("alarm") == 0


def test_a_stop_with_no_disk_ends_and_says_what_is_left(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("klshm.store.persister._DRAIN_S", 0.3)
    monkeypatch.setattr("klshm.store.persister._DRAIN_ARCHIVE_S", 0.1)
    Archive(names.archive_path(engine.directory), StoreConfig()).close()
    other = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("klshm.store.archive._LOCK_TRIES", 1)
    engine.log(minutes(0, 20), 0)
    with serving(engine) as served:
        pass
    assert "the archive lacks bars" in caplog.text
    assert journal_blocks(engine) == 1
    assert state_of(served) == lay.ROLE_STOPPED  # the journal is enough
    other.close()
    monkeypatch.setattr("klshm.store.journal_file.open_environment", lambda *_: (_ for _ in ()).throw(OSError("gone")))
    engine.log(minutes(20, 25), 0)
    with serving(engine) as served:
        pass
    assert "stopped before all was stored log_rows=-1" in caplog.text
    assert state_of(served) == lay.ROLE_DRAINING  # the segment is needed still


def test_a_stop_while_the_archive_lacks_backfilled_rows_needs_the_segment(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in no journal."""
    monkeypatch.setattr("klshm.store.persister._DRAIN_S", 0.3)
    monkeypatch.setattr("klshm.store.persister._DRAIN_ARCHIVE_S", 0.1)
    monkeypatch.setattr("klshm.store.archive._LOCK_TRIES", 1)
    Archive(names.archive_path(engine.directory), StoreConfig()).close()
    other = sqlite3.connect(names.archive_path(engine.directory), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    engine.backfill.append(minutes(0, 20, slot=1))
    engine.backfill.publish()
    with serving(engine) as served:
        pass
    assert state_of(served) == lay.ROLE_DRAINING
    other.close()
    with serving(engine) as served:
        pass
    assert state_of(served) == lay.ROLE_STOPPED


def test_a_damaged_block_costs_a_walk_not_the_rest(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.log(minutes(0, 20), 0)
    with monkeypatch.context() as patch:
        patch.setattr("klshm.store.batch.zlib.crc32", lambda data: 1)
        patch.setattr("klshm.store.persister.Persister._feed_archive", lambda self: None)
        patch.setattr("klshm.store.persister._DRAIN_ARCHIVE_S", 0.0)
        with serving(engine) as served:
            served.until(lambda: served.counters.get("journal_rows_total") == 20)
    assert journal_blocks(engine) == 1
    engine.log(minutes(20, 25), 0)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(25)))
        served.until(lambda: served.counters.get("walks_total") == 2)


def test_a_new_journal_is_archived_from_its_first_block(engine: Engine) -> None:
    engine.log(minutes(0, 20), 0)
    with serving(engine):
        pass
    path = names.journal_path(engine.directory)
    for file in path.iterdir():
        os.unlink(file)
    engine.log(minutes(20, 30), 0)
    with serving(engine):
        pass
    assert archived(engine, "BTCUSDT") == list(range(30))


def test_a_journal_that_was_put_back_is_archived_again(engine: Engine) -> None:
    journal = Journal(names.journal_path(engine.directory))
    archive = Archive(names.archive_path(engine.directory), StoreConfig())
    archive.write(Batch((), minutes(0, 0)), watermark=(journal.uuid, 999))
    archive.close()
    journal.close()
    engine.log(minutes(0, 20), 0)
    with serving(engine):
        pass
    assert archived(engine, "BTCUSDT") == list(range(20))


def test_retention_prunes(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(store=StoreConfig(flush_interval_s=0.01, retention_days={"1m": 1}))
    now = time.time_ns() // 1_000_000 // MINUTE * MINUTE
    old, new = now - 2 * 1440 * MINUTE, now - MINUTE
    engine.log(bars([old, new]), 0)
    with serving(engine) as served:
        served.until(lambda: served.counters.get("archive_rows_total") == 2)
        assert served.counters.get("pruned_total") == 0  # nobody knows what time it is
        block = engine.layout.historian_offset // 8
        engine.words[block + lay.B_CLOCK_OFFSET_NS] = time.time_ns() - time.monotonic_ns()
        engine.words[block + lay.B_CLOCK_SYNCED_NS] = time.monotonic_ns()
        served.until(lambda: served.counters.get("pruned_total") == 1)
    reader = ArchiveReader(names.archive_path(engine.directory))
    assert reader.read_series("BTCUSDT", "1m")["open_time"].tolist() == [new]
    reader.close()


# -- files taken away while they are open ---------------------------------------------------------------


def take_away(path: Path, how: str) -> None:
    """Remove a file or directory, or put another in its place."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    if how == "replaced" and aside.is_file():
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["removed", "replaced"])
@pytest.mark.parametrize("what", ["klines.db", "klines.db-wal", "journal", "."])
def test_what_is_taken_away_is_made_again_from_shared_memory(engine: Engine, what: str, how: str) -> None:
    taken = engine.directory / what if what != "." else engine.directory
    engine.log(minutes(0, 40), 0)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(40)))
        served.until(lambda: served.counters.get("trimmed_total"))
        take_away(taken, how)
        served.until(lambda: served.counters.get("alarm"))
        length = int(served.role.block[lay.B_ERROR_LENGTH])
        assert b"was removed or replaced while in use" in served.role.block[lay.B_ERROR_TEXT :].tobytes()[:length]
        engine.log(minutes(40, 60), 0)
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(60)))
        served.until(lambda: served.counters.get("alarm") == 0)
    assert archived(engine, "BTCUSDT") == list(range(60))


def test_an_older_copy_of_the_archive_gets_what_was_trimmed_since(engine: Engine) -> None:
    archive, copy = names.archive_path(engine.directory), engine.directory / "copy.db"
    engine.log(minutes(0, 20), 0)
    with serving(engine) as served:
        served.until(lambda: served.counters.get("trimmed_total"))
    copy.write_bytes(archive.read_bytes())
    engine.log(minutes(20, 50), 0)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(50)))
    copy.rename(archive)
    with serving(engine) as served:
        served.until(lambda: archived(engine, "BTCUSDT") == list(range(50)))
