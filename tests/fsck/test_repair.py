"""Mending against the exchange simulator: what comes back, what stays, what is said."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from klshm.config import Config, DataConfig, ExchangeConfig
from klshm.errors import ExchangeError
from klshm.fsck import repair as repair_module
from klshm.fsck.archive import Series
from klshm.fsck.replace import Replacer
from klshm.fsck.wanted import Wanted
from klshm.shm import layout as lay
from klshm.store import rows
from klshm.store.archive_reader import ArchiveReader
from klshm.store.journal import Journal
from tests.fsck.test_archive import rewrite, times
from tests.fsck.world import World, official, stored
from tests.support.servers import free_port


M = 60_000


def test_what_is_wrong_is_replaced_and_what_is_good_stays_bit_for_bit(world: World) -> None:
    wanted = stored(world)
    minutes, higher = times(world, "k_btc_1m"), times(world, "k_eth_4h")
    world.execute("UPDATE k_btc_1m SET volume = volume * 2 WHERE open_time IN (?, ?)", minutes[0], minutes[70])
    world.execute("DELETE FROM k_btc_1m WHERE open_time BETWEEN ? AND ?", minutes[100], minutes[110])
    world.execute("UPDATE k_btc_1m SET open_time = open_time + 7 WHERE open_time = ?", minutes[30])
    world.execute("UPDATE k_eth_4h SET state = 9 WHERE open_time = ?", higher[-1])
    touched = {minutes[n] for n in (0, 30, 70, *range(100, 111))}
    before = world.raw("BTCUSDT", "1m")
    found = world.check()
    assert dict(found.report.problems) == {"bits": 4, "hole": 12}
    after = world.repair(found)
    assert after.report.is_clean and after.report.failed == {}
    numbers = after.report.repaired
    assert (numbers["removed"], numbers["replaced"], numbers["filled_in"], numbers["absent"]) == (4, 3, 12, 0)
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted
    assert wanted == official(world.market, wanted)
    raw = world.raw("BTCUSDT", "1m")
    assert {t: raw[t] for t in before if t in raw and t not in touched} == {
        t: row for t, row in before.items() if t in minutes and t not in touched
    }
    evidence = [json.loads(line) for line in Path(numbers["removed_rows"]).read_text().splitlines()]
    assert sorted(row[1] for row in evidence) == sorted([minutes[0], minutes[70], minutes[30] + 7, higher[-1]])
    assert world.repair().report.repaired["removed"] == 0  # nothing is left to do


def test_what_waited_and_own_folds_get_the_exchanges_word(world: World) -> None:
    wanted = stored(world)
    minutes, higher = times(world, "k_btc_1m"), times(world, "k_btc_5m")
    rewrite(world, "BTCUSDT", "1m", minutes[40], state=lay.STATE_CLOSED, revision=4)
    rewrite(world, "BTCUSDT", "1m", minutes[41], state=lay.STATE_CLOSED, revision=4, volume=1e6)
    rewrite(world, "BTCUSDT", "5m", higher[-9], flags=lay.FLAG_DERIVED, volume=1e6)
    found = world.check()
    assert found.report.problems["unconfirmed"] == 2 and found.report.problems["fold"] == 1
    after = world.repair(found)
    assert after.report.is_clean and after.report.repaired["confirmed"] == 3
    raw = world.raw("BTCUSDT", "1m")
    states = [raw[time][10:13] for time in (minutes[40], minutes[41])]
    assert states == [(lay.STATE_CONFIRMED, 0, 5), (lay.STATE_CONFIRMED, lay.FLAG_CORRECTED, 5)]
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_what_the_exchange_does_not_have_is_remembered_and_never_kept_wrong(world: World) -> None:
    """A symbol that is gone: bits known to be wrong do not stay, and the next look calls nothing a fault."""
    world.execute("ALTER TABLE k_btc_1w RENAME TO k_gone_1w")
    world.execute("UPDATE series SET table_name = 'k_gone_1w', symbol = 'GONEUSDT' WHERE table_name = 'k_btc_1w'")
    weeks = times(world, "k_gone_1w")
    reseed(world, "k_gone_1w", "GONEUSDT", "1w")
    assert world.check().report.is_clean
    world.execute("UPDATE k_gone_1w SET high = high * 2 WHERE open_time = ?", weeks[2])
    after = world.repair()
    assert after.report.is_clean, after.report.document()
    assert dict(after.report.notes) == {"absent": 1} and times(world, "k_gone_1w") == [*weeks[:2], *weeks[3:]]
    assert world.check().report.is_clean


def reseed(world: World, table: str, symbol: str, interval: str) -> None:
    """Write a table's checks anew for a series."""
    for (time,) in world.execute(f'SELECT open_time FROM "{table}"'):
        (row,) = world.execute(f'SELECT * FROM "{table}" WHERE open_time = ?', time)
        plain = rows.decode_rows([row], 0, 2, 3)
        check = rows.encode_rows(plain, [rows.series_seed(symbol, interval)])[0][-1]
        world.execute(f'UPDATE "{table}" SET "check" = ? WHERE open_time = ?', check, time)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE series SET symbol = 'CTCUSDT' WHERE table_name = 'k_btc_1m'",
        "UPDATE series SET retired = 1, price_decimals = 40 WHERE table_name = 'k_btc_1m'",
        "UPDATE meta SET value = 'nonsense' WHERE key = 'watermark'",
        "INSERT INTO meta VALUES ('absent/k_btc_1m', 'nonsense')",
        "DROP TABLE k_btc_1m",
        "DELETE FROM series WHERE table_name = 'k_btc_1m'",
        "ALTER TABLE k_btc_1m RENAME COLUMN close TO klose",
    ],
)
def test_entries_of_tables_are_put_right(world: World, sql: str) -> None:
    wanted = stored(world)
    if "absent" in sql:
        world.execute("DELETE FROM k_btc_1m WHERE open_time = ?", times(world, "k_btc_1m")[20])
    world.execute(sql)
    found = world.check()
    assert not found.report.is_clean
    after = world.repair(found)
    assert after.report.is_clean, after.report.document()
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_a_broken_archive_is_written_anew_and_kept(world: World) -> None:
    wanted = stored(world)
    data = bytearray(world.archive.read_bytes())
    data[:100] = bytes(100)
    data[40 * 1024 : 44 * 1024] = bytes(4096)
    world.archive.write_bytes(data)
    after = world.repair()
    assert after.report.is_clean, after.report.document()
    assert 0 < after.report.repaired["salvaged_rows"] < sum(map(len, wanted.values()))
    assert Path(after.report.repaired["broken_archive"]).read_bytes() == data
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_ended_listings_retire_again(world: World) -> None:
    """A reused ticker: the same name, two listings, two tables."""
    minutes = times(world, "k_btc_1m")
    world.execute("ALTER TABLE k_btc_1m RENAME TO k_btc_1m__20260101")
    world.execute("UPDATE series SET table_name = 'k_btc_1m__20260101', retired = 1, onboard_ms = 1767225600000 "
                  "WHERE table_name = 'k_btc_1m'")
    (sql,) = world.execute("SELECT sql FROM sqlite_schema WHERE name = 'k_eth_1m'")[0]
    world.execute(sql.replace("k_eth_1m", "k_btc_1m"))
    world.execute("INSERT INTO series VALUES ('k_btc_1m', 'BTCUSDT', '1m', ?, 1, 3, 0)", minutes[200])
    world.execute("INSERT INTO k_btc_1m SELECT * FROM k_btc_1m__20260101 WHERE open_time >= ?", minutes[200])
    world.execute("DELETE FROM k_btc_1m__20260101 WHERE open_time >= ?", minutes[200])
    world.execute("UPDATE series SET onboard_ms = ? WHERE symbol = 'BTCUSDT' AND retired = 0", minutes[200])
    before = {table: times(world, table) for table in ("k_btc_1m", "k_btc_1m__20260101")}
    assert world.check().report.is_clean
    data = bytearray(world.archive.read_bytes())
    data[24] ^= 1  # of no consequence
    data[-1024:] = bytes(1024)
    world.archive.write_bytes(data)
    after = world.repair()
    assert after.report.is_clean, after.report.document()
    assert set(before["k_btc_1m"]) <= set(times(world, "k_btc_1m"))
    with closing(ArchiveReader(world.archive)) as reader:
        retired = {series.table for series in reader.series() if series.retired}
    assert "k_btc_1m__20260101" in retired
    assert set(times(world, "k_btc_1m__20260101")) == set(before["k_btc_1m__20260101"])


def test_a_journal_that_lost_blocks_is_completed_from_the_exchange(world: World) -> None:
    wanted = stored(world)
    path = world.journal / "data.mdb"
    data = bytearray(path.read_bytes())
    row, at = wanted_row(world), -1
    while (at := data.find(row, at + 1)) >= 0:  # older copies of its page as well
        data[at + 16] ^= 1
    path.write_bytes(data)
    found = world.check()
    assert found.journal is not None and found.journal.damaged and not found.journal.broken
    after = world.repair(found)
    assert after.report.is_clean
    (aside,) = after.report.repaired["set_aside"]
    assert (Path(aside) / "data.mdb").read_bytes() == data
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted
    with closing(Journal(world.journal)) as journal:
        assert journal.blocks == 0 and len(journal.latest()[0]) == 3


def wanted_row(world: World) -> bytes:
    with closing(Journal(world.journal)) as journal:
        block = journal.read(0, 1)[0][1]
    assert block is not None
    return bytes(block.rows[1].tobytes()[:64])


@pytest.mark.parametrize("what", ["truncated", "no pages"])
def test_a_journal_that_cannot_be_read_is_set_aside(world: World, what: str) -> None:
    wanted = stored(world)
    path = world.journal / "data.mdb"
    if what == "truncated":
        os.truncate(path, 9000)
    else:
        data = bytearray(path.read_bytes())
        data[8192:] = b"\xff" * len(data[8192:])
        path.write_bytes(data)
    found = world.check()
    assert found.journal is not None and found.journal.broken
    assert world.repair(found).report.is_clean
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_commits_that_are_lost_are_seen_and_fetched(world: World) -> None:
    wanted = stored(world)
    with closing(Journal(world.journal)) as journal:
        journal.trim(4)  # as if the archive had them
    found = world.check()
    assert found.commits_lost and dict(found.report.problems) == {"lost commits": 2}
    assert world.repair(found).report.is_clean
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_nothing_is_touched_while_the_exchange_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.execute("UPDATE k_btc_1m SET volume = volume * 2 WHERE open_time = ?", times(world, "k_btc_1m")[5])
    before = world.raw("BTCUSDT", "1m")
    found = world.check()
    config = Config(
        exchange=ExchangeConfig(rest_url=f"http://127.0.0.1:{free_port()}"),
        data=DataConfig(directory=world.config.data.directory),
    )
    with pytest.raises(ExchangeError):
        asyncio.run(repair_module.repair(config, world.directory, found, lambda done, total: None))
    monkeypatch.setattr(repair_module, "_PAUSE_S", (0.01, 0.02))
    world.market.fault(name="http_status", status=503, count=repair_module._TRIES, path="klines")
    after = world.repair(found)
    assert "503" in after.report.failed["BTCUSDT 1m"] and not after.report.is_clean
    after_all = world.raw("BTCUSDT", "1m")
    assert {time: after_all[time] for time in before} == before
    assert world.repair().report.is_clean


def test_a_lock_in_the_way_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.schema._BUSY_S", 0.05)
    world.execute("DELETE FROM k_btc_1m WHERE open_time = ?", times(world, "k_btc_1m")[5])
    found = world.check()
    other = sqlite3.connect(world.archive, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Exception, match="locked by another program"):
        world.repair(found)
    other.close()
    assert world.repair().report.is_clean




@pytest.mark.parametrize("is_there", [True, False])
def test_an_archive_of_which_nothing_is_left_is_fetched_as_new(world: World, is_there: bool) -> None:
    wanted = stored(world)
    world.archive.unlink()
    if is_there:
        world.archive.touch()
    found = world.check()
    assert found.commits_lost
    after = world.repair(found)
    assert after.report.is_clean, after.report.document()
    now = stored(world)
    assert {series: {t: now[series].get(t) for t in bars} for series, bars in wanted.items()} == wanted


def test_a_damaged_snapshot_is_set_aside(world: World) -> None:
    data = bytearray(world.snapshot.read_bytes())
    data[-5] ^= 1
    world.snapshot.write_bytes(data)
    found = world.check()
    assert found.snapshot_damaged and dict(found.report.problems) == {"unreadable": 1}
    after = world.repair(found)
    assert after.report.is_clean and not world.snapshot.exists()
    assert [Path(path).read_bytes() for path in after.report.repaired["set_aside"]] == [data]
    assert world.check().report.looked_at.keys() == {"archive", "journal"}


def test_a_dead_segment_that_cannot_be_trusted_is_set_aside(world: World) -> None:
    path = Path(os.environ["KLSHM_SHM_DIRECTORY"]) / "klshm.main"
    path.write_bytes(b"?" * 9000)
    found = world.check()
    assert found.segment.damaged
    assert world.repair(found).report.is_clean and not path.exists()


def test_wrong_rows_of_an_ended_listing_do_not_stay(world: World) -> None:
    """By its name the exchange has the bars of the later listing only."""
    minutes = times(world, "k_btc_1m")
    world.execute("ALTER TABLE k_btc_1m RENAME TO k_btc_1m__20260101")
    world.execute("UPDATE series SET table_name = 'k_btc_1m__20260101', retired = 1 WHERE table_name = 'k_btc_1m'")
    world.execute("UPDATE k_btc_1m__20260101 SET low = low / 2 WHERE open_time = ?", minutes[9])
    with closing(Journal(world.journal)) as journal:
        journal.trim(99)
    world.execute("DELETE FROM meta WHERE key = 'watermark'")
    after = world.repair()
    assert after.report.is_clean and after.report.notes["absent"] == 1
    assert times(world, "k_btc_1m__20260101") == [time for time in minutes if time != minutes[9]]


def test_an_answer_that_comes_too_late_changes_nothing(world: World) -> None:
    """What has come meanwhile stays; a bar too young to be final confirms nothing; a failure undoes all of it."""
    (series,) = [Series(*row) for row in world.execute(
        "SELECT table_name, symbol, interval, onboard_ms, price_decimals, quantity_decimals, retired "
        "FROM series WHERE table_name = 'k_btc_1m'"
    )]
    minutes = times(world, "k_btc_1m")
    with closing(ArchiveReader(world.archive)) as reader:
        fetched = reader.read_series("BTCUSDT", "1m", minutes[3], minutes[6])
    fetched["volume"] += 1
    before = world.raw("BTCUSDT", "1m")
    with closing(sqlite3.connect(world.archive, isolation_level=None)) as connection:
        replacer = Replacer(connection, world.directory / "evidence.jsonl")
        replacer.page(Wanted(series, holes=set(minutes[3:6])), minutes[3], minutes[5], fetched[:3])
        young = fetched.copy()
        young["state"] = lay.STATE_CLOSED
        replacer.page(Wanted(series, better={minutes[3]}), minutes[3], minutes[3], young[:1])
        assert world.raw("BTCUSDT", "1m") == before and sum(replacer.counts.values()) == 0
        connection.execute("INSERT INTO meta VALUES ('absent/k_btc_1m', 'nonsense')")
        wrong = Wanted(series, replace={minutes[4], minutes[5]})
        with pytest.raises(ValueError):
            replacer.page(wrong, minutes[4], minutes[5], fetched[1:2])
        assert not connection.in_transaction
    assert world.raw("BTCUSDT", "1m") == before
