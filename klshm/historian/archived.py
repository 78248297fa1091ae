"""Confirmed bars that the archive holds from earlier runs: nobody need ask the exchange for them again."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.errors import ArchiveError
from klshm.historian.symbols import Entry
from klshm.shm.layout import KLINE
from klshm.store.archive_reader import ArchiveReader, has_archive


__all__ = ["Archived"]

Rows = np.ndarray[Any, Any]

_log = logging.getLogger(__name__)

_AGAIN_S: Final = 60.0
_NOTHING = np.empty(0, dtype=KLINE)


class Archived:
    """Reads the archive in a thread of its own, so that a slow disk delays no request.

    An archive that is not there yet holds nothing; one that cannot be read is tried again a minute later.

    Args:
        path: The SQLite file; None: what it holds is not to be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "archive")
        self._reader: ArchiveReader | None = None
        self._again_s = 0.0

    async def confirmed(self, entry: Entry, interval: str, first_ms: int, last_ms: int, now_ms: int) -> Rows:
        """Return the confirmed bars of a range, oldest first.

        Args:
            entry: The symbol; bars of an earlier listing of the same name are left out.
            interval: Such as "1m".
            first_ms: Open time of the first row wanted.
            last_ms: Open time of the last row wanted.
            now_ms: Exchange time, UTC ms; it becomes their `event_time`: so old is what they say.

        Returns:
            Shape (n,), dtype KLINE.
        """
        first_ms = max(first_ms, entry.onboard_ms - intervals.length_ms(interval) + 1)
        rows: Rows = await self._ask(_NOTHING, "read_confirmed", entry.name, interval, first_ms, last_ms)
        rows["slot"] = entry.slot
        rows["event_time"] = now_ms
        return rows

    async def whole_until_ms(self, entry: Entry, interval: str, since_ms: int) -> int | None:
        """Return up to which confirmed bar a series has no break.

        Args:
            entry: The symbol.
            interval: Such as "1m".
            since_ms: Where to begin to look, UTC ms.

        Returns:
            Its open time, UTC ms; None if there is no bar since then.
        """
        first_ms = max(since_ms, entry.onboard_ms - intervals.length_ms(interval) + 1)
        found: int | None = await self._ask(None, "whole_until_ms", entry.name, interval, first_ms)
        return found

    def close(self) -> None:
        """End the thread."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def _ask(self, nothing: Any, question: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._answer, nothing, question, arguments)

    # In the thread

    def _answer(self, nothing: Any, question: str, arguments: tuple[Any, ...]) -> Any:
        try:
            if self._reader is None and time.monotonic() >= self._again_s:
                self._open()
            if self._reader is not None:
                return getattr(self._reader, question)(*arguments)
        except ArchiveError as error:
            _log.warning("archive not used for a minute, the exchange is asked instead: %s", error)
            self._again_s = time.monotonic() + _AGAIN_S
            self._close()
        return nothing

    def _open(self) -> None:
        if self._path is not None and has_archive(self._path):
            self._reader = ArchiveReader(self._path)
        else:
            self._again_s = math.inf  # what is written from now on, this run has fetched

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
