"""Pauses between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klshm.exchange.backoff import Backoff


@given(st.floats(0.01, 10), st.floats(0.01, 100), st.integers(1, 20))
def test_pauses_double_up_to_the_longest(first_s: float, max_s: float, count: int) -> None:
    backoff = Backoff(first_s, max_s)
    ceilings = [min(first_s * 2**i, max_s) for i in range(count)]
    for ceiling_s in ceilings:
        assert ceiling_s / 2 <= backoff.next_s() <= ceiling_s
    backoff.reset()
    assert backoff.next_s() <= min(first_s, max_s)
