"""Which core a worker is pinned to."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from klshm.errors import ConfigError


__all__ = ["isolated_cores", "pin", "plan", "usable_cores"]

_CPU: Final = Path("/sys/devices/system/cpu")

_log = logging.getLogger(__name__)


def usable_cores() -> list[int]:
    """Return the cores that workers may be pinned to: this process's own, and isolated ones beside them.

    Isolated cores (`isolcpus=`) are in nobody's mask; a process has to ask for them. Only one
    that may run on all other cores does: a narrower mask is somebody's will.
    """
    own = os.sched_getaffinity(0)
    isolated, online = _listed("isolated"), _listed("online")
    if isolated and own | isolated >= online:
        own |= {core for core in isolated - own if _may_run_on(core)}
    return sorted(own)


def isolated_cores(cores: list[int]) -> list[int]:
    """Return those of some cores that are kept from the scheduler."""
    isolated = _listed("isolated")
    return [core for core in cores if core in isolated]


def plan(setting: str, workers: int, allowed: list[int] | None = None) -> list[int | None]:
    """Return a core per worker, None where a worker is not pinned.

    Args:
        setting: `run.affinity`: "auto", "none" or a list such as "2,3,6".
        workers: Number of workers.
        allowed: Cores that may be used; None: `usable_cores`.

    Raises:
        ConfigError: If the list names a core that may not be used.
    """
    if setting == "none":
        return [None] * workers
    cores = usable_cores() if allowed is None else allowed
    if setting == "auto":
        return [*_auto(cores, workers)]
    named = [int(part) for part in setting.split(",")]
    wrong = [core for core in named if core not in cores]
    if wrong:
        raise ConfigError(
            f"run.affinity names core {wrong[0]}, this process may use {','.join(map(str, cores))}; name some of these"
        )
    return [named[index % len(named)] for index in range(workers)]


def pin(core: int | None) -> bool:
    """Pin this process to a core.

    Returns:
        Whether it is pinned; a refusal is logged.
    """
    if core is None:
        return False
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        _log.warning("not pinned core=%d reason=%s", core, error.strerror)
        return False
    return True


def _auto(cores: list[int], workers: int) -> list[int]:
    """Isolated cores first, where others are left for everything else."""
    isolated = isolated_cores(cores)
    others = [core for core in cores if core not in isolated]
    if not isolated or not others:
        return _shared(cores, workers)
    quiet = _one_per_physical_core(isolated)
    if len(quiet) < workers:
        quiet = isolated
    return quiet[:workers] + _shared(others, max(0, workers - len(quiet)))


def _shared(cores: list[int], workers: int) -> list[int]:
    chosen = _one_per_physical_core(cores)
    if len(chosen) < workers:
        chosen = cores
    if len(chosen) > workers:
        chosen = chosen[1:]  # leave the first core to everything else
    elif workers:
        _log.warning(
            "workers share cores workers=%d cores=%d; pinning still keeps each on one, latency suffers",
            *(workers, len(cores)),
        )
    return [chosen[index % len(chosen)] for index in range(workers)]


def _one_per_physical_core(cores: list[int]) -> list[int]:
    seen, chosen = set(), []
    for core in cores:
        topology = _CPU / f"cpu{core}" / "topology" / "thread_siblings_list"
        siblings = topology.read_text().strip() if topology.exists() else str(core)
        if siblings not in seen:
            seen.add(siblings)
            chosen.append(core)
    return chosen


def _listed(name: str) -> set[int]:
    """Return the cores of one of the kernel's lists, such as "2-3,6"; none where it has no such list."""
    file = _CPU / name
    text = file.read_text().strip() if file.exists() else ""
    bounds = [part.split("-") for part in text.split(",") if part]
    return {core for bound in bounds for core in range(int(bound[0]), int(bound[-1]) + 1)}


def _may_run_on(core: int) -> bool:
    """Return whether the machine lets this process run on a core; a cpuset may forbid it."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        return False
    os.sched_setaffinity(0, before)
    return True
