"""Loading the compiled kernels once, before any role is forked."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from klshm.core.kernel import WAVES
from klshm.run.child import die_with


__all__ = ["load_kernels"]

_log = logging.getLogger(__name__)


def _kernel_modules(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"klshm.core.kernel.{name}" for name in names)


_WAVES: Final = (
    (("klshm.shm.exact", "klshm.shm.ring", "klshm.shm.halves"), ()),
    *((_kernel_modules(here), _kernel_modules(beside)) for here, beside in WAVES),
    (("klshm.core.engine",), ()),
)
_NUMBER: Final = sum(len(here) + len(beside) for here, beside in _WAVES)
_COLD_S: Final = 2.0
"""Whoever has needed so long for the first modules does not find them in the cache."""
_SLOW_S: Final = 4.0
_LOOK_S: Final = 0.1


def load_kernels(between: Callable[[], None] = lambda: None) -> float:
    """Load all kernels, compiling those that are not cached yet.

    Progress is logged only where something has to be compiled: that happens once per version, and a
    second process helps. Engines that start at the same time take turns, so that one compiles and the
    others find it done.

    Args:
        between: Called between two kernels; may raise to give up.

    Returns:
        Seconds it took.
    """
    began_s = time.monotonic()
    with _turn(between) as cached:
        progress = _Progress()

        def load(names: tuple[str, ...]) -> None:
            for name in names:
                between()
                importlib.import_module(name)
                progress.tell()

        for here, beside in _WAVES:
            is_cold = cached and progress.elapsed_s > _COLD_S
            with _compiled_beside(beside if is_cold else ()):
                load(here)
            load(beside)
    return time.monotonic() - began_s


class _Progress:
    """Says how far the compiler is, once it takes long."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._done = 0
        self._told = False

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def tell(self) -> None:
        self._done += 1
        if self.elapsed_s <= _SLOW_S:
            return
        if not self._told:
            _log.info("compiling kernels; this happens once per version and takes about half a minute")
            self._told = True
        _log.info("compiling kernels done=%d of=%d elapsed_s=%.0f", self._done, _NUMBER, self.elapsed_s)


@contextmanager
def _compiled_beside(names: tuple[str, ...]) -> Iterator[None]:
    """Let a second process compile modules into the cache; what it cannot do is compiled here."""
    if not names:
        yield
        return
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to judge
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with(parent)
            for name in names:
                importlib.import_module(name)
        finally:
            os._exit(0)
    try:
        yield
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)


@contextmanager
def _turn(between: Callable[[], None]) -> Iterator[bool]:
    """Wait until no other process compiles the same kernels; say whether there is a cache at all."""
    from klshm.shm.compile import cache_directory

    directory = cache_directory()
    if directory is None:
        yield False
        return
    descriptor = os.open(directory / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(descriptor):
            between()
            time.sleep(_LOOK_S)
        yield True
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
