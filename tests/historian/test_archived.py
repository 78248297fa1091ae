"""What an earlier run has stored is not asked for again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm import intervals
from klshm.config import ExchangeConfig, HistorianConfig, StoreConfig
from klshm.config.settings import load
from klshm.exchange.governor import Governor
from klshm.exchange.rest import RestClient
from klshm.historian import backfill as backfill_module
from klshm.historian.archived import Archived
from klshm.historian.backfill import Backfill
from klshm.historian.health import Health
from klshm.historian.inbox import historian_log, worker_inbox
from klshm.historian.source import RowSource
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing
from tests.historian.support import Consumers, KlineServer, http_server, listing, make_role
from tests.support.processes import PROJECT
from tests.support.segments import INTERVALS, segment


M = 60_000
T0 = 5_800_000 * 5 * M + 2 * M + 35_000
DEPTHS = {"default": 600, "1d": 50, "1w": 50}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker folds anything here: what it should have folded is asked for soon."""
    monkeypatch.setattr(backfill_module, "_FOLD_S", 0.05)


@asynccontextmanager
async def backfilled(
    directory: Path, server: KlineServer, archive: Path | None, now_ms: int, onboard_ms: int = 1
) -> AsyncIterator[tuple[Consumers, SymbolBook]]:
    """Run the backfill of two symbols over a new segment to its end."""
    with pytest.MonkeyPatch.context() as patch, segment(directory, patch) as made:
        async with http_server(server) as url:
            async with RestClient(ExchangeConfig(rest_url=url), Governor(), lambda: now_ms) as client:
                health = Health(make_role(made, url))
                inboxes, log = [worker_inbox(made, w) for w in (0, 1)], historian_log(made)
                book = SymbolBook(made)
                book.add([listing(n, onboard_ms) for n in ("KNOWN", "NEW")], {"KNOWN": 2, "NEW": 1})
                source = RowSource(client, inboxes, health, lambda: now_ms)
                config = HistorianConfig(concurrency=2, bars_per_interval=DEPTHS)
                archived = Archived(archive)
                backfill = Backfill(made, config, source, inboxes, log, health, lambda: now_ms, archived)
                consumers = Consumers(made)
                backfill.add(book.entries)
                task = asyncio.create_task(backfill.run())
                await consumers.until(lambda: not sum(o.flush() for o in (*inboxes, log)) and backfill.idle)
                task.cancel()
                await asyncio.wait([task])
                archived.close()
                yield consumers, book


def store(path: Path, symbol: str, rows: Any) -> None:
    archive = Archive(path, StoreConfig())
    archive.write(Batch((Listing(symbol),), rows), official=True)
    archive.close()


def first_run(tmp_path: Path, path: Path) -> None:
    """Fill an archive with what a first run fetches for one of the symbols."""
    (tmp_path / "first").mkdir()

    async def main() -> None:
        async with backfilled(tmp_path / "first", KlineServer(0), path, T0) as (consumers, book):
            rows = consumers.log[consumers.log["slot"] == book.entries[0].slot].copy()
            rows["slot"] = 0
            assert book.entries[0].name == "KNOWN"
            store(path, "KNOWN", rows)

    asyncio.run(main())


def second_run(
    tmp_path: Path, path: Path | None, later_ms: int, onboard_ms: int = 1
) -> tuple[list[tuple[str, int]], dict[str, list[int]]]:
    """Run again over it; return what was asked of KNOWN, and the open times its worker was sent."""
    (tmp_path / "second").mkdir()

    async def main() -> tuple[list[tuple[str, int]], dict[str, list[int]]]:
        server = KlineServer(onboard_ms)
        async with backfilled(tmp_path / "second", server, path, T0 + later_ms, onboard_ms) as (consumers, _):
            asked = [(q["interval"], int(q["limit"])) for q in server.asked if q["symbol"] == "KNOWN"]
            fetched = sum(rows for _, rows in asked)
            assert np.sum(consumers.log["slot"] == 0) <= fetched, "what the archive holds is not sent there again"
            new = {(q["interval"], int(q["limit"])) for q in server.asked if q["symbol"] == "NEW"}
            assert ("1m", 499) in new, "a series that is not there is new"
            sent = {name: np.unique(consumers.rows(0, name)["open_time"]).tolist() for name in INTERVALS}
            assert all(row["state"] == lay.STATE_CONFIRMED for row in consumers.rows(0, "1m"))
            return asked, sent

    return asyncio.run(main())


def test_after_a_short_stop_the_minutes_come_first_and_what_they_fold_into_only_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    asked, sent = second_run(tmp_path, path, 30 * M)
    assert asked == [("1m", 30), ("5m", 6), ("30m", 1)] or asked == [("1m", 30), ("30m", 1), ("5m", 6)]
    for name in INTERVALS:
        length_ms = intervals.length_ms(name)
        last_ms = intervals.open_time_of(name, T0 + 30 * M) - length_ms
        # Memory is full again up to the newest closed bar, whoever had the rows.
        assert sent[name][-1] == last_ms and np.all(np.diff(sent[name]) == length_ms)


def test_after_a_long_stop_every_interval_is_asked_for_its_own_gap(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    asked, _ = second_run(tmp_path, path, 550 * M)
    assert ("4h", 2) in asked and ("1m", 499) in asked and ("1m", 51) in asked


def test_nothing_new_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    asked, sent = second_run(tmp_path, path, 0)
    assert asked == [] and len(sent["1m"]) > 500


def test_bars_that_are_damaged_or_unconfirmed_are_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    with sqlite3.connect(path) as connection:
        newest = connection.execute("SELECT max(open_time) FROM k_known_1m").fetchone()[0]
        connection.execute("UPDATE k_known_1m SET high = high + 1 WHERE open_time = ?", (newest - 3 * M,))
        connection.execute("UPDATE k_known_1m SET state = 2 WHERE open_time = ?", (newest,))
    connection.close()
    asked, _ = second_run(tmp_path, path, 0)
    assert asked == [("1m", 4)]


def test_bars_of_an_earlier_listing_of_the_name_are_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    onboard_ms = T0 - 100 * M
    _, sent = second_run(tmp_path, path, 0, onboard_ms)
    assert len(sent["1m"]) == 100 and sent["1m"][0] == onboard_ms // M * M


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100])
def test_no_archive_or_a_broken_one_means_asking_for_everything(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "klines.db"
    if content is not None:
        path.write_bytes(content)
    asked, sent = second_run(tmp_path, path, 0)
    assert asked[0] == ("1m", 499) and len(sent["1m"]) > 500
    assert ("archive not used" in caplog.text) == bool(content)


def test_a_stop_longer_than_the_depth_leaves_no_break(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    asked, _ = second_run(tmp_path, path, 1500 * M)
    assert sum(rows for name, rows in asked if name == "1m") == 1500


def test_a_break_that_an_interrupted_run_left_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first: a run that is cut off leaves a break behind bars that are confirmed."""
    path = tmp_path / "klines.db"
    first_run(tmp_path, path)
    with sqlite3.connect(path) as connection:
        last = connection.execute("SELECT max(open_time) FROM k_known_1m").fetchone()[0]
        connection.execute("DELETE FROM k_known_1m WHERE open_time BETWEEN ? AND ?", (last - 550 * M, last - 520 * M))
    connection.close()
    monkeypatch.setitem(DEPTHS, "default", 500)
    asked, _ = second_run(tmp_path, path, 0)
    assert asked == [("1m", 31)]


def test_a_gap_of_the_exchange_itself_costs_two_questions_and_nothing_else(tmp_path: Path) -> None:
    """Everything but the gap is stored: the range that is asked for is the gap, and the answer is empty."""
    path = tmp_path / "klines.db"
    gap = [T0 // M * M - minutes * M for minutes in range(100, 110)]
    first_run(tmp_path, path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM k_known_1m WHERE open_time BETWEEN ? AND ?", (gap[-1], gap[0]))
    connection.close()
    (tmp_path / "second").mkdir()

    async def main() -> None:
        server = KlineServer(1)
        server.gaps = set(gap)
        async with backfilled(tmp_path / "second", server, path, T0) as (consumers, _):
            asked = [q for q in server.asked if q["symbol"] == "KNOWN" and q["startTime"] != "0"]
            assert {(q["interval"], int(q["startTime"]), int(q["limit"])) for q in asked} == {("1m", gap[-1], 10)}
            assert len(consumers.rows(0, "4h")) and len(consumers.rows(0, "1d"))
            assert len(consumers.rows(0, "1m")) >= 500

    asyncio.run(main())


def test_an_answer_that_ends_too_early_is_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()

    async def main() -> None:
        server = KlineServer(1)
        stutter = iter([True])
        server.spoil = lambda rows: rows[:-30] if next(stutter, False) else rows
        async with backfilled(tmp_path / "second", server, tmp_path / "none.db", T0) as (consumers, book):
            for entry in book.entries:
                assert len(np.unique(consumers.rows(entry.slot, "1m")["open_time"])) == 600

    asyncio.run(main())


def test_an_archive_that_is_not_to_be_used_is_not(tmp_path: Path) -> None:
    """The demo's holds bars of another simulated market."""
    first_run(tmp_path, tmp_path / "klines.db")
    asked, _ = second_run(tmp_path, None, 0)
    assert asked[0] == ("1m", 499)
    assert not load(str(PROJECT / "configs" / "demo.toml"), []).historian.from_archive
