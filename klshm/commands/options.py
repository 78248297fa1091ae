"""Types of command-line options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime


__all__ = ["names", "time_ms"]


def names(text: str) -> list[str]:
    """Return the names of a list such as "BTCUSDT,ETHUSDT"."""
    return [name.strip() for name in text.split(",") if name.strip()]


def time_ms(text: str) -> int:
    """Return a time given as UTC ms or ISO 8601 (UTC unless it says otherwise), UTC ms."""
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


time_ms.__name__ = "time"  # as argparse names what it could not convert
