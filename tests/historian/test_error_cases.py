"""The seven error cases of the original design (its document 001, section 6), each by its number.

The data service is run as it is, `fetch_history` with its real client and archive, and where the
engine fetches too, its `Backfill`; the exchange is a real server that fails as it is told.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from klshm import intervals
from klshm.errors import ArchiveError, BadMessage
from klshm.exchange.breaker import Breaker
from klshm.historian import alone as alone_module
from klshm.historian import backfill as backfill_module
from klshm.historian.rows import CONFIRM_AGE_MS
from klshm.shm import layout as lay
from klshm.store.archive import Archive
from tests.historian.backfill_world import World, with_world
from tests.historian.small_exchange import DEPTH, START, M, SmallExchange, fetch, stored
from tests.historian.support import KlineServer


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the purse in the test's directory, and let pauses between attempts be short."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(alone_module, "_PAUSE_S", (0.01, 0.02))
    monkeypatch.setattr("klshm.exchange.gate.Breaker", lambda: Breaker(0.01, 0.02))


def no_service(_: object = None) -> web.Response:
    return web.Response(status=503, text="Service Unavailable.")


# 1. A request that fails is recorded


def test_case_1_a_failed_request_is_recorded_with_its_series(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT", "BUSDT"), tmp_path / "klines.db"
    exchange.spoil = lambda _, query: no_service() if query.get("symbol") == "BUSDT" else None
    outcome = fetch(exchange, path, "1m", "5m")
    assert set(outcome.failed) == {"BUSDT 1m", "BUSDT 5m"}
    assert all("answered 503" in reason for reason in outcome.failed.values())
    assert (outcome.tasks, outcome.rows) == (4, 2 * DEPTH)
    assert len(stored(path, "AUSDT")) == DEPTH


def test_case_1_an_exchange_that_falls_silent_is_not_asked_for_every_series_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone_module, "_PATIENCE_S", 0.2)
    exchange = SmallExchange(*(f"S{number}USDT" for number in range(100)))

    def silent(path: str, query: dict[str, str]) -> web.StreamResponse | None:
        return no_service() if "klines" in path and len(exchange.asked) >= 3 else None

    exchange.spoil = silent
    outcome = fetch(exchange, tmp_path / "klines.db", "1m", concurrency=1)
    assert outcome.tasks == 100 and len(outcome.failed) == 97
    reasons = list(outcome.failed.values())
    assert "answered 503" in reasons[0] and "run it again later" in reasons[-1]
    assert outcome.requests < 97


@pytest.mark.parametrize(
    "spoilt",
    [
        no_service,
        lambda: web.Response(status=403, text="<html>Request blocked.</html>", content_type="text/html"),
        lambda: web.json_response({"code": -1000, "msg": "An unknown error occurred."}, status=500),
        lambda: web.Response(body=b'[[1795000000000,"83137.90","831', content_type="application/json"),
        lambda: web.json_response({"rows": []}),
    ],
    ids=["503", "page", "unknown error", "cut short", "another shape"],
)
def test_case_1_the_engine_goes_on_trying_for_as_long_as_the_exchange_fails(
    spoilt: Callable[[], web.Response],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Far more often than it would try for a symbol that serves no klines."""
    failures = 0

    async def main(world: World) -> None:
        answer = world.server.__class__.__call__

        def fail(server: KlineServer, request: web.Request) -> web.StreamResponse:
            nonlocal failures
            if failures < 5 * backfill_module._TRIES:
                failures += 1
                return spoilt()
            return answer(server, request)

        monkeypatch.setattr(KlineServer, "__call__", fail)
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        assert world.counters.get("backfill_failed") == 0
        assert len(world.consumers.rows(0, "1m")) == 600

    with_world(tmp_path, monkeypatch, main)
    assert failures == 5 * backfill_module._TRIES
    assert caplog.text.count("backfill failed, trying again: ") == 1


# 2. The database: made where there is none, tried again while it cannot be had


def test_case_2_a_database_that_is_not_there_is_made(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "directory" / "klines.db"
    assert fetch(SmallExchange("AUSDT"), path, "1m").failed == {}
    assert len(stored(path, "AUSDT")) == DEPTH


def test_case_2_a_database_that_another_holds_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    fetch(exchange, path, "5m")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    beats = 0

    def beat() -> None:  # between two attempts
        nonlocal beats
        beats += 1
        if beats == 2:
            other.execute("ROLLBACK")

    monkeypatch.setattr(alone_module, "Archive", lambda path, store: Archive(path, store, beat=beat))
    outcome = fetch(exchange, path, "1m")
    other.close()
    assert outcome.failed == {} and beats >= 2
    assert len(stored(path, "AUSDT")) == DEPTH


def test_case_2_a_database_that_cannot_be_had_ends_the_run_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "klines.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ArchiveError, match="klines.db") as caught:
        fetch(SmallExchange("AUSDT"), path, "1m")
    assert "\n" not in str(caught.value)


# 3. A table that cannot be made


def test_case_3_a_table_that_cannot_be_made_is_said_and_passed_up(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    fetch(exchange, path, "5m")
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE k_a_1m (something TEXT)")  # not ours
    with pytest.raises(ArchiveError, match="k_a_1m") as caught:
        fetch(exchange, path, "1m")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert len(stored(path, "AUSDT", "5m")) == DEPTH  # as it was


# 4. Rows that are there already


def test_case_4_a_row_that_is_there_already_is_updated(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    exchange.now_ms = START // M * M + 5_000  # the newest bar has just ended, and may still move
    fetch(exchange, path, "1m")
    before = stored(path, "AUSDT")
    assert before["state"].tolist() == [lay.STATE_CONFIRMED] * (DEPTH - 1) + [lay.STATE_CLOSED]
    exchange.klines.spoil = lambda rows: [[*row[:5], "6", row[6], "12", 9, *row[9:]] for row in rows]
    exchange.now_ms += 2 * M
    assert fetch(exchange, path, "1m").failed == {}
    after = stored(path, "AUSDT")
    assert len(after) == DEPTH + 2 and len(set(after["open_time"])) == DEPTH + 2
    assert after["volume"].tolist() == [5.0] * (DEPTH - 1) + [6.0] * 3
    assert after["trade_count"].tolist() == [4] * (DEPTH - 1) + [9] * 3


# 5. Concurrency


def test_case_5_never_more_requests_at_once_than_configured(tmp_path: Path) -> None:
    exchange = SmallExchange(*(f"S{number}USDT" for number in range(8)))
    exchange.pause_s = 0.02
    assert fetch(exchange, tmp_path / "klines.db", "1m", "5m", "30m", concurrency=3).failed == {}
    assert len(exchange.asked) == 24 and exchange.most_at_once == 3


def test_case_5_nor_in_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        # It sees no more series at once than it has workers, and each of these asks for one thing at a time.
        at_once = most = 0
        fetch = world.source.fetch

        async def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            try:
                return await fetch(*arguments, **options)
            finally:
                at_once -= 1

        monkeypatch.setattr(world.source, "fetch", counted)
        world.backfill.add(world.book.entries)
        await world.until_idle()
        assert most == 2

    with_world(tmp_path, monkeypatch, main, concurrency=2)


# 6. No data is no success


def test_case_6_nothing_at_all_is_no_success(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT", "BUSDT"), tmp_path / "klines.db"
    exchange.spoil = lambda _, query: web.json_response([]) if query.get("symbol") == "BUSDT" else None
    outcome = fetch(exchange, path, "1m", "5m")
    assert set(outcome.failed) == {"BUSDT 1m", "BUSDT 5m"}
    assert all("no rows at all" in reason for reason in outcome.failed.values())
    assert len(stored(path, "BUSDT")) == 0 and len(stored(path, "AUSDT")) == DEPTH


def test_case_6_an_empty_page_of_a_series_that_has_begun_is_no_success(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"

    def hole(_: str, query: dict[str, str]) -> web.StreamResponse | None:
        return web.json_response([]) if "startTime" in query and query["startTime"] != "0" else None

    exchange.spoil = hole
    outcome = fetch(exchange, path, "1m")
    assert list(outcome.failed) == ["AUSDT 1m"] and "expected some" in outcome.failed["AUSDT 1m"]


def test_case_6_an_exchange_without_contracts_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(BadMessage, match="no contract that can be used"):
        fetch(SmallExchange(), tmp_path / "klines.db", "1m")


def test_case_6_the_engine_does_not_believe_that_a_symbol_that_trades_has_no_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        answers = 0

        def late(rows: list[list[Any]]) -> list[list[Any]]:
            nonlocal answers
            answers += 1
            return rows if answers > 6 else []

        world.server.spoil = late
        world.backfill.add(world.book.entries[1:2])  # it had trades in the last 24 hours
        await world.until_idle()
        assert world.counters.get("backfill_failed") == 0
        assert len(world.consumers.rows(1, "1m")) == 600

    caplog.set_level(logging.INFO, logger="klshm")
    with_world(tmp_path, monkeypatch, main)
    assert "backfill refused symbol=BUSY try=1: BUSY klines: no 1m rows" in caplog.text


# 7. A range that ends before it begins


def test_case_7_a_range_that_ends_before_it_begins_is_never_sent(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    for since_ms in (START + 60 * M, START, START // M * M, START // M * M - 1):
        outcome = fetch(exchange, path, "1m", "1d", "1w", since_ms=since_ms)
        assert outcome.failed == {} and outcome.rows == 0
    assert exchange.asked == []
    fetch(exchange, path, "1m", "1d", "1w", since_ms=START // M * M - M)
    assert [(q["interval"], q["startTime"], q["endTime"]) for q in exchange.asked] == [
        ("1m", str(START // M * M - M), str(START // M * M - M))
    ]


def test_case_7_nor_in_any_other_run(tmp_path: Path) -> None:
    exchange, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    exchange.klines.origin_ms = START - 7 * M  # listed a few minutes ago
    for later_ms in (0, M, 5 * M, CONFIRM_AGE_MS):
        exchange.now_ms += later_ms
        assert fetch(exchange, path, *intervals.INTERVALS).failed == {}
    ranges = [(int(q["startTime"]), int(q["endTime"])) for q in exchange.asked if "endTime" in q]
    assert len(ranges) > 6 and all(first <= last for first, last in ranges)
