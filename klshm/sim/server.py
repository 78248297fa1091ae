"""The simulator as a whole: market, clock, REST, WebSocket and faults on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from .clock import SimClock
from .events import RawEvent
from .faults import Faults, Parameters, UnknownFault, schedule_start_ms
from .hub import Hub
from .intervals import INTERVALS
from .market import Market, MarketOptions
from .replay import RecordedTrades, Recording, load, spec_for
from .rest import RestApi
from .symbols import SymbolSpec, catalogue
from .tickers import Tickers
from .trades import TradeSource
from .websocket import Gate
from .weights import LIMIT, WeightLedger


__all__ = ["Settings", "Simulator"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the command line says."""

    host: str = "127.0.0.1"
    port: int = 0
    symbols: int | None = None
    rate: float = 400.0
    start_ms: int | None = None
    history_days: int = 400
    market: MarketOptions = field(default_factory=MarketOptions)
    replay: tuple[tuple[str, Path], ...] = ()
    replay_lead_s: float = 10.0
    faults: str = ""
    time_factor: float = 1.0
    weight_limit: int = LIMIT


class Simulator:
    """A running exchange.

    Raises:
        ReplayError: a recording cannot be read.
        UnknownFault: no such schedule.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        recordings = _recordings(settings)
        start_ms = settings.start_ms
        if recordings:
            start_ms = min(recording.first_ms for recording in recordings) - int(settings.replay_lead_s * 1000)
        elif start_ms is None:
            start_ms = schedule_start_ms(settings.faults, time.time_ns() // 1_000_000)
        self.clock = SimClock(start_ms)
        start_ms = self.clock.start_ms
        specs = _specs(settings, start_ms, recordings)
        sources: dict[str, TradeSource] = {r.symbol: RecordedTrades(r.fills) for r in recordings}
        raw: list[RawEvent] = [frame for recording in recordings for frame in recording.raw]
        self.market = Market(specs, start_ms, settings.market, sources, raw)
        for recording in recordings:
            if recording.raw:
                self.market.silence(recording.symbol)
        self.faults = Faults(settings.market.seed)
        self.faults.hooks.update(
            close=self._close,
            list_symbol=self._list_symbol,
            delist_symbol=self._delist_symbol,
            clock_step=self._clock_step,
        )
        if settings.faults:
            self.faults.plan(settings.faults, start_ms)
        self.hub = Hub(self._activate, self.faults.spoil)
        self.ledger = WeightLedger(settings.weight_limit)
        self.gate = Gate(self.hub, self.clock, settings.time_factor, self.faults.refuses)
        self._tickers = Tickers(self.market, self.hub)
        self._next_second_ms = start_ms - start_ms % 1000 + 1000
        for spec in specs:
            if spec.status == "PENDING_TRADING":
                self._plan_listing(spec, spec.onboard_ms + 300)

    def application(self) -> web.Application:
        """Return the web application with all routes."""
        app = web.Application()
        RestApi(self.market, self.clock, self.ledger, self.faults, self.settle).add_routes(app)
        self.gate.add_routes(app)
        app.router.add_post("/sim/faults", self._post_fault)
        app.router.add_get("/sim/state", self._get_state)
        return app

    async def serve(self, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
        """Serve until `stop` is set; `ready` gets the port.

        Raises:
            OSError: the port cannot be opened.
        """
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.settings.host, self.settings.port, backlog=512).start()
            ready(int(runner.addresses[0][1]))
            beat = asyncio.create_task(self._beat())
            halt = asyncio.create_task(stop.wait())
            await asyncio.wait((beat, halt), return_when=asyncio.FIRST_COMPLETED)
            halt.cancel()
            if beat.done():
                beat.result()
            beat.cancel()
        finally:
            for connection in list(self.hub.connections.values()):
                connection.abort()
            await runner.cleanup()

    def settle(self) -> None:
        """Bring the market up to the present and queue what it sends."""
        now_ms = self.clock.now_ms()
        for event in self.faults.apply(self.market.advance(now_ms), now_ms):
            self.hub.publish(event)

    async def _beat(self) -> None:
        while True:
            now_ms = self.clock.now_ms()
            self.faults.run_due(now_ms)
            self.settle()
            if now_ms >= self._next_second_ms:
                self._next_second_ms = now_ms - now_ms % 1000 + 1000
                self._tickers.run(now_ms)
                self.gate.watch()
            if not self.faults.frozen(now_ms):
                self.hub.flush()
            wait_ms = min(self.market.next_ms(), self._next_second_ms) - self.clock.now_ms()
            # Two milliseconds bundle events of a busy market into few writes; ten keep replies prompt in a quiet one.
            await asyncio.sleep(min(10, max(2, wait_ms)) / 1000.0)

    def _activate(self, stream: str) -> None:
        """Keep the bars of an interval from its first subscription on."""
        name, _, kind = stream.partition("@")
        interval = kind.partition("_")[2]
        if interval not in INTERVALS:
            return
        continuous = kind.startswith("continuousKline_")
        if continuous:
            name = name.rpartition("_tradifi_perpetual")[0] or name.partition("_")[0]
        self.settle()
        for instrument in self.market.instruments.values():
            if instrument.lower == name or (continuous and instrument.spec.pair.lower() == name):
                instrument.activate(interval, self.market.now_ms)

    # Faults that reach beyond the stream

    def _close(self, parameters: Parameters, now_ms: int) -> object:
        number = parameters.get("connection")
        closed = 0
        for connection in list(self.hub.connections.values()):
            if number is not None and connection.number != number:
                continue
            if "code" in parameters:
                connection.close(int(parameters["code"]), str(parameters.get("reason", "")))
            else:
                connection.abort()
            closed += 1
        return {"closed": closed}

    def _clock_step(self, parameters: Parameters, now_ms: int) -> object:
        self.clock.step(int(parameters.get("step_ms", 1000)))
        return {"now_ms": self.clock.now_ms()}

    def _list_symbol(self, parameters: Parameters, now_ms: int) -> object:
        symbol = str(parameters.get("symbol", f"NEW{len(self.market.instruments)}USDT")).upper()
        if symbol in self.market.instruments:
            raise UnknownFault(f"found symbol {symbol} listed already, expected a new name")
        delay_ms = int(float(parameters.get("delay_s", 10)) * 1000)
        spec = SymbolSpec(
            symbol=symbol,
            base=symbol.removesuffix("USDT"),
            price_decimals=5,
            tick=1,
            quantity_decimals=0,
            reference_price=123_450,
            order_size=300,
            pair=symbol,
            status="PENDING_TRADING",
            trades_per_s=float(parameters.get("trades_per_s", 3.0)),
            onboard_ms=now_ms + delay_ms,
            first_trade_ms=now_ms + delay_ms + 800,
        )
        self.settle()
        instrument = self.market.list_symbol(spec)
        for interval in INTERVALS:
            if self.hub.wanted(f"{instrument.lower}@kline_{interval}"):
                instrument.activate(interval, self.market.now_ms)
        self.market.schedule_status(now_ms, symbol, "PENDING_TRADING")
        self._plan_listing(spec, spec.onboard_ms + 300)
        return {"symbol": symbol, "onboard_ms": spec.onboard_ms}

    def _plan_listing(self, spec: SymbolSpec, at_ms: int) -> None:
        # Real listings repeat the announcement; see the recorded sequences.
        self.market.schedule_status(
            max(self.clock.now_ms(), at_ms - 5_000), spec.symbol, "PENDING_TRADING", change=False
        )
        self.market.schedule_status(at_ms, spec.symbol, "TRADING")

    def _delist_symbol(self, parameters: Parameters, now_ms: int) -> object:
        trading = [i for i in self.market.instruments.values() if i.status == "TRADING" and not i.spec.extra]
        symbol = str(parameters.get("symbol", trading[len(trading) // 2].spec.symbol if trading else "")).upper()
        instrument = self.market.instruments.get(symbol)
        if instrument is None:
            raise UnknownFault(f"found no symbol {symbol!r}, expected a listed one")
        delivery_ms = now_ms + int(float(parameters.get("delay_s", 10)) * 1000)
        instrument.spec = replace(instrument.spec, delivery_ms=delivery_ms)
        self.market.version += 1
        self.market.schedule_status(now_ms, symbol, "TRADING", change=False)
        self.market.schedule_status(delivery_ms, symbol, "SETTLING")
        return {"symbol": symbol, "delivery_ms": delivery_ms}

    # Control endpoint

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            parameters: Any = orjson.loads(await request.read())
            if not isinstance(parameters, dict):
                raise UnknownFault("found no JSON object, expected one with the key name")
            result = self.faults.start(parameters, self.clock.now_ms())
        except (orjson.JSONDecodeError, UnknownFault) as error:
            return _json({"ok": False, "error": str(error)}, 400)
        return _json({"ok": True, "result": result, "now_ms": self.clock.now_ms()}, 200)

    async def _get_state(self, request: web.Request) -> web.Response:
        self.settle()
        now_ms = self.clock.now_ms()
        symbols = {
            symbol: {
                "status": instrument.status,
                "last_trade_id": instrument.last_id,
                "last_agg_id": instrument.agg_trades[-1].agg_id if instrument.agg_trades else None,
                "last_price": instrument.last_price,
            }
            for symbol, instrument in self.market.instruments.items()
        }
        connections = [
            {"number": c.number, "route": c.route, "streams": len(c.session.streams), "frames_sent": c.frames_sent}
            for c in self.hub.connections.values()
        ]
        body = {
            "now_ms": now_ms,
            "start_ms": self.clock.start_ms,
            "seed": self.settings.market.seed,
            "trades": self.market.trades_total,
            "connections": connections,
            "handshakes": self.hub.handshakes,
            "weight_used": self.ledger.used(now_ms),
            "faults": self.faults.state(now_ms),
            "symbols": symbols,
        }
        return _json(body, 200)


def _json(body: object, status: int) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _recordings(settings: Settings) -> list[Recording]:
    files: dict[str, list[Path]] = {}
    for symbol, path in settings.replay:
        files.setdefault(symbol, []).append(path)
    known = {spec.symbol: spec for spec in catalogue(1, 40, 1.0, 2_000_000_000_000, 30)}
    result = []
    for symbol, paths in files.items():
        spec = known.get(symbol)
        result.append(load(symbol, paths, spec.price_decimals if spec else 0, spec.quantity_decimals if spec else 0))
    return result


def _specs(settings: Settings, start_ms: int, recordings: list[Recording]) -> list[SymbolSpec]:
    count = 40 if settings.symbols is None else settings.symbols
    specs = catalogue(settings.market.seed, count, settings.rate, start_ms, settings.history_days)
    if not recordings:
        return specs
    known = {spec.symbol: spec for spec in specs}
    replayed = [spec_for(r, known.get(r.symbol), settings.history_days) for r in recordings]
    names = {recording.symbol for recording in recordings}
    others = [spec for spec in specs if spec.symbol not in names]
    if settings.symbols is None:
        others = [spec for spec in others if spec.status != "TRADING"]
    return replayed + others
