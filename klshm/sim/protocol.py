"""The exchange's WebSocket control messages: requests in, replies out. No input or output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import orjson


__all__ = ["MAX_STREAMS", "Close", "Session", "TokenBucket", "route_serves"]

MAX_STREAMS = 1024
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_EXPECTED = ", ".join(f"`{method}`" for method in _METHODS)
_MARKET = re.compile(
    r"(aggTrade|kline_|continuousKline_|miniTicker|ticker|markPrice|forceOrder|compositeIndex|contractInfo|assetIndex|tradingSession)"
)


def route_serves(route: str, stream: str) -> bool:
    """Say whether a route delivers a stream: market-class on `/market`, the others on `/public` and on no route."""
    kind = stream[1:] if stream.startswith("!") else stream.partition("@")[2]
    if _MARKET.match(kind):
        return route == "market"
    return route in ("public", "")


class TokenBucket:
    """Allow bursts of 15 messages and 10 a second."""

    def __init__(self, capacity: float = 15.0, per_s: float = 10.0) -> None:
        self._capacity = self._tokens = capacity
        self._per_ms = per_s / 1000.0
        self._at_ms: int | None = None

    def take(self, now_ms: int) -> bool:
        """Take one token; False when there is none."""
        if self._at_ms is not None:
            self._tokens = min(self._capacity, self._tokens + (now_ms - self._at_ms) * self._per_ms)
        self._at_ms = now_ms
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


@dataclass(frozen=True, slots=True)
class Close:
    """The server's wish to close after its reply."""

    code: int
    reason: str


@dataclass(slots=True)
class Session:
    """Subscriptions and properties of one connection; names are kept as sent, in order."""

    combined: bool
    streams: dict[str, None] = field(default_factory=dict)

    def handle(self, text: str) -> tuple[bytes, list[str], list[str], Close | None]:
        """Answer one text message.

        Returns:
            The reply, names newly subscribed, names dropped, and whether to close.
        """
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return (
                _error(3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}", None),
                [],
                [],
                None,
            )
        if not isinstance(message, dict):
            return _error(3, "Invalid JSON: expected value at line 1 column 1", None), [], [], None
        identity = message.get("id")
        method = message.get("method")
        if method is None:
            return (
                _error(2, f"Invalid request: missing field `method` at line 1 column {len(text)}", identity),
                [],
                [],
                None,
            )
        if method not in _METHODS:
            column = text.find(str(method)) + len(str(method)) + 1
            problem = (
                f"Invalid request: unknown variant `{method}`, expected one of {_EXPECTED} at line 1 column {column}"
            )
            return _error(2, problem, identity), [], [], None
        if not _valid_identity(identity):
            return _error(2, "Invalid request: request ID must be an unsigned integer", None), [], [], None
        params = message.get("params")
        if method == "LIST_SUBSCRIPTIONS":
            return _result(list(self.streams), identity), [], [], None
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, params, identity), [], [], None
        return self._subscribe(method, params, identity)

    def subscribe(self, names: list[str]) -> tuple[list[str], bool]:
        """Add names; return the new ones and whether the cap of 1024 streams was passed (then nothing is added)."""
        fresh = list(dict.fromkeys(name for name in names if name not in self.streams))
        if len(self.streams) + len(fresh) > MAX_STREAMS:
            return [], True
        self.streams.update(dict.fromkeys(fresh))
        return fresh, False

    def _subscribe(self, method: str, params: Any, identity: Any) -> tuple[bytes, list[str], list[str], Close | None]:
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return _error(2, "Invalid request: streams must be an array of strings", identity), [], [], None
        if not params:
            return _error(2, "Invalid request: streams must have non-zero length", identity), [], [], None
        if method == "UNSUBSCRIBE":
            dropped = [name for name in dict.fromkeys(params) if name in self.streams]
            for name in dropped:
                del self.streams[name]
            return _result(None, identity), [], dropped, None
        fresh, full = self.subscribe(params)
        if full:
            return _error(4, "Too many subscriptions", identity), [], [], Close(1008, "Invalid request")
        return _result(None, identity), fresh, [], None

    def _property(self, method: str, params: Any, identity: Any) -> bytes:
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            return _error(2, "Invalid request: property name must be a string", identity)
        if len(params) > (2 if method == "SET_PROPERTY" else 1):
            return _error(2, "Invalid request: too many parameters", identity)
        if params[0] != "combined":
            return _error(0, "Unknown property", identity)
        if method == "GET_PROPERTY":
            return _result(self.combined, identity)
        if len(params) < 2 or not isinstance(params[1], bool):
            return _error(1, "Invalid value type: expected Boolean", identity)
        self.combined = params[1]
        return _result(None, identity)


def _valid_identity(identity: Any) -> bool:
    # The official client sends UUID strings, so these are accepted too.
    if isinstance(identity, bool):
        return False
    return isinstance(identity, str) or (isinstance(identity, int) and identity >= 0)


def _result(result: object, identity: object) -> bytes:
    return orjson.dumps({"result": result, "id": identity})


def _error(code: int, message: str, identity: object) -> bytes:
    return orjson.dumps({"error": {"code": code, "msg": message}, "id": identity})
