"""`python -m klshm NOUN`: everything that is known about a running engine, for people and programs.

Exit codes: 0 ok, 1 error or differences found, 2 usage, 3 not running, 4 configuration,
5 timeout, 6 stale data. An error is one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from klshm.commands import audit, backfill, config, doctor, fsck, layout, market, snapshot, status, top
from klshm.commands.output import accept_any_name
from klshm.errors import KlshmError
from klshm.version import __version__


__all__ = ["build_parser", "main"]

_INTERRUPTED: Final = 130
_EPILOG: Final = (
    "exit codes: 0 ok, 1 error or differences found, 2 usage, 3 not running, 4 configuration, 5 timeout, 6 stale data. "
    "--json prints one document, or one per line where the answer has no end. "
    "Without --instance: KLSHM_INSTANCE, else the only engine that runs."
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="klshm", description="Exact klines in shared memory.", epilog=_EPILOG)
    parser.add_argument("-v", "--version", action="version", version=f"klshm {__version__}")
    _add_common(parser, is_top=True)
    nouns = parser.add_subparsers(dest="noun", required=True, metavar="NOUN")
    for command in (status, market, top, snapshot, audit, fsck, doctor, backfill, layout, config):
        command.add(nouns)
    for noun in nouns.choices.values():
        _add_common(noun, is_top=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line; None: the process's own.

    Returns:
        The exit code.
    """
    accept_any_name()
    try:
        options = build_parser().parse_args(arguments)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except KlshmError as error:
        sys.stderr.write(f"klshm: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; the interpreter must not find that out at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _add_common(parser: argparse.ArgumentParser, *, is_top: bool) -> None:
    # Before the noun and after it: what was given before must not be reset after.
    parser.add_argument(
        "--instance", metavar="NAME", default=None if is_top else argparse.SUPPRESS, help="name of the engine"
    )
    parser.add_argument(
        "--json", action="store_true", default=False if is_top else argparse.SUPPRESS, help="for programs"
    )
