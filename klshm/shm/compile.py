"""How kernels are compiled, and where compiled code is cached.

Numba's own cache notices a change of the defining file only, not of a function or constant that
the kernel uses from another file: it would silently run old code against a new layout. So the
cache lives in a directory named after the sources of everything that kernels import, and the
versions of the compiler. Its files are pickles: the directory must be ours and private.

With `NUMBA_DISABLE_JIT=1` the same sources run as plain Python; tests use that as a second
opinion.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TypeVar


__all__ = ["COMPILED", "UNCOUNTED", "cache_directory", "kernel", "kernel_sources"]

logger = logging.getLogger(__name__)

_Function = TypeVar("_Function")

_PACKAGE: Final = Path(__file__).resolve().parent.parent


def cache_directory() -> Path | None:
    """Return the private directory for compiled kernels of exactly these sources.

    Returns:
        The first usable of `$KLSHM_CACHE`, the XDG cache and a directory in the working
        directory; None if none can be made private to this user.
    """
    digest = hashlib.sha256()
    for source in kernel_sources():
        digest.update(str(source.relative_to(_PACKAGE)).encode() + b"\0" + source.read_bytes())
    for name in ("numba", "llvmlite", "numpy"):
        digest.update(f"{name}={metadata.version(name)}".encode())
    digest.update(sys.version.encode())
    for place in (os.environ.get("KLSHM_CACHE"), os.environ.get("XDG_CACHE_HOME"), "~/.cache", "data"):
        if place:
            # Not Path.expanduser: it raises where a user has no home, as in some containers.
            directory = Path(os.path.expanduser(place), "klshm", "kernels", digest.hexdigest()[:32])
            if directory.parts[0] != "~" and _is_private(directory):
                return directory
    return None


def kernel_sources() -> list[Path]:
    """Return every source whose change may change compiled code, sorted."""
    packages = (_PACKAGE / name for name in ("shm", "core"))
    return sorted(source for package in packages for source in package.rglob("*.py"))


def _is_private(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o022 == 0 and os.access(directory, os.W_OK)


def _prepare() -> bool:
    """Point numba at the cache before it is imported; say whether there is one."""
    directory = cache_directory()
    if directory is None:
        logger.warning("no private directory for compiled kernels; they are compiled anew at every start")
        return False
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(directory)
    return True


_CACHE: Final = _prepare()

import numba  # noqa: E402 - after the cache directory is set


UNCOUNTED: Final[dict[str, Any]] = {"_nrt": False}
"""Kernels keep no references and make no arrays. Counted, every array passed on costs two atomic additions, and a trade
takes four times as long."""

COMPILED: Final = not getattr(numba.config, "DISABLE_JIT", 0)
"""Whether kernels run as machine code; False under `NUMBA_DISABLE_JIT=1`."""


def kernel(*signatures: Any, **more: Any) -> Any:
    """Return the decorator that compiles a kernel.

    Args:
        signatures: Explicit signatures; without any it is compiled at its first call.
        more: Further options of the compiler.
    """
    options: dict[str, Any] = {"cache": _CACHE, "nogil": True, "error_model": "numpy", **UNCOUNTED, **more}
    if signatures:
        return numba.njit(list(signatures), **options)
    return numba.njit(**options)
