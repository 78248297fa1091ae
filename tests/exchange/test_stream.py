"""The stream connection against real servers and real proxies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from klshm.exchange import stream as stream_module
from klshm.exchange.stream import StreamConnection, StreamState, market_stream_url
from klshm.exchange.subscriptions import PACE_S
from tests.exchange.owner import Owner
from tests.support.servers import certificate, free_port, proxy_server, raw_server, stream_server


FRAME = b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1791382992488,"a":3477868433,"s":"BTCUSDT"}}'
LONG = FRAME + b" " * 200


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def test_market_stream_url_has_the_route() -> None:
    assert market_stream_url("wss://fstream.binance.com/") == "wss://fstream.binance.com/market/stream"


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_subscribes_and_hands_over_frames(loop_factory: Any) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(
                market_stream_url(f"ws://127.0.0.1:{server.port}"), ["btcusdt@aggTrade", "币安人生usdt@kline_1m"]
            )
            await owner.until_state(StreamState.SUBSCRIBED)
            assert server.paths == ["/market/stream"]
            assert server.streams == {"btcusdt@aggTrade", "币安人生usdt@kline_1m"}
            assert connection.connected and not owner.frames
            for payload in (FRAME, LONG, b"{}"):
                await server.sockets[0].send_str(payload.decode())
            await owner.until_frames(3)
            assert owner.frames == [FRAME, LONG, b"{}"]
            await connection.close()
            assert not connection.connected
            assert [s for s, _ in owner.states] == [StreamState.CONNECTED, StreamState.SUBSCRIBED]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_frames_between_replies_are_not_lost() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner, server.answer = Owner(), False
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"])
            await server.until(lambda: len(server.requests) == 1)
            await server.sockets[0].send_str(FRAME.decode())
            await server.sockets[0].send_str('{"result":null,"id":"another"}')
            await server.sockets[0].send_str('{"result":null,"id":1}')
            await owner.until_state(StreamState.SUBSCRIBED)
            assert owner.frames == [FRAME, b'{"result":null,"id":"another"}']
            await connection.close()

    run(main())


def test_names_added_and_removed_while_connected_are_paced() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", [f"s{i}" for i in range(450)])
            await owner.until_state(StreamState.SUBSCRIBED)
            connection.add(["late"])
            connection.remove(["s0", "s449"])
            await owner.until_state(StreamState.SUBSCRIBED, 2)
            assert server.streams == {*(f"s{i}" for i in range(1, 449)), "late"}
            assert [len(r["params"]) for r in server.requests] == [200, 200, 50, 2, 1]
            assert min(b - a for a, b in zip(server.times, server.times[1:], strict=False)) >= PACE_S * 0.9
            await connection.close()

    run(main())


def test_reconnects_and_subscribes_again() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(
                f"ws://127.0.0.1:{server.port}/market/stream", ["a", "b"], reconnect_max_s=0.1
            )
            await owner.until_state(StreamState.SUBSCRIBED)
            await server.sockets[0].close(code=1008, message=b"Too many requests")
            assert await owner.until_state(StreamState.DISCONNECTED) == "closed by the exchange: 1008 Too many requests"
            await owner.until_state(StreamState.SUBSCRIBED, 2)
            assert [r["params"] for r in server.requests] == [["a", "b"], ["a", "b"]]
            await server.sockets[1].send_str(FRAME.decode())
            await owner.until_frames(1)
            connection.reconnect("the kline stream is mute")
            assert await owner.until_state(StreamState.DISCONNECTED, 2) == "the kline stream is mute"
            await owner.until_state(StreamState.SUBSCRIBED, 3)
            await connection.close()

    run(main())


def test_lost_without_close_frame() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], reconnect_max_s=0.1)
            await owner.until_state(StreamState.SUBSCRIBED)
            transport = server.sockets[0]._req.transport  # type: ignore[union-attr]
            assert transport is not None
            transport.abort()
            assert "without a close frame" in await owner.until_state(StreamState.DISCONNECTED)
            await owner.until_state(StreamState.SUBSCRIBED, 2)
            await connection.close()

    run(main())


def test_unreachable_is_told_and_tried_again() -> None:
    async def main() -> None:
        port = free_port()
        owner = Owner()
        connection = owner.connection(f"ws://127.0.0.1:{port}/market/stream", ["a"], reconnect_max_s=0.05)
        assert "onnect" in await owner.until_state(StreamState.UNREACHABLE, 3)
        assert not connection.connected
        async with stream_server(port=port) as server:
            await owner.until_state(StreamState.SUBSCRIBED)
            assert server.handshakes == 1
            await connection.close()

    run(main())


def test_refused_handshake_names_the_status() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner, server.refuse_status = Owner(), 451
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], reconnect_max_s=0.05)
            assert await owner.until_state(StreamState.UNREACHABLE) == "the handshake was answered with HTTP 451"
            await connection.close()

    run(main())


def test_silent_server_is_a_failed_attempt() -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        async with raw_server(mute) as port:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{port}/market/stream", ["a"], connect_timeout_s=0.1)
            assert await owner.until_state(StreamState.UNREACHABLE) == "no answer in time"
            await connection.close()

    run(main())


def test_missing_reply_breaks_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_REPLY_TIMEOUT_S", 0.1)

    async def main() -> None:
        async with stream_server() as server:
            owner, server.answer = Owner(), False
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], reconnect_max_s=0.05)
            assert "no reply to a subscription" in await owner.until_state(StreamState.DISCONNECTED)
            await connection.close()

    run(main())


def test_pings_are_answered_with_their_payload() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"])
            await owner.until_state(StreamState.SUBSCRIBED)
            await server.sockets[0].ping(b"1791382992488")
            await server.until(lambda: server.pongs == [b"1791382992488"])
            assert not owner.frames
            await connection.close()

    run(main())


def test_dead_peer_is_noticed_by_its_missing_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_PING_IDLE_S", 0.1)
    monkeypatch.setattr(stream_module, "_PONG_TIMEOUT_S", 0.1)

    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], reconnect_max_s=0.05)
            await owner.until_state(StreamState.SUBSCRIBED)
            server.sockets[0].pong = _never  # type: ignore[assignment, method-assign]
            assert "not replied to ping" in await owner.until_state(StreamState.DISCONNECTED)
            await connection.close()

    async def _never(message: bytes = b"") -> None:
        return None

    run(main())


def test_error_reply_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner, server.answer = Owner(), False
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], name="worker 0")
            await server.until(lambda: len(server.requests) == 1)
            await server.sockets[0].send_str('{"error":{"code":4,"msg":"Too many subscriptions"},"id":1}')
            await owner.until_state(StreamState.SUBSCRIBED)
            await connection.close()

    run(main())
    assert "subscription refused stream=worker 0 code=4 message='Too many subscriptions'" in caplog.text


def test_fragmented_message_is_put_together() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"])
            await owner.until_state(StreamState.SUBSCRIBED)
            writer = server.sockets[0]._req.transport  # type: ignore[union-attr]
            assert writer is not None
            for first_byte, part in ((0x01, LONG[:200]), (0x00, LONG[200:250]), (0x80, LONG[250:])):
                head = bytes([first_byte, len(part)]) if len(part) < 126 else bytes([first_byte, 126, 0, len(part)])
                writer.write(head + part)
            await owner.until_frames(1)
            await server.sockets[0].send_str(LONG.decode())
            await owner.until_frames(2)
            assert owner.frames == [LONG, LONG]
            await connection.close()

    run(main())


@pytest.mark.parametrize("fragmented", [False, True])
def test_huge_message_breaks_the_connection(fragmented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "MAX_FRAME_BYTES", 1000)

    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"], reconnect_max_s=0.05)
            await owner.until_state(StreamState.SUBSCRIBED)
            writer = server.sockets[0]._req.transport  # type: ignore[union-attr]
            assert writer is not None
            if fragmented:
                writer.write((bytes([0x01, 126, 2, 88]) + b"x" * 600) + (bytes([0x00, 126, 2, 88]) + b"x" * 600))
            else:
                await server.sockets[0].send_str("x" * 1001)
            assert "exceed" in await owner.until_state(StreamState.DISCONNECTED)
            assert not owner.frames
            await connection.close()

    run(main())


def test_raising_owner_does_not_break_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            good = owner.on_frame

            def bad_once(payload: bytes) -> None:
                good(payload)
                if len(owner.frames) == 1:
                    raise RuntimeError("a bug")

            owner.on_frame = bad_once  # type: ignore[method-assign]
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"])
            await owner.until_state(StreamState.SUBSCRIBED)
            await server.sockets[0].send_str(FRAME.decode())
            await server.sockets[0].send_str(LONG.decode())
            await owner.until_frames(2)
            assert connection.connected
            await connection.close()

    run(main())
    assert "a bug" in caplog.text


def test_closing_while_connecting_leaves_nothing_behind() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["a"])
            await asyncio.sleep(0)
            await connection.close()
            await connection.close()
            assert owner.states == []
            idle = StreamConnection("ws://127.0.0.1:1/", [], owner.on_frame, owner.on_state)
            idle.reconnect("nothing to break")
            await idle.close()

    run(main())


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_goes_through_a_proxy(scheme: str, secure: bool, loop_factory: Any, tmp_path: Path) -> None:
    server_ssl, client_ssl = certificate(tmp_path) if secure else (None, None)

    async def main() -> None:
        async with stream_server(server_ssl) as server, proxy_server() as proxy:
            owner = Owner()
            connection = owner.connection(
                f"{'wss' if secure else 'ws'}://localhost:{server.port}/market/stream",
                ["a"],
                proxy=f"{scheme}://127.0.0.1:{proxy.port}",
                ssl_context=client_ssl,
            )
            await owner.until_state(StreamState.SUBSCRIBED)
            await server.sockets[0].send_str(FRAME.decode())
            await owner.until_frames(1)
            assert proxy.targets == [(scheme.removesuffix("h"), "localhost", server.port)]
            await connection.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_refusing_proxy_is_named(scheme: str) -> None:
    async def main() -> None:
        async with proxy_server() as proxy:
            owner, proxy.refuse = Owner(), True
            connection = owner.connection(
                "ws://localhost:9/market/stream", ["a"], proxy=f"{scheme}://127.0.0.1:{proxy.port}"
            )
            assert "through the proxy" in await owner.until_state(StreamState.UNREACHABLE)
            await connection.close()

    run(main())


def test_request_on_the_wire_is_what_the_exchange_documents() -> None:
    async def main() -> None:
        async with stream_server() as server:
            owner = Owner()
            connection = owner.connection(f"ws://127.0.0.1:{server.port}/market/stream", ["btcusdt@aggTrade"])
            await owner.until_state(StreamState.SUBSCRIBED)
            assert server.requests == [json.loads('{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1}')]
            await connection.close()

    run(main())
