"""The command `python launcher.py`: from options to a running engine, and back to nothing."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from klshm import __version__, logs
from klshm.config import Config, settings
from klshm.config.keys import keys
from klshm.errors import KlshmError, SegmentTooLarge
from klshm.exchange.proxy import proxy_for
from klshm.run.affinity import plan
from klshm.run.aside import Aside
from klshm.run.early_stop import EarlyStop, StoppedEarly
from klshm.run.lock import InstanceLock, data_directory
from klshm.run.machine import check_machine, check_packages
from klshm.run.recover import recover, set_aside
from klshm.run.resume import Resume, keep_state
from klshm.run.retire import retire
from klshm.run.sizes import layout_of
from klshm.shm import layout as lay
from klshm.shm.segment import Segment, check_instance_name, create_segment, sweep_temporary_segments
from klshm.store.snapshot import read_snapshot, sweep_temporary_snapshots


__all__ = ["main", "resolve"]

_log = logging.getLogger(__name__)

_USAGE: Final = 2
_UNSET: Final = -1.0
_CHAOS_S: Final = 45.0
_DEMO_FILE: Final = Path(__file__).resolve().parent.parent.parent / "configs" / "demo.toml"


def main(arguments: list[str] | None = None) -> int:
    """Run the engine; return the exit code: 0 ordered stop, 1 error, 2 usage, 4 configuration.

    Args:
        arguments: Command line without the program's name; None: this process's own.
    """
    options = _parser().parse_args(arguments)
    try:
        check_machine(sys.platform, platform.machine())
        check_packages()
        config = resolve(options)
        logs.configure(config.log.level, config.log.format, "launcher")
        return 0 if _launch(config, options) else 1
    except StoppedEarly:
        return 0
    except KlshmError as error:
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        _complain(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1


def resolve(options: argparse.Namespace) -> Config:
    """Return the configuration that options, file and environment ask for.

    Raises:
        ConfigError: If any of them cannot be used.
    """
    overrides = list(options.set)
    if options.workers is not None:
        overrides.append(f"run.workers={options.workers}")
    if options.no_backfill:
        overrides.append("historian.concurrency=0")
    path = options.config or (_DEMO_FILE if options.demo else None)
    config = settings.load(path, overrides, write_default=not options.demo)
    for url in (config.exchange.rest_url, config.exchange.ws_url):
        proxy_for(url, config.exchange.proxy)  # the environment's too: a role could only fail at it
    if options.instance is not None:
        config = dataclasses.replace(config, instance=check_instance_name(options.instance))
    return config


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how it is meant stands in --help."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message}; see --help")
        sys.exit(_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="launcher.py", description="Keep the klines of all USDT perpetuals in shared memory, exactly."
    )
    parser.add_argument("--workers", type=_workers, metavar="N", help="worker processes; 0: everything in one process")
    parser.add_argument("--demo", action="store_true", help="run against the bundled simulator, without a network")
    parser.add_argument("--config", metavar="FILE", help="configuration file (default ./configs/klshm.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key")
    parser.add_argument("--instance", metavar="NAME", help="name of this engine (default main; of the demo, demo)")
    parser.add_argument(
        "--duration", type=_seconds, metavar="S", help="stop so many seconds after all workers are live"
    )
    parser.add_argument("--no-web", action="store_true", help="start no local web server")
    parser.add_argument("--no-backfill", action="store_true", help="fetch no history")
    parser.add_argument(
        "--from-snapshot", type=Path, metavar="FILE", help="go on from a file that `klshm snapshot` wrote"
    )
    parser.add_argument("-v", "--version", action="version", version=f"klshm {__version__}")
    return parser


def _workers(text: str) -> int:
    limit = keys()["run.workers"].limit
    if not text.isascii() or not text.isdigit() or not limit.accepts(int(text)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, {limit.expected}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds, 0 or more")
    return seconds


def _launch(config: Config, options: argparse.Namespace) -> bool:
    named = read_snapshot(options.from_snapshot) if options.from_snapshot else None
    early = EarlyStop()
    early.install()
    directory = data_directory(config)
    with InstanceLock(directory, config.instance):
        sweep_temporary_segments(config.instance)
        sweep_temporary_snapshots(directory)
        found = recover(config, directory)
        resume = Resume(config, directory, found, named)
        del found
        if not options.demo:
            return _serve(config, resume, options.duration, early)
        from klshm.run.kernels import load_kernels
        from klshm.run.simulator import Simulator

        with early.deferred() as between:
            load_kernels(between)  # or the simulator's time would run while they are compiled
        simulator = Simulator(config.sim)
        try:
            config = simulator.addressed(_with_chaos(config))
            return _serve(config, resume, options.duration, early, simulator.check)
        finally:
            simulator.stop()


def _with_chaos(config: Config) -> Config:
    """Let a demo of the exchange's faults show one of ours too."""
    if not config.sim.faults or config.chaos.kill_worker_after_s != _UNSET:
        return config
    return dataclasses.replace(config, chaos=dataclasses.replace(config.chaos, kill_worker_after_s=_CHAOS_S))


def _serve(
    config: Config,
    resume: Resume,
    duration_s: float | None,
    early: EarlyStop,
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Create and seed the segment, run the engine in it, and remove it; return whether nothing failed."""
    segment: Segment | None = None
    try:
        with early.deferred():  # a signal must not come between the segment and what removes it
            segment = _create(config, early)
        cores = plan(config.run.affinity, config.run.workers)
        if not _prepare(segment, resume, early):
            # What was seeded by half must not be found.
            _log.warning("going on from nothing; the exchange is asked for what the last run knew")
            segment.unlink()
            segment.close()
            segment = None  # the next one may not come to be
            with early.deferred():
                segment = _create(config, early)
        clean = _run(config, segment, cores, duration_s, check)
        keep_state(config, segment, Path(config.data.directory) / config.instance)
        _log.info("stopped clean=%s", clean)
        return clean
    finally:
        if segment is not None:
            retire(segment)


def _create(config: Config, early: EarlyStop) -> Segment:
    try:
        segment = create_segment(
            config.instance,
            layout_of(config),
            settings.to_json(config),
            mode=int(config.segment.mode, 8),
            group=config.segment.group or None,
        )
    except SegmentTooLarge as error:
        if not (aside := set_aside(config.instance)):
            raise
        raise SegmentTooLarge(f"{error}, or remove what was set aside: {', '.join(map(str, aside))}") from error
    early.abandon = segment.unlink
    _begin(segment)
    return segment


def _prepare(segment: Segment, resume: Resume, early: EarlyStop) -> bool:
    """Seed the segment and load the kernels, side by side; return whether the segment can be used."""
    from klshm.run.child import load_roles
    from klshm.run.kernels import load_kernels

    seeding = Aside("going on from the last state", lambda: resume.seed(segment)) if resume.is_wanted else None
    resume.forget()  # the child has it; every other process forked from here would hold it too
    gc.disable()  # nothing that is loaded is garbage
    try:
        with early.deferred() as between:
            seconds = load_kernels(between)
            load_roles()
        _log.info("kernels loaded seconds=%.1f", seconds)
        seeded = seeding is None or seeding.wait()
    except BaseException:
        if seeding is not None:
            seeding.kill()
        raise
    finally:
        gc.enable()
    gc.freeze()  # what is loaded now stays, and every role is spared looking at it
    return seeded


def _run(
    config: Config,
    segment: Segment,
    cores: list[int | None],
    duration_s: float | None,
    check: Callable[[], None],
) -> bool:
    from klshm.run.status import live_block

    def say_live() -> None:
        _say(live_block(config, segment))

    segment.words[lay.H_STATE] = lay.STATE_SERVING
    if config.run.workers == 0:
        from klshm.run.together import run_together

        return run_together(config, segment, duration_s, say_live, check)
    from klshm.run.supervisor import Supervisor

    supervisor = Supervisor(config, segment, cores)
    supervisor.install_signals()
    supervisor.start()
    supervisor.run(duration_s, say_live, check)
    return supervisor.stop()


def _begin(segment: Segment) -> None:
    block = segment.block(segment.layout.launcher_offset)
    block[lay.B_PID] = os.getpid()
    block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
    block[lay.B_ROLE_STATE] = lay.ROLE_LIVE


def _complain(text: str) -> None:
    print(f"launcher: {text}", file=sys.stderr)  # noqa: T201 - this is the command's own voice


def _say(text: str) -> None:
    """Print; a reader of the output that has gone away is no reason to stop the engine."""
    try:
        print(text, flush=True)  # noqa: T201 - this is the command's own voice
    except OSError as error:
        _log.warning("standard output is closed reason=%r", error.strerror)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
