"""Backfill where answers are empty, wrong, refused, or do not come."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest

from klshm.config import HistorianConfig
from klshm.historian.backfill import Backfill
from klshm.historian.source import RowSource
from klshm.shm import layout as lay
from tests.historian.backfill_world import NO_ARCHIVE, M, World, now_ms, with_world


def test_nothing_traded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add([dataclasses.replace(world.book.entries[0], trades_24h=0)])
        world.server.spoil = lambda rows: []
        await world.until_idle()
        assert len(world.consumers.commands(lay.COMMAND_ORIGIN)) == 0
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 1
        assert sum(q["startTime"] == "0" for q in world.server.asked) == 1  # asked once a minute at most

    with_world(tmp_path, monkeypatch, main)


def test_gap_is_believed_when_a_second_answer_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main(world: World) -> None:
        lost_ms = (now_ms() // M - 200) * M
        world.server.gaps = {lost_ms}
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        opens = set(world.consumers.rows(0, "1m")["open_time"])
        assert lost_ms not in opens and {lost_ms - M, lost_ms + M} <= opens
        assert sum(q["interval"] == "1m" and q["limit"] == "499" for q in world.server.asked) == 2

    with_world(tmp_path, monkeypatch, main)
    assert "exchange has a gap symbol=QUIET interval=1m" in caplog.text


def test_stutter_of_an_answer_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        def stutter(rows: list[list[Any]]) -> list[list[Any]]:
            world.server.spoil = lambda later: later
            return rows[:100] + rows[110:]

        world.server.spoil = stutter
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        assert len(world.consumers.rows(0, "1m")) == 600

    with_world(tmp_path, monkeypatch, main)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: [*rows[:-1], [*rows[-1][:5], "-1", *rows[-1][6:]]],
        lambda rows: [[rows[0][0] - M * 10_080, *rows[0][1:6], rows[0][6] - M * 10_080, *rows[0][7:]], *rows[1:]],
    ],
)
def test_bad_batch_is_refused_counted_and_asked_again(
    spoil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(world: World) -> None:
        def once(rows: list[list[Any]]) -> list[list[Any]]:
            world.server.spoil = lambda later: later
            return spoil(rows)  # type: ignore[no-any-return]

        world.server.spoil = once
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        assert world.counters.get("rows_refused_total") >= 498
        assert len(world.consumers.rows(0, "1m")) == 600
        assert world.counters.get("backfill_failed") == 0

    with_world(tmp_path, monkeypatch, main)


def test_symbol_that_serves_no_klines_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main(world: World) -> None:
        world.server.refusal = (400, {"code": -1122, "msg": "Invalid symbol status."})
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        assert world.counters.get("backfill_failed") == 1 and len(world.server.asked) == 8
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) >= 1

    with_world(tmp_path, monkeypatch, main)
    assert "backfill given up symbol=QUIET tries=8" in caplog.text
    assert "backfill finished tasks=1 failed=1" in caplog.text


def test_way_that_is_broken_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        calls = 0

        class Flaky(RowSource):
            async def fetch(self, *arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls <= 20:
                    from klshm.errors import ExchangeUnreachable

                    raise ExchangeUnreachable("no way")
                return await super().fetch(*arguments, **options)

        flaky = Flaky(world.client, world.inboxes, world.health, now_ms)
        backfill = Backfill(
            world.made,
            HistorianConfig(concurrency=2),
            flaky,
            world.inboxes,
            world.log,
            world.health,
            now_ms,
            NO_ARCHIVE,
        )
        backfill.add(world.book.entries[:1])
        await world.until_idle(backfill)
        assert world.counters.get("backfill_failed") == 0 and len(world.consumers.rows(0, "1m")) == 606

    with_world(tmp_path, monkeypatch, main)


def test_bug_in_one_task_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        fetch = RowSource.fetch

        async def broken(self: RowSource, entry: Any, *rest: Any) -> Any:
            if entry.name == "BUSY":
                raise RuntimeError("a bug")
            return await fetch(self, entry, *rest)

        monkeypatch.setattr(RowSource, "fetch", broken)
        world.backfill.add(world.book.entries)
        await world.until_idle()
        assert world.counters.get("backfill_failed") == 1
        assert len(world.consumers.rows(0, "1m")) == 600

    with_world(tmp_path, monkeypatch, main)
    assert "backfill failed symbol=BUSY" in caplog.text and "a bug" in caplog.text
