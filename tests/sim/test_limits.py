"""Weights, bans and answers that are none, over real HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from tests.sim.client import Session, ask, client, fault, get
from tests.support.exchange import exchange


MINUTE_MS = 60_000
START = "2026-11-20T12:30:02Z"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with exchange("--symbols", "6", "--rate", "300", "--start-at", START, "--weight-limit", "100000") as market:
        yield market.port


@pytest.mark.parametrize(
    ("rules", "weights"),
    [
        ("strict", {99: 1, 100: 2, 101: 2, 499: 2, 500: 5, 1000: 5, 1001: 10, 1500: 10, 1501: 10, None: 5}),
        ("measured", {99: 1, 100: 1, 101: 2, 499: 2, 500: 2, 501: 5, 1000: 5, 1001: 10, 1501: 10, None: 5}),
    ],
)
def test_klines_weigh_by_band(rules: str, weights: dict[int | None, int]) -> None:
    async def body(session: Session) -> None:
        before = 0
        for limit, weight in weights.items():
            query = {} if limit is None else {"limit": limit}
            status, _, headers = await ask(session, "klines", symbol="BTCUSDT", interval="1m", **query)
            used = int(headers["X-MBX-USED-WEIGHT-1M"])
            assert (status, used - before) == (400 if limit == 1501 else 200, weight), limit
            before = used

    with exchange("--symbols", "1", "--rules", rules, "--start-at", START) as market:
        client(market.port, body)


def test_refusals_are_charged_and_dapi_draws_on_the_same_pool() -> None:
    async def body(session: Session) -> None:
        used = []
        for path, query in (("time", {}), ("aggTrades", {"symbol": "NOPE"}), ("klines", {"symbol": "NOPE"})):
            _, _, headers = await ask(session, path, **query)
            used.append(int(headers["X-MBX-USED-WEIGHT-1M"]))
        async with session.get("/dapi/v1/ping") as response:
            used.append(int(response.headers["X-MBX-USED-WEIGHT-1M"]))
        assert used == [1, 21, 26, 27]

    with exchange("--symbols", "1", "--start-at", START) as market:
        client(market.port, body)


def test_ignored_429_end_in_bans_that_grow_and_minutes_begin_by_the_clock() -> None:
    async def body(session: Session) -> None:
        async def statuses(count: int) -> list[int]:
            return [(await get(session, "ping"))[0] for _ in range(count)]

        assert await statuses(8) == [200] * 3 + [429] * 2 + [418] * 3
        for ban_s in (120, 240, 480):
            status, answer, headers = await ask(session, "ping")
            until_ms = int(re.search(r"banned until (\d+)\.", answer["msg"])[1])  # type: ignore[index]
            _, state = await fault(session, name="clear")
            left_ms = until_ms - state["now_ms"]
            assert status == 418 and answer["code"] == -1003
            assert ban_s - 60 < left_ms / 1000 <= ban_s and abs(int(headers["Retry-After"]) * 1000 - left_ms) <= 1000
            # The next minute alone does not end a ban.
            await fault(session, name="clock_step", step_ms=MINUTE_MS)
            assert await statuses(1) == [418]
            await fault(session, name="clock_step", step_ms=left_ms - MINUTE_MS + 1)
            assert await statuses(7) == [200] * 3 + [429] * 2 + [418] * 2

    options = ("--symbols", "1", "--rate", "1", "--weight-limit", "3", "--patience", "2", "--start-at", START)
    with exchange(*options) as market:
        client(market.port, body)


def test_429_in_the_minute_and_no_longer() -> None:
    async def body(session: Session) -> None:
        assert [(await get(session, "ping"))[0] for _ in range(3)] == [200, 200, 429]
        async with session.get("/fapi/v1/ping") as response:
            left_s = int(response.headers["Retry-After"])
            assert response.status == 429 and 40 < left_s <= 58
        await fault(session, name="clock_step", step_ms=left_s * 1000)
        assert (await get(session, "ping"))[0] == 200

    with exchange("--symbols", "1", "--rate", "1", "--weight-limit", "2", "--start-at", START) as market:
        client(market.port, body)


def test_retry_after_by_flag_and_by_fault() -> None:
    async def body(session: Session) -> None:
        async def tells(status: int) -> bool:
            await fault(session, name="http_status", status=status)
            answered, _, headers = await ask(session, "ping")
            assert answered == status
            return "Retry-After" in headers

        always = await tells(429)
        assert await tells(418) is always
        await fault(session, name="no_retry_after", seconds=600)
        assert not await tells(429) and not await tells(418)
        await fault(session, name="clear")
        assert await tells(429) is always
        seen.append(always)

    seen: list[bool] = []
    for flag in ("--retry-after", "--no-retry-after"):
        with exchange("--symbols", "1", flag) as market:
            client(market.port, body)
    assert seen == [True, False]


def test_blocked_restricted_and_broken(port: int) -> None:
    async def body(session: Session) -> None:
        for status, kind, text in (
            (403, "text/html", "<h1>403 ERROR</h1>"),
            (451, "application/json", "restricted location"),
            (500, "application/json", '"code":-1000'),
            (503, "text/plain", "Service Unavailable."),
        ):
            await fault(session, name="http_status", status=status, path="time")
            async with session.get("/fapi/v1/time") as response:
                assert (response.status, response.content_type) == (status, kind)
                assert text in await response.text()
        await fault(session, name="http_delay", delay_ms=300, path="time", seconds=60)
        clock = asyncio.get_running_loop().time
        begun_s = clock()
        assert (await get(session, "time"))[0] == 200 and clock() - begun_s >= 0.3
        await fault(session, name="clear")

    client(port, body)
