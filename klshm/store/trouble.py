"""What the persister does about disks that fail: count, alarm, say so once, try again later."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Final

import lmdb

from klshm.errors import KlshmError
from klshm.role import Role
from klshm.shm.counters import Counters


__all__ = ["DISK_ERRORS", "Step"]

log = logging.getLogger(__name__)

DISK_ERRORS: Final = (KlshmError, OSError, sqlite3.Error, lmdb.Error)

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 30.0


class Step:
    """One kind of work that may fail and is then repeated, ever less often.

    Args:
        name: For logs.
        alarm: Its bit of the `alarm` counter.
        role: Where errors are reported.
        counters: The persister's.
        reset: Called after a failure, before the next attempt: drop what may be broken.
    """

    def __init__(self, name: str, alarm: int, role: Role, counters: Counters, reset: Callable[[], None]) -> None:
        self.name = name
        self.failures = 0
        self._alarm = alarm
        self._role = role
        self._counters = counters
        self._reset = reset
        self._next_try_s = 0.0

    def attempt(self, work: Callable[[], int]) -> bool:
        """Do the work unless its next attempt is still to come.

        Args:
            work: Returns how much it stored. Only that proves that the disk works again: a full one
                can still be opened, and having nothing to store never fails.

        Returns:
            Whether it was done.
        """
        if time.monotonic() < self._next_try_s:
            return False
        try:
            stored = work()
        except DISK_ERRORS as error:
            self.fail(error)
            return False
        if stored and self.failures:
            log.info("%s works again failures=%d", self.name, self.failures)
            self.failures = 0
            self._counters.set("alarm", self._counters.get("alarm") & ~self._alarm)
        return True

    def fail(self, error: Exception) -> None:
        """Count a failure and put the next attempt off, twice as long as the last time."""
        delay_s = min(_FIRST_DELAY_S * 2**self.failures, _LONGEST_DELAY_S)
        self._next_try_s = time.monotonic() + delay_s
        self.failures += 1
        self._counters.add("failures_total")
        self._counters.set("alarm", self._counters.get("alarm") | self._alarm)
        self._role.report_error(str(error))
        log.error("%s failed failures=%d retry_s=%.2f error=%s", self.name, self.failures, delay_s, error)
        self._reset()
