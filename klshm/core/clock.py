"""When a minute ends, settles and is due on the exchange's clock; pure arithmetic, time passed in."""

from __future__ import annotations

from dataclasses import dataclass

from klshm.intervals import MINUTE_MS


__all__ = ["MinuteClock"]


@dataclass
class MinuteClock:
    """Says which moments of the exchange's time have come, each once, in order.

    Attributes:
        settle_ms: ms after the close, plus lag, until a minute settles.
        ticked_ms: The newest minute end that was ticked, UTC ms; 0: none yet.
        settled_ms: The newest minute end that was settled, UTC ms; 0: none yet.
    """

    settle_ms: int
    ticked_ms: int = 0
    settled_ms: int = 0

    def next_due_ms(self, error_ms: float, lag_ms: float) -> float:
        """Return the exchange time of the next moment: a tick or a settle, whichever is first.

        Args:
            error_ms: Bound of the clock's error, ms.
            lag_ms: How far the streams run behind the exchange, ms.
        """
        if not self.ticked_ms:
            return 0
        tick = self.ticked_ms + MINUTE_MS + error_ms
        if self.settled_ms >= self.ticked_ms:
            return tick
        return min(tick, self.ticked_ms + self.settle_ms + lag_ms)

    def tick(self, now_ms: float, error_ms: float) -> bool:
        """Return whether a tick is due now; it counts as done.

        Args:
            now_ms: The exchange's time, UTC ms.
            error_ms: Bound of its error, ms.
        """
        end = int(now_ms - error_ms) // MINUTE_MS * MINUTE_MS
        if end <= self.ticked_ms:
            return False
        self.ticked_ms = end
        return True

    def settle(self, now_ms: float, lag_ms: float) -> int:
        """Return the minute end that settles now, 0 if none does; it counts as done.

        Args:
            now_ms: The exchange's time, UTC ms.
            lag_ms: How far the streams run behind the exchange, ms.
        """
        end = int(now_ms - self.settle_ms - lag_ms) // MINUTE_MS * MINUTE_MS
        end = min(end, self.ticked_ms)
        if end <= self.settled_ms:
            return 0
        self.settled_ms = end
        return end
