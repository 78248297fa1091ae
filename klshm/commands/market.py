"""`symbols`, `live`, `history`, `closed`: the market's bars."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import islice
from typing import Any

from klshm.commands.options import names, time_ms
from klshm.commands.output import instant, print_json, print_line, print_table
from klshm.errors import KlshmError
from klshm.read import Bar, attach
from klshm.read.bars import bars_of
from klshm.read.closed import MOMENTS
from klshm.shm import layout as lay


__all__ = ["add"]

_COLUMNS = ("open", "high", "low", "close", "volume", "quote_volume", "trade_count", "state", "flags")


def add(nouns: Any) -> None:
    """Declare the commands."""
    symbols = nouns.add_parser("symbols", help="what the engine carries")
    symbols.add_argument("--all", action="store_true", help="delisted ones too")
    symbols.set_defaults(run=_symbols)

    live = nouns.add_parser("live", help="the open bar of one symbol, or of all")
    live.add_argument("symbol", nargs="?", help="such as BTCUSDT; left out: all")
    live.add_argument("interval", nargs="?", default="1m", help="such as 5m (default 1m)")
    live.set_defaults(run=_live)

    history = nouns.add_parser("history", help="the newest closed bars of a series, oldest first")
    history.add_argument("symbol", help="such as BTCUSDT")
    history.add_argument("interval", nargs="?", default="1m", help="such as 5m (default 1m)")
    history.add_argument("--limit", type=_count, default=20, metavar="N", help="at most so many bars (default 20)")
    history.add_argument("--include-live", action="store_true", help="the open bar too, at the end")
    history.set_defaults(run=_history)

    closed = nouns.add_parser("closed", help="every bar as it closes, until interrupted")
    closed.add_argument("--when", choices=MOMENTS, default="settle", help="the moment (default settle)")
    closed.add_argument(
        "--since", type=time_ms, metavar="TIME", help="first replay what ended after this: UTC ms or ISO 8601"
    )
    closed.add_argument("--symbols", type=names, metavar="A,B", help="only these")
    closed.add_argument("--intervals", type=names, metavar="1m,5m", help="only these")
    closed.add_argument("--revisions", action="store_true", help="later changes of a bar too")
    closed.add_argument("--count", type=_count, metavar="N", help="end after so many bars")
    closed.add_argument("--timeout", type=float, metavar="S", help="exit code 5 after so many seconds without a bar")
    closed.set_defaults(run=_closed)


def _symbols(options: argparse.Namespace) -> int:
    with attach(options.instance) as reader:
        tables = [view.needs() for view in reader.source.views]
        rows = [_listing(row, tables) for row in reader.source.table.rows()]
    rows = [row for row in rows if options.all or row["status"] not in ("empty", "delisted")]
    if options.json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    return 0


def _listing(row: Any, tables: list[Any]) -> dict[str, Any]:
    status, contract = int(row["status"]), int(row["contract"])
    worker, local_slot = int(row["worker"]), int(row["local_slot"])
    return {
        "symbol": bytes(row["name"]).decode(),
        "status": lay.SYMBOL_STATUS_NAMES[status],
        "contract_type": lay.CONTRACT_NAMES[contract],
        "price_decimals": int(row["price_decimals"]),
        "quantity_decimals": int(row["quantity_decimals"]),
        "onboard_ms": int(row["onboard_ms"]),
        "worker": worker,
        "trades_24h": int(row["trades_24h"]),
        "trades": int(tables[worker][local_slot]["trades_total"]),
    }


def _live(options: argparse.Namespace) -> int:
    with attach(options.instance) as reader:
        if options.symbol:
            bars = [reader.live(options.symbol, options.interval)]
        else:
            reader.source.interval_index(options.interval)
            bars = [bar for bar in reader.snapshot().bars() if bar.interval == options.interval]
    if options.json:
        print_json(dict(bars[0]) if options.symbol else [dict(bar) for bar in bars])
    else:
        _print_bars(bars, "symbol")
    return 0


def _history(options: argparse.Namespace) -> int:
    with attach(options.instance) as reader:
        rows = reader.history(options.symbol, options.interval, options.limit, options.include_live)
    bars = bars_of(rows, options.symbol)
    if options.json:
        print_json([dict(bar) for bar in bars])
    else:
        _print_bars(bars)
    return 0


def _closed(options: argparse.Namespace) -> int:
    if options.timeout is not None and options.timeout < 0:
        raise KlshmError(f"--timeout {options.timeout:g}, expected 0 or more")
    with attach(options.instance) as reader:
        bars = reader.closed(
            options.symbols, options.intervals, options.since, options.when, options.revisions, options.timeout
        )
        for bar in islice(bars, options.count):
            if options.json:
                print_json(dict(bar))
            else:
                print_line(_line(bar))
    return 0


def _print_bars(bars: Iterable[Bar], *names: str) -> None:
    rows = [[*(bar[n] for n in names), instant(bar.open_time), *(bar[n] for n in _COLUMNS)] for bar in bars]
    print_table([*names, "open_time", *_COLUMNS], rows)


def _line(bar: Bar) -> str:
    words = " ".join((bar.state, *bar.flags))
    return (
        f"{instant(bar.open_time)} {bar.symbol:<14} {bar.interval:<3} o={bar.open!r} h={bar.high!r} l={bar.low!r} "
        f"c={bar.close!r} v={bar.volume!r} n={bar.trade_count} {words}"
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise ValueError(text)
    return count


_count.__name__ = "count"
