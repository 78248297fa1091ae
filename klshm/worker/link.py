"""One slice of streams that is never without a connection: make before break.

A connection is replaced before the exchange ends it (24 h), and when it acknowledged everything
but stays silent. The successor is opened beside it and both deliver; what comes twice the engine
drops by id. The old one is closed once every stream it has shown has been shown by the successor
too, so no trade is missed and nothing is put in doubt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from klshm.exchange.stream import StreamConnection, StreamState


__all__ = ["Link"]

_log = logging.getLogger(__name__)

_OVERLAP_S: Final = 3.0
"""Shortest time both connections deliver before the old one may go."""
_QUIET_S: Final = 10.0
"""Overlap after which streams that neither connection has shown need no proof."""
_GIVE_UP_S: Final = 60.0
"""Overlap after which a successor that lacks streams is given up."""
_RETRY_S: Final = 60.0
_NAME_AT: Final = len(b'{"stream":"')


class _Path:
    """One connection of a link, and what it has shown."""

    def __init__(self) -> None:
        self.connection: StreamConnection | None = None
        self.up = False
        self.frames = 0
        self.opened_ns = 0
        self.subscribed_ns = 0
        self.last_frame_ns = 0
        self.seen: set[bytes] = set()

    def silent_s(self, now_ns: int) -> float:
        """Return for how long it has acknowledged everything and sent nothing."""
        if not self.up or not self.subscribed_ns:
            return 0.0
        return (now_ns - max(self.subscribed_ns, self.last_frame_ns)) / 1e9


class Link:
    """A slice of streams and the connections that carry it.

    Args:
        number: Its number within the worker, for logs.
        connect: Makes a connection from stream names, a frame callback and a state callback.
        deliver: Called with the payload of every frame.
        on_lost: Called with CLOCK_MONOTONIC ns of the last frame when the streams were interrupted.
        on_event: Called with "connect", "disconnect" or "rotation", for counting.
        address: Where it connects to, for logs.
        rotate_after_s: Age at which a connection is replaced, seconds.
        silent_after_s: Silence at which a connection is replaced, seconds.
    """

    def __init__(
        self,
        number: int,
        connect: Callable[
            [list[str], Callable[[bytes], None], Callable[[StreamState, str], None]], StreamConnection
        ],
        deliver: Callable[[bytes], None],
        on_lost: Callable[[int], None],
        on_event: Callable[[str], None],
        *,
        address: str,
        rotate_after_s: float,
        silent_after_s: float,
    ) -> None:
        self.number = number
        self.slots: set[int] = set()
        self._connect = connect
        self._deliver = deliver
        self._on_lost = on_lost
        self._on_event = on_event
        self._rotate_after_ns = int(rotate_after_s * 1e9)
        self._silent_after_s = silent_after_s
        self._address = address
        self._streams: dict[str, None] = {}
        self._path = _Path()
        self._successor: _Path | None = None
        self._next_try_ns = 0
        self._closing: set[asyncio.Task[None]] = set()

    # Called by the intake

    @property
    def up(self) -> bool:
        """Whether frames can come."""
        return self._path.up

    @property
    def connections(self) -> int:
        """Connections that are up: two during a hand-over."""
        return int(self._path.up) + int(self._successor is not None and self._successor.up)

    @property
    def shown(self) -> bool:
        """Whether the present connection has shown a frame."""
        return self._path.frames > 0

    def add(self, streams: Iterable[str]) -> None:
        """Carry these streams too."""
        names = list(streams)
        self._streams.update(dict.fromkeys(names))
        for path in self._paths():
            if path.connection is not None:
                path.connection.add(names)

    def remove(self, streams: Iterable[str]) -> None:
        """Carry these streams no longer."""
        names = list(streams)
        for name in names:
            self._streams.pop(name, None)
        for path in self._paths():
            if path.connection is not None:
                path.connection.remove(names)

    def start(self) -> None:
        """Connect, if that has not been done."""
        if self._path.connection is None and self._streams:
            self._open(self._path)

    def silent_s(self) -> float:
        """Return for how long the present connection has acknowledged everything and sent nothing."""
        return self._path.silent_s(time.monotonic_ns())

    def check(self) -> None:
        """Begin or finish a hand-over if it is due; call it several times a second."""
        now_ns = time.monotonic_ns()
        if self._successor is None:
            self._begin_if_due(now_ns)
        else:
            self._finish_if_proven(self._successor, now_ns)

    async def close(self) -> None:
        """Close everything."""
        for path in self._paths():
            if path.connection is not None:
                await path.connection.close()
        if self._closing:
            await asyncio.wait(self._closing)

    # The hand-over

    def _begin_if_due(self, now_ns: int) -> None:
        path = self._path
        if not path.up or now_ns < self._next_try_ns:
            return
        if now_ns - path.opened_ns >= self._rotate_after_ns:
            self._begin("its age", now_ns)
        elif path.silent_s(now_ns) >= self._silent_after_s:
            self._begin("its silence", now_ns)

    def _begin(self, reason: str, now_ns: int) -> None:
        _log.info("stream is replaced stream=%d because_of=%r", self.number, reason)
        self._successor = _Path()
        self._open(self._successor)
        self._successor.opened_ns = now_ns

    def _finish_if_proven(self, successor: _Path, now_ns: int) -> None:
        waited_s = (now_ns - successor.opened_ns) / 1e9
        if successor.up and successor.subscribed_ns:
            overlap_s = (now_ns - successor.subscribed_ns) / 1e9
            shown = bool(successor.seen) and self._path.seen <= successor.seen
            quiet = not self._path.seen and overlap_s >= _QUIET_S
            if overlap_s >= _OVERLAP_S and (shown or quiet):
                self._promote(successor)
                return
        if waited_s >= _GIVE_UP_S:
            missing = len(self._path.seen - successor.seen)
            _log.warning("replacement given up stream=%d streams_missing=%d", self.number, missing)
            self._retire(successor)
            self._successor = None
            self._next_try_ns = now_ns + int(_RETRY_S * 1e9)

    def _promote(self, successor: _Path) -> None:
        old, self._path, self._successor = self._path, successor, None
        self._retire(old)
        old.seen.clear()
        successor.seen.clear()
        self._on_event("rotation")
        _log.info("stream replaced stream=%d", self.number)

    def _retire(self, path: _Path) -> None:
        connection, path.connection, path.up = path.connection, None, False
        if connection is not None:
            task = asyncio.create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    # One connection

    def _paths(self) -> list[_Path]:
        return [self._path] if self._successor is None else [self._path, self._successor]

    def _open(self, path: _Path) -> None:
        path.last_frame_ns = time.monotonic_ns()
        path.connection = self._connect(
            list(self._streams),
            self._taker(path),
            lambda state, reason: self._on_state(path, state, reason),
        )
        path.connection.start()

    def _taker(self, path: _Path) -> Callable[[bytes], None]:
        """Return what takes the frames of a path; it is called for each of them, so it does little."""
        deliver, now_ns = self._deliver, time.monotonic_ns

        def take(payload: bytes) -> None:
            path.frames += 1
            path.last_frame_ns = now_ns()
            successor = self._successor
            if successor is not None and successor.subscribed_ns:
                path.seen.add(payload[_NAME_AT : payload.find(b'"', _NAME_AT)])
            deliver(payload)

        return take

    def _on_state(self, path: _Path, state: StreamState, reason: str) -> None:
        if state is StreamState.CONNECTED:
            path.up = True
            path.opened_ns = time.monotonic_ns()
            self._on_event("connect")
            _log.info("stream connected stream=%d streams=%d", self.number, len(self._streams))
        elif state is StreamState.SUBSCRIBED:
            path.subscribed_ns = time.monotonic_ns()
        elif state is StreamState.DISCONNECTED:
            path.up = False
            path.subscribed_ns = 0
            self._on_event("disconnect")
            self._lost(path, reason)
        else:
            _log.warning(
                "stream unreachable stream=%d address=%s reason=%r remedy=%r",
                *(self.number, self._address, reason),
                "check the network, set exchange.proxy, or try --demo; it is tried again",
            )

    def _lost(self, path: _Path, reason: str) -> None:
        successor = self._successor
        if path is not self._path:
            _log.warning("replacement lost stream=%d reason=%r", self.number, reason)
            path.seen.clear()
            return
        if successor is not None and successor.seen and path.seen <= successor.seen:
            self._promote(successor)  # all it had shown comes from the successor already
            return
        _log.warning("stream lost stream=%d reason=%r", self.number, reason)
        self._on_lost(path.last_frame_ns)
