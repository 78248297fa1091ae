"""`status`: how the engine is."""

from __future__ import annotations

import argparse
from typing import Any, Final

from klshm.commands.output import instant, number, print_json, print_line, print_table
from klshm.read.attach import attach


__all__ = ["add"]

_EVER: Final = 1e9
"""Seconds: the status of a silent engine is wanted more than any."""


def add(nouns: Any) -> None:
    """Declare the command."""
    status = nouns.add_parser("status", help="how the engine is: processes, lag, match rates, journal")
    status.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    with attach(options.instance, stale_after_s=_EVER, gone_after_s=_EVER) as reader:
        document = reader.status()
    if options.json:
        print_json(document)
    else:
        _print_for_people(document)
    return 0


def _print_for_people(document: dict[str, Any]) -> None:
    processes, rings = document.pop("processes"), document.pop("rings")
    del document["counters"]  # for programs: --json
    weights = document["exchange"].pop("weights")
    document["weight"] = weights
    document["rings"] = {f"{ring['ring']} {ring['index']}": f"{ring['rows']} of {ring['capacity']}" for ring in rings}
    document["started"] = instant(document.pop("started_ms"))
    width = max(len(name) for name in document)
    for name, value in document.items():
        print_line(f"{name:<{width}}  {_in_words(value)}")
    print_line()
    if processes:
        print_table(list(processes[0]), [list(process.values()) for process in processes])


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {number(inner)}" for name, inner in value.items())
    return number(value)
