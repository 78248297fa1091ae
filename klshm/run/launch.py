"""The command `python launcher.py`: from options to a running engine, and back to nothing."""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import logging
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Final

from klshm import __version__, logs
from klshm.config import Config, settings
from klshm.errors import ConfigError, InstanceRunning, KlshmError, UnsupportedPlatform
from klshm.run.affinity import plan
from klshm.run.sizes import layout_of
from klshm.shm import layout as lay
from klshm.shm.segment import (
    Segment,
    check_instance_name,
    create_segment,
    open_segment,
    segment_path,
    sweep_temporary_segments,
)


__all__ = ["main"]

_log = logging.getLogger(__name__)

_LIVE_S: Final = 120.0
_LOCK_WAIT_S: Final = 5.0
_DEMO_FILE: Final = Path(__file__).resolve().parent.parent.parent / "configs" / "demo.toml"


def main(arguments: list[str] | None = None) -> int:
    """Run the engine; return the exit code.

    Args:
        arguments: Command line without the program's name; None: this process's own.
    """
    options = _parser().parse_args(arguments)
    try:
        check_machine(sys.platform, platform.machine())
        config = resolve(options)
        logs.configure(config.log.level, config.log.format, "launcher")
        return _launch(config, options)
    except KlshmError as error:
        print(f"launcher: {error}", file=sys.stderr)  # noqa: T201 - this is the command's own voice
        return error.exit_code


def check_machine(system: str, machine: str) -> None:
    """Return if the engine can run here.

    Raises:
        UnsupportedPlatform: If this is not Linux, or not a machine the engine was tested on.
    """
    if not system.startswith("linux"):
        raise UnsupportedPlatform(f"klshm needs Linux (futex, pidfd, /dev/shm), this is {system}; run it on Linux")
    if machine not in ("x86_64", "AMD64", "aarch64"):
        raise UnsupportedPlatform(f"klshm was tested on x86_64 and aarch64, this is {machine}")


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
    if options.instance is not None:
        config = dataclasses.replace(config, instance=check_instance_name(options.instance))
    return config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launcher.py", description="Keep the klines of all USDT perpetuals in shared memory, exactly."
    )
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes; 0: everything in one process")
    parser.add_argument("--demo", action="store_true", help="run against the bundled simulator, without a network")
    parser.add_argument("--config", metavar="FILE", help="configuration file (default ./configs/klshm.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a key")
    parser.add_argument("--instance", metavar="NAME", help="name of this engine (default main; of the demo, demo)")
    parser.add_argument("--duration", type=float, metavar="S", help="stop so many seconds after all workers are live")
    parser.add_argument("--no-web", action="store_true", help="start no local web server")
    parser.add_argument("--no-backfill", action="store_true", help="fetch no history")
    parser.add_argument("-v", "--version", action="version", version=f"klshm {__version__}")
    return parser


def _launch(config: Config, options: argparse.Namespace) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _give_up)
    directory = _data_directory(config)
    with _lock(directory, config.instance):
        sweep_temporary_segments(config.instance)
        recover(config.instance, directory)
        simulator = None
        if options.demo:
            from klshm.run.simulator import Simulator

            simulator = Simulator(config.sim)
            config = simulator.addressed(config)
        try:
            return _serve(config, options)
        finally:
            if simulator is not None:
                simulator.stop()


def _serve(config: Config, options: argparse.Namespace) -> int:
    from klshm.run.kernels import load_kernels

    cores = plan(config.run.affinity, config.run.workers)
    layout = layout_of(config)
    segment = create_segment(
        config.instance,
        layout,
        settings.to_json(config),
        mode=int(config.segment.mode, 8),
        group=config.segment.group or None,
    )
    try:
        _begin(segment)
        seconds = load_kernels()
        _log.info("kernels loaded seconds=%.1f", seconds)
        if config.run.workers == 0:
            from klshm.run.together import run_together

            return run_together(config, segment, options.duration)
        return _supervise(config, segment, cores, options.duration)
    finally:
        segment.words[lay.H_STATE] = lay.STATE_CLOSED
        segment.unlink()


def _supervise(config: Config, segment: Segment, cores: list[int | None], duration_s: float | None) -> int:
    from klshm.run.status import live_block
    from klshm.run.supervisor import Supervisor

    supervisor = Supervisor(config, segment, cores)
    supervisor.install_signals()
    supervisor.start()
    segment.words[lay.H_STATE] = lay.STATE_SERVING
    if supervisor.wait_live(_LIVE_S):
        print(live_block(config, segment), flush=True)  # noqa: T201 - this is the command's own voice
    elif not supervisor.stopping:
        _log.warning("not all workers are live after %.0f s; the engine goes on and keeps trying", _LIVE_S)
    supervisor.run(duration_s)
    began_s = time.monotonic()
    clean = supervisor.stop()
    _log.info("stopped clean=%s seconds=%.1f", clean, time.monotonic() - began_s)
    return 0 if clean else 1


def _begin(segment: Segment) -> None:
    block = segment.block(segment.layout.launcher_offset)
    block[lay.B_PID] = os.getpid()
    block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
    block[lay.B_ROLE_STATE] = lay.ROLE_LIVE


def _give_up(number: int, frame: object) -> None:
    raise KlshmError(f"stopped by {signal.Signals(number).name} before the engine was up")


def _data_directory(config: Config) -> Path:
    directory = Path(config.data.directory) / config.instance
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"data.directory: cannot write to {directory}: {error.strerror}; "
            "choose another with --set data.directory=..."
        ) from error
    return directory


class _lock:
    """The lock on the instance's data directory, inherited by every role on purpose."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._path = directory / "lock"
        self._instance = instance
        self._descriptor = -1

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    os.close(self._descriptor)
                    raise InstanceRunning(
                        f"instance {self._instance!r} is running (it holds {self._path}); "
                        "stop it or choose another --instance"
                    ) from None
                time.sleep(0.05)

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)


def recover(instance: str, directory: Path) -> None:
    """Save what a crashed engine left in shared memory, then remove its segment.

    Raises:
        InstanceRunning: If that engine is alive after all.
        KlshmError: If what it left could not be saved; it stays where it is.
    """
    if not segment_path(instance).exists():
        return
    try:
        segment = open_segment(instance)
    except KlshmError as error:
        _log.warning("a segment that cannot be read was left and is removed: %s", error)
        segment_path(instance).unlink(missing_ok=True)
        return
    if segment.is_locked():
        raise InstanceRunning(f"instance {instance!r} is running; stop it or choose another --instance")
    # The launcher opens no database: what it opened, every role would inherit.
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(_drain(segment, directory))
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise KlshmError(f"what a crashed engine left in {segment.path} could not be saved; see the message above")
    segment.unlink()


def _drain(segment: Segment, directory: Path) -> int:
    from klshm.store.recovery import drain_segment

    try:
        began_s = time.monotonic()
        drained = drain_segment(segment, directory)
    except KlshmError as error:
        _log.error("recovery failed: %s", error)
        return 1
    _log.info("recovered from the segment of a crashed engine %s seconds=%.2f", drained, time.monotonic() - began_s)
    return 0
