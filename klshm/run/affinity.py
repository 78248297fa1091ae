"""Which core a worker is pinned to."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from klshm.errors import ConfigError


__all__ = ["plan", "pin"]

_log = logging.getLogger(__name__)


def plan(setting: str, workers: int, allowed: list[int] | None = None) -> list[int | None]:
    """Return a core per worker, None where a worker is not pinned.

    Args:
        setting: `run.affinity`: "auto", "none" or a list such as "2,3,6".
        workers: Number of workers.
        allowed: Cores that may be used; None: this process's own mask.

    Raises:
        ConfigError: If the list names a core that may not be used.
    """
    cores = sorted(os.sched_getaffinity(0)) if allowed is None else allowed
    if setting == "none":
        return [None] * workers
    if setting == "auto":
        chosen = _one_per_physical_core(cores)
        if len(chosen) < workers:
            chosen = cores
        if len(chosen) <= workers:
            _log.warning(
                "workers share cores workers=%d cores=%d; pinning still keeps each on one, latency suffers",
                *(workers, len(cores)),
            )
        else:
            chosen = chosen[1:]  # leave the first core to everything else
        return [chosen[index % len(chosen)] for index in range(workers)]
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


def _one_per_physical_core(cores: list[int]) -> list[int]:
    seen, chosen = set(), []
    for core in cores:
        topology = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        siblings = topology.read_text().strip() if topology.exists() else str(core)
        if siblings not in seen:
            seen.add(siblings)
            chosen.append(core)
    return chosen
