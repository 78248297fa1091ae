"""Command line of the simulator: ``python -m klshm.sim``."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from .clock import parse_instant_ms
from .faults import UnknownFault
from .market import MarketOptions
from .replay import ReplayError
from .server import Settings, Simulator


__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m klshm.sim",
        description="A local Binance USD-M futures exchange: market data by REST (/fapi/v1) and WebSocket.",
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add(
        "--port",
        type=_whole(0, 65_535),
        default=0,
        help="port, 0 for any (default); printed as one JSON line when ready",
    )
    add("--seed", type=_whole(0, 2**31), default=1, help="seed of the market (default %(default)s)")
    add(
        "--symbols",
        type=_whole(1, 5_000),
        default=None,
        help="number of trading USDT perpetuals (default 40; 1 with --replay)",
    )
    add("--rate", type=float, default=400.0, help="trades per second over all symbols (default %(default)s)")
    add(
        "--start-at",
        type=_instant,
        default=None,
        metavar="TIME",
        help="first instant, ISO-8601 UTC or ms (default: now; with --faults standard 100 s before a Monday 00:00)",
    )
    add(
        "--boundary-effect", action=argparse.BooleanOptionalAction, default=True, help="aggTrades may cross minute ends"
    )
    add("--id-gaps", action=argparse.BooleanOptionalAction, default=True, help="some trade ids are skipped")
    add("--frame-mode", choices=("lead", "tick"), default="lead", help="kline frames on a trade, or every 250 ms")
    add(
        "--empty-frames",
        choices=("none", "open", "final"),
        default="none",
        help="kline frames of minutes without a trade",
    )
    add("--history-days", type=_whole(1, 5_000), default=400, help="age of the oldest listing (default %(default)s)")
    add("--replay", action="append", default=[], metavar="[SYMBOL=]FILE", help="play a recording; repeatable")
    add(
        "--replay-lead",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds before the first record (default %(default)s)",
    )
    add("--faults", default="", metavar="SPEC", help="a schedule of faults: standard, or a JSON array")
    add(
        "--time-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="scales ping interval, pong deadline and greatest age",
    )
    add("--weight-limit", type=_whole(1, 10**9), default=2_400, help="REST weight per minute and address")
    add("--exit-with-parent", action="store_true", help="end when the parent process ends")
    return parser


def _whole(least: int, most: int) -> type[int]:
    def convert(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    return convert  # type: ignore[return-value]


def _instant(text: str) -> int:
    try:
        return parse_instant_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(parser: argparse.ArgumentParser, arguments: list[str] | None) -> tuple[Settings, bool]:
    args = parser.parse_args(arguments)
    if args.replay and args.start_at is not None:
        parser.error("found --start-at together with --replay, expected one of them; a replay starts at its own time")
    if args.rate <= 0 or args.time_factor <= 0 or args.replay_lead < 0:
        parser.error("found a rate, time factor or lead that is not positive, expected a positive number")
    replay = []
    for text in args.replay:
        symbol, separator, path = text.partition("=")
        replay.append((symbol.upper(), Path(path)) if separator else ("BTCUSDT", Path(text)))
    settings = Settings(
        host=args.host,
        port=args.port,
        symbols=args.symbols,
        rate=args.rate,
        start_ms=args.start_at,
        history_days=args.history_days,
        market=MarketOptions(args.seed, args.boundary_effect, args.id_gaps, args.frame_mode, args.empty_frames),
        replay=tuple(replay),
        replay_lead_s=args.replay_lead,
        faults=args.faults,
        time_factor=args.time_factor,
        weight_limit=args.weight_limit,
    )
    return settings, args.exit_with_parent


def _tie_to_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have gone before the request was in force.
    if os.getppid() != parent:
        raise SystemExit(0)


async def _run(simulator: Simulator) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        trading = sum(i.status == "TRADING" and not i.spec.extra for i in simulator.market.instruments.values())
        line = {"event": "listening", "port": port, "start_ms": simulator.clock.start_ms, "symbols": trading}
        print(json.dumps(line), flush=True)

    await simulator.serve(stop, ready)


def main(arguments: list[str] | None = None) -> int:
    """Run the simulator; return the exit code: 0 ordered stop, 1 error, 2 usage."""
    parser = _parser()
    settings, tied = _settings(parser, arguments)
    if tied:
        _tie_to_parent()
    try:
        simulator = Simulator(settings)
    except UnknownFault as error:
        parser.error(str(error))
    except ReplayError as error:
        print(f"klshm.sim: {error}", file=sys.stderr)
        return 1
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(_run(simulator))
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        print(
            f"klshm.sim: cannot listen on {where} ({error.strerror}); stop the other process or use --port 0",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
