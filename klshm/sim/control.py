"""The routes for tests: `GET /sim/state`, `GET /sim/faults` (what there is) and `POST /sim/faults` (start one)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from .clock import SimClock
from .faults import PARAMETERS, Faults, UnknownFault
from .hub import Hub
from .market import Market
from .weights import WeightLedger


__all__ = ["Control"]


class Control:
    """Look at the simulator and make it misbehave.

    Args:
        settle: brings the market up to the present; called before each answer.
    """

    def __init__(
        self,
        market: Market,
        clock: SimClock,
        hub: Hub,
        ledger: WeightLedger,
        faults: Faults,
        settle: Callable[[], None],
    ) -> None:
        self._market = market
        self._clock = clock
        self._hub = hub
        self._ledger = ledger
        self._faults = faults
        self._settle = settle

    def add_routes(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_get("/sim/state", self._state)
        app.router.add_get("/sim/faults", self._known)
        app.router.add_post("/sim/faults", self._start)

    async def _start(self, request: web.Request) -> web.Response:
        self._settle()
        try:
            parameters: Any = orjson.loads(await request.read())
            if not isinstance(parameters, dict):
                raise UnknownFault("found no JSON object, expected one with the key name")
            result = self._faults.start(parameters, self._clock.now_ms())
        except (orjson.JSONDecodeError, UnknownFault) as error:
            return _json({"ok": False, "error": str(error)}, 400)
        return _json({"ok": True, "result": result, "now_ms": self._clock.now_ms()}, 200)

    async def _known(self, request: web.Request) -> web.Response:
        return _json(PARAMETERS, 200)

    async def _state(self, request: web.Request) -> web.Response:
        self._settle()
        now_ms = self._clock.now_ms()
        symbols = {
            symbol: {
                "status": instrument.status,
                "last_trade_id": instrument.last_id,
                "last_agg_id": instrument.agg_trades[-1].agg_id if instrument.agg_trades else None,
                "last_price": instrument.last_price,
            }
            for symbol, instrument in self._market.instruments.items()
        }
        connections = [
            {"number": c.number, "route": c.route, "streams": len(c.session.streams), "frames_sent": c.frames_sent}
            for c in self._hub.connections.values()
        ]
        body = {
            "now_ms": now_ms,
            "start_ms": self._clock.start_ms,
            "seed": self._market.options.seed,
            "trades": self._market.trades_total,
            "connections": connections,
            "handshakes": self._hub.handshakes,
            "weight_used": self._ledger.used(now_ms),
            "faults": self._faults.state(now_ms),
            "symbols": symbols,
        }
        return _json(body, 200)


def _json(body: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
