"""From real sockets to events: subscriptions, refused frames, lost streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from klshm.config import ExchangeConfig
from klshm.core.events import FRAME, STREAM_DOWN, TRADE
from klshm.core.messages import EventBatch
from klshm.exchange.models import stream_symbol
from klshm.shm.counters import WORKER, Counters
from klshm.shm.segment import Segment
from klshm.worker.intake import Intake
from tests.support.servers import StreamServer, stream_server
from tests.worker.support import NOW_MS, run, trade


class Owner:
    """Keeps what an intake hands over."""

    def __init__(self, segment: Segment, port: int, **exchange: Any) -> None:
        self.counters = Counters(segment.block(segment.layout.partition_offset(0)), WORKER)
        self.batch = EventBatch()
        self._changed = asyncio.Event()
        config = ExchangeConfig(ws_url=f"ws://127.0.0.1:{port}", reconnect_max_s=1.0, **exchange)
        self.intake = Intake(config, "worker 0", self.batch, self.counters, self._changed.set, lambda: NOW_MS)

    def add(self, *symbols: str) -> None:
        for slot, symbol in enumerate(symbols):
            self.intake.add(slot, symbol, symbol, "PERPETUAL")
        self.intake.start()

    async def until(self, condition: Callable[[], object], read: bool = True) -> None:
        while True:
            if read:
                self.intake.read()
            if condition():
                return
            await asyncio.sleep(0.01)


async def accepted(server: StreamServer, streams: set[str]) -> None:
    await server.until(lambda: server.streams == streams)


def test_only_ascii_letters_are_lowered_in_stream_names() -> None:
    assert stream_symbol("BTCUSDT") == "btcusdt"
    assert stream_symbol("ÄBC币安USDT") == "Äbc币安usdt"


def test_symbols_share_a_connection_and_come_and_go_on_it(made: Segment) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            owner.add("BTCUSDT", "ETHUSDT")
            owner.intake.add(0, "BTCUSDT", "BTCUSDT", "PERPETUAL")  # again: nothing
            both = {"btcusdt@aggTrade", "btcusdt@kline_1m", "ethusdt@aggTrade", "ethusdt@kline_1m"}
            await accepted(server, both)
            assert server.handshakes == 1
            owner.intake.add(2, "XRPUSDT", "XRPUSDT", "PERPETUAL")
            owner.intake.remove(0)
            owner.intake.remove(9)  # unknown: nothing
            await accepted(server, {"ethusdt@aggTrade", "ethusdt@kline_1m", "xrpusdt@aggTrade", "xrpusdt@kline_1m"})
            assert server.handshakes == 1
            assert (owner.intake.symbols, owner.intake.connections) == (2, 1)
            owner.intake.publish_counters()
            assert owner.counters.get("subscriptions") == 4
            await owner.intake.close()

    run(main())


def test_a_symbol_beyond_the_limit_gets_another_connection(made: Segment) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            owner.add(*(f"S{number}USDT" for number in range(513)))
            await owner.until(lambda: owner.intake.connections == 2)
            assert owner.intake.symbols == 513
            await owner.intake.close()

    run(main())


def test_continuous_klines_are_named_by_pair_and_contract(made: Segment) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port, official_stream="continuousKline")
            owner.intake.add(0, "BTCUSDT", "BTCUSDT", "PERPETUAL")
            owner.intake.start()
            await accepted(server, {"btcusdt@aggTrade", "btcusdt_perpetual@continuousKline_1m"})
            await owner.intake.close()

    run(main())


def test_a_stream_is_live_at_its_first_frame_not_at_the_acknowledgement(made: Segment) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            assert not owner.intake.live
            owner.add("BTCUSDT")
            await server.until(lambda: len(server.requests) == 1)
            await owner.until(lambda: owner.intake.silent_links(0.0))
            assert not owner.intake.live
            await server.sockets[0].send_json(trade())
            await owner.until(lambda: owner.intake.live)
            assert owner.intake.silent_links(60.0) == []
            assert owner.batch.take()["kind"].tolist() == [TRADE]
            await owner.intake.close()

    run(main())


def test_what_has_come_of_a_symbol_is_read_before_it_goes(made: Segment) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            owner.add("BTCUSDT")
            await server.until(lambda: len(server.requests) == 1)
            await owner.until(lambda: owner.intake.silent_links(0.0))
            await server.sockets[0].send_json(trade())
            await owner.until(lambda: owner.intake.live, read=False)
            assert owner.batch.count == 0
            owner.intake.remove(0)
            assert owner.batch.take()["kind"].tolist() == [TRADE]
            await server.sockets[0].send_json(trade(a=6))
            await owner.until(lambda: owner.intake.messages == 2)
            assert owner.batch.count == 0
            await owner.intake.close()

    run(main())


def test_hostile_frames_are_counted_and_change_nothing(made: Segment, caplog: Any) -> None:
    bad = [
        b"", b"\xff\xfe\x00", b"null", b"[]", b"{}", b'{"stream":"x","data":{"e":"aggTrade"}}', b"[" * 5_000,
        json.dumps(trade()).encode()[:-9],
        json.dumps(trade("BTC?USDT")).encode().replace(b"?", b"\xff"),
        *(json.dumps(trade(**change)).encode() for change in (
            {"p": "NaN"}, {"p": "-1"}, {"p": "1e5"}, {"p": 1.5}, {"q": "Infinity"}, {"q": ""},
            {"a": 2**63}, {"a": 10**30}, {"T": "soon"}, {"m": None},
        )),
    ]  # fmt: skip

    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            owner.add("BTCUSDT")
            await server.until(lambda: len(server.requests) == 1)
            await owner.until(lambda: owner.intake.silent_links(0.0))
            for payload in bad:
                await server.sockets[0].send_bytes(payload)
            await server.sockets[0].send_json(trade("UNKNOWNUSDT"))
            await server.sockets[0].send_json(trade(a=6))
            await owner.until(lambda: owner.batch.count)
            assert owner.batch.take()["a"].tolist() == [6]
            assert owner.intake.decode_errors == len(bad)
            assert owner.intake.messages == len(bad) + 2
            owner.intake.publish_counters()
            assert owner.counters.get("decode_errors_total") == len(bad)
            assert owner.counters.get("unknown_symbols_total") == 1
            assert owner.counters.get("disconnects_total") == 0
            assert "frame refused worker=worker 0" in caplog.text
            await owner.intake.close()

    run(main())


def test_a_lost_stream_makes_its_symbols_doubtful_and_comes_back(made: Segment, caplog: Any) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port)
            owner.add("BTCUSDT", "ETHUSDT")
            await server.until(lambda: len(server.requests) == 1)
            await server.sockets[0].send_json(trade())
            await owner.until(lambda: owner.batch.count)
            owner.batch.take()
            await server.sockets[0].close(code=1001, message=b"maintenance")
            await owner.until(lambda: owner.batch.count == 2)
            events = owner.batch.take()
            assert events["kind"].tolist() == [STREAM_DOWN] * 2
            assert sorted(events["slot"].tolist()) == [0, 1]
            assert (events["time"] <= NOW_MS).all()
            assert "1001 maintenance" in caplog.text
            await server.until(lambda: len(server.requests) == 2)
            await server.sockets[1].send_json(trade(a=6))
            await owner.until(lambda: owner.batch.count)
            assert owner.counters.get("connects_total") == 2
            assert owner.counters.get("disconnects_total") == 1
            await owner.intake.close()

    run(main())


def test_an_unreachable_exchange_names_the_remedies(made: Segment, caplog: Any) -> None:
    async def main() -> None:
        owner = Owner(made, 9)
        owner.add("BTCUSDT")
        await owner.until(lambda: "stream unreachable" in caplog.text)
        assert "address=ws://127.0.0.1:9" in caplog.text
        assert "set exchange.proxy, or try --demo" in caplog.text
        await owner.intake.close()

    run(main())


def test_final_continuous_klines_become_frames(made: Segment) -> None:
    bar = {"t": 0, "T": 59_999, "i": "1m", "f": 1, "L": 2, "n": 1, "x": True, "B": "0"}
    cells = dict.fromkeys(("o", "c", "h", "l", "v", "q", "V", "Q"), "1")
    data = {"e": "continuous_kline", "E": NOW_MS, "ps": "BTCUSDT", "ct": "PERPETUAL", "k": {**bar, **cells}}

    async def main() -> None:
        async with stream_server() as server:
            owner = Owner(made, server.port, official_stream="continuousKline")
            owner.add("BTCUSDT")
            await server.until(lambda: len(server.requests) == 1)
            await server.sockets[0].send_json({"stream": "btcusdt_perpetual@continuousKline_1m", "data": data})
            await owner.until(lambda: owner.batch.count)
            assert owner.batch.take()["kind"].tolist() == [FRAME]
            await owner.intake.close()

    run(main())
