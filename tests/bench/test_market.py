"""The trades that all engines get: what they add up to, and what they look like on the wire."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.micro.kernel import SYMBOLS, check, filled_engine, live_rows
from bench.support.market import BEGIN_MS, Trades, names
from klshm.core.events import FRAME, TRADE
from klshm.core.messages import EventBatch, FrameDecoder


@given(st.integers(1, 12), st.integers(0, 300), st.integers(0, 99))
def test_ids_continue_without_a_hole_and_the_answer_is_the_sum(symbols: int, more: int, seed: int) -> None:
    trades = Trades.make(symbols + more, symbols, seed=seed)
    answer = trades.answer()
    for slot in range(symbols):
        mine = trades.slot == slot
        assert np.all(np.diff(trades.a[mine]) == 1)
        assert np.all(trades.first[mine][1:] == trades.last[mine][:-1] + 1)
        assert answer["open"][slot] == trades.price[mine][0]
        assert answer["close"][slot] == trades.price[mine][-1]
        assert answer["high"][slot] == trades.price[mine].max()
        assert answer["low"][slot] == trades.price[mine].min()
        assert answer["volume"][slot] == trades.quantity[mine].sum()
        assert answer["quote_volume"][slot] == (trades.price * trades.quantity)[mine].sum()
        assert answer["trade_count"][slot] == (trades.last - trades.first + 1)[mine].sum()
        assert answer["taker_buy_volume"][slot] == trades.quantity[mine & (trades.is_maker == 0)].sum()


def test_the_payloads_decode_to_the_events() -> None:
    trades = Trades.make(500, 7)
    batch = EventBatch()
    decoder = FrameDecoder({name: slot for slot, name in enumerate(names(7))}, {})
    for payload in trades.payloads():
        decoder.decode(payload, batch)
    assert np.array_equal(batch.take(), trades.events())


def test_kline_frames_say_what_the_trades_before_them_add_up_to() -> None:
    trades = Trades.make(900, 5, 3_000)
    batch, sums, frames = EventBatch(), defaultdict(lambda: np.zeros(3, dtype=np.int64)), 0
    decoder = FrameDecoder({name: slot for slot, name in enumerate(names(5))}, {})
    for payload in trades.payloads(kline_every_ms=250):
        decoder.decode(payload, batch)
    for event in batch.take():
        total = sums[int(event["slot"])]
        if event["kind"] == TRADE:
            bought = (1 - event["flag"]) * event["volume"]
            total += (event["volume"], event["l"] - event["f"] + 1, bought)
        else:
            assert event["kind"] == FRAME
            assert event["open_time"] == BEGIN_MS
            assert (event["volume"], event["trade_count"], event["taker_buy_volume"]) == tuple(total)
            frames += 1
    assert frames > 20


def test_the_kernels_bars_are_the_trades_own_and_a_lost_trade_is_noticed() -> None:
    trades = Trades.make(3_000, SYMBOLS)
    engine = filled_engine(SYMBOLS)
    engine.apply(trades.events(), BEGIN_MS + 55_000)
    check(engine, trades)
    assert np.all(live_rows(engine)["trade_count"][:, 0] == trades.answer()["trade_count"])
    with pytest.raises(AssertionError, match="is not the trades' own"):
        check(engine, trades.head(2_999))
