"""Lessons about REST, clock, connections and listings: LESSONS section 1 (R9 to R15) and section 4.

What the rows say about bars is in `test_defects.py` and `test_traps.py`; here is what the
historian, the client and the data service make of the same defects, with real servers.

Longer than other modules on purpose: the rows of one section are read beside each other.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from klshm.config import ExchangeConfig
from klshm.errors import BadMessage, ExchangeError, IpBanned, RateLimited
from klshm.exchange.backoff import Backoff
from klshm.exchange.breaker import Breaker
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.rest import RestClient
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.historian import process as process_module
from klshm.historian.health import Health
from klshm.historian.inbox import worker_inbox
from klshm.historian.listings import Listings
from klshm.historian.process import serve
from klshm.historian.source import RowSource
from klshm.historian.symbols import Entry, SymbolBook
from klshm.historian.timesync import ExchangeClock, TimeSync
from klshm.shm import layout as lay
from klshm.shm.view import SymbolTable, read_clock
from klshm.worker import link as link_module
from klshm.worker.link import Link
from tests.historian.small_exchange import DEPTH, START, M, SmallExchange, contract, fetch, stored
from tests.historian.support import make_role
from tests.support.exchange import exchange
from tests.support.segments import segment
from tests.support.servers import http_server, stream_server


Answer = Callable[[web.Request], web.StreamResponse]


@pytest.fixture(autouse=True)
def own_purse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def client_of(answer: Answer) -> AsyncIterator[RestClient]:
    """A client of a server that answers so."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    async with http_server(handle) as port:
        config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
        async with RestClient(config, Governor(), now_ms) as client:
            yield client


# Section 1


def test_r9_fetching_begins_with_the_last_bar_that_was_not_final(tmp_path: Path) -> None:
    small, path = SmallExchange("AUSDT"), tmp_path / "klines.db"
    small.now_ms = START // M * M + 1_000
    fetch(small, path, "1m")
    young = stored(path, "AUSDT")["open_time"].tolist()[-1]
    assert young == START // M * M - M
    small.asked.clear()
    small.now_ms += 3 * M
    fetch(small, path, "1m")
    assert [int(query["startTime"]) for query in small.asked] == [young]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda: web.Response(status=503, text="Service Unavailable."),
        lambda: web.Response(status=403, text="<html></html>", content_type="text/html"),
        lambda: web.json_response({"symbols": []}),
        lambda: web.json_response({"symbols": [contract("AUSDT", pricePrecision="2")]}),
        lambda: web.Response(body=b'{"symbols":[{"symbol":"AUSDT","price', content_type="application/json"),
    ],
    ids=["503", "page", "empty", "wrong types", "cut short"],
)
def test_r10_a_list_of_symbols_that_fails_is_an_error_not_an_empty_list(
    tmp_path: Path, spoilt: Callable[[], web.Response]
) -> None:
    small = SmallExchange("AUSDT")
    small.spoil = lambda path, _: spoilt() if "exchangeInfo" in path else None
    with pytest.raises(ExchangeError):
        fetch(small, tmp_path / "klines.db", "1m")
    assert small.asked == []


def test_r11_a_connection_is_replaced_before_it_ends_or_when_it_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The successor shows what the old one has shown before that is closed, so that nothing is missed."""
    monkeypatch.setattr(link_module, "_OVERLAP_S", 0.0)
    frame = b'{"stream":"btcusdt@aggTrade","data":{}}'

    async def main(rotate_after_s: float, silent_after_s: float) -> None:
        async with stream_server() as server:
            frames: list[bytes] = []
            events: list[str] = []
            lost: list[int] = []

            def connect(
                streams: list[str], on_frame: Callable[[bytes], None], on_state: Callable[[StreamState, str], None]
            ) -> StreamConnection:
                url = market_stream_url(f"ws://127.0.0.1:{server.port}")
                return StreamConnection(url, streams, on_frame, on_state)

            link = Link(
                *(0, connect, frames.append, lost.append, events.append),
                address="here",
                rotate_after_s=rotate_after_s,
                silent_after_s=silent_after_s,
            )
            link.add(["btcusdt@aggTrade"])
            link.start()
            while server.handshakes < 2 or len(server.requests) < 2:
                link.check()
                await asyncio.sleep(0.01)
            assert link.connections == 2 and not server.sockets[0].closed
            for socket in server.sockets:
                await socket.send_bytes(frame)
            while not server.sockets[0].closed:
                link.check()
                await asyncio.sleep(0.01)
            assert (events, lost) == (["connect", "connect", "rotation"], []) and link.up
            assert len(frames) == 2
            await link.close()

    asyncio.run(main(0.2, 60.0))
    asyncio.run(main(60.0, 0.2))


def test_r12_the_offset_is_that_of_the_middle_of_the_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Server time minus the local time after the answer would be off by half of it or more."""
    ahead_ms, way_s = 7_000_000, 0.1

    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(way_s)
        server_ms = time.monotonic_ns() // 1_000_000 + ahead_ms
        await asyncio.sleep(way_s)
        return web.json_response({"serverTime": server_ms})

    async def main() -> None:
        async with http_server(handle) as port:
            config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
            with segment(tmp_path, monkeypatch) as made:
                async with RestClient(config, Governor(), now_ms) as client:
                    sample = await TimeSync(made, ExchangeClock(made), client.server_time).measure()
        off_ms = abs(sample.offset_ns / 1e6 - ahead_ms)
        assert off_ms <= sample.error_ns / 1e6
        assert sample.round_trip_ns >= 2 * way_s * 1e9 and off_ms < way_s * 1e3

    asyncio.run(main())


def test_r12_a_wait_for_weight_is_no_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question had to wait for the end of a block, the next is answered by a ban: nothing was measured."""
    asked = 0

    def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        server_ms = time.monotonic_ns() // 1_000_000 + 7_000_000
        if asked in (6, 8):
            return web.json_response({"code": -1003, "msg": ""}, status=429, headers={"Retry-After": "1"})
        return web.json_response({"serverTime": server_ms})

    async def main() -> None:
        async with client_of(answer) as client:
            with segment(tmp_path, monkeypatch) as made:
                own = ExchangeClock(made)
                own.offset_ns = 7_000_000 * 1_000_000
                timesync = TimeSync(made, own, client.server_time)
                good = await timesync.measure()
                for _ in range(2):  # the first is refused, the second waits and is then refused
                    with pytest.raises(RateLimited):
                        await timesync.measure()
                clock = read_clock(made)
                assert clock is not None and clock.offset_ns == good.offset_ns
                after = await timesync.measure()
                assert abs(after.offset_ns / 1e6 - 7_000_000) <= after.error_ns / 1e6 < 500

    asyncio.run(main())


def test_r12_failed_measurements_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "Backoff", lambda *_: Backoff(0.01, 0.02))
    monkeypatch.setattr("klshm.exchange.gate.Breaker", lambda: Breaker(0.01, 0.02))
    asked = 0

    def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked <= 25:
            return web.Response(status=503)
        if request.path.endswith("time"):
            return web.json_response({"serverTime": 1_795_000_000_000})
        return web.json_response({"symbols": []})

    async def main() -> None:
        async with client_of(answer) as client:
            with segment(tmp_path, monkeypatch) as made:
                role = make_role(made, client._base)
                task = asyncio.create_task(serve(role))
                while read_clock(made) is None:
                    assert not task.done()
                    await asyncio.sleep(0.01)
                clock = read_clock(made)
                assert clock is not None and abs(clock.now_ms() - 1_795_000_000_000) < 60_000
                assert asked > 25
                role.stop.set()
                await task

    asyncio.run(main())


def test_r13_weight_is_counted_and_a_refusal_is_waited_out() -> None:
    times: list[float] = []

    def answer(request: web.Request) -> web.StreamResponse:
        times.append(time.monotonic())
        if len(times) == 2:
            return web.json_response(
                {"code": -1003, "msg": "Too many requests"}, status=429, headers={"Retry-After": "1"}
            )
        if len(times) == 4:
            text = f"Way too many requests; IP(1.2.3.4) banned until {now_ms() + 60_000}."
            return web.json_response({"code": -1003, "msg": text}, status=418)
        return web.json_response([])

    async def main() -> None:
        async with client_of(answer) as client:
            await client.klines("A", "1m", limit=499, priority=Priority.REPAIR)
            with pytest.raises(RateLimited):
                await client.klines("A", "1m", limit=99, priority=Priority.CONFIRM)
            await client.aggregate_trades("A")
            assert times[2] - times[1] >= 1.0
            assert client.weights == {
                Priority.REPAIR: 2 + 20,
                Priority.CONFIRM: 1,
                Priority.LISTINGS: 0,
                Priority.BACKFILL: 0,
            }
            for _ in range(5):
                with pytest.raises(IpBanned):
                    await client.klines("A", "1m", limit=99)
            assert len(times) == 4

    asyncio.run(main())


def test_r15_a_start_needs_no_row_and_no_file(tmp_path: Path) -> None:
    small, path = SmallExchange("AUSDT", "BUSDT"), tmp_path / "klines.db"
    fetch(small, path, "1m", "5m")
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM k_a_1m WHERE open_time % 180000 = 0")
        database.execute("DELETE FROM k_a_5m")
        database.execute("DROP TABLE k_b_1m")
        database.execute("DELETE FROM series WHERE table_name = 'k_b_1m'")
    assert fetch(small, path, "1m", "5m").failed == {}
    for symbol in small.symbols:
        for name in ("1m", "5m"):
            assert len(stored(path, symbol, name)) == DEPTH, (symbol, name)


def test_r13_a_ban_that_ended_before_it_came_is_kept_to_all_the_same() -> None:
    """This machine's clock is ahead of the exchange's, and was not measured yet."""
    governor = Governor()
    assert governor.banned(START, START - 1, None) == START + 120_000
    assert governor.wait_ms(START + 119_999, 1, Priority.REPAIR) == 1


# Section 4


class Carried:
    """Listings of a table in a real segment, as one historian after the other keeps it."""

    def __init__(self, made: Any, client: RestClient) -> None:
        self.made, self.client = made, client
        self.table = SymbolTable(made)
        self.removed: list[Entry] = []
        self.listings = self.successor()

    def successor(self) -> Listings:
        """Return the listings of another historian over the same table."""
        role = make_role(self.made, "http://127.0.0.1:1")
        outlets = [worker_inbox(self.made, worker) for worker in (0, 1)]
        return Listings(
            *(SymbolBook(self.made), ExchangeConfig(), self.client, outlets, Health(role), now_ms),
            on_added=lambda _: None,
            on_removed=self.removed.extend,
        )

    def names(self) -> list[str]:
        """Return what is carried."""
        rows = [self.table.row(slot) for slot in range(self.table.count)]
        return [bytes(row["name"]).decode() for row in rows if row["status"] == lay.SYMBOL_TRADING]


ALL = [contract(f"S{number}USDT") for number in range(30)]
ALL += [contract(f"S{number}USDC", quoteAsset="USDC") for number in range(70)]


@pytest.mark.parametrize(
    "bad",
    [
        json.dumps({"symbols": [{**ALL[0], "pricePrecision": 77}, *ALL[1:]]}).encode(),
        b"[]",
        b'{"symbols": []}',
        json.dumps({"symbols": ALL})[:3000].encode(),
        json.dumps({"symbols": ALL[9:70]}).encode(),
        json.dumps({"symbols": ALL[30:]}).encode(),
        json.dumps({"symbols": [{**row, "pricePrecision": "2"} for row in ALL]}).encode(),
        json.dumps({"symbols": [{**row, "quantityPrecision": None} for row in ALL[:20]] + ALL[20:]}).encode(),
        json.dumps({"symbols": [{**row, "symbol": [row["symbol"]]} for row in ALL[:20]] + ALL[20:]}).encode(),
    ],
    ids=[
        "one wrong",
        "a list",
        "empty",
        "cut short",
        "30 % fewer",
        "none of ours",
        "all wrong",
        "20 wrong",
        "20 without a name",
    ],
)
def test_trap_an_empty_or_shrunken_list_of_symbols_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes
) -> None:
    """However often, and whether or not this process has seen a better one."""
    body = [json.dumps({"symbols": ALL}).encode()]

    async def asked(listings: Listings, answer: bytes) -> None:
        body[0] = answer
        try:
            await listings.update()
        except BadMessage:
            return

    async def main() -> None:
        async with client_of(lambda request: web.Response(body=body[0])) as client:
            with segment(tmp_path, monkeypatch) as made:
                carried = Carried(made, client)
                await asked(carried.listings, body[0])
                before = carried.names()
                assert len(before) == 30
                for listings in (carried.listings, carried.successor()):
                    for _ in range(3):
                        await asked(listings, bad)
                    assert carried.names() == before and carried.removed == []
                good = json.dumps({"symbols": ALL[1:]}).encode()
                for _ in range(2):
                    await asked(carried.successor(), good)
                    await asked(listings, good)
                assert carried.names() == before[1:]
                assert [entry.name for entry in carried.removed] == ["S0USDT"]

    asyncio.run(main())


def test_trap_tradifi_and_odd_names_are_carried_and_coin_margined_contracts_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a listing as large and as odd as the exchange's; each of them has its history by its own name."""
    odd = ("币安人生USDT", "客服小何USDT", "我踏马来了USDT", "4USDT", "100000BABYCATUSDT", "XAUUSDT", "BTCUSDT")

    async def main(rest_url: str) -> None:
        async with RestClient(ExchangeConfig(rest_url=rest_url), Governor(), now_ms) as client:
            info = await client.exchange_info()
            with segment(tmp_path, monkeypatch, max_symbols=128, slots=80) as made:
                carried = Carried(made, client)
                await carried.listings.update()
                names = carried.names()
                assert len(names) == 64 and len(info.listings) > 280 and set(odd) < set(names)
                wanted = {x.symbol for x in info.listings if x.contract_type == "TRADIFI_PERPETUAL"}
                assert len(wanted) > 2 and wanted < set(names)
                assert not [name for name in names if "_" in name or not name.endswith("USDT")]
                source = RowSource(client, [], Health(make_role(made, rest_url)), now_ms)
                entries = SymbolBook(made).carried()
                last_ms = now_ms() // M * M - 2 * M
                for name in odd:
                    rows = await source.fetch(entries[name], "1m", last_ms - 9 * M, last_ms, Priority.REPAIR)
                    assert len(rows) == 10 and set(rows["slot"]) == {entries[name].slot}

    with exchange("--listing", "full", "--symbols", "64", "--rate", "50") as market:
        asyncio.run(main(market.rest_url))
