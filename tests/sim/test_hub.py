from __future__ import annotations

import asyncio
from typing import Any, cast

from klshm.sim.hub import QUEUE_LIMIT_BYTES, Hub
from tests.sim.helpers import START_MS, run


class FakeTransport:
    """A socket whose reader may stand still."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.stuck = False
        self.aborted = False
        self.gone = False

    def is_closing(self) -> bool:
        return self.gone

    def write(self, data: bytes) -> None:
        assert not self.gone, "uvloop raises here"
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return 1 << 30 if self.stuck else 0

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass


def connect(hub: Hub, route: str = "market", combined: bool = False) -> tuple[Any, FakeTransport]:
    transport = FakeTransport()
    return hub.add(route, combined, cast("asyncio.Transport", transport), START_MS), transport


def test_one_write_per_flush_and_one_payload_for_all() -> None:
    activated: list[str] = []
    hub = Hub(activated.append)
    raw, first = connect(hub)
    combined, second = connect(hub, combined=True)
    other, third = connect(hub, route="public")
    for connection in (raw, combined, other):
        hub.subscribe(connection, connection.session.subscribe(["btcusdt@aggTrade"])[0])
    for event in run(seconds=10, symbols=1)[1]:
        hub.publish(event)
    hub.flush()
    assert activated == ["btcusdt@aggTrade"]
    assert len(first.written) == len(second.written) == 1 and third.written == []
    assert first.written[0].count(b'"e":"aggTrade"') == raw.frames_sent == combined.frames_sent > 100
    assert second.written[0].count(b'{"stream":"btcusdt@aggTrade","data":{"e":') == raw.frames_sent
    hub.remove(raw)
    hub.unsubscribe(combined, ["btcusdt@aggTrade"])
    assert not hub.wanted("btcusdt@aggTrade") and len(hub.connections) == 2


def test_a_client_that_does_not_read_is_dropped_and_others_go_on() -> None:
    hub = Hub(lambda _: None)
    slow, stuck = connect(hub)
    quick, free = connect(hub)
    stuck.stuck = True
    for connection in (slow, quick):
        hub.subscribe(connection, ["btcusdt@aggTrade"])
    chunk = "x" * (1 << 20)
    for _ in range(QUEUE_LIMIT_BYTES // len(chunk)):
        assert not stuck.aborted
        hub.send("btcusdt@aggTrade", chunk)
        hub.flush()
    assert stuck.aborted and not free.aborted and stuck.written == []


def test_a_client_that_has_just_gone_is_not_written_to() -> None:
    hub = Hub(lambda _: None)
    client, socket = connect(hub)
    hub.subscribe(client, ["btcusdt@aggTrade"])
    hub.send("btcusdt@aggTrade", "x")
    socket.gone = True
    hub.flush()
    assert socket.written == []
