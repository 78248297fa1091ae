from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.sim.clock import parse_instant_ms
from klshm.sim.intervals import INTERVALS, next_open_ms, open_ms, previous_open_ms


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("interval", "opened"),
    [("1w", (2026, 11, 16)), ("1M", (2026, 11, 1)), ("1d", (2026, 11, 20)), ("4h", (2026, 11, 20, 12))],
)
def test_alignment(interval: str, opened: tuple[int, ...]) -> None:
    assert open_ms(interval, ms(2026, 11, 20, 13, 14, 15)) == ms(*opened)


def test_the_exchange_s_first_week_opened_on_monday() -> None:
    assert open_ms("1w", ms(2019, 9, 8, 17, 57)) == 1_567_382_400_000


@given(st.sampled_from(sorted(INTERVALS)), st.integers(ms(2019, 9, 1), ms(2030, 1, 1)))
def test_bars_tile_the_time(interval: str, at_ms: int) -> None:
    opened = open_ms(interval, at_ms)
    following = next_open_ms(interval, opened)
    assert opened <= at_ms < following
    assert open_ms(interval, following) == following
    assert previous_open_ms(interval, following) == opened


@pytest.mark.parametrize(
    "text", ["2026-11-20T12:00:20Z", "2026-11-20T12:00:20", "1795176020000", "2026-11-20T13:00:20+01:00"]
)
def test_instants(text: str) -> None:
    assert parse_instant_ms(text) == 1_795_176_020_000


def test_no_instant() -> None:
    with pytest.raises(ValueError, match="expected ISO-8601"):
        parse_instant_ms("soon")
