"""SIGINT and SIGTERM while the engine is being set up, when there are no roles to stop in order."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


__all__ = ["EarlyStop", "StoppedEarly"]

_log = logging.getLogger(__name__)


class StoppedEarly(BaseException):
    """The signal that ended the start; no error, and not to be caught by code that catches errors."""


class EarlyStop:
    """Ends the start at the first signal by raising StoppedEarly, at the second one at once.

    Attributes:
        abandon: Called before the process ends at once.
    """

    def __init__(self) -> None:
        self.abandon: Callable[[], None] = lambda: None
        self._asked = 0
        self._deferred = False

    def install(self) -> None:
        """Take the two signals until someone else does."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], None]]:
        """Do not raise inside, but where the function that is handed over is called, and at the end.

        For code that cannot be left anywhere: the compiler swallows or disguises what is raised in it.
        """
        self._deferred = True
        try:
            yield self._check
        finally:
            self._deferred = False
        self._check()

    def _check(self) -> None:
        if self._asked:
            raise StoppedEarly

    def _on_signal(self, number: int, frame: Any) -> None:
        if self._asked:
            self.abandon()
            os._exit(1)
        self._asked = number
        _log.info("stopping before the engine was up signal=%s", signal.Signals(number).name)
        if not self._deferred:
            raise StoppedEarly
