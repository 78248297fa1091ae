"""Loading the compiled kernels once, before any role is forked."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
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


def load_kernels(between: Callable[[], None] = lambda: None) -> float:
    """Load all kernels, compiling those that are not cached yet.

    Progress is logged only where something has to be compiled: that happens once per version.

    Args:
        between: Called between two kernels; may raise to give up.

    Returns:
        Seconds it took.
    """
    began_s = time.monotonic()
    told = False
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
