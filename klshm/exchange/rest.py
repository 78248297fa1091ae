"""The exchange's public REST interface: every request through the governor, every error named.

One session, bounded in time and size. Nothing is retried here: who asks knows what a second
try is worth.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from klshm.config import ExchangeConfig
from klshm.errors import BadMessage, ExchangeError, ExchangeRefused, ExchangeUnreachable, IpBanned, RateLimited
from klshm.exchange import models
from klshm.exchange.budget import StateFile
from klshm.exchange.gate import Gate
from klshm.exchange.governor import AGG_TRADES_WEIGHT, ALL_TICKERS_WEIGHT, Governor, Priority, klines_weight
from klshm.exchange.models import ExchangeInfo, RestAggTrade, RestKline, Ticker
from klshm.exchange.proxy import proxy_for


__all__ = ["Klines", "RestClient"]

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The largest body seen is exchangeInfo, 1.2 MB."""

MAX_KLINES: Final = 1500
MAX_AGGREGATE_TRADES: Final = 1000

_UNREACHABLE: Final = (
    aiohttp.ClientError,
    ProxyError,
    ProxyConnectionError,
    ProxyTimeoutError,
    OSError,
    TimeoutError,
)

_TOTAL_TIMEOUT_S: Final = 20.0
_CHUNK_BYTES: Final = 65_536
_LONGEST_TOLD_S: Final = 3 * 86_400.0
"""The longest ban that the exchange documents; whoever tells a longer one is not believed."""
_LONGEST_USED: Final = 15
"""Digits of a used weight that is a number and no mistake."""
_TEXT_LENGTH: Final = 200
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{12,14})")


class Klines(NamedTuple):
    """An answer to `RestClient.klines`.

    Attributes:
        rows: Ascending by open time; the last may still be open.
        sent_ms: Exchange time when the request went out, UTC ms: a bar that had ended by then
            had ended when the exchange looked at it.
    """

    rows: list[RestKline]
    sent_ms: int


class RestClient:
    """Asks the exchange; use it as an async context manager, inside one loop.

    Args:
        config: Addresses, proxy, timeouts.
        governor: The budget of this address.
        now_ms: Returns the exchange's time, UTC ms.
        connections: Connections open at once, at most.
        purse: Where all processes of this machine count what they spend; None: this one counts alone.

    Attributes:
        requests: Requests sent.
        weights: Request weight they cost, by what they were for.
        failures: Requests that ended in an error.
        limited: Answers 429 and 418.
    """

    def __init__(
        self,
        config: ExchangeConfig,
        governor: Governor,
        now_ms: Callable[[], int],
        *,
        connections: int = 16,
        purse: StateFile | None = None,
    ) -> None:
        self.governor = governor
        self.gate = Gate(governor, now_ms, purse)
        self.requests = 0
        self.weights = dict.fromkeys(Priority, 0)
        self.failures = 0
        self.limited = 0
        self._now_ms = now_ms
        self._base = config.rest_url.rstrip("/")
        self._host = urlsplit(self._base).netloc
        self._proxy = proxy_for(self._base, config.proxy)
        self._timeout = aiohttp.ClientTimeout(
            total=config.connect_timeout_s + _TOTAL_TIMEOUT_S,
            sock_connect=config.connect_timeout_s,
            sock_read=config.connect_timeout_s,
        )
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RestClient:
        connector: aiohttp.BaseConnector
        http_proxy = self._proxy
        if self._proxy is not None and self._proxy.startswith("socks"):
            connector, http_proxy = ProxyConnector.from_url(self._proxy, limit=self._connections), None
        else:
            # Named, or another package that happens to be installed would choose how names are resolved.
            connector = aiohttp.TCPConnector(limit=self._connections, resolver=aiohttp.ThreadedResolver())
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            proxy=http_proxy,
            trust_env=False,
            headers={"User-Agent": "klshm", "Accept": "application/json"},
        )
        self.gate.pump()  # a ban that another process has earned is known from the start
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Questions

    async def server_time(self, priority: Priority = Priority.REPAIR) -> int:
        """Return the exchange's time, UTC ms.

        Raises:
            ExchangeError: As all of these methods: unreachable, refused, limited, banned, bad answer.
        """
        return models.decode_server_time(await self._get("/fapi/v1/time", {}, 1, priority))

    async def exchange_info(self, priority: Priority = Priority.LISTINGS) -> ExchangeInfo:
        """Return all contracts, and take over the weight limit that the exchange grants."""
        info = models.decode_exchange_info(await self._get("/fapi/v1/exchangeInfo", {}, 1, priority))
        self.governor.limit = info.weight_limit
        return info

    async def klines(
        self,
        symbol: str,
        interval: str,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = 499,
        priority: Priority = Priority.BACKFILL,
    ) -> Klines:
        """Return kline rows by open time.

        Args:
            symbol: As the exchange spells it.
            interval: Such as "1m".
            start_ms: First open time wanted; with it the first `limit` rows from there are returned.
            end_ms: Last open time wanted, inclusive; without either the newest `limit` rows.
            limit: Rows at most, 1 to 1500; decides the weight.
            priority: What the request is for.

        Raises:
            ValueError: If the range is reversed or the limit impossible; nothing is sent.
        """
        if not 1 <= limit <= MAX_KLINES:
            raise ValueError(f"klines limit {limit} is not in 1..{MAX_KLINES}")
        _check_range(start_ms, end_ms)
        parameters = _parameters(symbol=symbol, interval=interval, startTime=start_ms, endTime=end_ms, limit=limit)
        async with self._passage(klines_weight(limit), priority):
            sent_ms = self._now_ms()
            body = await self._send("/fapi/v1/klines", parameters)
        return Klines(models.decode_klines(body), sent_ms)

    async def aggregate_trades(
        self,
        symbol: str,
        *,
        from_id: int | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
        limit: int = MAX_AGGREGATE_TRADES,
        priority: Priority = Priority.REPAIR,
    ) -> list[RestAggTrade]:
        """Return aggregate trades, by id or by time, at most 48 hours old.

        Page by `from_id` = last id + 1: many trades share a millisecond, so paging by time loses some.

        Args:
            symbol: As the exchange spells it.
            from_id: First id wanted; not to be combined with times.
            start_ms: First trade time wanted, inclusive.
            end_ms: Last trade time wanted, inclusive; less than an hour after `start_ms`.
            limit: Rows at most, 1 to 1000; the weight is 20 at any limit.
            priority: What the request is for.

        Raises:
            ValueError: If the arguments contradict each other; nothing is sent.
        """
        if not 1 <= limit <= MAX_AGGREGATE_TRADES:
            raise ValueError(f"aggTrades limit {limit} is not in 1..{MAX_AGGREGATE_TRADES}")
        if from_id is not None and (start_ms is not None or end_ms is not None):
            raise ValueError("from_id together with times makes the exchange time out; give one of them")
        _check_range(start_ms, end_ms)
        parameters = _parameters(symbol=symbol, fromId=from_id, startTime=start_ms, endTime=end_ms, limit=limit)
        body = await self._get("/fapi/v1/aggTrades", parameters, AGG_TRADES_WEIGHT, priority)
        return models.decode_aggregate_trades(body)

    async def tickers_24h(self, priority: Priority = Priority.LISTINGS) -> dict[str, Ticker]:
        """Return the 24 hour figures of all trading symbols, by name (weight 40)."""
        return models.decode_tickers(await self._get("/fapi/v1/ticker/24hr", {}, ALL_TICKERS_WEIGHT, priority))

    # One request

    async def _get(self, path: str, parameters: Mapping[str, str], weight: int, priority: Priority) -> bytes:
        async with self._passage(weight, priority):
            return await self._send(path, parameters)

    @asynccontextmanager
    async def _passage(self, weight: int, priority: Priority) -> AsyncIterator[None]:
        async with self.gate.passage(weight, priority):
            self.weights[priority] += weight
            yield

    async def _send(self, path: str, parameters: Mapping[str, str]) -> bytes:
        if self._session is None:
            raise RuntimeError("the client is not open; use it in an async with block")
        sent_ms = self._now_ms()
        self.requests += 1
        try:
            async with self._session.get(self._base + path, params=parameters, allow_redirects=False) as response:
                used = response.headers.get("X-MBX-USED-WEIGHT-1M", "")
                if used.isascii() and used.isdigit() and len(used) <= _LONGEST_USED:
                    self.gate.answered(sent_ms, int(used))
                body = await _bounded_body(response)
                if response.status != 200:
                    raise self._error(response, body)
                return body
        except ExchangeError:
            self.failures += 1
            raise
        except _UNREACHABLE as error:
            self.failures += 1
            raise ExchangeUnreachable(self._reason(error)) from error

    def _reason(self, error: BaseException) -> str:
        text = "no answer in time" if isinstance(error, TimeoutError) else _line(str(error)) or type(error).__name__
        way = "through the proxy of exchange.proxy or the environment " if self._proxy else ""
        return (
            f"cannot reach {self._host} {way}({text}); check the network, set exchange.proxy, or try --demo, "
            "which needs no network"
        )

    def _error(self, response: aiohttp.ClientResponse, body: bytes) -> ExchangeError:
        status = response.status
        told = models.decode_error(body)
        message = _line(told.msg) if told else ""
        retry_after_s = _seconds(response.headers.get("Retry-After"))
        now_ms = self._now_ms()
        if status == 429:
            self.limited += 1
            wait_s = self.gate.limited(retry_after_s)
            return RateLimited(
                f"{self._host} answered 429, request weight used up; waiting {wait_s:.0f} s", retry_after_s=wait_s
            )
        if status == 418:
            self.limited += 1
            found = _BANNED_UNTIL.search(message)
            latest_ms = now_ms + int(_LONGEST_TOLD_S * 1000)
            until_ms = self.gate.banned(min(int(found[1]), latest_ms) if found else None, retry_after_s)
            return IpBanned(
                f"{self._host} answered 418, this address is banned for {(until_ms - now_ms) / 1000:.0f} s; "
                "nothing is sent until then; stop other programs that use the same address",
                until_ms=until_ms,
            )
        if told is not None:
            return ExchangeRefused(
                f"{self._host} answered {status}: {told.code} {message}", status=status, code=told.code
            )
        meaning = {
            403: "a firewall page instead of an answer; wait some minutes, and check proxy and request rate",
            407: "the proxy wants a name and a password; put them into exchange.proxy",
            451: "not served at this location; use exchange.proxy from where it is allowed",
        }.get(status, f"body begins {body[:60]!r}; trying again later")
        return ExchangeRefused(f"{self._host} answered {status}: {meaning}", status=status)


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(_CHUNK_BYTES):
        size += len(part)
        if size > MAX_BODY_BYTES:
            response.close()
            raise BadMessage(f"{response.url.path}: the body exceeds {MAX_BODY_BYTES} bytes; not read further")
        parts.append(part)
    return b"".join(parts)


def _check_range(start_ms: int | None, end_ms: int | None) -> None:
    if start_ms is not None and end_ms is not None and start_ms > end_ms:
        raise ValueError(f"start {start_ms} is after end {end_ms}; the exchange would charge for refusing it")


def _parameters(**values: Any) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _seconds(text: str | None) -> float | None:
    """Return a `Retry-After` of whole seconds; the other form, a date, is not used here."""
    return min(float(text), _LONGEST_TOLD_S) if text and text.isascii() and text.isdigit() else None


def _line(text: str) -> str:
    """Return a text of others as part of one line of ours."""
    return " ".join(text.split())[:_TEXT_LENGTH]
