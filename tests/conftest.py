"""Order of the tests: what plays for minutes begins first, so that it overlaps with the rest."""

from __future__ import annotations

import pytest


_LONG_FIRST = ("recorded", "e2e", "fault", "stress")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by how long tests of a kind take; within a kind the order stays."""

    def rank(item: pytest.Item) -> int:
        marks = {mark.name for mark in item.iter_markers()}
        return next((index for index, name in enumerate(_LONG_FIRST) if name in marks), len(_LONG_FIRST))

    items.sort(key=rank)
