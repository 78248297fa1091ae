"""Whether the engine can run here: system, processor, Python, packages."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import Final

from klshm.errors import UnsupportedPlatform


__all__ = ["check_machine", "check_packages"]

_MACHINES: Final = ("x86_64", "AMD64")
_PACKAGES: Final = (
    *("numba", "picows", "uvloop", "aiohttp", "aiohttp_socks", "python_socks"),
    *("msgspec", "orjson", "lmdb"),
)


def check_machine(system: str, machine: str) -> None:
    """Return if the engine can run here.

    Args:
        system: `sys.platform`.
        machine: `platform.machine()`.

    Raises:
        UnsupportedPlatform: If this is not Linux, or not a machine the engine was tested on.
    """
    if not system.startswith("linux"):
        raise UnsupportedPlatform(f"klshm needs Linux (futex, pidfd, /dev/shm), this is {system}; run it on Linux")
    if machine not in _MACHINES:
        # Historian, persister and commands read with NumPy, which knows no fences.
        raise UnsupportedPlatform(f"klshm needs the memory order of x86_64, this is {machine}; run it on x86_64")


def check_packages(names: Iterable[str] = _PACKAGES) -> None:
    """Return if all packages are installed; loads none of them.

    Args:
        names: Packages to look for.

    Raises:
        UnsupportedPlatform: If some are missing; names them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedPlatform(
            f"not installed for {sys.executable}: {', '.join(missing)}; run: pip install -r requirements.txt"
        )
