from __future__ import annotations

import numpy as np
import pytest

from klshm.config import StoreConfig
from klshm.shm import layout as lay
from klshm.store.open_bars import OpenBars
from klshm.store.segment_rows import Namer
from tests.store.engine import START, Engine, bars


def tracker(engine: Engine, **options: float) -> OpenBars:
    return OpenBars(engine.segment, Namer(engine.segment), StoreConfig(**options))  # type: ignore[arg-type]


def due(open_bars: OpenBars, *, final: bool = False) -> list[tuple[str, float]] | None:
    batch = open_bars.due(final=final)
    return None if batch is None else [(batch.listings[r["slot"]].name, float(r["close"])) for r in batch.rows]


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.open_bars._LOOK_S", 0.0)


def test_only_what_changed_and_was_published(engine: Engine) -> None:
    open_bars = tracker(engine, flush_interval_s=0.0)
    assert due(open_bars) is None
    engine.trade(bars([START] * 4, slot=np.arange(4), state=lay.STATE_LIVE, close=1.0))
    assert due(open_bars) is None
    engine.publish_halves()
    assert sorted(due(open_bars) or []) == sorted((name, 1.0) for name in engine.symbols)
    assert len(due(open_bars) or []) == 4  # not said to be stored: due again
    open_bars.stored()
    assert due(open_bars) is None
    engine.trade(bars([START], slot=2, state=lay.STATE_LIVE, close=2.0))
    engine.publish_halves()
    assert due(open_bars) == [("BTCUSDT_241227", 2.0)]
    open_bars.stored()
    open_bars.forget()
    assert len(due(open_bars) or []) == 4


def test_the_interval_or_many_rows_or_the_end(engine: Engine) -> None:
    open_bars = tracker(engine, flush_interval_s=3600.0, flush_rows=3)
    engine.trade(bars([START] * 2, slot=np.arange(2), state=lay.STATE_LIVE))
    engine.publish_halves()
    open_bars.stored()
    open_bars.forget()
    assert due(open_bars) is None
    assert len(due(open_bars, final=True) or []) == 2
    engine.trade(bars([START], slot=2, state=lay.STATE_LIVE))
    engine.publish_halves()
    assert len(due(open_bars) or []) == 3


def test_looks_are_rare(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klshm.store.open_bars._LOOK_S", 3600.0)
    open_bars = tracker(engine, flush_interval_s=0.0)
    open_bars._looked_s = float("inf")
    engine.trade(bars([START], state=lay.STATE_LIVE))
    engine.publish_halves()
    assert due(open_bars) is None
    assert due(open_bars, final=True) is not None


def test_a_worker_that_publishes_too_fast_is_looked_at_later(engine: Engine) -> None:
    open_bars = tracker(engine, flush_interval_s=0.0)
    engine.trade(bars([START], state=lay.STATE_LIVE))
    engine.publish_halves()
    intent = engine.block(0) + lay.B_INTENT
    engine.words[intent] += 5
    assert due(open_bars) is None
    engine.words[intent] -= 5
    assert due(open_bars) is not None
