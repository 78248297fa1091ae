from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from klshm.fsck.bars import UNCONFIRMED_AGE_MS, Hole, look_at
from klshm.shm import layout as lay
from klshm.store import rows
from tests.store.engine import MINUTE, START, bars


SEED = rows.series_seed("BTCUSDT", "1m")
LATER = START + 100_000 * MINUTE


def series(**fields: Any) -> Any:
    return bars(START + np.arange(20) * MINUTE, **{"state": lay.STATE_CONFIRMED, "trade_count": 5, **fields})


def look(found: Any, now_ms: int = LATER) -> Any:
    return look_at(rows.encode_rows(found, [SEED] * len(found)), "1m", SEED, 2, 3, now_ms)


def test_a_series_without_fault() -> None:
    state = look(series())
    assert len(state.good) == 20 and (state.wrong, state.holes, state.unconfirmed) == ({}, [], [])
    assert len(look(series()[:0]).good) == 0


@pytest.mark.parametrize(
    ("fields", "problem", "words"),
    [
        ({"open_time": START + 5 * MINUTE + 1}, "misaligned", "multiple"),
        ({"low": 1e9}, "impossible", "low above"),
        ({"high": 0.5, "low": 0.25}, "impossible", "high below"),
        ({"taker_buy_volume": 1e9}, "impossible", "taker_buy_volume above volume"),
        ({"taker_buy_quote_volume": 1e9}, "impossible", "taker_buy_quote_volume above"),
        ({"trade_count": 0, "flags": lay.FLAG_FILLED}, "impossible", "volume without trades"),
        ({"flags": lay.FLAG_FILLED}, "impossible", "trades and `filled`"),
        ({"trade_count": 0, "volume": 0, "taker_buy_volume": 0}, "impossible", "neither trades nor"),
        ({"volume": np.inf}, "impossible", "no finite number"),
        ({"quote_volume": -1.0, "taker_buy_quote_volume": -2.0}, "impossible", "below 0"),
        ({"state": 7}, "impossible", "unknown state"),
        ({"flags": 64}, "impossible", "unknown state or flag"),
        ({"state": lay.STATE_LIVE}, "left open", "live"),
        ({"price_decimals": 7, "quantity_decimals": 4, "quote_residual": 1}, "impossible", "decimals"),
    ],
)
def test_what_no_bar_can_be(fields: dict[str, Any], problem: str, words: str) -> None:
    found = series()
    for name, value in fields.items():
        found[name][5] = value
    state = look(found)
    ((time, (kind, detail)),) = state.wrong.items()
    assert time == found["open_time"][5] and kind == problem and words in detail
    assert len(state.good) == 19
    # The place of a bar whose time is wrong is empty; another's is not: there is something to replace.
    assert state.holes == ([Hole(START + 5 * MINUTE, START + 5 * MINUTE)] if problem == "misaligned" else [])


def test_an_open_bar_may_be_the_last() -> None:
    found = series()
    found["state"][-1] = lay.STATE_LIVE
    assert look(found).wrong == {}


def test_holes_lie_between_rows_that_are_there_even_wrong_ones() -> None:
    values = rows.encode_rows(series(), [SEED] * 20)
    values[8] = (*values[8][:5], values[8][5] + 1, *values[8][6:])
    left = [row for n, row in enumerate(values) if n not in (3, 4, 5, 7, 12)]
    state = look_at(left, "1m", SEED, 2, 3, LATER)
    assert state.wrong == {START + 8 * MINUTE: ("bits", "its check does not fit")}
    minutes = [(n, m) for hole in state.holes for n, m in [((hole[0] - START) // MINUTE, (hole[1] - START) // MINUTE)]]
    assert minutes == [(3, 5), (7, 7), (12, 12)]


def test_rows_of_another_series_are_wrong() -> None:
    stranger = rows.series_seed("ETHUSDT", "1m")
    state = look_at(rows.encode_rows(series(), [stranger] * 20), "1m", SEED, 2, 3, LATER)
    assert len(state.good) == 0 and len(state.wrong) == 20


def test_closed_bars_are_given_time_to_be_confirmed() -> None:
    found = series()
    found["state"][4:] = lay.STATE_CLOSED
    now_ms = START + 6 * MINUTE + UNCONFIRMED_AGE_MS
    assert look(found, now_ms).unconfirmed == [START + 4 * MINUTE, START + 5 * MINUTE]
