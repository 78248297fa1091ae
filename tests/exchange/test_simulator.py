"""Streams and REST against the simulator: the same addresses, messages and limits as the exchange's."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import uvloop

from klshm.config import ExchangeConfig
from klshm.errors import ExchangeRefused, IpBanned, RateLimited
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.models import select, stream_symbol
from klshm.exchange.rest import RestClient
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from tests.exchange.owner import Owner
from tests.support.exchange import Exchange, exchange


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_streams_of_a_market_come_over_one_connection() -> None:
    async def main(port: int) -> None:
        config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}", ws_url=f"ws://127.0.0.1:{port}")
        async with RestClient(config, Governor(), now_ms) as client:
            info = await client.exchange_info()
        symbols = [x.symbol for x in select(info.listings, config) if x.status == "TRADING"]
        names = [f"{stream_symbol(s)}@{kind}" for s in symbols for kind in ("aggTrade", "kline_1m")]
        owner = Owner()
        connection = StreamConnection(
            market_stream_url(config.ws_url), [*names, "!miniTicker@arr"], owner.on_frame, owner.on_state
        )
        connection.start()
        await owner.until_state(StreamState.SUBSCRIBED)
        seen: set[str] = set()
        # Not all of them: a quiet symbol may not trade for minutes.
        while len(seen) < len(names) // 2 or "!miniTicker@arr" not in seen:
            await owner.until_frames(1)
            seen |= {json.loads(frame)["stream"] for frame in owner.frames}
            owner.frames.clear()
        # what was unsubscribed comes no more once the reply is here
        connection.remove(names)
        await owner.until_state(StreamState.SUBSCRIBED, 2)
        owner.frames.clear()
        await owner.until_frames(1)
        assert {json.loads(frame)["stream"] for frame in owner.frames} == {"!miniTicker@arr"}
        await connection.close()

    with exchange("--symbols", "8", "--rate", "400") as market, asyncio.Runner(loop_factory=uvloop.new_event_loop) as r:
        r.run(main(market.port))


def test_address_without_a_route_acknowledges_and_stays_silent() -> None:
    async def main(port: int) -> None:
        silent, live = Owner(), Owner()
        connections = [
            StreamConnection(f"ws://127.0.0.1:{port}/{path}", ["btcusdt@aggTrade"], owner.on_frame, owner.on_state)
            for path, owner in (("stream", silent), ("market/stream", live))
        ]
        for connection in connections:
            connection.start()
        for owner in (silent, live):
            await owner.until_state(StreamState.SUBSCRIBED)
        await live.until_frames(5)
        assert silent.frames == []  # an ack proves nothing
        for connection in connections:
            await connection.close()

    with exchange("--symbols", "1", "--rate", "100") as market:
        asyncio.run(main(market.port))


def test_rest_answers_and_refusals() -> None:
    async def main(port: int) -> None:
        config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
        async with RestClient(config, Governor(), now_ms) as client:
            before_ms = now_ms()
            assert before_ms - 1_000 < await client.server_time() < now_ms() + 1_000
            tickers = await client.tickers_24h()
            busiest = max(tickers.values(), key=lambda t: t.count)
            klines = await client.klines(busiest.symbol, "1m", limit=99)
            assert len(klines.rows) == 99 and klines.rows[-1].close_time > klines.sent_ms - 1000
            trades = await client.aggregate_trades(busiest.symbol, limit=10)
            again = await client.aggregate_trades(busiest.symbol, from_id=trades[0].agg_id, limit=10)
            assert [t.agg_id for t in again] == [t.agg_id for t in trades]
            with pytest.raises(ExchangeRefused) as caught:
                await client.klines("NOSUCH", "1m", limit=1)
            assert caught.value.code == -1121
            # refused requests cost as much as answered ones
            assert client.governor.used(now_ms()) in (1 + 40 + 1 + 20 + 20 + 1, 1, 20, 21, 40, 41)

    with exchange("--symbols", "4") as market:
        asyncio.run(main(market.port))


def test_other_programs_of_the_same_address_are_seen_in_time() -> None:
    """The header tells what others use, so that this client alone is never answered 429."""

    async def main(port: int) -> None:
        config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
        async with (
            RestClient(config, Governor(), now_ms) as mine,
            RestClient(config, Governor(weight_share=5.0), now_ms) as greedy,
        ):
            mine.governor.limit = 40
            await asyncio.gather(
                *(greedy.klines("BTCUSDT", "1m", limit=99, priority=Priority.REPAIR) for _ in range(19))
            )
            await mine.server_time()
            used = mine.governor.used(now_ms())
            assert used >= 18 or used <= 1  # <= 1: a minute ended meanwhile
            if used >= 18:
                assert mine.governor.wait_ms(now_ms(), 20, Priority.BACKFILL) > 0

    with exchange("--symbols", "1", "--weight-limit", "40") as market:
        asyncio.run(main(market.port))


def test_beside_another_spender_a_minutes_end_brings_no_429() -> None:
    """As much as backfill may use, from before a minute's end into the next, with hundreds under way at once."""

    async def main(market: Exchange) -> None:
        ahead_ms = market.now_ms() - now_ms()
        crossed = asyncio.Event()

        def exchange_ms() -> int:
            return now_ms() + ahead_ms

        async def spend(client: RestClient, limit: int, requests: int) -> None:
            for _ in range(requests):
                await client.klines("BTCUSDT", "1m", limit=limit, priority=Priority.BACKFILL)
                if client.weights[Priority.BACKFILL] > 700:  # more than one minute allows
                    crossed.set()

        config = ExchangeConfig(rest_url=market.rest_url, connect_timeout_s=120.0)  # the machine may be busy
        mine, other = Governor(), Governor()
        mine.limit, other.limit = 1000, 10**9
        async with (
            RestClient(config, mine, exchange_ms, connections=100) as client,
            RestClient(config, other, exchange_ms) as spender,
        ):
            tasks = [asyncio.create_task(spend(client, 499, 10**6)) for _ in range(100)]
            others = [asyncio.create_task(spend(spender, 1500, 8)) for _ in range(3)]
            await asyncio.gather(*others, crossed.wait())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert client.limited == spender.limited == 0

    with exchange("--symbols", "1", "--weight-limit", "1000", "--start-at", "2026-11-18T12:00:58Z") as market:
        asyncio.run(main(market))


def test_ignoring_the_limit_ends_in_429_and_then_a_ban() -> None:
    async def main(port: int) -> None:
        config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
        seen = set()
        for _ in range(40):  # a governor that forgets: a new one each time
            governor = Governor(weight_share=9.0)
            governor.limit = 10**6
            async with RestClient(config, governor, now_ms) as client:
                try:
                    await client.aggregate_trades("BTCUSDT", limit=1)
                except RateLimited as error:
                    seen.add(429)
                    assert 0 <= error.retry_after_s <= 60.5
                except IpBanned as error:
                    seen.add(418)
                    assert error.until_ms > now_ms()
                    break
        assert seen == {429, 418}

    with exchange("--symbols", "1", "--weight-limit", "40") as market:
        asyncio.run(main(market.port))
