"""Command line of the simulator: ``python -m klshm.sim``."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from . import faults, schedule
from .clock import parse_instant_ms
from .faults import UnknownFault
from .market import MarketOptions
from .replay import ReplayError
from .rest import RestOptions
from .server import Settings, Simulator


__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_EPILOG = f"""\
Control, while it runs:
    GET  /sim/state    clock, last ids, connections, weights, faults
    GET  /sim/faults   every fault with its parameters and their defaults
    POST /sim/faults   start a fault, such as {{"name": "mute", "stream": "kline", "seconds": 30}}

{faults.__doc__}
{schedule.__doc__}"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m klshm.sim",
        description="A local Binance USD-M futures exchange: market data by REST (/fapi/v1) and WebSocket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_place(parser.add_argument_group("place and time").add_argument)
    _add_market(parser.add_argument_group("market").add_argument)
    _add_rules(parser.add_argument_group("rules and faults").add_argument)
    return parser


def _add_place(add: Callable[..., object]) -> None:
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add(
        "--port",
        type=_whole(0, 65_535),
        default=0,
        help="port, 0 for any (default); printed as one JSON line when ready",
    )
    add(
        "--start-at",
        type=_instant,
        default=None,
        metavar="TIME",
        help="first instant, ISO-8601 UTC or ms (default: now; with --faults standard 100 s before a Monday 00:00)",
    )
    add("--replay", action="append", default=[], metavar="[SYMBOL=]FILE", help="play a recording; repeatable")
    add(
        "--replay-lead",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds before the first record (default %(default)s)",
    )
    add("--exit-with-parent", action="store_true", help="end when the parent process ends")


def _add_market(add: Callable[..., object]) -> None:
    add("--seed", type=_whole(0, 2**31), default=1, help="seed of the market (default %(default)s)")
    add(
        "--listing",
        choices=("compact", "full"),
        default="compact",
        help="exchangeInfo: a few odd rows, or 924 rows as on 2026-10-07, 789 of them trading (default %(default)s)",
    )
    add(
        "--symbols",
        type=_whole(1, 5_000),
        default=None,
        help="number of trading USDT perpetuals (default 40; 704 with --listing full; 1 with --replay)",
    )
    add("--rate", type=float, default=400.0, help="trades per second over all symbols (default %(default)s)")
    add("--history-days", type=_whole(1, 5_000), default=400, help="age of the oldest listing (default %(default)s)")
    switch = argparse.BooleanOptionalAction
    add("--boundary-effect", action=switch, default=True, help="aggTrades may cross minute ends")
    add("--id-gaps", action=switch, default=True, help="some trade ids are skipped, others taken by forced trades")
    add(
        "--forced-share",
        type=_share,
        default=0.0005,
        metavar="F",
        help="share of ADL and insurance fund trades, seen on <symbol>@trade only (default %(default)s)",
    )
    add("--frame-mode", choices=("lead", "tick"), default="lead", help="kline frames on a trade, or every 250 ms")
    add(
        "--empty-frames",
        choices=("none", "open", "final"),
        default="none",
        help="kline frames of minutes without a trade",
    )
    add(
        "--settled-rows",
        choices=("stop", "flat"),
        default="stop",
        help="klines of a symbol delisted while it runs: end, or go on flat (default %(default)s)",
    )


def _add_rules(add: Callable[..., object]) -> None:
    switch = argparse.BooleanOptionalAction
    add(
        "--rules",
        choices=("strict", "measured"),
        default="strict",
        help="where documents and measurements differ, strict is the harder: klines of 100 rows weigh 2, of 500 "
        "weigh 5, aggTrades of an hour or more are refused; measured: 1, 2 and answered (default %(default)s)",
    )
    add("--weight-limit", type=_whole(1, 10**9), default=2_400, help="REST weight per minute and address")
    add(
        "--patience",
        type=_whole(0, 10**6),
        default=10,
        metavar="N",
        help="so many 429 may be ignored; then 418: a ban of 2 minutes, 4, 8 ... up to 3 days (default %(default)s)",
    )
    add("--retry-after", action=switch, default=True, help="429 and 418 carry Retry-After")
    add(
        "--pending-klines",
        choices=("refuse", "empty"),
        default="refuse",
        help="klines of a PENDING_TRADING symbol: 400 -1122, or no row (default %(default)s)",
    )
    add(
        "--agg-reach",
        type=float,
        default=172_800.0,
        metavar="S",
        help="seconds that aggTrades reach back; older: 400 -4166 (default %(default)s, 48 hours)",
    )
    add(
        "--time-factor",
        type=float,
        default=1.0,
        metavar="F",
        help="scales ping interval (180 s), pong deadline (600 s) and greatest age (24 h) of a connection",
    )
    add("--faults", default="", metavar="SPEC", help="a schedule of faults: standard, or a JSON array (see below)")


def _whole(least: int, most: int) -> type[int]:
    def convert(text: str) -> int:
        if not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from {least} to {most}")
        return int(text)

    return convert  # type: ignore[return-value]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 0.5:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 0.5")
    return share


def _instant(text: str) -> int:
    try:
        return parse_instant_ms(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(parser: argparse.ArgumentParser, arguments: list[str] | None) -> tuple[Settings, bool]:
    args = parser.parse_args(arguments)
    if args.replay and args.start_at is not None:
        parser.error("found --start-at together with --replay, expected one of them; a replay starts at its own time")
    if args.rate <= 0 or args.time_factor <= 0 or args.agg_reach <= 0 or args.replay_lead < 0:
        parser.error("found a rate, time factor, reach or lead that is not positive, expected a positive number")
    replay = []
    for text in args.replay:
        symbol, separator, path = text.partition("=")
        replay.append((symbol.upper(), Path(path)) if separator else ("BTCUSDT", Path(text)))
    settings = Settings(
        host=args.host,
        port=args.port,
        listing=args.listing,
        symbols=args.symbols,
        rate=args.rate,
        start_ms=args.start_at,
        history_days=args.history_days,
        market=MarketOptions(
            args.seed,
            args.boundary_effect,
            args.id_gaps,
            args.frame_mode,
            args.empty_frames,
            args.forced_share,
            args.settled_rows,
        ),
        rest=RestOptions(
            measured=args.rules == "measured",
            retry_after=args.retry_after,
            pending_empty=args.pending_klines == "empty",
            agg_reach_ms=int(args.agg_reach * 1000),
        ),
        replay=tuple(replay),
        replay_lead_s=args.replay_lead,
        faults=args.faults,
        time_factor=args.time_factor,
        weight_limit=args.weight_limit,
        patience=args.patience,
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
