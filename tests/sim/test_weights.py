from __future__ import annotations

import pytest

from klshm.sim.weights import WeightLedger, kline_weight


@pytest.mark.parametrize(("limit", "weight"), [(1, 1), (99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10)])
def test_bands_are_strict(limit: int, weight: int) -> None:
    assert kline_weight(limit) == weight


def test_clock_minute_then_429_then_growing_bans() -> None:
    ledger = WeightLedger(100)
    assert ledger.charge("a", 60, 59_000).used == 60
    assert ledger.charge("a", 100, 60_000).used == 100
    assert ledger.charge("b", 1, 60_000).status == 200
    verdicts = [ledger.charge("a", 1, 61_000) for _ in range(11)]
    assert [v.status for v in verdicts] == [429] * 10 + [418]
    assert verdicts[0].retry_after_s == 59
    assert verdicts[-1].retry_after_s == 120 and verdicts[-1].banned_until_ms == 181_000
    assert ledger.charge("a", 1, 180_999).status == 418
    assert ledger.charge("a", 1, 181_000).status == 200
    again = [ledger.charge("a", 100, 181_000) for _ in range(11)]
    assert again[-1].status == 418 and again[-1].retry_after_s == 240
    assert ledger.used(181_000)["b"] == 0
