"""`backfill`: fetch history into the archive without an engine."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from klshm.commands.options import names, time_ms
from klshm.commands.output import print_json, print_line
from klshm.config.settings import load
from klshm.errors import UnknownInterval


__all__ = ["add"]

_LINE_S = 10.0
_NAMED = 10


def add(nouns: Any) -> None:
    """Declare the command."""
    backfill = nouns.add_parser(
        "backfill", help="fetch what the archive lacks, without an engine; exit code 1 if some of it failed"
    )
    backfill.add_argument("--symbols", type=names, metavar="A,B", help="only these (default: all that are taken)")
    backfill.add_argument("--intervals", type=names, metavar="1m,5m", help="only these")
    backfill.add_argument(
        "--since", type=time_ms, metavar="TIME", help="bars from this open time on: UTC ms or ISO 8601"
    )
    backfill.add_argument("--config", metavar="FILE", help="configuration file (default ./configs/klshm.toml)")
    backfill.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key")
    backfill.set_defaults(run=_backfill)


def _backfill(options: argparse.Namespace) -> int:
    # Only here: all other commands need numpy alone.
    import asyncio

    from klshm.run.machine import check_packages

    check_packages()
    from klshm.historian.alone import Wish, fetch_history
    from klshm.run.lock import InstanceLock, data_directory
    from klshm.store.names import archive_path

    overrides = [*options.set, *([f"instance={options.instance}"] if options.instance else [])]
    config = load(options.config, overrides)
    for name in options.intervals or ():
        if name not in config.klines.intervals:
            raise UnknownInterval(f"interval {name!r} is not kept; kept are {', '.join(config.klines.intervals)}")
    directory = data_directory(config)
    wish = Wish(options.symbols, options.intervals or config.klines.intervals, options.since)
    with InstanceLock(directory, config.instance, wait_s=0.0):
        outcome = asyncio.run(fetch_history(config, archive_path(directory), wish, _Progress()))
    if options.json:
        print_json(asdict(outcome))
    else:
        print_line(
            f"{outcome.tasks} series, {outcome.rows} rows fetched, {len(outcome.failed)} series failed, "
            f"{outcome.duration_s:.0f} s, {outcome.requests} requests of weight {outcome.weight}"
        )
        for series, reason in sorted(outcome.failed.items())[:_NAMED]:
            print_line(f"failed: {series}: {reason}")
        if len(outcome.failed) > _NAMED:
            print_line(f"failed: {len(outcome.failed) - _NAMED} more; --json names all")
    return 1 if outcome.failed else 0


class _Progress:
    """One line that is written over on a terminal, a line now and then elsewhere; on stderr."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._said_s = self._began_s
        self._is_terminal = sys.stderr.isatty()

    def __call__(self, done: int, tasks: int, rows: int) -> None:
        now_s = time.monotonic()
        if not self._is_terminal and now_s - self._said_s < _LINE_S:
            return
        self._said_s = now_s
        left_s = (now_s - self._began_s) / done * (tasks - done)
        text = f"backfill: {done} of {tasks} series, {rows} rows, {left_s:.0f} s left"
        if not self._is_terminal:
            end = "\n"
        elif done < tasks:
            text, end = f"\r{text}\x1b[K", ""
        else:
            text, end = "\r\x1b[K", ""
        sys.stderr.write(text + end)
        sys.stderr.flush()
