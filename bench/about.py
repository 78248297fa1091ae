"""Where figures come from: machine, versions, commit, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from bench.peers.compare import PEERS


__all__ = ["about", "peer_versions"]

_ROOT: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("numpy", "numba", "picows", "uvloop", "msgspec", "lmdb", "aiohttp", "orjson")


def about(module: str = "bench") -> dict[str, Any]:
    """Return what belongs to every result.

    Args:
        module: What was started.
    """
    return {
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "linux": platform.release(),
            "load_average_1m": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "peers": peer_versions(),
        "commit": _commit(),
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peer_versions() -> dict[str, str]:
    """Return the version of every peer, or that it is not installed."""
    found = {}
    for peer in PEERS:
        if peer.interpreter is None:
            found[peer.package] = "not installed"
            continue
        code = f"from importlib.metadata import version; print(version({peer.package!r}))"
        done = subprocess.run([str(peer.interpreter), "-c", code], capture_output=True, text=True)
        found[peer.package] = done.stdout.strip() or "not installed"
    return found


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT)
    return done.stdout.strip() or "unknown"
