"""Attaching: which engine is meant (the one named, `KLSHM_INSTANCE`, or the only one), and whether it lives."""

from __future__ import annotations

import os
import platform
import sys

from klshm.errors import InstanceAmbiguous, InstanceNotFound, KlshmError, UnsupportedPlatform
from klshm.read.reader import Reader, Wait
from klshm.shm import layout as lay
from klshm.shm.segment import check_instance_name, instance_names, open_segment, shared_memory_directory


__all__ = ["attach", "check_platform", "resolve_instance", "running_instances"]


def attach(
    instance: str | None = None, *, stale_after_s: float = 3.0, gone_after_s: float = 10.0, wait: Wait = "futex"
) -> Reader:
    """Attach to a running engine.

    Args:
        instance: Its name; None: `KLSHM_INSTANCE`, else the only one that runs.
        stale_after_s: Silence of the engine from which reads raise `StaleData`, seconds.
        gone_after_s: Silence of the engine from which reads raise `EngineGone`, seconds.
        wait: How `closed` and `snapshot` wait: "futex" sleeps, "spin" burns a core for latency.

    Raises:
        InstanceNotFound: If it does not run.
        InstanceAmbiguous: If several run and none was named.
        EngineGone: If only the remains of an engine are left.
        StaleData: If the engine is silent.
        UnsupportedPlatform: If this machine does not keep the order of loads, or is not Linux.
    """
    check_platform(sys.platform, platform.machine())
    if wait not in ("futex", "spin"):
        raise ValueError(f"wait = {wait!r}, expected 'futex' or 'spin'")
    reader = Reader(
        open_segment(resolve_instance(instance)), stale_after_s=stale_after_s, gone_after_s=gone_after_s, wait=wait
    )
    try:
        reader.check()
    except BaseException:
        reader.close()
        raise
    return reader


def check_platform(system: str, machine: str) -> None:
    """Return if a reader made of NumPy alone is right on this machine.

    Raises:
        UnsupportedPlatform: If the machine does not keep the order of loads, or is not Linux.
    """
    if not system.startswith("linux"):
        raise UnsupportedPlatform(f"klshm reads shared memory of Linux, this is {system}; run it on Linux")
    if machine.lower() not in ("x86_64", "amd64"):
        raise UnsupportedPlatform(
            f"this reader needs the memory order of x86-64, this machine is {machine}; "
            "ask the engine's web interface instead"
        )


def running_instances() -> list[str]:
    """Return the names of the engines that run on this machine, sorted."""
    return [name for name in instance_names() if _runs(name)]


def resolve_instance(instance: str | None = None) -> str:
    """Return the name of the engine that is meant.

    Args:
        instance: Its name; None: `KLSHM_INSTANCE`, else the only one that runs.

    Raises:
        InstanceNotFound: If none runs.
        InstanceAmbiguous: If several run and none is named; names them.
        ConfigError: If the name is not a legal one.
    """
    named = instance or os.environ.get("KLSHM_INSTANCE")
    if named:
        return check_instance_name(named)
    running = running_instances()
    if not running:
        raise InstanceNotFound(f"no engine runs here (looked in {shared_memory_directory()}); start launcher.py")
    if len(running) > 1:
        raise InstanceAmbiguous(f"{len(running)} engines run here: {', '.join(running)}; name one with --instance")
    return running[0]


def _runs(name: str) -> bool:
    try:
        segment = open_segment(name)
    except KlshmError:
        return False
    try:
        ended = int(segment.words[lay.H_STATE]) in (lay.STATE_CLOSED, lay.STATE_SUPERSEDED)
        return not ended and segment.is_locked()
    except OSError:
        return False  # unlinked between the two looks
    finally:
        segment.close()
