"""How long to wait before trying again: exponential, with jitter, bounded."""

from __future__ import annotations

import random


__all__ = ["Backoff"]


class Backoff:
    """Pauses that double from `first_s` to `max_s`, each shortened at random by up to half.

    The jitter keeps many connections that broke together from coming back together.

    Args:
        first_s: Longest first pause, seconds.
        max_s: Longest pause, seconds.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = min(first_s, max_s)
        self._max_s = max_s
        self._ceiling_s = self._first_s

    def next_s(self) -> float:
        """Return the next pause, seconds."""
        ceiling_s = self._ceiling_s
        self._ceiling_s = min(2 * ceiling_s, self._max_s)
        return ceiling_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the first pause: the last attempt was a success."""
        self._ceiling_s = self._first_s
