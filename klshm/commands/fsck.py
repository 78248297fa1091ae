"""`fsck`: the files of an instance, checked and mended."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from klshm.commands.instance import add_configuration, configured
from klshm.commands.options import names
from klshm.commands.output import instant, print_json, print_line, print_table


if TYPE_CHECKING:
    from klshm.fsck.report import Report


__all__ = ["add"]

_SUBJECTS: Final = 20


def add(nouns: Any) -> None:
    """Declare the command."""
    fsck = nouns.add_parser(
        "fsck",
        help="the files: archive, journal, snapshot, segment; exit code 1 if anything is damaged",
        description="Checks the files of an instance, running or not, without changing anything. "
        "audit holds the archive against the exchange, doctor looks at the machine.",
    )
    scope = fsck.add_mutually_exclusive_group()
    scope.add_argument(
        "--repair",
        action="store_true",
        help="fetch what is damaged or missing from the exchange again (the engine must not run); "
        "exit code 0 if everything is in order then",
    )
    scope.add_argument("--symbols", type=names, metavar="A,B", help="only the archive's rows of these")
    add_configuration(fsck)
    fsck.set_defaults(run=_fsck)


def _fsck(options: argparse.Namespace) -> int:
    # Only here: all other commands need numpy alone.
    from klshm.run.machine import check_packages

    check_packages(("lmdb",))
    from klshm.fsck.check import check
    from klshm.store.names import data_directory

    config = configured(options)
    directory = data_directory(config)
    if options.repair:
        report = _repaired(options, config, directory)
    else:
        report = check(config.instance, directory, options.symbols or (), _progress(options)).report
    if options.json:
        print_json({"instance": config.instance, "directory": str(directory), **report.document()})
    else:
        _print_for_people(report, directory)
    return 0 if report.is_clean and not report.failed else 1


def _repaired(options: argparse.Namespace, config: Any, directory: Path) -> Report:
    import asyncio

    from klshm.errors import ConfigError
    from klshm.run.lock import InstanceLock
    from klshm.run.machine import check_packages

    check_packages()
    from klshm.fsck.check import check
    from klshm.fsck.repair import repair

    if not directory.is_dir():
        raise ConfigError(f"data.directory: {directory} does not exist; name it with --set data.directory=...")
    with InstanceLock(directory, config.instance, wait_s=0.0):
        found = check(config.instance, directory, (), _progress(options))
        if found.report.is_clean:
            return found.report
        if not options.json:
            print_line("found:")
            _print_for_people(found.report, directory)
            print_line()
        return asyncio.run(repair(config, directory, found, _requests(options))).report


def _progress(options: argparse.Namespace) -> Any:
    if options.json or not sys.stderr.isatty():
        return lambda symbol: None
    return lambda symbol: sys.stderr.write(f"\rfsck {symbol}\x1b[K\r")


def _requests(options: argparse.Namespace) -> Any:
    if options.json or not sys.stderr.isatty():
        return lambda done, total: None
    return lambda done, total: sys.stderr.write(f"\rrepair: {done} of {total} requests\x1b[K\r")


def _print_for_people(report: Report, directory: Path) -> None:
    from klshm.fsck.report import MEANINGS

    if not report.looked_at:
        print_line(f"nothing to look at in {directory}")
    for place, looked_at in report.looked_at.items():
        print_line(f"{place}: " + ", ".join(f"{name} {value}" for name, value in looked_at.items()))
    if "segment" in report.looked_at:
        print_line("segment: shared memory has no checksums; structure and sanity are all that was looked at")
    subjects = report.subjects()
    if subjects:
        rows = [(place, subject, ", ".join(f"{n} {p}" for p, n in found.items())) for place, subject, found in subjects]
        print_table(("place", "subject", "found"), rows[:_SUBJECTS])
        if len(rows) > _SUBJECTS:
            print_line(f"and {len(rows) - _SUBJECTS} more; --json names them")
    for finding in report.first:
        when = f" {instant(finding.open_time)}" if finding.open_time is not None and finding.open_time > 0 else ""
        print_line(f"{finding.problem}: {finding.subject}{when} {finding.detail}".rstrip())
    for problem in (*report.problems, *report.notes):
        print_line(f"({problem}: {MEANINGS[problem]})")
    for what, number in report.repaired.items():
        print_line(f"repair, {what.replace('_', ' ')}: {number}")
    for what, reason in report.failed.items():
        print_line(f"not mended: {what}: {reason}")
    total = sum(report.problems.values())
    print_line("clean" if report.is_clean else f"damaged: {total} found")
