"""The exchange's request weights: a budget per address and clock minute, 429 above it, a growing ban after that."""

from __future__ import annotations

from dataclasses import dataclass

from .intervals import MINUTE_MS


__all__ = ["LIMIT", "PATIENCE", "Verdict", "WeightLedger", "kline_weight"]

LIMIT = 2_400
#: How many 429 may be ignored before the ban.
PATIENCE = 10
_FIRST_BAN_MS = 120_000
_LONGEST_BAN_MS = 3 * 86_400_000


def kline_weight(limit: int | None, *, measured: bool = False) -> int:
    """Return the weight of a klines request.

    Args:
        limit: as asked for; None if it was left out.
        measured: bands as measured on the live exchange, which are kinder at 100 and 500 rows than the documented.
    """
    if limit is None:
        return 5
    for most, weight in ((100, 1), (500, 2)):
        if limit < most or (measured and limit == most):
            return weight
    return 5 if limit <= 1000 else 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer of the ledger; `status` is 200, 429 or 418."""

    used: int
    status: int
    retry_after_s: int = 0
    banned_until_ms: int = 0


class _Account:
    def __init__(self) -> None:
        self.minute = -1
        self.used = 0
        self.refused = 0
        self.last_refused_minute = -1
        self.bans = 0
        self.banned_until_ms = 0


class WeightLedger:
    """Count weights per address.

    Args:
        limit: weight per clock minute.
        patience: how many 429 may be ignored before the ban.
    """

    def __init__(self, limit: int = LIMIT, patience: int = PATIENCE) -> None:
        self.limit = limit
        self._patience = patience
        self._accounts: dict[str, _Account] = {}

    def charge(self, address: str, weight: int, now_ms: int) -> Verdict:
        """Charge one request and judge it; refused requests count too."""
        account = self._accounts.setdefault(address, _Account())
        minute = now_ms // MINUTE_MS
        if minute != account.minute:
            account.minute, account.used = minute, 0
        if now_ms < account.banned_until_ms:
            return self._banned(account, now_ms)
        account.used += weight
        if account.used <= self.limit:
            return Verdict(account.used, 200)
        if account.last_refused_minute < minute - 1:
            account.refused = 0
        account.last_refused_minute = minute
        account.refused += 1
        if account.refused > self._patience:
            account.refused = 0
            account.banned_until_ms = now_ms + min(_FIRST_BAN_MS << account.bans, _LONGEST_BAN_MS)
            account.bans += 1
            return self._banned(account, now_ms)
        return Verdict(account.used, 429, (MINUTE_MS - now_ms % MINUTE_MS + 999) // 1000)

    def used(self, now_ms: int) -> dict[str, int]:
        """Return the weight used by each address in the current minute."""
        minute = now_ms // MINUTE_MS
        return {address: a.used if a.minute == minute else 0 for address, a in self._accounts.items()}

    def _banned(self, account: _Account, now_ms: int) -> Verdict:
        left_s = (account.banned_until_ms - now_ms + 999) // 1000
        return Verdict(account.used, 418, left_s, account.banned_until_ms)
