"""How far backfill is: counted, told now and then, and summed up at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from klshm.shm.counters import Counters


__all__ = ["Tally"]

_log = logging.getLogger(__name__)

_PROGRESS_S: Final = 15.0
_NAMED: Final = 10


class Tally:
    """Counts tasks and rows from the time when there is something to do until there is nothing.

    Args:
        counters: The historian's.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._open = 0
        self._begin()

    def _begin(self) -> None:
        self._began_s = time.monotonic()
        self._done = self._fetched = self._known = 0
        self._failed: list[str] = []

    @property
    def open(self) -> int:
        """Tasks that are neither done nor given up."""
        return self._open

    def opened(self) -> None:
        """Count a task."""
        if self._open == 0:
            self._begin()
        self._open += 1
        self._counters.add("backfill_tasks")

    def closed(self, name: str, *, failed: bool) -> None:
        """Count a task that is done or given up.

        Args:
            name: Whose task it was.
            failed: Whether it was given up.
        """
        self._open -= 1
        self._done += not failed
        if failed:
            self._failed.append(name)
        self._counters.add("backfill_failed" if failed else "backfill_done")
        if self._open == 0:
            self._sum_up()

    def fetched(self, rows: int) -> None:
        """Count rows that the exchange sent."""
        self._fetched += rows
        self._counters.add("backfill_rows_total", rows)

    def known(self, rows: int) -> None:
        """Count rows that the archive held."""
        self._known += rows

    async def report(self) -> None:
        """Say now and then how far it is and how long it may take; the request weight sets the pace."""
        while True:
            await asyncio.sleep(_PROGRESS_S)
            ended = self._done + len(self._failed)
            if self._open and ended:
                eta_s = (time.monotonic() - self._began_s) / ended * self._open
                _log.info(
                    "backfill under way tasks=%d of=%d rows=%d eta_s=%.0f",
                    ended,
                    ended + self._open,
                    self._fetched,
                    eta_s,
                )

    def _sum_up(self) -> None:
        _log.info(
            "backfill finished tasks=%d failed=%d rows=%d archived_rows=%d duration_s=%.0f",
            self._done + len(self._failed),
            len(self._failed),
            self._fetched,
            self._known,
            time.monotonic() - self._began_s,
        )
        if self._failed:
            named = ", ".join(sorted(set(self._failed))[:_NAMED])
            _log.warning("backfill given up for %s%s", named, ", ..." if len(set(self._failed)) > _NAMED else "")
