"""An exchange that cannot be reached, comes back, or stands behind a proxy: said in a line, mended by itself."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engine import addresses, launcher
from tests.support.exchange import exchange
from tests.support.servers import Proxy, free_port, raw_server


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@contextmanager
def listening() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(64)
        yield int(taken.getsockname()[1])


class ClosingProxy(Proxy):
    """Passes one plain request per connection on, and says so: keeping it open would take a parser."""

    async def _http(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int] | None:
        head = first + await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"CONNECT"):
            head = head[:-2] + b"Connection: close\r\n\r\n"
        again = asyncio.StreamReader()
        again.feed_data(head[1:])
        return await super()._http(head[:1], again, writer)


@contextmanager
def proxy() -> Iterator[Proxy]:
    """A proxy with a loop and a thread of its own."""
    ready: list[Proxy] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        served = ClosingProxy()
        async with raw_server(served.serve) as served.port:
            ready.append(served)
            started.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait()
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@pytest.mark.parametrize("workers", ["2", "0"])
def test_a_refusing_exchange_is_said_and_found_when_it_comes(tmp_path: Path, workers: str) -> None:
    port = free_port()
    with launcher(tmp_path, *addresses(port), "--workers", workers) as running:
        running.wait_said("cannot reach")
        line = next(line for line in running.text().splitlines() if "cannot reach" in line)
        assert f"cannot reach 127.0.0.1:{port} (" in line
        assert "set exchange.proxy, or try --demo, which needs no network" in line
        told = running.status()
        assert told["state"] == "serving"
        assert {p["role"] for p in told["processes"]} >= {"worker", "historian", "persister"}
        assert " is live:" not in running.text()
        with exchange("--port", str(port), "--symbols", "6", "--rate", "50"):
            running.wait_live()
            assert "exchange answers again" in running.text()
            assert "demo is live: 6 symbols" in running.text()
            assert running.end() == 0, running.text()
        assert "Traceback" not in running.text()
        assert running.left() == []


def test_a_silent_exchange_is_said(tmp_path: Path) -> None:
    with listening() as port, launcher(tmp_path, *addresses(port), "--workers", "1") as running:
        running.wait_said("no answer from")
        line = next(line for line in running.text().splitlines() if "no answer from" in line)
        assert f"no answer from 127.0.0.1:{port} within 8 s" in line
        assert "set exchange.proxy, or try --demo" in line
        assert running.status()["state"] == "serving"
        assert running.end(signal.SIGTERM) == 0, running.text()
        assert running.left() == []


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_all_goes_through_the_proxy(tmp_path: Path, scheme: str) -> None:
    with exchange("--symbols", "6", "--rate", "50") as market, proxy() as between:
        # A name that only the proxy could resolve would not do: its own test server connects for real.
        options = ("--set", f"exchange.proxy={scheme}://127.0.0.1:{between.port}", "--workers", "2")
        with launcher(tmp_path, *addresses(market.port), *options) as running:
            running.wait_live()
            assert running.end() == 0, running.text()
        assert {(kind, port) for kind, _, port in between.targets} == {(scheme, market.port)}
        assert len(between.targets) >= 3  # REST, and a stream of each worker
        assert "Traceback" not in running.text()


def test_a_proxy_of_the_environment_is_used(tmp_path: Path) -> None:
    dead = free_port()
    options = ("--set", "exchange.rest_url=http://exchange.invalid:8080", "--workers", "1")
    with launcher(tmp_path, *options, HTTP_PROXY=f"http://127.0.0.1:{dead}", NO_PROXY="") as running:
        running.wait_said("cannot reach exchange.invalid:8080 through the proxy")
        assert running.end() == 0, running.text()


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_dead_proxy_is_said(tmp_path: Path, scheme: str) -> None:
    dead = free_port()
    with exchange("--symbols", "2", "--rate", "10") as market:
        options = ("--set", f"exchange.proxy={scheme}://127.0.0.1:{dead}", "--workers", "1")
        with launcher(tmp_path, *addresses(market.port), *options) as running:
            running.wait_said("cannot reach")
            line = next(line for line in running.text().splitlines() if "cannot reach" in line)
            assert re.search(r"through the proxy of exchange.proxy or the environment \(.*\)", line)
            assert running.end() == 0, running.text()
            assert "Traceback" not in running.text()
