"""The engine that readers look at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.desk import Desk
from tests.support.desk import make_desk as make_desk


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """One engine `test` with BTCUSDT and ETHUSDT."""
    desk = make_desk()
    desk.list_symbol("BTCUSDT")
    desk.list_symbol("ETHUSDT")
    return desk
