"""The compiled part of the engine.

The way of a trade: ``recognise`` and ``text`` (bytes to events) → ``apply`` (the one entry) →
``steady`` (most trades end here) or ``scaling`` (units) → ``intake``, ``trades``, ``fills``,
``holes``, ``watch`` (identity) → ``splice`` (against official frames) → ``closing`` (tick, settle,
amend, confirm), ``proof`` → ``folds`` (higher intervals) → ``rows``, ``numbers`` (records in
shared memory); ``frames`` and ``rest`` bring what the exchange says itself, ``flags`` and ``match``
say what of it holds, ``live`` publishes, ``lifecycle`` and ``needs`` serve symbols and the historian.
"""

from __future__ import annotations

from typing import Final


__all__ = ["WAVES"]

WAVES: Final = (
    (("numbers", "rows", "records", "holes"), ("text",)),
    (("flags", "match", "folds", "minutes", "closing"), ("intake", "splice", "scaling", "watch", "recognise")),
    (("stored", "proof", "fills", "steady", "trades", "rest"), ("live", "needs", "lifecycle", "frames")),
    (("apply",), ()),
)
"""All kernel modules in the order in which they are compiled: wave by wave, in each those of the
first group one after the other, while a second process may compile those of the second."""
