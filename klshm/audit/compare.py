"""The archive's bars against the exchange's rows, and what came of it.

Equal means equal: the stored float64 of each field is `float()` of the exchange's string. A bar is
`missing` if the exchange has it and the archive does not, `unconfirmed` if it is stored but not
known to be the exchange's own, `extra` if only the archive has it. A bar that stands in for a
minute that the exchange has no row of, and says so (closed, filled, partial), is no mistake:
`no_row`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from klshm.exchange.models import RestKline
from klshm.shm import layout as lay


__all__ = ["FIELDS", "Report", "compare_series"]

Rows = np.ndarray[Any, Any]

FIELDS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trade_count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
)
_DIFFERING_KEPT: Final = 20
_TALLIES: Final = ("compared", "equal", "missing", "unconfirmed", "extra", "no_row")
_STANDS_IN: Final = lay.FLAG_FILLED | lay.FLAG_PARTIAL


@dataclass
class Report:
    """What an audit found.

    Attributes:
        since_ms: Bars that ended after this were compared, UTC ms.
        until_ms: Bars that had ended by this were compared, UTC ms.
        excluded_young: Bars that ended later: they may still wait for the exchange's word.
        per_interval: Interval to its tallies.
        per_field: Field to the bars in which it differs.
        aggtrade_only: How bars made of aggregate trades alone would have fared.
        differing: The first bars that are not as they should be.
    """

    since_ms: int
    until_ms: int
    excluded_young: int = 0
    per_interval: dict[str, dict[str, int]] = field(default_factory=dict)
    per_field: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0))
    aggtrade_only: dict[str, int] = field(default_factory=lambda: {"compared": 0, "equal": 0})
    differing: list[dict[str, Any]] = field(default_factory=list)

    def total(self, tally: str) -> int:
        """Return a tally over all intervals."""
        return sum(tallies[tally] for tallies in self.per_interval.values())

    @property
    def passed(self) -> bool:
        """Whether every bar is there, confirmed and equal, and none was made up."""
        wrong = self.total("missing") + self.total("unconfirmed") + self.total("extra")
        return self.total("equal") == self.total("compared") and wrong == 0

    def count(self, interval: str, tally: str, number: int = 1) -> None:
        """Add to a tally of an interval."""
        self.per_interval.setdefault(interval, dict.fromkeys(_TALLIES, 0))[tally] += number

    def blame(self, symbol: str, interval: str, open_time: int, problem: str, **found: Any) -> None:
        """Keep the details of a bar that is not as it should be, if it is among the first."""
        if len(self.differing) < _DIFFERING_KEPT:
            self.differing.append(
                {"symbol": symbol, "interval": interval, "open_time": open_time, "problem": problem, **found}
            )

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        totals = {tally: self.total(tally) for tally in _TALLIES}
        apart = {tally: totals.pop(tally) for tally in ("extra", "no_row")}
        return {
            **totals,
            "excluded_young": self.excluded_young,
            **apart,
            "since_ms": self.since_ms,
            "until_ms": self.until_ms,
            "per_interval": self.per_interval,
            "per_field": self.per_field,
            "aggtrade_only": self.aggtrade_only,
            "differing": self.differing,
        }


def compare_series(report: Report, symbol: str, interval: str, official: Sequence[RestKline], stored: Rows) -> None:
    """Compare the bars of one series and add what was found to the report.

    Args:
        report: Where it goes.
        symbol: The series' symbol.
        interval: The series' interval.
        official: The exchange's rows of a span.
        stored: The archive's rows of the same span, dtype KLINE.
    """
    held = {int(row["open_time"]): row for row in stored if row["state"] >= lay.STATE_CLOSED}
    for row in official:
        found = held.pop(row.open_time, None)
        if found is None:
            report.count(interval, "missing")
            report.blame(symbol, interval, row.open_time, "missing")
        else:
            _compare(report, symbol, interval, row, found)
    for open_time in sorted(held):
        if held[open_time]["flags"] & _STANDS_IN == _STANDS_IN and held[open_time]["state"] == lay.STATE_CLOSED:
            report.count(interval, "no_row")
            continue
        report.count(interval, "extra")
        report.blame(symbol, interval, open_time, "extra", **_standing(held[open_time]))


def _compare(report: Report, symbol: str, interval: str, official: RestKline, stored: Any) -> None:
    unequal = {}
    for name in FIELDS:
        wanted, found = float(getattr(official, name)), float(stored[name])
        if wanted != found:
            unequal[name] = {"archive": found, "exchange": wanted}
            report.per_field[name] += 1
    report.count(interval, "compared")
    report.count(interval, "equal", not unequal)
    confirmed = int(stored["state"]) == lay.STATE_CONFIRMED
    report.count(interval, "unconfirmed", not confirmed)
    if unequal:
        report.blame(symbol, interval, official.open_time, "different", fields=unequal, **_standing(stored))
    elif not confirmed:
        report.blame(symbol, interval, official.open_time, "unconfirmed", **_standing(stored))


def _standing(stored: Any) -> dict[str, Any]:
    """Return what a stored bar says about itself, in words."""
    flags = int(stored["flags"])
    return {
        "state": lay.STATE_NAMES[int(stored["state"])],
        "flags": [name for bit, name in enumerate(lay.FLAG_NAMES) if flags >> bit & 1],
        "revision": int(stored["revision"]),
    }
