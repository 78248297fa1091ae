"""The simulator as a whole: market, clock, REST, WebSocket and faults on one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from .catalogue import DEFAULT_SYMBOLS, catalogue
from .clock import SimClock
from .control import Control
from .events import RawEvent
from .faults import Faults, Parameters
from .hub import Hub
from .instrument import Instrument
from .intervals import INTERVALS
from .listings import Listings
from .market import Market, MarketOptions
from .replay import RecordedTrades, Recording, load, spec_for
from .rest import RestApi, RestOptions
from .schedule import parse_schedule, schedule_start_ms
from .stream_faults import StreamFaults
from .symbols import SymbolSpec
from .tickers import Tickers
from .trades import TradeSource
from .websocket import Gate
from .weights import LIMIT, PATIENCE, WeightLedger


__all__ = ["Settings", "Simulator"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the command line says."""

    host: str = "127.0.0.1"
    port: int = 0
    listing: str = "compact"
    symbols: int | None = None
    rate: float = 400.0
    start_ms: int | None = None
    history_days: int = 400
    market: MarketOptions = field(default_factory=MarketOptions)
    rest: RestOptions = field(default_factory=RestOptions)
    replay: tuple[tuple[str, Path], ...] = ()
    replay_lead_s: float = 10.0
    faults: str = ""
    time_factor: float = 1.0
    weight_limit: int = LIMIT
    patience: int = PATIENCE


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
        self.faults = Faults()
        if settings.faults:
            self.faults.plan(parse_schedule(settings.faults), start_ms)
        self.stream_faults = StreamFaults(self.faults, settings.market.seed)
        self.hub = Hub(self._activate, self.faults.spoil)
        self.ledger = WeightLedger(settings.weight_limit, settings.patience)
        self.gate = Gate(self.hub, self.clock, settings.time_factor, self.faults.refusal)
        self._tickers = Tickers(self.market, self.hub, self.faults.muted)
        self._next_second_ms = 0
        listings = Listings(self.market, self._activate_wanted)
        listings.plan(specs)
        self.faults.hooks.update(
            close=self._close,
            list_symbol=listings.list_symbol,
            delist_symbol=listings.delist_symbol,
            brackets=listings.brackets,
            clock_step=self._clock_step,
        )

    def application(self) -> web.Application:
        """Return the web application with all routes."""
        app = web.Application()
        RestApi(self.market, self.clock, self.ledger, self.faults, self.settle, self.settings.rest).add_routes(app)
        self.gate.add_routes(app)
        Control(self.market, self.clock, self.hub, self.ledger, self.faults, self.settle).add_routes(app)
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
        for event in self.stream_faults.apply(self.market.advance(now_ms), now_ms):
            self.hub.publish(event)

    async def _beat(self) -> None:
        while True:
            now_ms = self.clock.now_ms()
            self.faults.run_due(now_ms)
            self.settle()
            uptime_ms = self.clock.uptime_ms()
            if uptime_ms >= self._next_second_ms:
                self._next_second_ms = uptime_ms - uptime_ms % 1000 + 1000
                self._tickers.run(now_ms)
                self.gate.watch()
            if not self.faults.active("freeze", now_ms):
                self.hub.flush()
            wait_ms = self.market.next_ms() - self.clock.now_ms()
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

    def _activate_wanted(self, instrument: Instrument) -> None:
        """Keep the bars that somebody subscribed to before the symbol was listed."""
        for interval in INTERVALS:
            if self.hub.wanted(f"{instrument.lower}@kline_{interval}"):
                instrument.activate(interval, self.market.now_ms)

    # Faults that reach beyond the stream

    def _close(self, parameters: Parameters, now_ms: int) -> object:
        closed = 0
        for connection in list(self.hub.connections.values()):
            if parameters["connection"] not in (0, connection.number):
                continue
            if parameters["code"]:
                connection.close(int(parameters["code"]), parameters["reason"])
            else:
                connection.abort()
            closed += 1
        return {"closed": closed}

    def _clock_step(self, parameters: Parameters, now_ms: int) -> object:
        self.clock.step(int(parameters["step_ms"]))
        return {"now_ms": self.clock.now_ms()}


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
    count = DEFAULT_SYMBOLS[settings.listing] if settings.symbols is None else settings.symbols
    specs = catalogue(settings.market.seed, count, settings.rate, start_ms, settings.history_days, settings.listing)
    if not recordings:
        return specs
    known = {spec.symbol: spec for spec in specs}
    replayed = [spec_for(r, known.get(r.symbol), settings.history_days) for r in recordings]
    names = {recording.symbol for recording in recordings}
    others = [spec for spec in specs if spec.symbol not in names]
    if settings.symbols is None:
        others = [spec for spec in others if spec.status != "TRADING"]
    return replayed + others
