"""`audit`: the archive against the exchange."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from klshm.commands.options import names, time_ms
from klshm.commands.output import instant, print_json, print_line, print_table
from klshm.config import Config
from klshm.config.settings import load
from klshm.errors import UnknownInterval, UnknownSymbol
from klshm.intervals import MINUTE_MS
from klshm.read import Reader, attach
from klshm.shm import layout as lay
from klshm.shm.counters import WORKER, Counters
from klshm.shm.view import exchange_now_ms


if TYPE_CHECKING:
    from klshm.audit.compare import Report


__all__ = ["add"]

_EVER = 1e9
"""Seconds: the archive of a silent engine can be audited like any."""


class _Scope(NamedTuple):
    """What is audited."""

    config: Config
    symbols: dict[str, int | None]
    """Symbol to the end of its last bar, UTC ms; None: it has no end."""
    since_ms: int | None
    aggtrade_only: dict[str, int]


def add(nouns: Any) -> None:
    """Declare the command."""
    audit = nouns.add_parser("audit", help="the archive against the exchange, bar by bar; exit code 1 if they differ")
    audit.add_argument("--symbols", type=names, metavar="A,B", help="only these")
    audit.add_argument("--intervals", type=names, metavar="1m,5m", help="only these")
    audit.add_argument(
        "--since",
        type=time_ms,
        metavar="TIME",
        help="bars that ended after this: UTC ms or ISO 8601 (default: since the engine started)",
    )
    audit.add_argument(
        "--config", metavar="FILE", help="audit the archive of this configuration; needs no running engine"
    )
    audit.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    # Only here: all other commands need numpy alone.
    import asyncio

    from klshm.run.machine import check_packages

    check_packages()
    from klshm.audit.auditor import Series, audit
    from klshm.store.names import archive_path, data_directory

    scope = _of_configuration(options) if options.config else _of_engine(options)
    kept = scope.config.klines.intervals
    for name in options.intervals or ():
        if name not in kept:
            raise UnknownInterval(f"interval {name!r} is not kept; kept are {', '.join(kept)}")
    report = asyncio.run(
        audit(
            scope.config,
            archive_path(data_directory(scope.config)),
            [Series(symbol, ends_ms) for symbol, ends_ms in scope.symbols.items()],
            options.intervals or kept,
            scope.since_ms,
            _progress if sys.stderr.isatty() and not options.json else _no_progress,
        )
    )
    report.aggtrade_only = scope.aggtrade_only
    if options.json:
        print_json(report.document())
    else:
        _print_for_people(report)
    return 0 if report.passed else 1


def _of_engine(options: argparse.Namespace) -> _Scope:
    with attach(options.instance, stale_after_s=_EVER, gone_after_s=_EVER) as reader:
        table = reader.source.table
        for symbol in options.symbols or ():
            reader.source.slot(symbol)  # an unknown one ends here
        wanted = set(options.symbols or ())
        symbols: dict[str, int | None] = {}
        for row in table.rows():
            name = bytes(row["name"]).decode()
            if row["status"] != lay.SYMBOL_EMPTY and (not wanted or name in wanted):
                delisted = row["status"] == lay.SYMBOL_DELISTED
                symbols[name] = -(-int(row["delivery_ms"]) // MINUTE_MS) * MINUTE_MS if delisted else None
        since_ms = _started_ms(reader) if options.since is None else options.since
        workers = [Counters(view.block, WORKER) for view in reader.source.views]
        aggtrade_only = {
            what: sum(worker.get(f"match_aggtrade_{what}_total") for worker in workers)
            for what in ("compared", "equal")
        }
        return _Scope(reader.config, symbols, since_ms, aggtrade_only)


def _started_ms(reader: Reader) -> int:
    """Return when the engine started, by the exchange's clock."""
    mapped = reader.source.segment
    return int(mapped.words[lay.H_CREATED_MS]) + exchange_now_ms(mapped) - time.time_ns() // 1_000_000


def _of_configuration(options: argparse.Namespace) -> _Scope:
    from contextlib import closing

    from klshm.store.archive_reader import ArchiveReader
    from klshm.store.names import archive_path, data_directory

    overrides = [f"instance={options.instance}"] if options.instance else []
    config = load(options.config, overrides)
    with closing(ArchiveReader(archive_path(data_directory(config)))) as archive:
        stored = sorted({series.symbol for series in archive.series() if not series.retired})
    for symbol in options.symbols or ():
        if symbol not in stored:
            raise UnknownSymbol(f"symbol {symbol!r} is not in {archive.path}; it holds {len(stored)} symbols")
    wanted: list[str] = options.symbols or stored
    return _Scope(config, dict.fromkeys(wanted), options.since, {"compared": 0, "equal": 0})


def _progress(done: int, total: int) -> None:
    sys.stderr.write(f"\raudit {done} of {total} series" + ("\n" if done == total else ""))
    sys.stderr.flush()


def _no_progress(done: int, total: int) -> None:
    """Say nothing: nobody is looking."""


def _print_for_people(report: Report) -> None:
    print_line(f"bars that ended from {instant(report.since_ms)} to {instant(report.until_ms)} UTC")
    tallies = ("compared", "equal", "missing", "unconfirmed", "extra", "no_row")
    rows = [(name, *(found[tally] for tally in tallies)) for name, found in report.per_interval.items()]
    rows.append(("all", *(report.total(tally) for tally in tallies)))
    print_table(("interval", *tallies), rows)
    print_line(f"too young to be judged: {report.excluded_young}")
    pure = report.aggtrade_only
    print_line(f"sums of aggregate trades alone would equal {pure['equal']} of {pure['compared']} minutes")
    if unequal := {name: number for name, number in report.per_field.items() if number}:
        print_line("fields that differ: " + ", ".join(f"{name} {number}" for name, number in unequal.items()))
    for bar in report.differing:
        words = " ".join([bar.get("state", ""), *bar.get("flags", [])]).strip()
        print_line(f"{bar['problem']}: {bar['symbol']} {bar['interval']} {instant(bar['open_time'])} {words}".rstrip())
        for name, values in bar.get("fields", {}).items():
            print_line(f"    {name}: archive {values['archive']!r}, exchange {values['exchange']!r}")
    print_line("equal" if report.passed else "not equal")
