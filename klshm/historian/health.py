"""Whether the exchange answers, said once when it changes and now and then while it stays bad."""

from __future__ import annotations

import logging
import time
from typing import Final

from klshm.errors import ExchangeError
from klshm.role import Role
from klshm.shm.counters import HISTORIAN, Counters


__all__ = ["Health"]

_log = logging.getLogger(__name__)

_REPEAT_S: Final = 60.0
_FLAP_S: Final = 10.0
"""What fails now and then, or in another way than before, is said so often at most."""


class Health:
    """Follows the outcome of requests.

    Args:
        role: Where the last error is left to be read.

    Attributes:
        counters: The historian's counters.
    """

    def __init__(self, role: Role) -> None:
        self.counters = Counters(role.block, HISTORIAN)
        self._role = role
        self._reachable: bool | None = None
        self._said: object = None
        self._said_s = -_REPEAT_S
        self._lost_s = 0.0

    @property
    def reachable(self) -> bool | None:
        """Whether the last request was answered; None before the first outcome."""
        return self._reachable

    def answered(self) -> None:
        """Take note of an answer."""
        if self._said is not None:
            _log.info("exchange answers again after_s=%.0f", time.monotonic() - self._lost_s)
            self._said = None
        self._reachable = True
        self.counters.set("exchange_reachable", 1)

    def refused(self, rows: int) -> None:
        """Count rows that could not be believed."""
        self.counters.add("rows_refused_total", rows)

    def failed(self, what: str, error: ExchangeError) -> None:
        """Take note of a failure: one line at the first, then one a minute, or one when it fails in another way.

        Args:
            what: What was being done, such as "listings".
            error: Why it failed.
        """
        now_s = time.monotonic()
        if self._reachable is not False:
            self._lost_s = now_s
        kind = type(error), getattr(error, "status", 0)
        if now_s - self._said_s >= (_REPEAT_S if kind == self._said else _FLAP_S):
            self._said, self._said_s = kind, now_s
            _log.warning("%s failed, trying again: %s", what, error)
            self._role.report_error(f"{what}: {error}")
        self._reachable = False
        self.counters.set("exchange_reachable", 0)

    def silent(self, seconds: float, host: str) -> None:
        """Say that no answer at all has come so far, unless something was said already."""
        if self._reachable is None:
            self._said, self._said_s = "silence", time.monotonic()
            self._lost_s = self._said_s
            self._reachable = False
            text = (
                f"no answer from {host} within {seconds:.0f} s; check the network, set exchange.proxy, "
                "or try --demo, which needs no network"
            )
            _log.warning("exchange unreachable, trying again: %s", text)
            self._role.report_error(text)
