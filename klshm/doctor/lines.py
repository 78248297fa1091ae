"""One line of the doctor's."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


__all__ = ["BAD", "OK", "WARN", "Line", "Verdict", "mib"]

Verdict = Literal["ok", "warn", "bad"]

OK: Final[Verdict] = "ok"
WARN: Final[Verdict] = "warn"
BAD: Final[Verdict] = "bad"


class Line(NamedTuple):
    """What was looked at, and what to think of it.

    Attributes:
        topic: What, in a word or two.
        verdict: "ok", "warn" (it runs, worse than it could) or "bad" (it will fail).
        found: What was found.
        advice: What to do; empty if nothing.
    """

    topic: str
    verdict: Verdict
    found: str
    advice: str = ""


def mib(size_bytes: float) -> str:
    """Return a size for people."""
    size = size_bytes / (1 << 20)
    return f"{size:,.0f} MiB" if size < 10_000 else f"{size / 1024:,.0f} GiB"
