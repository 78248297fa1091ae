from __future__ import annotations

import numpy as np

from klshm.config.depths import depths_of
from klshm.fsck.archive import ArchiveState, Series
from klshm.fsck.bars import Hole, SeriesState
from klshm.fsck.wanted import Wanted, wanted_of
from tests.store.engine import MINUTE, START, bars


NOW = START + 1000 * MINUTE + 30_000
DEPTHS = depths_of({"default": 50}, {})
ONE = Series("k_btc_1m", "BTCUSDT", "1m", 0, 2, 3, 0)
TWO = Series("k_eth_1m", "ETHUSDT", "1m", 0, 2, 3, 0)
OLD = Series("k_btc_1m__20200101", "BTCUSDT", "1m", 0, 2, 3, 1)


def state(**more: object) -> ArchiveState:
    spans = {one.table: (START, START + 99 * MINUTE) for one in (ONE, TWO, OLD)}
    return ArchiveState(series=[ONE, TWO, OLD], spans=spans, **more)  # type: ignore[arg-type]


def minutes(wanted: set[int]) -> list[int]:
    return [(time - START) // MINUTE for time in sorted(wanted)]


def test_nothing_wrong_is_nothing_to_do() -> None:
    assert wanted_of(state(), DEPTHS, NOW, edges=False, until_now=False) == []


def test_faults_holes_and_folds() -> None:
    found = SeriesState(
        bars(START + np.arange(100) * MINUTE),
        {START + 5 * MINUTE: ("bits", ""), START + 7: ("misaligned", "")},
        [Hole(START + 20 * MINUTE, START + 22 * MINUTE)],
        [START + 30 * MINUTE],
    )
    (one,) = wanted_of(
        state(states={"k_btc_1m": found}, folds={"k_btc_1m": [START + 40 * MINUTE]}),
        DEPTHS, NOW, edges=False, until_now=False,
    )
    assert minutes(one.times) == [5, 20, 21, 22, 30, 40] and START + 7 in one.replace
    assert list(one.pages(10)) == [
        (START + 5 * MINUTE, START + 5 * MINUTE), (START + 20 * MINUTE, START + 22 * MINUTE),
        (START + 30 * MINUTE, START + 30 * MINUTE), (START + 40 * MINUTE, START + 40 * MINUTE),
    ]
    assert len(list(one.pages(499))) == 1


def test_rows_at_the_ends_are_where_their_times_say_unless_these_are_damaged() -> None:
    good = bars(START + np.arange(10, 90) * MINUTE)
    ends = {START + n * MINUTE: ("bits", "") for n in (8, 9, 90)}
    (one,) = wanted_of(state(states={"k_btc_1m": SeriesState(good, ends)}), DEPTHS, NOW, edges=False, until_now=False)
    assert minutes(one.times) == [8, 9, 90]
    lost = {START - 2**40 + 1: ("bits", ""), START + 2**40 + 1: ("bits", "")}
    (one,) = wanted_of(state(states={"k_btc_1m": SeriesState(good, lost)}), DEPTHS, NOW, edges=False, until_now=False)
    assert minutes(one.times) == [8, 9, 90, 91]
    nothing = SeriesState(good[:0], {START: ("bits", "")})
    (one,) = wanted_of(state(states={"k_btc_1m": nothing}), DEPTHS, NOW, edges=False, until_now=False)
    assert minutes(one.times) == [0]


def test_edges_reach_the_configured_depth_and_the_longest_series() -> None:
    wide = state()
    wide.spans["k_eth_1m"] = (START + 80 * MINUTE, START + 90 * MINUTE)
    first, second = wanted_of(wide, {**DEPTHS, "1m": 120}, NOW, edges=True, until_now=False)
    assert first.series == ONE and minutes(first.times) == list(range(-20, 0))
    assert second.series == TWO and minutes(second.times) == [*range(-20, 80), *range(91, 100)]


def test_until_now_and_new_tables() -> None:
    one, two = wanted_of(state(), DEPTHS, NOW, edges=False, until_now=True)
    assert minutes(one.times) == minutes(two.times) == list(range(100, 1000))
    (one,) = wanted_of(state(), {**DEPTHS, "1m": 130}, NOW, edges=False, until_now=False, new_tables=["k_btc_1m"])
    assert minutes(one.times) == list(range(-30, 0))
    empty = ArchiveState(series=[ONE])
    (one,) = wanted_of(empty, DEPTHS, NOW, edges=False, until_now=False)
    assert minutes(one.times) == list(range(950, 1000))
    late = ArchiveState(series=[ONE._replace(onboard_ms=START + 990 * MINUTE)])
    (one,) = wanted_of(late, DEPTHS, NOW, edges=False, until_now=False)
    assert minutes(one.times) == list(range(990, 1000))


def test_no_page_for_nothing() -> None:
    assert list(Wanted(ONE).pages(499)) == []


def test_depths_end_where_bars_are_not_kept() -> None:
    depths = depths_of({"1m": 5000, "1w": 200}, {"1m": 2, "1d": 30})
    assert (depths["1m"], depths["1w"], depths["1d"], depths["5m"]) == (2880, 200, 30, 1000)
