"""A connection replaced: nothing missed, nothing in doubt, and no worse off where the replacement fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.worker.link import Link
from tests.support.exchange import exchange
from tests.support.servers import StreamServer, stream_server
from tests.worker.support import run


STREAMS = [f"{name}@aggTrade" for name in ("btcusdt", "ethusdt", "solusdt")]


class Desk:
    """A link against a simulator, and what it has delivered."""

    def __init__(self, port: int, rotate_after_s: float = 3600.0, silent_after_s: float = 3600.0) -> None:
        self.frames: list[bytes] = []
        self.events: list[str] = []
        self.lost: list[int] = []
        self.states: list[StreamState] = []
        self._port = port
        self.link = Link(
            0,
            self._connect,
            self.frames.append,
            self.lost.append,
            self.events.append,
            address=f"ws://127.0.0.1:{port}",
            rotate_after_s=rotate_after_s,
            silent_after_s=silent_after_s,
        )
        self.link.add(STREAMS)

    def _connect(
        self, streams: list[str], on_frame: Callable[[bytes], None], on_state: Callable[[StreamState, str], None]
    ) -> StreamConnection:
        def note(state: StreamState, reason: str) -> None:
            on_state(state, reason)
            self.states.append(state)

        return StreamConnection(market_stream_url(f"ws://127.0.0.1:{self._port}"), streams, on_frame, note)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the link work until a condition holds."""
        async with asyncio.timeout(240):
            while not condition():
                self.link.check()
                await asyncio.sleep(0.05)

    def ids(self) -> list[int]:
        """Return the aggregate trade ids of BTCUSDT in the order they came."""
        import json

        events = (json.loads(frame)["data"] for frame in self.frames)
        return [event["a"] for event in events if event["s"] == "BTCUSDT"]


def test_two_hand_overs_under_load_miss_no_trade() -> None:
    async def scenario(port: int) -> Desk:
        desk = Desk(port, rotate_after_s=2.0)
        desk.link.start()
        await desk.until(lambda: desk.events.count("rotation") >= 2)
        await desk.link.close()
        return desk

    with exchange("--symbols", "6", "--rate", "300") as market:
        desk = asyncio.run(scenario(market.port))
    seen = desk.ids()
    assert desk.lost == []
    assert sorted(set(seen)) == list(range(min(seen), max(seen) + 1)), "an aggregate trade was missed"
    assert len(seen) > len(set(seen)), "the connections did not overlap"
    assert desk.events.count("connect") >= 3


def test_a_lost_connection_is_reported_once_and_comes_back() -> None:
    async def scenario(port: int, close: Callable[[], object]) -> Desk:
        desk = Desk(port, rotate_after_s=3600.0)
        desk.link.start()
        await desk.until(lambda: desk.link.shown)
        await asyncio.to_thread(close)
        await desk.until(lambda: bool(desk.lost))
        frames = len(desk.frames)
        await desk.until(lambda: len(desk.frames) > frames)
        await desk.link.close()
        return desk

    with exchange("--symbols", "6", "--rate", "300") as market:
        desk = asyncio.run(scenario(market.port, lambda: market.fault(name="close")))
    assert len(desk.lost) == 1
    assert desk.events == ["connect", "disconnect", "connect"]


# The hand-over step by step, against a server that shows what it is told to


@pytest.fixture
def overlap(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let both connections deliver until the test lets the old one go."""

    def set_overlap(seconds: float) -> None:
        monkeypatch.setattr("klshm.worker.link._OVERLAP_S", seconds)

    set_overlap(3600.0)
    return set_overlap


async def show(socket: web.WebSocketResponse, stream: str = STREAMS[0]) -> None:
    await socket.send_json({"stream": stream, "data": {"s": stream[:7].upper(), "a": 1}})


@asynccontextmanager
async def handing_over(**options: float) -> AsyncIterator[tuple[Desk, StreamServer]]:
    """A link that is just being replaced: both connections have subscribed, the old one has shown one stream since."""
    async with stream_server() as server:
        desk = Desk(server.port, **options)
        desk.link.start()
        await desk.until(lambda: desk.states.count(StreamState.SUBSCRIBED) == 2)
        await show(server.sockets[0])
        frames = len(desk.frames)
        await desk.until(lambda: len(desk.frames) > frames)
        yield desk, server
        await desk.link.close()


def test_a_silent_connection_is_replaced_by_another_that_is_as_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("klshm.worker.link._OVERLAP_S", 0.05)
    monkeypatch.setattr("klshm.worker.link._QUIET_S", 0.1)

    async def main() -> None:
        async with stream_server() as server:
            desk = Desk(server.port, silent_after_s=0.1)
            desk.link.start()
            await desk.until(lambda: desk.link.connections == 2)
            await desk.until(lambda: desk.events.count("rotation") == 1)
            assert desk.lost == []
            await desk.link.close()  # while the old one is still being closed

    caplog.set_level("INFO", logger="klshm")
    run(main())
    assert "stream is replaced stream=0 because_of='its silence'" in caplog.text


def test_a_replacement_that_shows_less_is_given_up_for_a_while(
    overlap: Callable[[float], None], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("klshm.worker.link._GIVE_UP_S", 0.5)

    async def main() -> None:
        async with handing_over(rotate_after_s=0.01) as (desk, server):
            await desk.until(lambda: "given up" in caplog.text)
            await desk.until(lambda: desk.link.connections == 1)
            handshakes = server.handshakes
            await show(server.sockets[0])
            frames = len(desk.frames)
            await desk.until(lambda: len(desk.frames) > frames)  # the old one serves on
            assert desk.events.count("rotation") == 0
            assert desk.lost == []
            assert server.handshakes == handshakes  # not tried again at once

    run(main())
    assert "replacement given up stream=0 streams_missing=1" in caplog.text


def test_a_replacement_that_is_lost_puts_nothing_in_doubt(overlap: Callable[[float], None], caplog: Any) -> None:
    async def main() -> None:
        async with handing_over(rotate_after_s=0.01) as (desk, server):
            await show(server.sockets[1], STREAMS[1])
            await server.sockets[1].close()
            await desk.until(lambda: "replacement lost" in caplog.text)
            assert desk.lost == []
            assert desk.link.up
            await desk.until(lambda: desk.states.count(StreamState.SUBSCRIBED) == 3)  # it comes back by itself
            overlap(0.0)
            await show(server.sockets[2])
            await desk.until(lambda: desk.events.count("rotation") == 1)
            assert desk.lost == []

    run(main())


def test_a_connection_lost_when_its_replacement_has_shown_all_is_no_loss(
    overlap: Callable[[float], None], caplog: Any
) -> None:
    async def main() -> None:
        async with handing_over(rotate_after_s=0.01) as (desk, server):
            await show(server.sockets[1])
            frames = len(desk.frames)
            await desk.until(lambda: len(desk.frames) > frames)
            await server.sockets[0].close()
            await desk.until(lambda: desk.events.count("rotation") == 1)
            assert desk.lost == []

    run(main())
    assert "stream lost" not in caplog.text


def test_streams_change_in_both_connections(overlap: Callable[[float], None]) -> None:
    async def main() -> None:
        async with handing_over(rotate_after_s=0.01) as (desk, server):
            desk.link.add(["xrpusdt@aggTrade"])
            desk.link.remove([STREAMS[2]])
            await server.until(lambda: len(server.requests) == 6)
            changes = [(request["method"], request["params"]) for request in server.requests[2:]]
            assert sorted(changes) == [("SUBSCRIBE", ["xrpusdt@aggTrade"])] * 2 + [("UNSUBSCRIBE", [STREAMS[2]])] * 2

    run(main())
