"""Loading the compiled kernels once, before any role is forked."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from klshm.core.kernel import MODULES


__all__ = ["load_kernels"]

_log = logging.getLogger(__name__)

_MODULES: Final = (
    "klshm.shm.exact",
    "klshm.shm.ring",
    "klshm.shm.halves",
    *(f"klshm.core.kernel.{name}" for name in MODULES),
    "klshm.core.engine",
)
_SLOW_S: Final = 4.0
_LOOK_S: Final = 0.1


def load_kernels(between: Callable[[], None] = lambda: None) -> float:
    """Load all kernels, compiling those that are not cached yet.

    Progress is logged only where something has to be compiled: that happens once per version.
    Processes that start at the same time take turns, so that one compiles and the others find it done.

    Args:
        between: Called between two kernels; may raise to give up.

    Returns:
        Seconds it took.
    """
    began_s = time.monotonic()
    told = False
    with _turn(between):
        for number, name in enumerate(_MODULES, 1):
            between()
            importlib.import_module(name)
            elapsed_s = time.monotonic() - began_s
            if elapsed_s > _SLOW_S:
                if not told:
                    _log.info("compiling kernels; this happens once per version and takes about half a minute")
                    told = True
                _log.info("compiling kernels done=%d of=%d elapsed_s=%.0f", number, len(_MODULES), elapsed_s)
    return time.monotonic() - began_s


@contextmanager
def _turn(between: Callable[[], None]) -> Iterator[None]:
    """Wait until no other process compiles the same kernels."""
    from klshm.shm.compile import cache_directory

    directory = cache_directory()
    if directory is None:
        yield
        return
    descriptor = os.open(directory / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(descriptor):
            between()
            time.sleep(_LOOK_S)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
