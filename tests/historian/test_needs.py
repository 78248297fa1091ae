"""Needs: when a minute is due, and that what is asked for arrives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.config import ExchangeConfig
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.rest import RestClient
from klshm.historian.health import Health
from klshm.historian.inbox import worker_inbox
from klshm.historian.needs import Need, Needs, NeedsTable, _Allowance, _Asked, due_range
from klshm.historian.source import RowSource
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE, NEED, ROW_WORDS
from klshm.shm.rows import write_row
from tests.historian.support import Consumers, KlineServer, SetClock, http_server, listing, make_role
from tests.support.exchange import exchange
from tests.support.segments import segment


M = 60_000
T0 = 29_000_000 * M


def write_need(made: Any, worker: int, local_slot: int, **fields: int) -> None:
    """Write a row of the needs table as a worker does."""
    row = np.zeros(1, dtype=NEED)
    for name, value in fields.items():
        row[name] = value
    at = made.layout.needs_offset(worker) // 8 + local_slot * 16
    write_row(made.words, at, row.view(np.int64), 0)


@pytest.mark.parametrize(
    ("reason", "from_ms", "to_ms", "now_ms", "expected"),
    [
        (lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 9_999, None),
        (lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 10_000, (T0, T0)),
        (lay.NEED_HOLE, T0, T0, T0 + M + 4_999, None),
        (lay.NEED_HOLE, T0, T0, T0 + M + 5_000, (T0, T0)),
        (lay.NEED_DOUBT | lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 5_000, (T0, T0)),
        (lay.NEED_LOST_FRAME | lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 4_999, None),
        (lay.NEED_LOST_FRAME | lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 5_000, (T0, T0)),
        # minutes without trades wait until the exchange's row does not move any more
        (lay.NEED_EMPTY, T0, T0, T0 + M + 29_999, None),
        (lay.NEED_EMPTY, T0, T0 + M, T0 + M + 30_000, (T0, T0)),
        (lay.NEED_EMPTY | lay.NEED_UNCONFIRMED, T0, T0, T0 + M + 10_000, (T0, T0)),
        # the newest minutes are not due yet: those before them are asked for
        (lay.NEED_HOLE, T0, T0 + 5 * M, T0 + 3 * M, (T0, T0 + M)),
        (lay.NEED_HOLE, T0, T0 + 5 * M, T0 + 30 * M, (T0, T0 + 5 * M)),
        # a long outage goes in pages, oldest first
        (lay.NEED_HOLE, T0, T0 + 5000 * M, T0 + 9000 * M, (T0, T0 + 498 * M)),
    ],
)  # fmt: skip
def test_due_range(reason: int, from_ms: int, to_ms: int, now_ms: int, expected: tuple[int, int] | None) -> None:
    assert due_range(Need(1, from_ms, to_ms, reason), now_ms) == expected


@pytest.mark.parametrize(
    ("reason", "priority"),
    [
        (lay.NEED_HOLE, Priority.REPAIR),
        (lay.NEED_DOUBT | lay.NEED_UNCONFIRMED, Priority.REPAIR),
        (lay.NEED_UNCONFIRMED, Priority.CONFIRM),
        (lay.NEED_EMPTY, Priority.CONFIRM),
        (lay.NEED_UNCONFIRMED | lay.NEED_LOST_FRAME, Priority.CONFIRM),
    ],
)
def test_priority(reason: int, priority: Priority) -> None:
    assert Need(0, 0, 0, reason).priority is priority


def test_pauses_grow_only_for_what_is_asked_in_vain() -> None:
    asked, now_ms = _Asked(), T0 + 10 * M
    pauses = []
    for _ in range(14):
        asked.begin(T0, T0, now_ms)
        pauses.append(asked.next_ms - now_ms)
    assert pauses == [5000] * 8 + [10_000, 20_000, 40_000] + [60_000] * 3
    asked.begin(T0 + M, T0 + M, now_ms)
    assert asked.next_ms == now_ms + 5000


def test_minute_read_young_is_read_again_when_it_may_be_final_and_for_the_last_word() -> None:
    asked, end_ms = _Asked(), T0 + M
    asked.begin(T0, T0, end_ms + 5_000)
    assert asked.next_ms == end_ms + 30_000
    asked.begin(T0, T0, end_ms + 28_000)
    assert asked.next_ms == end_ms + 33_000
    asked.begin(T0, T0, end_ms + 33_000)
    assert asked.next_ms == end_ms + 60_000
    asked.begin(T0, T0, end_ms + 60_000)
    assert asked.tries == 1


def test_without_spare_weight_nothing_is_asked_that_must_be_asked_again() -> None:
    need = Need(1, T0, T0, lay.NEED_DOUBT)
    assert due_range(need, T0 + M + 29_999, hurried=False) is None
    assert due_range(need, T0 + M + 30_000, hurried=False) == (T0, T0)
    assert due_range(Need(1, T0, T0, lay.NEED_UNCONFIRMED), T0 + M + 10_000, hurried=False) == (T0, T0)


def test_what_proves_little_is_asked_for_so_early_that_the_request_arrives_in_time() -> None:
    """How much an older row proves is judged by when it was asked for: no lead there."""
    for reason, arrive_ms in ((lay.NEED_HOLE, 5_000), (lay.NEED_LOST_FRAME, 5_000), (lay.NEED_UNCONFIRMED, 10_000)):
        need = Need(1, T0, T0, reason)
        assert due_range(need, T0 + M + arrive_ms - 81, lead_ms=80) is None
        assert due_range(need, T0 + M + arrive_ms - 80, lead_ms=80) == (T0, T0)
    assert due_range(Need(1, T0, T0, lay.NEED_EMPTY), T0 + M + 29_999, lead_ms=80) is None
    assert due_range(Need(1, T0, T0, lay.NEED_HOLE), T0 + M + 29_999, lead_ms=80, hurried=False) is None


def test_table_shows_what_is_whole_and_makes_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        good = {"slot": 7, "from_ms": T0, "to_ms": T0 + M, "reason": lay.NEED_HOLE}
        write_need(made, 1, 3, **good)
        write_need(made, 1, 4, **{**good, "reason": 0})
        write_need(made, 1, 5, **{**good, "from_ms": 0})
        write_need(made, 1, 6, **{**good, "to_ms": T0 - M})
        write_need(made, 1, 8, **{**good, "from_ms": T0 + 1})
        write_need(made, 1, 9, **good)
        made.words[made.layout.needs_offset(1) // 8 + 9 * 16] |= 1  # being written
        assert list(NeedsTable(made, 1).read()) == [Need(7, T0, T0 + M, lay.NEED_HOLE)]
        assert list(NeedsTable(made, 0).read()) == []


class World:
    """Needs wired to an exchange, a table of its symbols and a clock that can be shifted."""

    sim: Any

    def __init__(
        self, made: Any, client: RestClient, rest_url: str, now_ms: Callable[[], int], listings: list[Any]
    ) -> None:
        self.made, self.client, self.now_ms = made, client, now_ms
        self.role = make_role(made, rest_url)
        self.health = Health(self.role)
        inboxes = [worker_inbox(made, w) for w in (0, 1)]
        self.book = SymbolBook(made)
        self.book.add(listings, {})
        self.source = RowSource(client, inboxes, self.health, now_ms)
        clock = SetClock(now_ms)
        self.needs = Needs(made, self.book, self.source, inboxes, self.health, client.governor, clock, concurrency=2)
        self.consumers = Consumers(made)

    def want(self, slot: int, from_ms: int, to_ms: int, reason: int) -> None:
        entry = self.book.entries[slot]
        write_need(self.made, entry.worker, entry.local_slot, slot=slot, from_ms=from_ms, to_ms=to_ms, reason=reason)

    async def until_answered(self) -> None:
        await self.consumers.until(lambda: not self.needs._running)

    async def until_requests(self, count: int) -> None:
        await self.consumers.until(lambda: self.client.requests >= count and not self.needs._running)


def with_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, main: Callable[[World], Coroutine[Any, Any, None]]
) -> None:
    async def run(sim: Any) -> None:
        with segment(tmp_path, monkeypatch) as made:

            def now_ms() -> int:
                return time.time_ns() // 1_000_000

            async with RestClient(ExchangeConfig(rest_url=sim.rest_url), Governor(), now_ms) as client:
                info = sim.get("/fapi/v1/exchangeInfo")["symbols"]
                trading = [s for s in info if s["status"] == "TRADING" and s["quoteAsset"] == "USDT"]
                listings = [listing(s["symbol"], s["onboardDate"]) for s in trading]
                world = World(made, client, sim.rest_url, now_ms, listings)
                world.sim = sim
                await main(world)

    with exchange("--symbols", "4", "--rate", "50") as sim:
        asyncio.run(run(sim))


def test_repair_arrives_in_the_inbox_of_the_right_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        last = world.now_ms() // M * M - 2 * M
        world.want(1, last - 4 * M, last, lay.NEED_HOLE)
        world.needs.scan()
        await world.until_requests(1)
        entry = world.book.entries[1]
        rows = world.consumers.inbox[entry.worker]
        assert list(rows["open_time"]) == [last + i * M for i in range(-4, 1)]
        assert set(rows["slot"]) == {1} and set(rows["state"]) == {lay.STATE_CONFIRMED}
        assert len(world.consumers.log) == 0  # the worker logs what changes
        assert world.health.counters.get("repair_requests_total") == 1
        world.needs.scan()  # asked again no sooner than after 5 s
        assert not world.needs._running

    with_world(tmp_path, monkeypatch, main)


def test_most_urgent_first_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        last = world.now_ms() // M * M - 2 * M
        world.want(0, last, last, lay.NEED_UNCONFIRMED)
        world.want(1, last, last, lay.NEED_HOLE)
        world.want(2, last, last, lay.NEED_DOUBT)
        world.needs.scan()
        assert len(world.needs._running) == 2
        await world.until_requests(2)
        assert set(world.consumers.all["slot"]) == {1, 2}
        world.needs.scan()
        await world.until_requests(3)
        assert set(world.consumers.all["slot"]) == {0, 1, 2}
        assert world.health.counters.get("confirm_requests_total") == 1

    with_world(tmp_path, monkeypatch, main)


def test_slot_that_does_not_exist_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        write_need(world.made, 0, 9, slot=31, from_ms=T0, to_ms=T0, reason=lay.NEED_HOLE)
        world.needs.scan()
        assert not world.needs._running

    with_world(tmp_path, monkeypatch, main)


def test_failure_leaves_the_need_for_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        monkeypatch.setattr("klshm.historian.needs._AGAIN_MS", 0)
        last = world.now_ms() // M * M - 2 * M
        world.sim.fault(name="http_status", status=503, count=1)
        world.want(0, last, last, lay.NEED_HOLE)
        world.needs.scan()
        await world.until_requests(1)
        assert len(world.consumers.all) == 0
        world.needs.scan()
        await world.until_requests(2)
        assert len(world.consumers.all) == 1

    with_world(tmp_path, monkeypatch, main)


def test_ban_stops_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        monkeypatch.setattr("klshm.historian.needs._AGAIN_MS", 0)
        last = world.now_ms() // M * M - 2 * M
        world.sim.fault(name="http_status", status=418, count=1)
        world.want(0, last, last, lay.NEED_HOLE)
        world.needs.scan()
        await world.until_requests(1)
        world.needs.scan()
        assert not world.needs._running and world.client.requests == 1

    with_world(tmp_path, monkeypatch, main)


def test_worker_that_takes_nothing_is_not_fed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        monkeypatch.setattr("klshm.historian.needs._QUEUE_ROWS", -1)
        last = world.now_ms() // M * M - 2 * M
        world.want(0, last, last, lay.NEED_HOLE)
        world.needs.scan()
        assert not world.needs._running

    with_world(tmp_path, monkeypatch, main)


def test_minutes_that_seem_empty_share_a_small_part_of_the_budget_until_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(world: World) -> None:
        world.client.governor.limit = 40  # a thirtieth and a little: one request
        last = world.now_ms() // M * M - 2 * M
        for slot in (0, 1):
            world.want(slot, last, last, lay.NEED_EMPTY)
        world.needs.scan()
        assert len(world.needs._running) == 1
        await world.until_requests(1)
        world.want(2, last - 20 * M, last, lay.NEED_EMPTY)
        world.needs.scan()
        assert len(world.needs._running) == 1  # the old one does not wait any longer
        await world.until_requests(2)
        assert {int(slot) for slot in world.consumers.all["slot"]} == {0, 2}

    with_world(tmp_path, monkeypatch, main)


def test_allowance_is_given_anew_each_minute() -> None:
    governor = Governor()
    governor.limit = 100
    allowance = _Allowance(governor)
    assert [allowance.take(2, T0), allowance.take(2, T0), allowance.take(1, T0), allowance.take(1, T0)] == [
        *(True, False, True, False)
    ]
    assert not allowance.take(1, T0 + M - 1) and allowance.take(1, T0 + M)


def test_run_scans_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        task = asyncio.create_task(world.needs.run())
        await asyncio.sleep(0)
        last = world.now_ms() // M * M - 2 * M
        world.want(3, last, last, lay.NEED_HOLE)
        await world.until_requests(1)
        assert set(world.consumers.all["slot"]) == {3}
        task.cancel()

    with_world(tmp_path, monkeypatch, main)


def test_before_the_first_row_the_worker_is_told_the_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        entry = world.book.entries[0]
        first = world.sim.get(f"/fapi/v1/klines?symbol={entry.name}&interval=1m&startTime=0&limit=1")[0][0]
        world.want(0, first - 10 * M, first + 2 * M, lay.NEED_UNCONFIRMED)
        world.needs.scan()
        await world.until_requests(2)
        origin = world.consumers.commands(lay.COMMAND_ORIGIN)
        assert list(origin["open_time"]) == [first] and list(origin["slot"]) == [0]
        assert list(world.consumers.rows(0, "1m")["open_time"]) == [first, first + M, first + 2 * M]
        assert world.source.origin_ms(entry) == first

    with_world(tmp_path, monkeypatch, main)


def test_a_minute_without_a_row_is_given_up_after_two_answers_ten_minutes_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [T0 + 10 * M]
    server = KlineServer(0)
    server.gaps = {T0 + M}

    async def main() -> None:
        with segment(tmp_path, monkeypatch) as made:
            async with http_server(server) as url:
                async with RestClient(ExchangeConfig(rest_url=url), Governor(), lambda: now[0]) as client:
                    world = World(made, client, url, lambda: now[0], [listing("BTCUSDT")])
                    world.want(0, T0, T0 + 3 * M, lay.NEED_HOLE)
                    world.needs.scan()
                    await world.until_answered()
                    assert len(world.consumers.rows(0, "1m")) == 3
                    asked = len(server.asked)
                    # The row before it is confirmed now; nothing is asked until ten minutes have passed.
                    world.want(0, T0 + M, T0 + 3 * M, lay.NEED_HOLE)
                    now[0] += 8 * M
                    world.needs.scan()
                    await world.until_answered()
                    assert [int(q["startTime"]) for q in server.asked[asked:]] == [T0 + 2 * M]
                    assert len(world.consumers.commands(lay.COMMAND_NO_ROW)) == 0
                    now[0] += 3 * M
                    world.needs.scan()
                    await world.until_answered()
                    told = world.consumers.commands(lay.COMMAND_NO_ROW)
                    assert told["open_time"].tolist() == [T0 + M] and told["slot"].tolist() == [0]
                    asked = len(server.asked)
                    world.want(0, T0 + M, T0 + M, lay.NEED_HOLE)
                    now[0] += 60 * M
                    world.needs.scan()
                    await world.until_answered()
                    assert len(server.asked) == asked

                    # The worker's need stays on it; what is asked for is what is not confirmed far behind it.
                    view = made.layout
                    for minute in range(2, 25):
                        row = np.zeros(1, dtype=KLINE)
                        row["open_time"], row["sequence"] = T0 + minute * M, 2
                        row["state"] = lay.STATE_CLOSED if minute == 20 else lay.STATE_CONFIRMED
                        index = (T0 // M + minute) % view.history_rows[0]
                        at = view.history_offset(0) // 8 + (view.history_row(0, 0) + index) * ROW_WORDS
                        made.words[at : at + ROW_WORDS] = row.view(np.int64)
                    world.want(0, T0 + M, T0 + 24 * M, lay.NEED_UNCONFIRMED)
                    world.needs.scan()
                    await world.until_answered()
                    assert [int(q["startTime"]) for q in server.asked[asked:]] == [T0 + 20 * M]

    asyncio.run(main())
    assert f"exchange has no row symbol=BTCUSDT open_time_ms={T0 + M}" in caplog.text
