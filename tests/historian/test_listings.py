"""Which symbols are carried: the judge, pure; and the whole against the simulator."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from klshm.config import ExchangeConfig
from klshm.exchange.governor import Governor
from klshm.exchange.models import ExchangeInfo, Listing
from klshm.exchange.rest import RestClient
from klshm.historian.health import Health
from klshm.historian.inbox import worker_inbox
from klshm.historian.listings import Judge, Listings, Verdict, _pause_s
from klshm.historian.symbols import Entry, SymbolBook
from klshm.shm import layout as lay
from klshm.shm.view import SymbolTable
from tests.historian.support import Consumers, listing, make_role
from tests.support.exchange import Exchange, exchange
from tests.support.segments import segment


def answer(*listings: Listing, odd: int = 0) -> ExchangeInfo:
    return ExchangeInfo(listings, odd, ("what",) * odd, 2400)


def others(count: int) -> list[Listing]:
    return [listing(f"O{i}", quote_asset="USDC") for i in range(count)]


def usdt(name: str, **changes: Any) -> Listing:
    return listing(name, **{"quote_asset": "USDT", **changes})


def entry(slot: int, name: str, **changes: Any) -> Entry:
    return dataclasses.replace(
        Entry(slot, name, lay.SYMBOL_TRADING, 0, slot, 2, 3, 1, 9, 0, contract=1, pair=name), **changes
    )


class TestJudge:
    def judge(self, judge: Judge, *listings: Listing, carried: list[Entry] | None = None, room: int = 99) -> Verdict:
        return judge.judge(answer(*listings), {e.name: e for e in carried or []}, room)

    def test_trading_ones_are_added_by_listing_time(self) -> None:
        verdict = self.judge(
            Judge(ExchangeConfig()),
            usdt("C", onboard_ms=3),
            usdt("B", onboard_ms=2),
            usdt("A", onboard_ms=2),
            usdt("P", status="PENDING_TRADING", onboard_ms=77),
            usdt("S", status="SETTLING"),
            listing("U", quote_asset="USDC"),
        )
        assert [x.symbol for x in verdict.added] == ["A", "B", "C"]
        assert verdict.next_onboard_ms == 77

    def test_newest_are_left_out_when_there_is_no_room(self) -> None:
        verdict = self.judge(Judge(ExchangeConfig()), usdt("NEW", onboard_ms=5), usdt("OLD"), room=1)
        assert [x.symbol for x in verdict.added] == ["OLD"]
        assert [x.symbol for x in verdict.left_out] == ["NEW"]

    @pytest.mark.parametrize("end", ["vanished", "SETTLING", "CLOSE", "DELIVERING", "DELIVERED"])
    def test_gone_only_when_two_answers_agree(self, end: str) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A"), entry(1, "B")]
        rows = [usdt("B"), *others(20)] + ([] if end == "vanished" else [usdt("A", status=end)])
        assert self.judge(judge, *rows, carried=carried).removed == []
        (removed,) = self.judge(judge, *rows, carried=carried).removed
        assert removed == entry(0, "A", status=lay.SYMBOL_DELISTED)

    def test_back_in_between_clears_the_suspicion(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A")]
        for rows in (others(20), [usdt("A"), *others(20)], others(20)):
            assert self.judge(judge, *rows, carried=carried).removed == []

    def test_shrunken_answers_remove_nothing_however_often(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A")]
        self.judge(judge, usdt("A"), *others(99), carried=carried)
        for rows in ([], others(89), others(89)):
            verdict = self.judge(judge, *rows, carried=carried)
            assert verdict.shrunk and verdict.removed == []
        assert not self.judge(judge, *others(90), carried=carried).shrunk  # 90 of 100: believed from here on
        assert len(self.judge(judge, *others(90), carried=carried).removed) == 1

    def test_suspicion_does_not_reach_over_a_shrunken_answer(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A")]
        self.judge(judge, *others(100), carried=carried)
        self.judge(judge, *others(10), carried=carried)
        assert self.judge(judge, *others(100), carried=carried).removed == []

    def test_ended_by_name_are_removed_even_if_they_are_most_of_what_is_carried_but_a_tenth_at_once(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(i, name) for i, name in enumerate("ABC")]
        rows = [*others(20), *(usdt(name, status="CLOSE") for name in "AB"), usdt("C")]
        removed = []
        for _ in range(4):
            gone = [e.name for e in self.judge(judge, *rows, carried=carried).removed]
            carried = [e for e in carried if e.name not in gone]
            removed.append(gone)
        assert removed == [[], ["A"], ["B"], []]

    def test_an_end_by_name_counts_in_a_shrunken_answer_too(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A"), entry(1, "B")]
        self.judge(judge, usdt("A"), usdt("B"), *others(98), carried=carried)
        for expected in ([], ["A"]):
            verdict = self.judge(judge, usdt("A", status="CLOSE"), *others(50), carried=carried)
            assert verdict.shrunk and [e.name for e in verdict.removed] == expected

    def test_a_ticker_that_was_reused_while_nobody_looked_is_another_listing(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A", onboard_ms=1_000)]
        day_ms = 86_400_000
        for corrected in (0, 999, day_ms):
            rows = [usdt("A", onboard_ms=1_000 + corrected), *others(20)]
            assert [self.judge(judge, *rows, carried=carried).removed for _ in range(3)] == [[], [], []]
        rows = [usdt("A", onboard_ms=1_001 + day_ms), *others(20)]
        assert self.judge(judge, *rows, carried=carried).removed == []
        assert [e.slot for e in self.judge(judge, *rows, carried=carried).removed] == [0]
        assert [x.symbol for x in self.judge(judge, *rows).added] == ["A"]
        unknown = [entry(0, "A", onboard_ms=0)]
        assert [self.judge(judge, *rows, carried=unknown).removed for _ in range(3)] == [[], [], []]

    def test_new_symbols_are_taken_from_a_shrunken_answer(self) -> None:
        judge = Judge(ExchangeConfig())
        self.judge(judge, *others(100))
        assert [x.symbol for x in self.judge(judge, usdt("N")).added] == ["N"]

    def test_changes_of_a_carried_symbol(self) -> None:
        judge, carried = Judge(ExchangeConfig()), [entry(0, "A"), entry(1, "B")]
        changed = Listing("A", 4, 1, "PRE_SETTLE", "A", "PERPETUAL", "USDT", 1, 77)
        (now,) = self.judge(judge, changed, usdt("B"), carried=carried).changed
        assert now == entry(0, "A", status=lay.SYMBOL_HALTED, price_decimals=4, delivery_ms=77)


@pytest.mark.parametrize(
    ("next_onboard_ms", "pause_s"),
    [(0, 60.0), (1_000_000 + 5_000, 5.5), (1_000_000 + 600_000, 60.0), (1_000_000 - 5_000, 2.0), (1_000, 60.0)],
)
def test_asks_closely_around_an_announced_begin(next_onboard_ms: int, pause_s: float) -> None:
    assert _pause_s(next_onboard_ms, 1_000_000) == pause_s


class World:
    """Listings wired to the simulator and a real segment."""

    def __init__(self, made: Any, sim: Exchange, client: RestClient) -> None:
        self.sim, self.client, self.made = sim, client, made
        self.role = make_role(made, sim.rest_url)
        self.health = Health(self.role)
        self.added: list[Entry] = []
        self.removed: list[Entry] = []
        self.listings = self.make()
        self.consumers, self.table = Consumers(made), SymbolTable(made)

    def make(self, **config: Any) -> Listings:
        return Listings(
            SymbolBook(self.made),
            ExchangeConfig(rest_url=self.sim.rest_url, **config),
            self.client,
            [worker_inbox(self.made, w) for w in (0, 1)],
            self.health,
            lambda: time.time_ns() // 1_000_000,
            on_added=self.added.extend,
            on_removed=self.removed.extend,
        )


def with_world(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    main: Callable[[World], Coroutine[Any, Any, None]],
    *options: str,
    **layout: Any,
) -> None:
    async def run(sim: Exchange) -> None:
        with segment(tmp_path, monkeypatch, **layout) as made:
            config = ExchangeConfig(rest_url=sim.rest_url)
            async with RestClient(config, Governor(), lambda: time.time_ns() // 1_000_000) as client:
                await main(World(made, sim, client))

    with exchange("--symbols", "6", "--rate", "50", *options) as sim:
        asyncio.run(run(sim))


def status_of(market: Exchange, symbol: str) -> str:
    """Return what the exchange says of a symbol."""
    [status] = [row["status"] for row in market.get("/fapi/v1/exchangeInfo")["symbols"] if row["symbol"] == symbol]
    return str(status)


def test_listing_and_delisting_over_the_life_of_a_symbol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main(world: World) -> None:
        await world.listings.update()
        count = world.table.count
        assert count == len(world.added) == 6
        world.consumers.take()
        add = world.consumers.commands(lay.COMMAND_ADD)
        assert sorted(add["slot"]) == list(range(count))
        world.sim.fault(name="list_symbol", symbol="NEWUSDT", delay_s=2)
        verdict = await world.listings.update()
        assert verdict.next_onboard_ms > 0 and world.table.find("NEWUSDT") == -1
        task = asyncio.create_task(world.listings.run())
        await world.consumers.until(lambda: world.table.find("NEWUSDT") == count)
        await world.consumers.until(lambda: len(world.consumers.commands(lay.COMMAND_ADD)) >= count + 1)
        row = world.table.row(count)
        add = world.consumers.commands(lay.COMMAND_ADD)
        add = add[add["slot"] == count][0]
        assert add["open_time"] == row["onboard_ms"] and add["price_decimals"] == row["price_decimals"]
        world.sim.fault(name="delist_symbol", symbol="NEWUSDT", delay_s=0)
        await world.consumers.until(lambda: status_of(world.sim, "NEWUSDT") != "TRADING")
        for _ in range(2):
            world.listings.refresh()
            answered = world.client.requests
            await world.consumers.until(lambda before=answered: world.client.requests > before)  # type: ignore[misc]
        await world.consumers.until(lambda: len(world.consumers.commands(lay.COMMAND_REMOVE)) == 1)
        assert world.consumers.commands(lay.COMMAND_REMOVE)["slot"] == [count]
        assert world.table.row(count)["status"] == lay.SYMBOL_DELISTED and world.table.count == count + 1
        assert [e.slot for e in world.removed] == [count]
        assert world.health.counters.get("delistings_total") == 1
        assert world.health.counters.get("listings_total") == count + 1
        task.cancel()

    with_world(tmp_path, monkeypatch, main)
    assert "symbol delisted symbol=NEWUSDT" in caplog.text


def test_successor_says_again_what_is_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        await world.listings.update()
        world.added.clear()
        version = world.table.version
        again = world.make()
        task = asyncio.create_task(again.run())
        await again.filled.wait()
        world.consumers.take()
        assert len(world.consumers.commands(lay.COMMAND_ADD)) == 12 and len(world.added) == 6
        assert world.table.version == version
        task.cancel()

    with_world(tmp_path, monkeypatch, main)


def test_failing_answers_change_nothing_and_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="klshm")

    async def main(world: World) -> None:
        world.sim.fault(name="http_status", status=503, count=1, path="exchangeInfo")
        task = asyncio.create_task(world.listings.run())
        await world.listings.filled.wait()
        assert world.table.count == 6 and world.client.failures == 1
        assert world.health.counters.get("exchange_reachable") == 1
        task.cancel()

    with_world(tmp_path, monkeypatch, main)
    assert caplog.text.count("listings failed, trying again") == 1
    assert "exchange answers again" in caplog.text


def test_without_tickers_symbols_are_dealt_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        world.sim.fault(name="http_status", status=500, count=1, path="ticker")
        await world.listings.update()
        assert [int(world.table.row(s)["worker"]) for s in range(6)].count(0) == 3

    with_world(tmp_path, monkeypatch, main)


def test_more_symbols_than_room_are_left_out_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        for _ in range(3):
            await world.listings.update()
        assert world.table.count == 4 and world.health.counters.get("symbols_left_out") == 2

    with_world(tmp_path, monkeypatch, main, max_symbols=4)
    assert caplog.text.count("more symbols than segment.max_symbols left_out=2") == 1


def test_decimals_that_grow_are_told_to_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(world: World) -> None:
        await world.listings.update()
        entry = world.listings._book.entries[0]
        before = entry.price_decimals
        world.listings._book.replace([dataclasses.replace(entry, price_decimals=0)])
        await world.listings.update()
        world.consumers.take()
        add = world.consumers.commands(lay.COMMAND_ADD)
        assert list(add["price_decimals"][add["slot"] == 0]) == [before, before]
        assert world.table.row(0)["price_decimals"] == before

    with_world(tmp_path, monkeypatch, main)


def test_odd_rows_and_shrunken_answers_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        await world.listings.update()
        world.listings._report(answer(usdt("A"), odd=2), Verdict(shrunk=True))
        world.listings._report(answer(usdt("A"), odd=2), Verdict())
        world.listings._report(answer(usdt("A")), Verdict())

    with_world(tmp_path, monkeypatch, main)
    assert caplog.text.count("rows that cannot be used count=2 first=what") == 1
    assert caplog.text.count("a tenth fewer contracts") == 1


@pytest.mark.parametrize("row", [False, True])
def test_a_delisted_symbol_ends_when_the_exchange_says_or_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: bool
) -> None:
    """Its history would be looked for at the wrong end: perpetuals are delivered in the year 2100."""

    async def main(world: World) -> None:
        now_ms = time.time_ns() // 1_000_000
        carried = world.listings._book.add([listing("GONE", delivery_date=4_133_404_800_000)], {})
        judge = Judge(ExchangeConfig())
        rows = [usdt("GONE", status="SETTLING", delivery_date=now_ms - 5_000)] if row else []
        for _ in range(2):
            verdict = judge.judge(answer(*rows, *others(20)), {"GONE": carried[0]}, 9)
        world.listings._remove(verdict.removed)
        (removed,) = world.removed
        assert removed.status == lay.SYMBOL_DELISTED
        if row:
            assert removed.delivery_ms == now_ms - 5_000
        else:
            assert now_ms <= removed.delivery_ms <= now_ms + 60_000
        assert int(world.table.row(0)["delivery_ms"]) == removed.delivery_ms

    with_world(tmp_path, monkeypatch, main)
