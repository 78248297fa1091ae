"""A real client of the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp


Session = aiohttp.ClientSession
WebSocket = aiohttp.ClientWebSocketResponse


def client(port: int, body: Callable[[Session], Awaitable[None]]) -> None:
    """Run a test with a session at a simulator."""

    async def main() -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            await body(session)

    asyncio.run(main())


async def get(session: Session, path: str, **params: object) -> tuple[int, Any]:
    """Return status and answer of a REST request."""
    status, answer, _ = await ask(session, path, **params)
    return status, answer


async def ask(session: Session, path: str, **params: object) -> tuple[int, Any, dict[str, str]]:
    """Return status, answer and headers of a REST request."""
    query = {name: str(value) for name, value in params.items()}
    async with session.get(f"/fapi/v1/{path}", params=query) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read()), dict(response.headers)


async def klines(session: Session, symbol: str = "BTCUSDT", interval: str = "1m", **params: object) -> Any:
    """Return klines."""
    status, rows = await get(session, "klines", symbol=symbol, interval=interval, **params)
    assert status == 200, rows
    return rows


async def fault(session: Session, **parameters: object) -> Any:
    """Let the simulator misbehave."""
    async with session.post("/sim/faults", json=parameters) as response:
        return response.status, await response.json()


@asynccontextmanager
async def stream(session: Session, path: str, *names: str) -> AsyncIterator[WebSocket]:
    """Open a connection, subscribed to what is named."""
    async with session.ws_connect(path) as ws:
        if names:
            await ws.send_json({"method": "SUBSCRIBE", "params": names, "id": 1})
            assert await ws.receive_json() == {"result": None, "id": 1}
        yield ws


async def until(ws: WebSocket, wanted: Callable[[Any], object]) -> Any:
    """Return the first message of which something holds."""
    while not wanted(message := await ws.receive_json()):
        pass
    return message
