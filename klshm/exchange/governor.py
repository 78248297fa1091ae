"""How much request weight this address may still use, and when the next request may go.

Pure: the exchange's time is passed in, nothing is sent. The exchange counts weight per address
and UTC clock minute (not a sliding window), and says in `X-MBX-USED-WEIGHT-1M` what it has
counted, which includes what others behind the same address use. The larger of that and our own
count is taken. Backfill may use a smaller share than the rest, so that a repair always finds room.

    0            backfill share                weight share    limit
    |------------------|----------------------------|-----------|
      backfill, and all     repair, confirmation,      never
      the others            listings
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final


__all__ = [
    "AGG_TRADES_WEIGHT",
    "ALL_TICKERS_WEIGHT",
    "Governor",
    "GovernorState",
    "Priority",
    "klines_weight",
]

AGG_TRADES_WEIGHT: Final = 20
ALL_TICKERS_WEIGHT: Final = 40

_MINUTE_MS: Final = 60_000
_MARGIN_MS: Final = 200
"""A new minute counts as begun so much later than our estimate of the exchange's clock says."""

_LEAST_BAN_MS: Final = 120_000
_LONGEST_MS: Final = 3 * 86_400_000 + 3_600_000
"""The longest ban, three days, and an hour for clocks: whatever is said to last longer is a mistake."""
_KEPT_MINUTES: Final = 120


class Priority(IntEnum):
    """Who goes first when weight is short."""

    REPAIR = 0
    CONFIRM = 1
    LISTINGS = 2
    BACKFILL = 3


def klines_weight(limit: int) -> int:
    """Return the request weight of `limit` kline rows; most rows per weight: 499."""
    if limit < 100:
        return 1
    if limit < 500:
        return 2
    return 5 if limit <= 1000 else 10


@dataclass
class GovernorState:
    """What must survive a restart.

    Attributes:
        used: Request weight by UTC minute, counted from the epoch.
        blocked_until_ms: No request before that (HTTP 429), UTC ms.
        banned_until_ms: No request before that (HTTP 418), UTC ms.
    """

    used: dict[int, int] = field(default_factory=dict)
    blocked_until_ms: int = 0
    banned_until_ms: int = 0

    def merge(self, other: GovernorState, minute: int) -> None:
        """Take over what another process of the same address knows and this one does not.

        Every minute is kept apart: a process whose clock is wrong counts in another one, and must not make
        this one forget what was used in its own.

        Args:
            other: What it knows.
            minute: The UTC minute now; those far from it are forgotten.
        """
        minutes = {*self.used, *other.used}
        self.used = {
            each: max(self.used.get(each, 0), other.used.get(each, 0))
            for each in sorted(minutes)
            if abs(each - minute) <= _KEPT_MINUTES
        }
        self.blocked_until_ms = max(self.blocked_until_ms, other.blocked_until_ms)
        self.banned_until_ms = max(self.banned_until_ms, other.banned_until_ms)


class Governor:
    """The budget of one address.

    Args:
        weight_share: Share of the limit that may be used at all.
        backfill_weight_share: Share of the limit up to which backfill may use it.
        state: What an earlier process left.

    Attributes:
        limit: Weight per minute that the exchange grants; `exchangeInfo` says it.
        state: What must survive a restart.
    """

    def __init__(
        self, weight_share: float = 0.9, backfill_weight_share: float = 0.6, state: GovernorState | None = None
    ) -> None:
        self.limit = 2400
        self.state = state or GovernorState()
        self._share = weight_share
        self._backfill_share = min(backfill_weight_share, weight_share)

    # Asked before a request

    def wait_ms(self, now_ms: int, weight: int, priority: Priority) -> int:
        """Return how long a request must wait before it may be tried again, 0 if it may go now.

        Args:
            now_ms: Exchange time, UTC ms.
            weight: Request weight.
            priority: What it is for.
        """
        closed_until_ms = max(self.state.blocked_until_ms, self.state.banned_until_ms)
        if now_ms < closed_until_ms:
            return closed_until_ms - now_ms
        share = self._backfill_share if priority is Priority.BACKFILL else self._share
        # A request heavier than the whole share may still go when nothing else was used.
        used = self.used(now_ms)
        if used == 0 or used + weight <= int(self.limit * share):
            return 0
        return self._next_minute_ms(now_ms) - now_ms

    def used(self, now_ms: int) -> int:
        """Return the weight used in the current minute."""
        return self.state.used.get(self.minute(now_ms), 0)

    def banned_until_ms(self, now_ms: int) -> int:
        """Return the end of a ban, UTC ms, or 0 if there is none."""
        return self.state.banned_until_ms if self.state.banned_until_ms > now_ms else 0

    # Told about requests and answers

    def sent(self, now_ms: int, weight: int) -> None:
        """Count a request that goes out now; refused ones cost as much as answered ones."""
        minute = self.minute(now_ms)
        self.state.used[minute] = self.state.used.get(minute, 0) + weight

    def answered(self, sent_ms: int, now_ms: int, used: int) -> None:
        """Take the exchange's own count from an answer's header.

        Args:
            sent_ms: Exchange time when the request went out, UTC ms.
            now_ms: Exchange time now, UTC ms.
            used: `X-MBX-USED-WEIGHT-1M`.
        """
        # Over a minute's end nobody can tell which minute the header counts.
        minute = self.minute(now_ms)
        if self.minute(sent_ms) == minute:
            self.state.used[minute] = max(self.state.used.get(minute, 0), used)

    def limited(self, now_ms: int, retry_after_s: float | None) -> float:
        """Take an HTTP 429: nothing goes out before `Retry-After`, or else the next minute.

        Returns:
            Seconds until then.
        """
        if retry_after_s is not None:
            until_ms = now_ms + int(retry_after_s * 1000)
        else:
            until_ms = self._next_minute_ms(now_ms)
        self.state.blocked_until_ms = max(self.state.blocked_until_ms, min(until_ms, now_ms + _LONGEST_MS))
        return (self.state.blocked_until_ms - now_ms) / 1000

    def banned(self, now_ms: int, until_ms: int | None, retry_after_s: float | None) -> int:
        """Take an HTTP 418: nothing goes out before the end of the ban.

        Args:
            now_ms: Exchange time, UTC ms.
            until_ms: "banned until" of the message, if it has one; one of the past says that the clocks disagree.
            retry_after_s: `Retry-After`, if there is one; without both, two minutes.

        Returns:
            End of the ban, UTC ms.
        """
        if until_ms is None or until_ms <= now_ms:
            until_ms = now_ms + max(_LEAST_BAN_MS, int((retry_after_s or 0) * 1000))
        self.state.banned_until_ms = max(self.state.banned_until_ms, min(until_ms, now_ms + _LONGEST_MS))
        return self.state.banned_until_ms

    @staticmethod
    def minute(now_ms: int) -> int:
        """Return the number of the UTC minute that a request sent now counts in."""
        return (now_ms - _MARGIN_MS) // _MINUTE_MS

    def _next_minute_ms(self, now_ms: int) -> int:
        return (self.minute(now_ms) + 1) * _MINUTE_MS + _MARGIN_MS
