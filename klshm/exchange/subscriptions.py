"""What one stream connection is subscribed to, and the control messages that make it so.

Pure: no socket, time passed in. The owner says what it wants; the difference to what was sent
on this connection becomes SUBSCRIBE and UNSUBSCRIBE requests, paced and bounded as the exchange
demands: one message per 200 ms, 200 names each, 1024 streams per connection (the 1025th makes
the exchange close the connection, losing all of them).

A reply is matched by its id. It proves that the exchange is listening, not that a stream is
live: every name is acknowledged, also one that does not exist. Only a frame proves a stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec


__all__ = ["MAX_NAMES", "MAX_STREAMS", "PACE_S", "Subscriptions"]

MAX_STREAMS: Final = 1024
MAX_NAMES: Final = 200
PACE_S: Final = 0.2
_REPLY_BYTES: Final = 4096


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Reply(msgspec.Struct):
    id: int | str | None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


class _Request(msgspec.Struct):
    method: str
    params: list[str]
    id: int


_decode = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


class Subscriptions:
    """Streams wanted and sent on one connection.

    Args:
        names: Streams wanted at first, in the order they are to be subscribed.

    Attributes:
        refused: Error replies so far, newest last: (code, message).
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._wanted: dict[str, None] = {}
        self._sent: dict[str, None] = {}
        self._unanswered: dict[int, float] = {}
        self._next_id = 1
        self._next_at_s = 0.0
        self.refused: list[tuple[int, str]] = []
        self.add(names)

    # Called by the owner

    def add(self, names: Iterable[str]) -> None:
        """Want these streams too.

        Raises:
            ValueError: If that would be more than one connection may carry; nothing is added.
        """
        wanted = {**self._wanted, **dict.fromkeys(names)}
        if len(wanted) > MAX_STREAMS:
            raise ValueError(f"{len(wanted)} streams on one connection, at most {MAX_STREAMS}; open another connection")
        self._wanted = wanted

    def remove(self, names: Iterable[str]) -> None:
        """Want these streams no more; unknown names are ignored."""
        for name in names:
            self._wanted.pop(name, None)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Streams wanted, in order."""
        return tuple(self._wanted)

    # Called by the connection

    def restart(self) -> None:
        """Begin on a new connection: nothing has been sent on it."""
        self._sent.clear()
        self._unanswered.clear()
        self._next_at_s = 0.0

    @property
    def unanswered(self) -> bool:
        """Whether a reply is due, so that a frame may be one."""
        return bool(self._unanswered)

    @property
    def settled(self) -> bool:
        """Whether all that is wanted has been sent and answered."""
        return not self._unanswered and self._sent.keys() == self._wanted.keys()

    def next_request(self, now_s: float) -> bytes | None:
        """Return the next control message if one may be sent now, and count it as sent.

        Args:
            now_s: A monotonic time, seconds.
        """
        if now_s < self._next_at_s:
            return None
        # Unsubscribing first keeps the connection below its limit at every moment.
        gone = [name for name in self._sent if name not in self._wanted][:MAX_NAMES]
        new = [] if gone else [name for name in self._wanted if name not in self._sent][:MAX_NAMES]
        if not gone and not new:
            return None
        for name in gone:
            del self._sent[name]
        self._sent.update(dict.fromkeys(new))
        request = _Request("UNSUBSCRIBE" if gone else "SUBSCRIBE", gone or new, self._next_id)
        self._unanswered[self._next_id] = now_s
        self._next_id += 1
        self._next_at_s = now_s + PACE_S
        return _encode(request)

    def next_at_s(self) -> float | None:
        """Return when the next control message may be sent, None when there is nothing to send."""
        return None if self._sent.keys() == self._wanted.keys() else self._next_at_s

    def oldest_unanswered_s(self) -> float | None:
        """Return when the oldest request that has no reply yet was sent, None when all have one."""
        return min(self._unanswered.values(), default=None)

    def take_reply(self, payload: bytes) -> bool:
        """Take a frame if it is the reply to a request.

        Returns:
            False if it is not a reply, and so belongs to the owner.
        """
        if len(payload) > _REPLY_BYTES:
            return False
        try:
            reply = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if isinstance(reply.id, int) and reply.id in self._unanswered:
            del self._unanswered[reply.id]
        elif reply.error is None:
            return False
        if reply.error is not None:
            self.refused.append((reply.error.code, reply.error.msg))
        return True
