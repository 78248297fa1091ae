"""The owner of a connection: frames and states as they come."""

from __future__ import annotations

import asyncio
from typing import Any

from klshm.exchange.stream import StreamConnection, StreamState


class Owner:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.states: list[tuple[StreamState, str]] = []
        self._changed = asyncio.Event()

    def on_frame(self, payload: bytes) -> None:
        self.frames.append(payload)
        self._changed.set()

    def on_state(self, state: StreamState, reason: str) -> None:
        self.states.append((state, reason))
        self._changed.set()

    async def until_frames(self, count: int) -> None:
        while len(self.frames) < count:
            self._changed.clear()
            await self._changed.wait()

    async def until_state(self, state: StreamState, count: int = 1) -> str:
        while sum(s is state for s, _ in self.states) < count:
            self._changed.clear()
            await self._changed.wait()
        return [reason for s, reason in self.states if s is state][-1]

    def connection(self, url: str, streams: list[str], **options: Any) -> StreamConnection:
        connection = StreamConnection(url, streams, self.on_frame, self.on_state, **options)
        connection.start()
        return connection
