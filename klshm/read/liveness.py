"""Whether the engine behind a mapped segment still lives.

A mapped segment outlives its engine, so a reader has to look: at the state in the header, at
the file that carries the name now, and at the life lines of the launcher and of the worker
whose rows it reads.
"""

from __future__ import annotations

import os
import time
from typing import Final

from klshm.errors import EngineGone, StaleData
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["Liveness"]

_EVERY_NS: Final = 250_000_000
_ENDED: Final = {
    lay.STATE_CLOSED: "stopped",
    lay.STATE_SUPERSEDED: "was replaced by a new one",
}


class Liveness:
    """Judges the engine of one segment; a look costs a clock read, a full one every 250 ms.

    Args:
        segment: The mapped segment.
        stale_after_s: Age of a life line from which data counts as stale, seconds.
        gone_after_s: Age of a life line from which the engine counts as gone, seconds.
    """

    def __init__(self, segment: Segment, stale_after_s: float, gone_after_s: float) -> None:
        self._segment = segment
        self._stale_ns = int(stale_after_s * 1e9)
        self._gone_ns = int(gone_after_s * 1e9)
        layout = segment.layout
        offsets = [layout.launcher_offset, *(layout.partition_offset(worker) for worker in range(layout.workers))]
        self._beats = [offset // 8 + lay.B_HEARTBEAT_NS for offset in offsets]
        self._good_until_ns = [0] * layout.workers

    def check(self, worker: int) -> None:
        """Return if the engine and this worker live.

        Raises:
            EngineGone: If it stopped, died or was replaced.
            StaleData: If the launcher or the worker has been silent too long.
        """
        now_ns = time.monotonic_ns()
        if now_ns < self._good_until_ns[worker]:
            return
        self.check_engine()
        self._check_beat("launcher", self._beats[0], now_ns)
        self._check_beat(f"worker {worker}", self._beats[1 + worker], now_ns)
        self._good_until_ns[worker] = now_ns + _EVERY_NS

    def check_engine(self) -> None:
        """Return if the segment is the one that serves under its name.

        Raises:
            EngineGone: If its engine stopped or was replaced.
        """
        path = self._segment.path
        state = int(self._segment.words[lay.H_STATE])
        if state in _ENDED:
            raise EngineGone(f"the engine of {path} {_ENDED[state]}; attach again once it runs")
        try:
            inode = os.stat(path).st_ino
        except FileNotFoundError:
            raise EngineGone(f"{path} was removed; attach again once the engine runs") from None
        if inode != self._segment.inode:
            raise EngineGone(f"{path} belongs to a new engine; attach again")

    def _check_beat(self, who: str, word: int, now_ns: int) -> None:
        beat_ns = int(self._segment.words[word])
        age_ns = now_ns - beat_ns
        if beat_ns == 0 or age_ns <= self._stale_ns:
            return  # 0: not started yet
        path = self._segment.path
        if not self._segment.is_locked():
            raise EngineGone(f"the engine of {path} died {age_ns / 1e9:.1f} s ago; attach again once it runs")
        found = f"the {who} of {path} last showed life {age_ns / 1e9:.1f} s ago"
        if age_ns > self._gone_ns:
            raise EngineGone(f"{found}, more than {self._gone_ns / 1e9:g} s; see the engine's log")
        raise StaleData(f"{found}, more than {self._stale_ns / 1e9:g} s; see the engine's log")
