"""Minutes that the exchange itself has no row of: asked for twice, ten minutes apart, then never again."""

from __future__ import annotations

from typing import Final

from klshm.intervals import MINUTE_MS


__all__ = ["AGAIN_MS", "Absent"]

AGAIN_MS: Final = 600_000
"""So long after the first answer without it a minute is asked for once more."""

_NEVER_MS: Final = 1 << 60


class Absent:
    """Remembers what answers lacked; pure."""

    def __init__(self) -> None:
        self._seen_ms: dict[int, dict[int, int]] = {}

    def skip(self, slot: int, from_ms: int, now_ms: int) -> int:
        """Return the first minute from `from_ms` on that may be asked for now.

        Args:
            slot: The symbol's slot.
            from_ms: Open time of the first minute wanted.
            now_ms: Exchange time, UTC ms.
        """
        seen_ms = self._seen_ms.get(slot, {})
        while now_ms < seen_ms.get(from_ms, -AGAIN_MS) + AGAIN_MS:
            from_ms += MINUTE_MS
        return from_ms

    def note(self, slot: int, minutes: list[int], now_ms: int) -> list[int]:
        """Take note of minutes that an answer lacked; return those that it lacked for the second time.

        Args:
            slot: The symbol's slot.
            minutes: Open times.
            now_ms: Exchange time, UTC ms.
        """
        seen_ms = self._seen_ms.setdefault(slot, {})
        given_up = []
        for minute in minutes:
            if minute not in seen_ms:
                seen_ms[minute] = now_ms
            elif now_ms >= seen_ms[minute] + AGAIN_MS:
                seen_ms[minute] = _NEVER_MS
                given_up.append(minute)
        return given_up
