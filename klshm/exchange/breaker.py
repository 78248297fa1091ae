"""Whether the exchange answers: while it does not, one request at a time goes, after a growing pause; pure.

Many ask at once, and each tries again in its own time. Together they would hammer at an exchange
that answers nobody, or keep up the very block that a firewall has raised against this address.
So the first failure holds all of them back; then one goes and its outcome decides for all:

    works    --failure-->  pause  --its end-->  one goes  --answer-->  works
                             ^                     |
                             +------failure--------+
"""

from __future__ import annotations

from typing import Final


__all__ = ["Breaker"]

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 5.0


class Breaker:
    """Holds requests back while the exchange does not answer.

    A request belongs to an era; a failure ends it. So what was under way when the first one
    failed, and fails too, says nothing new.

    Args:
        first_s: First pause, seconds; it doubles with each failure.
        longest_s: Longest pause, seconds.
    """

    def __init__(self, first_s: float = _FIRST_S, longest_s: float = _LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._era = 0
        self._pause_s = 0.0
        self._until_s = 0.0
        self._one_is_away = False

    @property
    def is_open(self) -> bool:
        """Whether the last that was heard of the exchange is a failure."""
        return self._pause_s > 0.0

    def wait_s(self, now_s: float) -> float | None:
        """Return how long a request must wait, 0 if it may go now, None if one that is away decides.

        Args:
            now_s: Seconds of a clock that is never set.
        """
        if not self.is_open:
            return 0.0
        return None if self._one_is_away else max(0.0, self._until_s - now_s)

    def began(self) -> int:
        """Take note that a request goes, and return its era."""
        self._one_is_away = self.is_open
        return self._era

    # How it ended

    def answered(self) -> None:
        """The exchange answered, whatever it said."""
        self._pause_s = 0.0
        self._one_is_away = False

    def failed(self, era: int, now_s: float) -> None:
        """No answer came, or one that no request of any kind would have got through.

        Args:
            era: The request's.
            now_s: As for `wait_s`.
        """
        if era == self._era:
            self._era += 1
            self._pause_s = min(2 * self._pause_s or self._first_s, self._longest_s)
            self._until_s = now_s + self._pause_s
            self._one_is_away = False

    def left(self, era: int) -> None:
        """Whoever asked has gone; nothing is known."""
        if era == self._era:
            self._one_is_away = False
