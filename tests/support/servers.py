"""Network parts with real sockets: a small stream server, an HTTP CONNECT proxy and a SOCKS5 server."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web


def free_port() -> int:
    """Return a port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StreamServer:
    """Speaks the control protocol of the combined streams; a test scripts the rest."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.pongs: list[bytes] = []
        self.paths: list[str] = []
        self.handshakes = 0
        self.refuse_status = 0
        self.answer = True
        self.changed = asyncio.Condition()
        self.port = 0

    @property
    def streams(self) -> set[str]:
        live: set[str] = set()
        for request in self.requests:
            names = set(request["params"])
            live = live | names if request["method"] == "SUBSCRIBE" else live - names
        return live

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await self.changed.wait_for(condition)

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.handshakes += 1
        self.paths.append(request.path_qs)
        await self.note()
        if self.refuse_status:
            return web.Response(status=self.refuse_status, text="<html>no</html>")
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        await self.note()
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.times.append(asyncio.get_running_loop().time())
                self.requests.append(json.loads(message.data))
                if self.answer:
                    await socket.send_json({"result": None, "id": self.requests[-1]["id"]})
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                self.pongs.append(bytes(message.data))
            await self.note()
        return socket


@asynccontextmanager
async def stream_server(ssl_context: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[StreamServer]:
    server = StreamServer()
    async with http_server(server.handle, ssl_context, port) as bound:
        server.port = bound
        yield server
        for socket in server.sockets:
            await socket.close()


@asynccontextmanager
async def http_server(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ssl_context: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=ssl_context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Proxy:
    """An HTTP CONNECT proxy and a SOCKS5 server on one port, told apart by the first byte."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, str, int]] = []
        self.port = 0
        self.refuse = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        target = await (self._socks(reader, writer) if first == b"\x05" else self._http(first, reader, writer))
        if target is None:
            return
        remote_reader, remote_writer = await asyncio.open_connection(*target)
        try:
            await asyncio.gather(_pump(reader, remote_writer), _pump(remote_reader, writer))
        finally:
            remote_writer.close()

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        if self.refuse:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return None
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            self.targets.append(("http", host, int(port)))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            return host, int(port)
        # A plain http request comes with an absolute address: answer it by passing it on.
        host, _, port = target.removeprefix("http://").partition("/")[0].partition(":")
        self.targets.append(("http", host, int(port)))
        upstream_reader, upstream_writer = await asyncio.open_connection(host, int(port))
        try:
            upstream_writer.write(head)
            await _pump(upstream_reader, writer)
        finally:
            upstream_writer.close()
        return None

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int] | None:
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        if kind == 1:
            host = ".".join(str(part) for part in await reader.readexactly(4))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        (port,) = struct.unpack(">H", await reader.readexactly(2))
        if self.refuse:
            writer.write(b"\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00")
            return None
        self.targets.append(("socks5", host, port))
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return host, port


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(serve: Conversation) -> AsyncIterator[int]:
    """A TCP server that has closed every connection when it is left."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)  # closed transports tell their protocols in the next turn


@asynccontextmanager
async def proxy_server() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with raw_server(proxy.serve) as proxy.port:
        yield proxy


def certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's and a client's context of a certificate made for 127.0.0.1."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "1", "-keyout", key, "-out", cert, "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))
