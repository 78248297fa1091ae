"""`doctor`: the machine."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from typing import Any

from klshm.commands.instance import add_configuration, configured
from klshm.commands.output import print_json, print_line


__all__ = ["add"]


def add(nouns: Any) -> None:
    """Declare the command."""
    doctor = nouns.add_parser(
        "doctor",
        help="the machine: whether an engine runs well here, and for how long; exit code 1 if anything is bad",
        description="Looks at system, packages, cores, memory, disk and clock. Changes nothing and asks nobody. "
        "audit holds the archive against the exchange, fsck checks the files.",
    )
    add_configuration(doctor)
    doctor.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from klshm.doctor import clock, disk, machine

    config = configured(options)
    lines = [
        *machine.system(),
        *machine.packages(),
        *machine.cores(config),
        *machine.memory(config),
        *machine.files(),
        *disk.shared_memory(config),
        *disk.kernel_cache(),
        *disk.data(config),
        *disk.growth(config),
        *clock.local_clock(),
        *clock.exchange_clock(config),
    ]
    counts = {verdict: sum(line.verdict == verdict for line in lines) for verdict in ("ok", "warn", "bad")}
    if options.json:
        print_json({"instance": config.instance, **counts, "lines": [line._asdict() for line in lines]})
    else:
        width = shutil.get_terminal_size().columns
        for line in lines:
            text = f"{line.verdict:<4}  {line.topic:<13}  {line.found}" + (f" -> {line.advice}" if line.advice else "")
            indent = " " * 21
            print_line(textwrap.fill(text, max(width, 60), subsequent_indent=indent, break_long_words=False))
    return 1 if counts["bad"] else 0
