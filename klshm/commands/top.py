"""`top`: the market and the engine's health in the terminal, refreshed until interrupted."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any, Final

from klshm.commands.output import instant, print_json, print_line
from klshm.errors import KlshmError
from klshm.read import Bar, Reader, Snapshot, attach
from klshm.shm.view import exchange_now_ms


__all__ = ["add", "screen"]

_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"
_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_EVER: Final = 1e9
_HEAD: Final = f"{'SYMBOL':<16}{'LAST':>14}{'1M %':>9}{'DAY %':>9}{'1M QUOTE':>14}{'DAY QUOTE':>16}{'TRADES':>9}  FLAGS"
_HEAD_LINES: Final = 6
_ROWS_WITHOUT_TERMINAL: Final = 20


def add(nouns: Any) -> None:
    """Declare the command."""
    top = nouns.add_parser("top", help="the market and the engine's health, refreshed")
    top.add_argument("--once", action="store_true", help="print one view and end")
    top.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds between views (default 1)")
    top.add_argument("--sort", choices=tuple(_ORDERS), default="volume", help="order of the symbols (default volume)")
    top.set_defaults(run=_top)


def _top(options: argparse.Namespace) -> int:
    if not options.interval > 0:
        raise KlshmError(f"--interval {options.interval:g}, expected more than 0")
    is_terminal = sys.stdout.isatty() and not options.once and not options.json
    with attach(options.instance, stale_after_s=_EVER, gone_after_s=_EVER) as reader:
        if is_terminal:
            sys.stdout.write(_ENTER)
        try:
            while True:
                if options.json:
                    print_json(_document(reader, options.sort))
                else:
                    _show(reader, options.sort, is_terminal)
                if options.once:
                    return 0
                time.sleep(options.interval)
        finally:
            if is_terminal:
                sys.stdout.write(_LEAVE)
                sys.stdout.flush()


def _show(reader: Reader, order: str, is_terminal: bool) -> None:
    if is_terminal:
        size = shutil.get_terminal_size()
        lines = screen(reader, order, max(1, size.lines - _HEAD_LINES - 1))
        print_line(_HOME_AND_CLEAR + "\n".join(line[: size.columns] for line in lines))
    else:
        print_line("\n".join(screen(reader, order, _ROWS_WITHOUT_TERMINAL)))


def _document(reader: Reader, order: str) -> dict[str, Any]:
    pairs = sorted(_market(reader.snapshot()), key=_ORDERS[order])
    return {"status": reader.status(), "bars": [dict(bar) for pair in pairs for bar in pair]}


def screen(reader: Reader, order: str, rows: int) -> list[str]:
    """Return the lines of one view.

    Args:
        reader: The engine.
        order: Key of the symbols' order.
        rows: Symbols shown at most.
    """
    status = reader.status()
    lines = _health(status, exchange_now_ms(reader.source.segment))
    lines += [
        "",
        f"{'SYMBOL':<16}{'LAST':>14}{'1M %':>9}{'DAY %':>9}{'1M QUOTE':>14}{'DAY QUOTE':>16}{'TRADES':>9}  FLAGS",
    ]
    market = sorted(_market(reader.snapshot()), key=_ORDERS[order])
    return lines + [_line(minute, day) for minute, day in market[:rows]]


def _market(snapshot: Snapshot) -> list[tuple[Bar, Bar]]:
    """Return the open minute and the open bar of the day (of the longest interval, if days are not kept)."""
    names = snapshot.intervals
    day = "1d" if "1d" in names else names[-1]
    pairs = []
    for symbol in snapshot.symbols:
        minute = snapshot.bar(symbol, names[0])
        if minute.state != "empty":
            pairs.append((minute, snapshot.bar(symbol, day)))
    return pairs


_ORDERS: Final = {
    "volume": lambda pair: -pair[1].quote_volume,
    "change": lambda pair: -abs(_change(pair[1])),
    "name": lambda pair: pair[0].symbol,
    "trades": lambda pair: -pair[0].trade_count,
}


def _line(minute: Bar, day: Bar) -> str:
    return (
        f"{minute.symbol:<16}{minute.close:>14.10g}{_change(minute):>9.2f}{_change(day):>9.2f}"
        f"{minute.quote_volume:>14,.0f}{day.quote_volume:>16,.0f}{minute.trade_count:>9}  {' '.join(minute.flags)}"
    )


def _change(bar: Bar) -> float:
    return (bar.close / bar.open - 1) * 100 if bar.open else 0.0


def _health(status: dict[str, Any], now_ms: int) -> list[str]:
    symbols, bars, lag, exchange = status["symbols"], status["bars"], status["lag_ms"], status["exchange"]
    oldest_ms = max((process["heartbeat_age_ms"] for process in status["processes"]), default=0)
    engine = (f"klshm {status['instance']}", status["state"], f"{instant(now_ms)} UTC", exchange["rest_url"])
    traffic = (
        f"symbols {_counts(symbols, 'trading', 'live', 'quiet', 'silent')}",
        f"{status['messages_per_s']:,.0f} messages/s",
        f"lag p50 {lag['p50']:.1f} ms, p99 {lag['p99']:.1f} ms",
    )
    exactness = (
        f"bars {_counts(bars, 'closed', 'confirmed', 'partial', 'corrected')}",
        f"match at settle {_percent(status['match_rate']['settle'])}",
    )
    machine = (
        f"journal {status['journal']['behind_rows']} rows behind",
        f"weight {exchange['weight_used']}/{exchange['weight_limit']}",
        f"oldest heartbeat {oldest_ms} ms",
    )
    return ["   ".join(line) for line in (engine, traffic, exactness, machine)]


def _counts(numbers: dict[str, int], *names: str) -> str:
    return ", ".join(f"{numbers[name]} {name}" for name in names)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.3f} %"
