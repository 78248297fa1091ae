"""The compiled part of the engine.

The way of a trade: ``apply`` (the one entry) → ``scaling`` (units) → ``intake``, ``trades``,
``fills``, ``holes`` (identity) → ``splice`` (against official frames) → ``closing`` (tick, settle,
amend, confirm), ``proof`` → ``folds`` (higher intervals) → ``rows`` (records in shared memory);
``frames`` and ``rest`` bring what the exchange says itself, ``flags`` and ``match`` say what of it
holds, ``live`` publishes, ``lifecycle`` and ``needs`` serve symbols and the historian.
"""

from __future__ import annotations

from typing import Final


__all__ = ["MODULES"]

MODULES: Final = (
    *("rows", "records", "holes", "intake", "splice", "flags", "match", "folds", "minutes"),
    *("closing", "stored", "proof", "fills", "trades", "frames", "rest"),
    *("scaling", "live", "lifecycle", "needs", "apply"),
)
"""All kernel modules, each after those it calls: the order in which they are compiled."""
