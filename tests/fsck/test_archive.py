"""What a look at an archive finds, one fault at a time."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from klshm import intervals
from klshm.errors import ArchiveError
from klshm.fsck.archive import ABSENT, check_archive
from klshm.fsck.report import Report
from klshm.shm import layout as lay
from klshm.store import rows
from tests.fsck.world import World


M = 60_000


def look(world: World, now_ms: int | None = None, **options: Any) -> tuple[Report, Any]:
    report = Report()
    return report, check_archive(world.archive, report, now_ms, progress=lambda symbol: None, **options)


def times(world: World, table: str) -> list[int]:
    return [time for (time,) in world.execute(f'SELECT open_time FROM "{table}" ORDER BY open_time')]


def rewrite(world: World, symbol: str, interval: str, time: int, **values: Any) -> None:
    """Change a row as an engine would: with a check that fits."""
    table = f"k_{symbol.removesuffix('USDT').lower()}_{interval}"
    (row,) = world.execute(f'SELECT * FROM "{table}" WHERE open_time = ?', time)
    changed = dict(zip(rows.COLUMNS, row, strict=True)) | values
    seed = rows.series_seed(symbol, interval)
    columns = ", ".join(f'"{name}" = ?' for name in values)
    plain = rows.decode_rows([tuple(changed.values())], 0, 2, 3)
    check = rows.encode_rows(plain, [seed])[0][-1]
    world.execute(f'UPDATE "{table}" SET {columns}, "check" = ? WHERE open_time = ?', *values.values(), check, time)


def test_whole_files_are_clean_and_nothing_is_written(world: World) -> None:
    before = {path: path.read_bytes() for path in world.directory.rglob("*") if path.suffix in (".db", ".bin")}
    report, state = look(world)
    assert report.is_clean and not report.notes and not state.broken
    looked_at = report.looked_at["archive"]
    assert looked_at["tables"] == 18 and looked_at["rows"] == sum(len(world.raw(*s)) for s in series_of(world))
    assert {path: path.read_bytes() for path in before} == before


def series_of(world: World) -> list[tuple[str, str]]:
    return [tuple(row) for row in world.execute("SELECT symbol, interval FROM series")]


def test_holes_bits_and_symbols(world: World) -> None:
    all_times = times(world, "k_btc_5m")
    world.execute("DELETE FROM k_btc_5m WHERE open_time IN (?, ?)", all_times[3], all_times[4])
    world.execute("UPDATE k_btc_5m SET close = close + 1 WHERE open_time = ?", all_times[9])
    report, state = look(world)
    assert dict(report.problems) == {"hole": 2, "bits": 1}
    assert set(state.states) == {"k_btc_5m"} and state.states["k_btc_5m"].holes == [(all_times[3], all_times[4])]
    assert look(world, wanted=["BTCUSDT"])[0].problems == report.problems
    assert look(world, wanted=["ETHUSDT"])[0].is_clean
    world.execute("INSERT INTO meta VALUES (?, ?)", f"{ABSENT}k_btc_5m", f"[[{all_times[2]}, {all_times[4]}]]")
    report, _ = look(world)
    assert dict(report.problems) == {"bits": 1} and dict(report.notes) == {"absent": 2}
    world.execute("UPDATE meta SET value = '[1]' WHERE key = ?", f"{ABSENT}k_btc_5m")
    assert dict(look(world)[0].problems) == {"hole": 2, "bits": 1, "progress": 1}


def test_own_folds_must_add_up_and_the_exchanges_need_not(world: World) -> None:
    time = times(world, "k_btc_30m")[-2]
    (old,) = world.execute("SELECT volume, taker_buy_volume FROM k_btc_30m WHERE open_time = ?", time)[:1]
    rewrite(world, "BTCUSDT", "30m", time, volume=old[0] + 1)
    report, state = look(world)
    found = {(finding.subject, finding.open_time, finding.detail) for finding in report.first}
    above = intervals.open_time_of("4h", time)  # it is a part of that one, too
    assert report.is_clean and set(report.notes) == {"contradiction"}
    assert found == {("k_btc_30m", time, "volume"), ("k_btc_4h", above, "volume")}
    rewrite(world, "BTCUSDT", "30m", time, volume=old[0] + 1, flags=lay.FLAG_DERIVED)
    report, state = look(world)
    assert dict(report.problems) == {"fold": 1} and dict(report.notes) == {"contradiction": 1}
    assert state.folds == {"k_btc_30m": [time]}
    rewrite(world, "BTCUSDT", "30m", time, volume=old[0], flags=lay.FLAG_DERIVED)
    assert look(world)[0].is_clean


def test_bars_that_wait_too_long_by_the_engines_clock_or_the_archives(world: World) -> None:
    last = times(world, "k_btc_1m")[-1]
    rewrite(world, "BTCUSDT", "1m", last - 30 * M, state=lay.STATE_CLOSED)
    rewrite(world, "BTCUSDT", "1m", last - 3 * M, state=lay.STATE_CLOSED)
    assert dict(look(world)[0].problems) == {"unconfirmed": 1}
    # The young bars of every series, too: fetched before they were half a minute old.
    report, state = look(world, now_ms=last + 60 * M)
    assert {last - 3 * M, last - 30 * M} <= set(state.states["k_btc_1m"].unconfirmed)


@pytest.mark.parametrize(
    ("sql", "words", "broken"),
    [
        ("UPDATE series SET symbol = 'CTCUSDT' WHERE table_name = 'k_btc_1m'", "says that it holds CTCUSDT", False),
        ("UPDATE series SET symbol = 'B C' WHERE table_name = 'k_btc_1m'", "entry that cannot be: 'B C'", False),
        ("UPDATE series SET interval = '3m' WHERE table_name = 'k_btc_1m'", "says that it holds BTCUSDT 3m", False),
        ("UPDATE series SET retired = 1 WHERE table_name = 'k_btc_1m'", "says retired = 1", False),
        ("UPDATE series SET price_decimals = 40 WHERE table_name = 'k_btc_1m'", "says 40 and", False),
        ("UPDATE series SET table_name = 'x' WHERE table_name = 'k_btc_1m'", "entry that cannot be", True),
        ("DELETE FROM series WHERE table_name = 'k_btc_1m'", "that series does not name", True),
        ("DROP TABLE k_btc_1m", "and it is not there", False),
        ("ALTER TABLE k_btc_1m RENAME COLUMN close TO klose", "columns are not those", True),
    ],
)
def test_entries_of_series(world: World, sql: str, words: str, broken: bool) -> None:
    world.execute(sql)
    try:
        report, state = look(world)
    except sqlite3.Error as error:
        raise AssertionError("SQLite's own error came out") from error
    assert any(finding.problem == "format" and words in finding.detail for finding in report.first), report.first
    assert state.broken == broken
    if "symbol" in sql or "interval" in sql:
        # The bars tell what they were written for, and are judged by that.
        assert state.renamed == {"k_btc_1m": ("BTCUSDT", "1m")} and "bits" not in report.problems


def test_progress_and_what_is_foreign(world: World) -> None:
    world.execute("UPDATE meta SET value = 'nonsense' WHERE key = 'watermark'")
    world.execute("INSERT INTO meta VALUES ('colour', 'red')")
    world.execute("CREATE TABLE notes (a)")
    report, state = look(world)
    assert dict(report.problems) == {"progress": 1} and dict(report.notes) == {"foreign": 2}
    assert state.watermark is None and not state.broken


def test_a_broken_file_is_a_finding_and_another_version_an_error(world: World) -> None:
    whole = world.archive.read_bytes()
    for damage in (b"no database" * 200, whole[:5000], whole[:20_000] + bytes(4096) + whole[24_096:]):
        world.archive.write_bytes(damage)
        report, state = look(world)
        assert state.broken and report.problems["structure"] > 0
    world.archive.write_bytes(whole)
    world.execute("UPDATE meta SET value = 77 WHERE key = 'version'")
    with pytest.raises(ArchiveError, match="has schema 77, this klshm writes"):
        look(world)
    world.execute("UPDATE meta SET value = 'x' WHERE key = 'version'")
    assert look(world)[1].broken
    world.archive.unlink()
    world.execute("CREATE TABLE t (a)")
    with pytest.raises(ArchiveError, match="of another program"):
        look(world)
    world.archive.write_bytes(b"")
    assert look(world)[0].is_clean


def test_a_locked_file_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.fsck.archive._BUSY_S", 0.05)
    other = sqlite3.connect(world.archive, isolation_level=None)
    other.execute("PRAGMA locking_mode = exclusive")
    other.execute("PRAGMA journal_mode = delete")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO meta VALUES ('colour', 'red')")
    with pytest.raises(ArchiveError, match="locked by another program"):
        look(world)
    other.close()
