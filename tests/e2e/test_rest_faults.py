"""REST fails in every way it can while an engine runs: nothing removed, nothing lost, nothing restarted, all said.

Between the engine and the simulator's REST stands a relay, a server of its own, that notes every
request and spoils answers. Meanwhile no final frame of a kline is sent and some symbols are mute,
so that the engine cannot do without REST.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.e2e.official import waiting
from tests.e2e.support import compare, trading_symbols
from tests.support.engine import Engine, engine
from tests.support.exchange import Exchange, exchange
from tests.support.processes import wait_for


pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
]

M = 60_000
PATIENCE_S = 240.0
TIMEOUT_S = 1.0
UNDER_WAY_MS = 1_000
"""What comes so soon after a refusal was sent before it was known."""
LATE = 504
"""Status by which a test says that the answer shall come too late."""

Spoil = Callable[[bytes], web.Response]


@dataclass(frozen=True)
class Asked:
    """One request: when it came, when and how it was answered."""

    at_ms: int
    answered_ms: int
    path: str
    status: int


class Relay:
    """The exchange's REST at an address of its own."""

    def __init__(self, market: Exchange) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self._market = market
        self._ahead_ms = market.now_ms() - time.time_ns() // 1_000_000
        self._spoil: Spoil | None = None
        self._path = ""
        self._session: aiohttp.ClientSession

    # Called by the test

    def now_ms(self) -> int:
        """Return the exchange's time."""
        return time.time_ns() // 1_000_000 + self._ahead_ms

    def spoil(self, path: str, how: Spoil) -> None:
        """Spoil every answer on paths that hold this text, until `mend`."""
        self._path, self._spoil = path, how

    def mend(self) -> None:
        """Let every answer through."""
        self._spoil = None

    def answers(self, status: int) -> list[Asked]:
        """Return the requests that were answered so."""
        return [asked for asked in self.asked if asked.status == status]

    # The server

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Ask the simulator, and pass its answer on or another."""
        at_ms = self.now_ms()
        async with self._session.get(URL(self._market.rest_url + request.raw_path, encoded=True)) as answer:
            body, status = await answer.read(), answer.status
            kept = ("X-MBX-USED-WEIGHT-1M", "Retry-After", "Content-Type")
            headers = {name: answer.headers[name] for name in kept if name in answer.headers}
        spoil = self._spoil if self._path in request.path else None
        response = spoil(body) if spoil is not None else web.Response(body=body, status=status, headers=headers)
        self.asked.append(Asked(at_ms, self.now_ms(), request.path, response.status))
        if response.status == LATE:
            await asyncio.sleep(2 * TIMEOUT_S)
        return response

    async def serve(self, ready: threading.Event, ended: asyncio.Event) -> None:
        """Run until the test ends."""
        async with aiohttp.ClientSession() as self._session:
            app = web.Application()
            app.router.add_get("/{tail:.*}", self.handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            ready.set()
            await ended.wait()
            await runner.cleanup()


@contextmanager
def relay(market: Exchange) -> Iterator[Relay]:
    """A relay with a loop and a thread of its own."""
    made, ready, loop = Relay(market), threading.Event(), asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(made.serve(ready, ended)))
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


class Stage:
    """An engine whose streams leave much to REST, and what lies between it and the exchange."""

    def __init__(self, market: Exchange, between: Relay, running: Engine) -> None:
        self.market, self.between, self.running = market, between, running
        self.symbols = trading_symbols(market)

    def need_rest(self, seconds: int) -> None:
        """Let no final frame come, and both streams of a quarter of the symbols be mute."""
        self.market.fault(name="delay_x", seconds=seconds, probability=1.0)
        for symbol in self.symbols[::4]:
            for stream in ("aggTrade", "kline"):
                self.market.fault(name="mute", stream=stream, seconds=seconds, symbol=symbol)

    def ask(self) -> None:
        """Announce something of a contract, which lets the engine ask for the list of all within a second."""
        self.market.fault(name="brackets", symbol="BTCUSDT")

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for what must come."""
        wait_for(condition, PATIENCE_S, self.running.text)

    def until_said(self, words: str, times: int = 1) -> None:
        """Wait until the log has these words so often."""
        self.until(lambda: self.running.text().count(words) >= times)

    def until_answered_again(self) -> None:
        """Let every answer through, and wait until the engine has noticed."""
        before = self.running.text().count("exchange answers again")
        self.between.mend()
        self.until_said("exchange answers again", before + 1)

    def historian(self) -> dict[str, Any]:
        """Return what the status says of the historian's process."""
        rows = self.running.status().get("processes", [])
        return next((row for row in rows if row["role"] == "historian"), {})

    def kill_historian(self) -> None:
        """Kill it, and wait for its successor."""
        before = self.historian()
        os.kill(before["pid"], signal.SIGKILL)
        self.until(lambda: self.historian().get("restarts", 0) > before["restarts"])

    def finish(self, restarts: int = 0) -> None:
        """Wait until every bar that has closed is official, then stop; nothing may have gone wrong on the way."""
        end_ms = self.market.now_ms() // M * M
        self.until(lambda: not waiting(self.running.archive, self.market.start_ms, end_ms))
        found = compare(self.market, self.running.archive, self.symbols, self.market.start_ms, end_ms)
        assert found.missing == [] and found.different == []
        assert found.compared == found.equal == found.confirmed
        assert found.compared > len(self.symbols)
        told = self.running.status()
        assert told["symbols"]["trading"] == len(trading_symbols(self.market))
        assert {p["role"]: p["restarts"] for p in told["processes"]} == {
            **dict.fromkeys(("launcher", "worker", "persister"), 0),
            "historian": restarts,
        }
        self.until(self._audited)  # it judges no bar that is young
        assert self.running.stop() == 0, self.running.text()
        assert "Traceback" not in self.running.text()

    def _audited(self) -> bool:
        audit = self.running.klshm("audit", "--json")
        assert audit.returncode == 0, audit.stdout + audit.stderr
        return bool(json.loads(audit.stdout)["compared"] > 0)


@contextmanager
def stage(tmp_path: Path, name: str) -> Iterator[Stage]:
    """A stage whose engine is live and has its history."""
    with exchange("--symbols", "12", "--rate", "60") as market, relay(market) as between:
        options = (
            *("--workers", "2", "--set", f"exchange.rest_url=http://127.0.0.1:{between.port}"),
            *("--set", f"exchange.connect_timeout_s={TIMEOUT_S}"),
        )
        with engine(tmp_path, market, name, *options) as running:
            running.wait_live()
            running.wait_said("backfill finished")
            yield Stage(market, between, running)


def limited(retry_after_s: int | None) -> Spoil:
    body = {"code": -1003, "msg": "Too many requests; current limit of IP(1.2.3.4) is 2400 requests per minute."}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return lambda _: web.json_response(body, status=429, headers=headers)


def banned(until_ms: int) -> Spoil:
    text = f"Way too many requests; IP(1.2.3.4) banned until {until_ms}. Please use the websocket for live updates."
    return lambda _: web.json_response({"code": -1003, "msg": text}, status=418)


def test_limits_and_a_ban_are_kept_to_and_cost_no_bar(tmp_path: Path) -> None:
    with stage(tmp_path, "limits") as at:
        at.need_rest(300)
        between, running = at.between, at.running

        between.spoil("", limited(retry_after_s=3))
        at.ask()
        at.until_said("answered 429, request weight used up; waiting 3 s")
        at.until(lambda: between.answers(429)[-1].at_ms - between.answers(429)[0].at_ms > 10_000)
        at.until_answered_again()
        storm = sorted(between.answers(429), key=lambda asked: asked.at_ms)
        later = [asked for asked in storm if asked.at_ms > storm[0].answered_ms + UNDER_WAY_MS]
        assert len(later) >= 3
        assert all(b.at_ms - a.answered_ms >= 3_000 for a, b in zip(later, later[1:], strict=False))

        between.asked.clear()
        between.spoil("", limited(retry_after_s=None))
        at.ask()
        at.until(lambda: between.answers(429))
        blocked_ms = between.answers(429)[0].answered_ms
        between.mend()
        minute_ms = blocked_ms // M * M + M
        at.until(lambda: [asked for asked in between.answers(200) if asked.at_ms > minute_ms])
        assert not [asked for asked in between.asked if blocked_ms + UNDER_WAY_MS < asked.at_ms < minute_ms]

        between.asked.clear()
        until_ms = between.now_ms() + 40_000
        between.spoil("", banned(until_ms))
        at.ask()
        at.until_said("this address is banned ")
        begun_ms = between.answers(418)[0].answered_ms
        at.until(lambda: running.status()["exchange"]["banned_until_ms"] == until_ms)
        at.kill_historian()
        audit = running.klshm("audit")
        assert audit.returncode == 1 and "this address is banned by the exchange for another" in audit.stderr
        assert between.now_ms() < until_ms
        between.mend()
        at.until(lambda: between.answers(200))
        assert not [asked for asked in between.asked if begun_ms + UNDER_WAY_MS < asked.at_ms < until_ms]

        at.until(lambda: between.now_ms() // M > until_ms // M)
        at.finish(restarts=1)


def late(body: bytes) -> web.Response:
    return web.Response(status=LATE, text="too late")


def impossible(body: bytes) -> web.Response:
    """Let every low lie above all."""
    rows = [[*row[:3], "1e30", *row[4:]] for row in json.loads(body)]
    return web.json_response(rows)


NONSENSE: list[tuple[str, str, Spoil]] = [
    ("", "answered 403: a firewall page", lambda _: web.Response(status=403, text="<html>Request blocked.</html>")),
    ("", "answered 503: body begins", lambda _: web.Response(status=503, text="Service Unavailable.")),
    ("", "(no answer in time)", late),
    (
        *("", "answered 500: -1000 An unknown error"),
        lambda _: web.json_response({"code": -1000, "msg": "An unknown error occurred."}, status=500),
    ),
    ("klines", "klines: Input data was truncated", lambda body: web.Response(body=body[: len(body) // 2])),
    ("klines", "low above open or close", impossible),
    ("klines", "klines: Expected `array`, got `object`", lambda _: web.json_response({"rows": []})),
]


def test_nonsense_instead_of_answers_costs_no_bar(tmp_path: Path) -> None:
    with stage(tmp_path, "nonsense") as at:
        at.need_rest(300)
        for path, words, how in NONSENSE:
            at.between.spoil(path, how)
            at.ask()
            at.until_said(words)
        asked = len(at.between.asked)
        at.until_answered_again()
        said = [line for line in at.running.text().splitlines() if "failed, trying again" in line]
        print(f"{asked} requests and {len(said)} lines over the faults")
        assert len(said) <= 2 * len(NONSENSE) + 6
        at.until(lambda: at.market.now_ms() > at.market.start_ms + 2 * M)
        at.finish()


def fewer(body: bytes) -> web.Response:
    info = json.loads(body)
    info["symbols"] = info["symbols"][len(info["symbols"]) * 3 // 10 :]
    return web.json_response(info)


def without(body: bytes) -> web.Response:
    return web.json_response({**json.loads(body), "symbols": []})


def of_other_types(body: bytes) -> web.Response:
    info = json.loads(body)
    for row in info["symbols"][1:]:
        row["pricePrecision"] = str(row["pricePrecision"])
    return web.json_response(info)


LISTS: list[tuple[str, Spoil]] = [
    ("exchangeInfo: 0 rows and no contract that can be used", without),
    ("exchangeInfo shows a tenth fewer contracts than before or than are carried", fewer),
    ("exchangeInfo has rows that cannot be used count=", of_other_types),
    ("exchangeInfo: Input data was truncated", lambda body: web.Response(body=body[: len(body) // 2])),
]


def test_lists_of_symbols_that_are_empty_short_or_spoilt_remove_nothing(tmp_path: Path) -> None:
    with stage(tmp_path, "lists") as at:
        trading = at.running.status()["symbols"]["trading"]
        assert trading == len(at.symbols) == 12

        def ask_twice() -> None:
            for _ in range(2):
                before = len(lists())
                at.ask()
                at.until(lambda: len(lists()) > before)  # noqa: B023 - called before it changes

        def lists() -> list[Asked]:
            return [asked for asked in at.between.asked if "exchangeInfo" in asked.path]

        for words, how in LISTS:
            at.between.spoil("exchangeInfo", how)
            ask_twice()
            at.until_said(words)
            assert at.running.status()["symbols"]["trading"] == trading
        for _, how in LISTS[1:3]:  # the next historian has seen no better list
            at.between.spoil("exchangeInfo", how)
            at.kill_historian()
            ask_twice()
            assert at.running.status()["symbols"]["trading"] == trading
        assert "symbol delisted" not in at.running.text()

        at.between.mend()
        at.market.fault(name="list_symbol", symbol="LATERUSDT", delay_s=1)
        at.until_said("symbols added count=1 first=LATERUSDT")
        at.symbols.append("LATERUSDT")
        at.until(lambda: at.market.now_ms() > at.market.start_ms + 2 * M)
        at.finish(restarts=2)
