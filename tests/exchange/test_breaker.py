"""One request at a time while the exchange fails: the breaker alone, and before a real client."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from klshm.config import ExchangeConfig
from klshm.errors import ExchangeError, ExchangeRefused
from klshm.exchange.breaker import Breaker
from klshm.exchange.governor import Governor
from klshm.exchange.rest import RestClient
from tests.support.servers import http_server


def test_pauses_double_and_an_answer_ends_them() -> None:
    breaker = Breaker(0.5, 2.0)
    assert breaker.wait_s(100.0) == 0.0
    now_s, pauses = 100.0, []
    for _ in range(4):
        breaker.failed(breaker.began(), now_s)
        pauses.append(breaker.wait_s(now_s))
        now_s += pauses[-1] or 0.0
        assert breaker.wait_s(now_s) == 0.0
    assert pauses == [0.5, 1.0, 2.0, 2.0]
    breaker.began()
    assert breaker.wait_s(now_s) is None
    breaker.answered()
    assert breaker.wait_s(now_s) == 0.0 and not breaker.is_open


def test_what_was_under_way_says_nothing_new_unless_it_is_answered() -> None:
    breaker = Breaker(0.5, 2.0)
    eras = [breaker.began() for _ in range(3)]
    breaker.failed(eras[0], 100.0)
    breaker.failed(eras[1], 100.1)
    assert breaker.wait_s(100.0) == 0.5
    breaker.answered()
    assert breaker.wait_s(100.0) == 0.0


def test_who_leaves_makes_room_for_another() -> None:
    breaker = Breaker(0.5, 2.0)
    breaker.failed(breaker.began(), 100.0)
    era = breaker.began()
    assert breaker.wait_s(101.0) is None
    breaker.left(era)
    assert breaker.wait_s(101.0) == 0.0 and breaker.is_open


@given(st.lists(st.tuples(st.sampled_from(["fail", "left", "answer"]), st.integers(0, 9), st.floats(0, 3))))
def test_never_two_are_away_between_a_failure_and_an_answer(steps: list[tuple[str, int, float]]) -> None:
    breaker, now_s = Breaker(0.5, 2.0), 0.0
    away: list[int] = []
    failures = 0
    for kind, which, later_s in steps:
        now_s += later_s
        if breaker.wait_s(now_s) == 0.0:
            away.append(breaker.began())
            assert away[-1] == failures
        assert not breaker.is_open or away.count(failures) <= 1
        if not away:
            continue
        era = away.pop(which % len(away))
        if kind == "fail":
            breaker.failed(era, now_s)
            failures += era == failures
        elif kind == "left":
            breaker.left(era)
        else:
            breaker.answered()


class Failing:
    """A server that answers by one status, and counts how many are asked of it at once."""

    def __init__(self) -> None:
        self.status = 503
        self.times: list[float] = []
        self.asked = 0
        self.most = 0
        self._came = asyncio.Condition()

    async def until_asked(self, times: int) -> None:
        """Wait until it has been asked so often."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.times) >= times)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        async with self._came:
            self._came.notify_all()
        self.asked += 1
        self.most = max(self.most, self.asked)
        await asyncio.sleep(0.02)
        self.asked -= 1
        if self.status == 200:
            return web.json_response({"serverTime": 5})
        body: Any = {"code": -1121, "msg": "Invalid symbol."} if self.status == 400 else {}
        return web.json_response(body, status=self.status)


def against(server: Failing, ask: Any) -> None:
    async def main() -> None:
        async with http_server(server.handle) as port:
            config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}")
            async with RestClient(config, Governor(), lambda: time.time_ns() // 1_000_000) as client:
                await ask(client)

    asyncio.run(main())


@pytest.mark.parametrize("status", [403, 500, 503])
def test_many_who_ask_an_exchange_that_fails_ask_one_by_one(status: int) -> None:
    server = Failing()
    server.status = status

    async def insist(client: RestClient) -> int:
        while True:
            try:
                return await client.server_time()
            except ExchangeError:
                continue  # no pause of its own

    async def ask(client: RestClient) -> None:
        asking = [asyncio.create_task(insist(client)) for _ in range(10)]
        await server.until_asked(12)
        assert server.most == 10  # nobody knew better then
        server.most = 0
        server.status = 200
        assert await asyncio.gather(*asking) == [5] * 10
        assert len(server.times) == 11 + 10
        assert server.times[10] - server.times[9] >= 0.5 and server.times[11] - server.times[10] >= 1.0
        assert server.most == 9  # the first answer let all others through

    against(server, ask)


def test_a_refusal_of_one_request_holds_nobody_back() -> None:
    server = Failing()
    server.status = 400

    async def ask(client: RestClient) -> None:
        for _ in range(3):
            with pytest.raises(ExchangeRefused):
                await client.server_time()
        assert server.times[2] - server.times[0] < 0.5

    against(server, ask)


def test_one_that_is_cancelled_away_or_waiting_blocks_nobody() -> None:
    server = Failing()

    async def ask(client: RestClient) -> None:
        with pytest.raises(ExchangeRefused):
            await client.server_time()
        away = asyncio.create_task(client.server_time())
        waiting = asyncio.create_task(client.server_time())
        await server.until_asked(2)
        server.status = 200
        waiting.cancel()
        away.cancel()
        await asyncio.wait([away, waiting])
        assert await client.server_time() == 5

    against(server, ask)
