"""The simulator that third-party clients talk to, unmodified but for the address."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.support.exchange import Exchange, exchange


with warnings.catch_warnings():
    # What they import of each other is theirs to mend.
    warnings.simplefilter("ignore")
    import binance  # noqa: F401
    import binance_sdk_derivatives_trading_usds_futures  # noqa: F401
    import ccxt.pro  # noqa: F401


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "12", "--rate", "300", "--weight-limit", "100000") as running:
        yield running
