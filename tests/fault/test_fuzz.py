"""Damaged input of every kind, at every door: only errors of ours come out, nothing hangs, sizes are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import json
import os
import re
import resource
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

import klshm
from klshm.config import ExchangeConfig
from klshm.config.settings import check, load, render_default
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.errors import BadMessage, ConfigError, ExchangeError, KlshmError
from klshm.exchange.governor import Governor
from klshm.exchange.rest import MAX_BODY_BYTES, RestClient
from klshm.historian.needs import NeedsTable
from klshm.shm import layout as lay
from klshm.shm.segment import open_segment, segment_path
from klshm.store.segment_rows import Namer
from tests.core.feed import CELLS, Feed, begun
from tests.core.test_messages import CONTINUOUS, KLINE, TRADE
from tests.store.engine import Engine
from tests.support.desk import START, Desk, make_desk
from tests.support.servers import http_server, raw_server


__all__ = ["make_desk"]

pytestmark = pytest.mark.fault

EXAMPLES = settings(
    max_examples=1000 if os.environ.get("KLSHM_LONG") else 60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
NOW_MS = 1_791_271_490_000

ODD = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-(1 << 70), 1 << 70),
    some.floats(),
    some.text(max_size=30),
    some.sampled_from(["1e400", "-0", "NaN", "9" * 400, "0." + "0" * 300 + "1", "BTCUSDT", "", "1m", "2.", ".5"]),
    some.lists(some.integers(), max_size=3),
    some.dictionaries(some.text(max_size=3), some.integers(), max_size=2),
)


@some.composite
def damaged(draw: Any, documents: list[Any]) -> Any:
    """Return one of the documents with some of its parts exchanged, doubled or taken away."""
    document = copy.deepcopy(draw(some.sampled_from(documents)))
    for _ in range(draw(some.integers(0, 3))):
        holder = document
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(some.sampled_from(keys))
            if isinstance(holder[key], dict | list) and draw(some.booleans()):
                holder = holder[key]
                continue
            if draw(some.integers(0, 3)) == 0:
                del holder[key]
            else:
                holder[key] = draw(ODD)
            break
    return document


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()  # what is no number is spelt NaN and Infinity, as some servers do


# -- frames ---------------------------------------------------------------------------------------------


@EXAMPLES
@given(some.lists(damaged([{"stream": "x", "data": data} for data in (TRADE, KLINE, CONTINUOUS)]), max_size=6))
def test_frames(documents: list[Any]) -> None:
    """What is taken for a frame goes into bars: whatever it says, they stay bars."""
    decoder, batch = FrameDecoder({"BTCUSDT": 0}, {("BTCUSDT", "PERPETUAL"): 0}), EventBatch()
    for document in documents:
        with contextlib.suppress(BadMessage):
            decoder.decode(as_json(document), batch)
    feed = begun()
    feed.at(55)
    feed.engine.apply(batch.take(), feed.now)
    feed.tick(1)
    feed.settle(1)
    check_bars(feed)


def check_bars(feed: Feed) -> None:
    for row in (feed.live(), feed.bar(0), feed.live("1w")):
        values = [float(row[name]) for name in CELLS]
        assert all(np.isfinite(values)) and min(values) >= 0
        assert row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
        assert row["taker_buy_volume"] <= row["volume"]


# -- REST -----------------------------------------------------------------------------------------------

KLINE_ROW = [START, "1.0", "2.0", "0.5", "1.5", "10", START + 59_999, "15", 7, "4", "6", "0"]
BODIES = {
    "time": {"serverTime": START},
    "exchangeInfo": {
        "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400}],
        "symbols": [
            {
                **{"symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING"},
                **{"onboardDate": START, "quoteAsset": "USDT", "baseAsset": "BTC", "pricePrecision": 2},
                **{"quantityPrecision": 3, "deliveryDate": START},
            }
        ],
    },
    "klines": [KLINE_ROW, KLINE_ROW],
    "aggTrades": [{"a": 1, "p": "1", "q": "2", "f": 1, "l": 2, "T": START, "m": True}],
    "24hr": [{"symbol": "BTCUSDT", "lastId": 1, "count": 2, "lastPrice": "1", "quoteVolume": "1"}],
}
ASK: dict[str, Callable[[RestClient], Any]] = {
    "time": lambda client: client.server_time(),
    "exchangeInfo": lambda client: client.exchange_info(),
    "klines": lambda client: client.klines("BTCUSDT", "1m"),
    "aggTrades": lambda client: client.aggregate_trades("BTCUSDT", from_id=1),
    "24hr": lambda client: client.tickers_24h(),
}
HEADERS = [
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "deflate"},
    {"Content-Encoding": "br"},
    {"Content-Type": "text/html; charset=nonsense"},
    {"X-MBX-USED-WEIGHT-1M": "-1"},
    {"X-MBX-USED-WEIGHT-1M": "9" * 40},
    {"Retry-After": "9" * 40},
    {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"},
    {"Location": "http://[::1"},
    {"Content-Length": "7"},
]


def ask_server(question: str, port: int) -> Any:
    """Ask a server once; return what came, or the error of ours."""

    async def main() -> Any:
        configuration = ExchangeConfig(rest_url=f"http://127.0.0.1:{port}", connect_timeout_s=2.0)
        async with RestClient(configuration, Governor(), lambda: NOW_MS) as client:
            try:
                return await ASK[question](client)
            except ExchangeError as error:
                assert "\n" not in str(error)
                return error

    return main()


@EXAMPLES
@given(
    question=some.sampled_from(sorted(BODIES)),
    body=some.one_of(damaged(list(BODIES.values())).map(as_json), some.binary(max_size=60)),
    status=some.sampled_from([200, 200, 200, 204, 301, 400, 403, 418, 429, 500, 599]),
    headers=some.sampled_from([{}, {}, *HEADERS]),
)
def test_rest_bodies(question: str, body: bytes, status: int, headers: dict[str, str]) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    async def main() -> None:
        async with http_server(answer) as port:
            await asyncio.wait_for(ask_server(question, port), 30)

    asyncio.run(main())


@EXAMPLES
@given(
    head=some.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzip.compress(b'{"a":1}')[:9],
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"",
        ]
    ),
    tail=some.binary(max_size=40),
)
def test_bytes_that_are_no_answer(head: bytes, tail: bytes) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + tail)
        await writer.drain()

    async def main() -> None:
        async with raw_server(speak) as port:
            assert isinstance(await asyncio.wait_for(ask_server("time", port), 30), ExchangeError)

    asyncio.run(main())


def test_a_bomb_of_zeros_is_not_unpacked_to_its_end() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(300)), packer.flush()])

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async def main() -> Any:
        async with http_server(answer) as port:
            return await ask_server("time", port)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    error = asyncio.run(main())
    assert isinstance(error, BadMessage) and "exceeds" in str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < 3 * MAX_BODY_BYTES, "300 MiB are in it"


# -- configuration --------------------------------------------------------------------------------------

LINES = [line.removeprefix("# ") for line in render_default().splitlines() if re.match(r"# \w+ = |\[", line)]
VALUES = some.sampled_from(
    ["-1", "0", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "[1]", '["A", "A"]', "{}", "{ 1m = 1 }", "1979-05-27"]
)


@some.composite
def configurations(draw: Any) -> str:
    """Return the default file with some lines changed, doubled or broken."""
    lines = list(LINES)
    for _ in range(draw(some.integers(1, 3))):
        at = draw(some.integers(0, len(lines) - 1))
        key = lines[at].partition(" = ")[0]
        lines[at] = draw(some.one_of(VALUES.map(lambda value, key=key: f"{key} = {value}"), some.text(max_size=20)))
    return "\n".join(lines)


@EXAMPLES
@given(text=some.one_of(configurations(), some.text(max_size=80)))
def test_configuration_files(text: str, tmp_path: Path) -> None:
    file = tmp_path / "klshm.toml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        check(load(file, environ={}))
    except ConfigError as error:
        assert str(error) and error.exit_code == 4


@EXAMPLES
@given(data=some.binary(max_size=60), option=some.text(max_size=40), value=some.text(max_size=40))
def test_configuration_of_any_bytes_options_and_variables(data: bytes, option: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "klshm.toml"
    file.write_bytes(data)
    for given_here in (
        lambda: load(file, environ={}),
        lambda: load(overrides=[option], environ={}),
        lambda: load(overrides=[f"klines.intervals={value}"], environ={}),
        lambda: load(environ={"KLSHM_SEGMENT__HISTORY": value}),
        lambda: load(environ={f"KLSHM_{option.upper()}__X": value}),
    ):
        with contextlib.suppress(ConfigError):
            given_here()


# -- shared memory --------------------------------------------------------------------------------------


def spoil(words: Any, first: int, last: int, at: list[tuple[int, int]]) -> None:
    """Overwrite some words of a stretch."""
    for index, value in at:
        words[first + index % (last - first)] = value


WORDS = some.lists(
    some.tuples(some.integers(0, 1 << 20), some.integers(-(1 << 63), (1 << 63) - 1) | some.integers(-3, 99)),
    min_size=1,
    max_size=8,
)


@EXAMPLES
@given(at=WORDS, cut=some.integers(0, 1 << 20) | some.none())
def test_headers_of_segments(at: list[tuple[int, int]], cut: int | None, desk: Desk) -> None:
    words = desk.words.copy()
    spoil(words, 0, lay.HEADER_BYTES // 8, at)
    path = segment_path("damaged")
    path.write_bytes(words.tobytes()[:cut])
    for look in (open_segment, klshm.attach):
        with contextlib.suppress(KlshmError):
            look("damaged").close()
    path.unlink()


LOOKS: dict[str, Callable[[klshm.Reader], Any]] = {
    "live": lambda reader: reader.live("BTCUSDT", "1m"),
    "history": lambda reader: reader.history("BTCUSDT", "1m", 50),
    "snapshot": lambda reader: reader.snapshot(timeout_s=0.05),
    "closed": lambda reader: list(reader.closed(timeout_s=0.01)),
    "status": lambda reader: reader.status(),
}


@EXAMPLES
@example(at=[(17, 9)], where="historian", look="closed")  # more symbols than there is room for
@given(
    at=WORDS,
    where=some.sampled_from(["symbols", "historian", "block", "live", "history", "log"]),
    look=some.sampled_from(sorted(LOOKS)),
)
def test_regions_of_segments(at: list[tuple[int, int]], where: str, look: str, desk: Desk) -> None:
    """A reader of damaged memory may be told nonsense or an error of ours; it may not fail in any other way."""
    layout = desk.layout
    offset = {
        "symbols": layout.symbols_offset,
        "historian": layout.historian_offset,
        "block": layout.partition_offset(0),
        "live": layout.live_offset(0),
        "history": layout.history_offset(0),
        "log": layout.log_offset(0),
    }[where]
    before = desk.words.copy()
    spoil(desk.words, offset // 8, offset // 8 + 256, at)
    try:
        with contextlib.suppress(KlshmError), klshm.attach("test") as reader:
            LOOKS[look](reader)
    finally:
        desk.words[:] = before


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    made = make_desk("test")
    made.list_symbol("BTCUSDT")
    for minute in range(5):
        made.tick("BTCUSDT", "1m", START + minute * 60_000)
    made.publish(START + 300_000, START + 300_000)
    return made


@EXAMPLES
@given(rows=some.lists(some.binary(min_size=128, max_size=128), min_size=1, max_size=8), at=WORDS)
def test_tables_and_rows_that_the_store_and_the_historian_read(
    rows: list[bytes], at: list[tuple[int, int]], make_engine: Callable[..., Engine], engine: Engine
) -> None:
    layout, words = engine.layout, engine.words
    before = words.copy()
    symbols, needs = layout.symbols_offset // 8, layout.needs_offset(0) // 8
    spoil(words, symbols, symbols + 4 * lay.SYMBOL_WORDS, at)
    spoil(words, needs, needs + layout.slots * lay.ROW_WORDS, at)
    try:
        batch = Namer(engine.segment, at_rest=True).batch(np.frombuffer(b"".join(rows), dtype=lay.KLINE))
        for row in batch.rows:
            assert batch.listings[row["slot"]].name
        for need in NeedsTable(engine.segment, 0).read():
            assert 0 < need.from_ms <= need.to_ms
    finally:
        words[:] = before


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()
