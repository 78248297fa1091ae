"""A connection replaced under load: nothing missed, nothing in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.worker.link import Link
from tests.support.exchange import exchange


STREAMS = [f"{name}@aggTrade" for name in ("btcusdt", "ethusdt", "solusdt")]


class Desk:
    """A link against a simulator, and what it has delivered."""

    def __init__(self, port: int, rotate_after_s: float) -> None:
        self.frames: list[bytes] = []
        self.events: list[str] = []
        self.lost: list[int] = []
        self._port = port
        self.link = Link(
            0,
            self._connect,
            self.frames.append,
            self.lost.append,
            self.events.append,
            address=f"ws://127.0.0.1:{port}",
            rotate_after_s=rotate_after_s,
            silent_after_s=3600.0,
        )
        self.link.add(STREAMS)

    def _connect(
        self, streams: list[str], on_frame: Callable[[bytes], None], on_state: Callable[[StreamState, str], None]
    ) -> StreamConnection:
        return StreamConnection(market_stream_url(f"ws://127.0.0.1:{self._port}"), streams, on_frame, on_state)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the link work until a condition holds."""
        async with asyncio.timeout(60):
            while not condition():
                self.link.check()
                await asyncio.sleep(0.05)

    def ids(self) -> list[int]:
        """Return the aggregate trade ids of BTCUSDT in the order they came."""
        import json

        events = (json.loads(frame)["data"] for frame in self.frames)
        return [event["a"] for event in events if event["s"] == "BTCUSDT"]


@pytest.mark.timeout(120)
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


@pytest.mark.timeout(120)
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
