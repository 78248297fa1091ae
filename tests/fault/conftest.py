"""A segment with its writers, as the tests of the store have it."""

from __future__ import annotations

from tests.store.conftest import make_engine


__all__ = ["make_engine"]
