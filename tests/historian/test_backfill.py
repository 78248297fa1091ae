"""Backfill: what is asked for, in which order, and where it goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm import intervals
from klshm.config import ExchangeConfig, HistorianConfig
from klshm.exchange.governor import Governor
from klshm.exchange.rest import RestClient
from klshm.historian import backfill as backfill_module
from klshm.historian import tally as tally_module
from klshm.historian import tasks as tasks_module
from klshm.historian.archived import Archived
from klshm.historian.backfill import Backfill
from klshm.historian.health import Health
from klshm.historian.inbox import historian_log, worker_inbox
from klshm.historian.rows import kline_rows
from klshm.historian.source import RowSource
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.shm.rows import write_row
from tests.historian.support import Consumers, KlineServer, http_server, listing, make_role
from tests.support.segments import INTERVALS, segment


M = 60_000
T0 = 5_800_000 * 5 * M + 2 * M + 35_000
NO_ARCHIVE = Archived(Path("/nonexistent"))


class World:
    """Backfill wired to a made-up exchange and a real segment with three symbols."""

    def __init__(self, made: Any, server: KlineServer, client: RestClient, **config: Any) -> None:
        self.made, self.server, self.client = made, server, client
        self.config = {"concurrency": 4, "bars_per_interval": {"default": 600, "1d": 50, "1w": 50}, **config}
        self.health = Health(make_role(made, "http://127.0.0.1:1"))
        self.counters = self.health.counters
        self.inboxes = [worker_inbox(made, w) for w in (0, 1)]
        self.book = SymbolBook(made)
        self.book.add([listing(n) for n in ("QUIET", "BUSY", "MEDIUM")], {"QUIET": 1, "BUSY": 900, "MEDIUM": 50})
        self.consumers = Consumers(made)
        self.backfill = self.make()

    def make(self) -> Backfill:
        self.log = historian_log(self.made)
        self.source = RowSource(self.client, self.inboxes, self.health, now_ms)
        return Backfill(
            self.made,
            HistorianConfig(**self.config),
            self.source,
            self.inboxes,
            self.log,
            self.health,
            now_ms,
            NO_ARCHIVE,
        )

    async def until_idle(self, backfill: Backfill | None = None) -> None:
        backfill = backfill or self.backfill
        task = asyncio.create_task(backfill.run())
        await self.consumers.until(lambda: not sum(o.flush() for o in (*self.inboxes, self.log)) and backfill.idle)
        self.consumers.take()
        task.cancel()
        await asyncio.wait([task])


def now_ms() -> int:
    """Return a time that is not so close after the end of a bar that its row may still move."""
    return T0


def with_world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[World], Coroutine[Any, Any, None]],
    *,
    origin_ms: int = 0,
    **config: Any,
) -> None:
    monkeypatch.setattr(tasks_module, "_PAUSE_S", (0.01, 0.02))

    async def run() -> None:
        server = KlineServer(origin_ms)
        with segment(tmp_path, monkeypatch) as made:
            async with http_server(server) as url:
                async with RestClient(ExchangeConfig(rest_url=url), Governor(), now_ms) as client:
                    await main(World(made, server, client, **config))

    asyncio.run(run())


def test_first_pass_of_all_before_depth_of_any_busiest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        asked = [(q["symbol"], q["interval"], int(q["limit"])) for q in world.server.asked]
        # Each symbol: six requests of weight 7 in all, 1m first; then what is left of the depth.
        first = [("1m", 499), ("4h", 99), ("1d", 50), ("1w", 50), ("30m", 99), ("5m", 99)]
        depth = [("1m", 101), ("5m", 499), ("5m", 2), ("30m", 499), ("30m", 2), ("4h", 499), ("4h", 2)]
        assert asked == [(s, *f) for s in ("BUSY", "MEDIUM", "QUIET") for f in first] + [
            (s, *d) for s in ("BUSY", "MEDIUM", "QUIET") for d in depth
        ]
        assert world.counters.get("backfill_tasks") == world.counters.get("backfill_done") == 3 + 3 * 4

    with_world(tmp_path, monkeypatch, main, concurrency=1)


def test_rows_go_to_worker_and_persister(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        for entry in world.book.entries:
            for index, name in enumerate(INTERVALS):
                depth = world.config["bars_per_interval"].get(name, 600)
                logged = world.consumers.log
                logged = logged[(logged["slot"] == entry.slot) & (logged["interval"] == intervals.code_of(name))]
                length = intervals.length_ms(name)
                last_ms = intervals.open_time_of(name, now_ms()) - length
                opens = np.sort(logged["open_time"])
                assert len(opens) == depth and np.all(np.diff(opens) == length) and last_ms - opens[-1] <= length
                held = world.made.layout.history_rows[index] - 2
                sent = world.consumers.rows(entry.slot, name)
                assert len(sent) == min(depth, held)  # an older row would overwrite a newer one
                assert set(world.consumers.inbox[entry.worker]["slot"]) >= {entry.slot}
        # "done" stands behind the rows of the first pass
        done = world.consumers.commands(lay.COMMAND_HISTORY_DONE)
        assert sorted(done["slot"]) == [0, 1, 2]
        assert world.counters.get("backfill_rows_total") == len(world.consumers.log)

    with_world(tmp_path, monkeypatch, main)


def test_done_comes_after_the_rows_it_speaks_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries[:1])
        await world.until_idle()
        inbox = world.consumers.inbox[world.book.entries[0].worker]
        done = int(np.flatnonzero(inbox["interval"] == lay.INTERVAL_COMMAND)[0])
        before = inbox[:done]
        assert [int(np.sum(before["interval"] == intervals.code_of(n))) for n in INTERVALS] == [499, 99, 99, 99, 50, 50]

    with_world(tmp_path, monkeypatch, main, concurrency=1)


def test_new_symbol_has_its_origin_and_is_not_asked_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin_ms = (now_ms() // M - 100) * M

    async def main(world: World) -> None:
        entry = world.book.entries[0]
        world.backfill.add([entry])
        await world.until_idle()
        (origin,) = world.consumers.commands(lay.COMMAND_ORIGIN)
        assert (origin["slot"], origin["open_time"]) == (0, origin_ms)
        assert min(world.consumers.rows(0, "1m")["open_time"]) == origin_ms
        starts = {q["startTime"] for q in world.server.asked if q["interval"] == "4h"}
        assert all(int(s) >= intervals.open_time_of("4h", origin_ms) for s in starts)
        assert sum(q["limit"] == "1" and q["startTime"] == "0" for q in world.server.asked) == 1

    with_world(tmp_path, monkeypatch, main, origin_ms=origin_ms)


def test_nothing_traded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries[:1])
        world.server.spoil = lambda rows: []
        await world.until_idle()
        assert len(world.consumers.commands(lay.COMMAND_ORIGIN)) == 0
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 1
        assert sum(q["startTime"] == "0" for q in world.server.asked) == 1  # asked once a minute at most

    with_world(tmp_path, monkeypatch, main)


def test_rows_that_are_there_are_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()
        # What the workers do with the rows:
        for entry in world.book.entries:
            for index, name in enumerate(INTERVALS):
                rows = world.made.layout.history_rows[index]
                for row in world.consumers.rows(entry.slot, name):
                    place = (int(row["open_time"]) - intervals.anchor_ms(name)) // intervals.length_ms(name) % rows
                    at = world.made.layout.history_offset(entry.worker) // 8
                    at += (world.made.layout.history_row(entry.local_slot, index) + place) * 16
                    write_row(world.made.words, at, row.reshape(1).view(np.int64), 0)
        before = len(world.server.asked)
        successor = world.make()
        successor.add(world.book.entries)
        await world.until_idle(successor)
        again = world.server.asked[before:]
        # Beyond memory's reach rows may be asked for again; the first pass needs at most what closed meanwhile.
        assert all(int(q["limit"]) <= 2 or q["interval"] not in ("1m", "1d", "1w") for q in again)
        assert not any(int(q["limit"]) == 99 for q in again)
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 6

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


def test_switched_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        world.consumers.take()
        assert len(world.consumers.commands(lay.COMMAND_HISTORY_DONE)) == 3
        assert world.backfill.idle and world.server.asked == []

    with_world(tmp_path, monkeypatch, main, concurrency=0)


def test_delisted_symbols_are_asked_for_their_last_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The wait for the end of the minute and half a minute more, cut short to a moment.
    monkeypatch.setattr(backfill_module, "MINUTE_MS", 50)
    monkeypatch.setattr(backfill_module, "CONFIRM_AGE_MS", 0)

    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        world.backfill.remove(world.book.entries[1:])
        await world.until_idle()
        asked = {name: [q for q in world.server.asked if q["symbol"] == name] for name in ("QUIET", "BUSY", "MEDIUM")}
        assert len(asked["QUIET"]) > 6
        for name in ("BUSY", "MEDIUM"):
            assert [(q["interval"], q["limit"]) for q in asked[name]] == [
                *(("1m", "30"), ("5m", "2"), ("30m", "2"), ("4h", "2"), ("1d", "2"), ("1w", "2"))
            ]
        # Their worker has let go of them: the rows go to the archive alone.
        assert set(world.consumers.log["slot"]) == {0, 1, 2}
        assert {int(r["slot"]) for r in world.consumers.all if r["interval"] != lay.INTERVAL_COMMAND} == {0}

    with_world(tmp_path, monkeypatch, main)


def test_without_backfill_nothing_is_asked_of_the_delisted_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(world: World) -> None:
        world.backfill.remove(world.book.entries)
        assert world.backfill.idle

    with_world(tmp_path, monkeypatch, main, concurrency=0)


def test_higher_bar_read_young_is_read_again_when_it_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every row of the last minutes counts as young, and as final a moment later.
    shift_ms = 0

    def sometimes_young(raw: Any, interval: str, **more: Any) -> Any:
        more["sent_ms"] += shift_ms
        return kline_rows(raw, interval, **more)

    monkeypatch.setattr("klshm.historian.source.kline_rows", sometimes_young)
    monkeypatch.setattr(backfill_module, "CONFIRM_AGE_MS", 0)

    async def main(world: World) -> None:
        nonlocal shift_ms
        shift_ms = -30 * M
        five = INTERVALS.index("5m")
        last_ms = intervals.open_time_of("5m", now_ms()) - 5 * M
        await world.backfill._fetch(world.book.entries[0], five, last_ms - 15 * M, last_ms)
        young = world.backfill._queue._queue  # type: ignore[attr-defined]
        assert [(t.interval, t.again) for t in young] == [(five, (last_ms - 15 * M, last_ms))]
        shift_ms = 30 * M
        await world.until_idle()
        rows = world.consumers.rows(0, "5m")
        assert len(rows) == 8 and len(world.consumers.log) == 8
        assert set(rows["state"][:4]) == {lay.STATE_CLOSED} and set(rows["state"][4:]) == {lay.STATE_CONFIRMED}
        assert len(world.server.asked) == 2

    with_world(tmp_path, monkeypatch, main)


def test_progress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="klshm")
    monkeypatch.setattr(tally_module, "_PROGRESS_S", 0.005)

    async def main(world: World) -> None:
        world.backfill.add(world.book.entries)
        await world.until_idle()

    with_world(tmp_path, monkeypatch, main, concurrency=1)
    assert "backfill under way tasks=" in caplog.text and "eta_s=" in caplog.text
