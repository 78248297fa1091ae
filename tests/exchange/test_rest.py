"""The REST client against small real servers, the simulator and real proxies."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

import pytest
from aiohttp import web

from klshm.config import ExchangeConfig
from klshm.errors import BadMessage, ExchangeRefused, ExchangeUnreachable, IpBanned, RateLimited
from klshm.exchange import rest as rest_module
from klshm.exchange.governor import Governor, Priority
from klshm.exchange.rest import RestClient
from tests.support.servers import http_server, proxy_server, raw_server


Handler = Callable[[web.Request], web.StreamResponse]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def against(handler: Handler, ask: Callable[[RestClient], Coroutine[Any, Any, Any]], **config: Any) -> tuple[Any, Any]:
    """Return what a question to a server brought, and the client."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return handler(request)

    async def main() -> tuple[Any, Any]:
        async with http_server(serve) as port:
            settings = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}/", **config)
            async with RestClient(settings, Governor(), now_ms) as client:
                return await ask(client), client

    return asyncio.run(main())


def failing(handler: Handler, kind: type[Exception]) -> tuple[Any, RestClient]:
    client: list[RestClient] = []

    async def ask(opened: RestClient) -> Any:
        client.append(opened)
        with pytest.raises(kind) as caught:
            await opened.server_time()
        return caught.value

    error, _ = against(handler, ask)
    assert "\n" not in str(error)
    assert client[0].failures == 1
    return error, client[0]


def answer(body: Any, status: int = 200, **headers: str) -> Handler:
    return lambda request: web.Response(
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        status=status,
        headers={k.replace("_", "-"): v for k, v in headers.items()},
    )


def test_server_time_and_the_used_weight_header() -> None:
    # What the exchange counts for the address is more than this client sent.
    time_ms, client = against(answer({"serverTime": 5}, X_MBX_USED_WEIGHT_1M="1234"), lambda c: c.server_time())
    assert time_ms == 5
    assert client.governor.used(now_ms()) in (1234, 0)  # 0: a minute ended meanwhile
    assert (client.requests, client.failures, client.limited) == (1, 0, 0)


def test_klines_are_asked_as_documented() -> None:
    seen: list[web.Request] = []

    def handle(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response([[1, "1", "2", "0.5", "1.5", "3", 59, "4", 5, "1", "2", "0"]])

    before = now_ms()
    klines, client = against(
        handle, lambda c: c.klines("币安人生USDT", "1m", start_ms=60_000, end_ms=120_000, limit=99)
    )
    assert dict(seen[0].query) == {
        "symbol": "币安人生USDT", "interval": "1m", "startTime": "60000", "endTime": "120000", "limit": "99",
    }  # fmt: skip
    assert "%E5%B8%81" in seen[0].raw_path and seen[0].path == "/fapi/v1/klines"
    assert klines.rows[0].close == "1.5" and before <= klines.sent_ms <= now_ms()
    assert client.governor.used(now_ms()) in (1, 0)


def test_aggregate_trades_page_by_id() -> None:
    row = {"a": 7, "p": "1.0", "q": "2", "nq": "1", "f": 1, "l": 2, "T": 9, "m": True}
    seen: list[dict[str, str]] = []

    def handle(request: web.Request) -> web.Response:
        seen.append(dict(request.query))
        return web.json_response([row])

    trades, client = against(handle, lambda c: c.aggregate_trades("BTCUSDT", from_id=7, limit=5))
    assert trades[0].agg_id == 7 and trades[0].buyer_is_maker
    assert seen == [{"symbol": "BTCUSDT", "fromId": "7", "limit": "5"}]
    assert client.governor.used(now_ms()) in (20, 0)


def test_exchange_info_comes_packed_and_sets_the_limit() -> None:
    symbol = {"symbol": "BTCUSDT", "pricePrecision": 2, "quantityPrecision": 3}
    limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}]
    body = gzip.compress(json.dumps({"symbols": [symbol], "rateLimits": limits}).encode())
    info, client = against(answer(body, Content_Encoding="gzip"), lambda c: c.exchange_info())
    assert info.listings[0].symbol == "BTCUSDT" and client.governor.limit == 6000


def test_tickers_cost_40() -> None:
    tickers, client = against(answer([{"symbol": "A", "count": 3}]), lambda c: c.tickers_24h())
    assert tickers["A"].count == 3 and client.governor.used(now_ms()) in (40, 0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.klines("A", "1m", start_ms=2, end_ms=1),
        lambda c: c.klines("A", "1m", limit=0),
        lambda c: c.klines("A", "1m", limit=1501),
        lambda c: c.aggregate_trades("A", start_ms=2, end_ms=1),
        lambda c: c.aggregate_trades("A", from_id=1, start_ms=2),
        lambda c: c.aggregate_trades("A", limit=1001),
    ],
)
def test_what_the_exchange_would_refuse_is_not_sent(ask: Any) -> None:
    async def checked(client: RestClient) -> int:
        with pytest.raises(ValueError):
            await ask(client)
        return client.requests

    assert against(answer([]), checked)[0] == 0


def test_error_code_and_status_are_told() -> None:
    error, _ = failing(answer({"code": -1121, "msg": "Invalid symbol."}, 400), ExchangeRefused)
    assert (error.status, error.code) == (400, -1121) and "-1121 Invalid symbol." in str(error)


def test_429_with_and_without_retry_after() -> None:
    body = {"code": -1003, "msg": "Too many requests; current limit of IP(1.2.3.4) is 2400 requests per minute."}
    error, client = failing(answer(body, 429, Retry_After="17"), RateLimited)
    assert error.retry_after_s == 17 and client.limited == 1
    assert 0 < client.governor.wait_ms(now_ms(), 1, Priority.REPAIR) <= 17_000
    error, client = failing(answer(body, 429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), RateLimited)
    assert 0 < error.retry_after_s <= 60.2


def test_418_says_until_when() -> None:
    until_ms = now_ms() + 900_000
    body = {"code": -1003, "msg": f"Way too many requests; IP(1.2.3.4) banned until {until_ms}. Please use the ..."}
    error, client = failing(answer(body, 418), IpBanned)
    assert error.until_ms == until_ms and client.governor.banned_until_ms(now_ms()) == until_ms


def test_banned_address_sends_nothing_more() -> None:
    async def ask(client: RestClient) -> int:
        for _ in range(2):
            with pytest.raises(IpBanned):
                await client.server_time()
        return client.requests

    assert against(answer({"code": -1003, "msg": "banned"}, 418), ask)[0] == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "firewall page"), (451, "not served at this location"), (407, "proxy wants"), (503, "Service Unavailable")],
)
def test_pages_instead_of_answers(status: int, words: str) -> None:
    error, _ = failing(answer(b"<html>\r\nService Unavailable.</html>", status), ExchangeRefused)
    assert error.status == status and error.code == 0 and words in str(error)


def test_a_text_of_many_lines_becomes_part_of_one() -> None:
    error, _ = failing(answer({"code": -1, "msg": "first\r\nsecond " + "x" * 9_000}, 400), ExchangeRefused)
    assert "answered 400: -1 first second xxx" in str(error) and len(str(error)) < 300


@pytest.mark.parametrize("status", [418, 429])
def test_no_wait_is_longer_than_the_longest_ban(status: int) -> None:
    told = {"code": -1003, "msg": f"banned until {10**14 - 1}"}
    for body, headers in ((told, {}), (b"", {"Retry-After": "9" * 40})):
        error, _ = failing(answer(body, status, **headers), RateLimited if status == 429 else IpBanned)
        waits_s = error.retry_after_s if status == 429 else (error.until_ms - now_ms()) / 1000
        assert waits_s <= 3 * 86_400


def test_a_used_weight_of_too_many_digits_says_nothing() -> None:
    async def ask(client: RestClient) -> Any:
        return await client.server_time(), client.governor.used(now_ms())

    headers = {"X-MBX-USED-WEIGHT-1M": "9" * 5_000}
    assert against(answer({"serverTime": 1}, **headers), ask)[0] == (1, 1)


def test_redirect_is_not_followed() -> None:
    error, _ = failing(answer(b"", 302, Location="http://127.0.0.1:1/"), ExchangeRefused)
    assert error.status == 302


def test_bad_body_is_a_bad_message() -> None:
    error, _ = failing_message(answer(b"<html>hello</html>"))
    assert "hello" in str(error)


def failing_message(handler: Handler) -> tuple[Any, Any]:
    async def ask(client: RestClient) -> Any:
        with pytest.raises(BadMessage) as caught:
            await client.server_time()
        return caught.value

    return against(handler, ask)


def test_huge_body_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "MAX_BODY_BYTES", 1000)
    error, _ = failing(answer(b"x" * 200_000), BadMessage)
    assert "exceeds 1000 bytes" in str(error)


def test_nobody_there() -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def main() -> None:
        async with RestClient(ExchangeConfig(rest_url=f"http://127.0.0.1:{port}"), Governor(), now_ms) as client:
            with pytest.raises(ExchangeUnreachable, match=r"cannot reach 127.*exchange\.proxy.*--demo"):
                await client.server_time()
            assert client.failures == 1

    asyncio.run(main())


def test_unknown_name_and_silence() -> None:
    async def main() -> None:
        async with RestClient(ExchangeConfig(rest_url="https://no.such.host.invalid"), Governor(), now_ms) as client:
            with pytest.raises(ExchangeUnreachable, match="no.such.host.invalid"):
                await client.server_time()

        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with raw_server(mute) as port:
            config = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}", connect_timeout_s=0.1)
            async with RestClient(config, Governor(), now_ms) as client:
                with pytest.raises(ExchangeUnreachable, match="no answer in time"):
                    await client.server_time()

    asyncio.run(main())


def test_answer_cut_short() -> None:
    async def main() -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

        async with raw_server(cut) as port:
            async with RestClient(ExchangeConfig(rest_url=f"http://127.0.0.1:{port}"), Governor(), now_ms) as client:
                with pytest.raises(ExchangeUnreachable):
                    await client.server_time()

    asyncio.run(main())


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_goes_through_a_proxy(scheme: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"serverTime": 8})

    async def main() -> None:
        async with http_server(handle) as port, proxy_server() as proxy:
            config = ExchangeConfig(
                rest_url=f"http://127.0.0.1:{port}", proxy=f"{scheme}://127.0.0.1:{proxy.port}", connect_timeout_s=5
            )
            async with RestClient(config, Governor(), now_ms) as client:
                assert await client.server_time() == 8
                assert proxy.targets == [(scheme, "127.0.0.1", port)]
            proxy.refuse = True
            async with RestClient(config, Governor(), now_ms) as client:
                with pytest.raises((ExchangeUnreachable, ExchangeRefused)):
                    await client.server_time()

    asyncio.run(main())


def test_environment_proxy_is_not_used_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert against(answer({"serverTime": 5}), lambda c: c.server_time())[0] == 5


def test_closed_client_says_so() -> None:
    async def main() -> None:
        client = RestClient(ExchangeConfig(), Governor(), now_ms)
        with pytest.raises(RuntimeError, match="not open"):
            await client.server_time()

    asyncio.run(main())
