"""One bar for people and programs."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.intervals import INTERVALS, length_ms
from klshm.read.bars import ROW, Bar, bar_of, bars_of, close_times, flag_words
from klshm.shm.layout import FLAG_NAMES, KLINE, STATE_NAMES


@given(st.binary(min_size=128, max_size=128))
def test_a_row_unpacks_as_numpy_reads_it(data: bytes) -> None:
    row = np.frombuffer(data, dtype=KLINE)[0]
    assert ROW.size == KLINE.itemsize
    for name, value in zip(KLINE.names or (), ROW.unpack(data), strict=True):
        pair = (value, row[name].item())
        assert pair[0] == pair[1] or all(struct.pack("d", x) == struct.pack("d", pair[0]) or x != x for x in pair)


@given(st.sampled_from(INTERVALS), st.integers(0, 3), st.integers(0, 63), st.integers(0, 2**40))
def test_codes_become_words(interval: str, state: int, flags: int, open_time: int) -> None:
    rows = np.zeros(1, dtype=KLINE)
    rows["interval"], rows["state"], rows["flags"] = INTERVALS.index(interval), state, flags
    rows["open_time"], rows["revision"], rows["trade_count"] = open_time, 7, 8
    for index, name in enumerate(("open", "high", "low", "close", "volume", "quote_volume")):
        rows[name] = index + 0.5
    rows["taker_buy_volume"], rows["taker_buy_quote_volume"] = 6.5, 7.5
    (bar,) = bars_of(rows, "BTCUSDT")
    assert (bar.symbol, bar.interval, bar.state) == ("BTCUSDT", interval, STATE_NAMES[state])
    assert [bar.open, bar.high, bar.low, bar.close, bar.volume, bar.quote_volume] == [i + 0.5 for i in range(6)]
    assert (bar.taker_buy_volume, bar.taker_buy_quote_volume, bar.trade_count, bar.revision) == (6.5, 7.5, 8, 7)
    assert bar.close_time == open_time + length_ms(interval) - 1 == int(close_times(rows)[0])
    assert sum(1 << FLAG_NAMES.index(word) for word in bar.flags) == flags


def test_a_bar_is_a_mapping_and_its_json_reads_back() -> None:
    bar = bar_of(np.zeros(1, dtype=KLINE)[0].item(), "X")
    document = dict(bar)
    assert list(document) == list(Bar.__dataclass_fields__)
    assert Bar(**{**json.loads(json.dumps(document)), "flags": ()}) == bar
    assert bar["symbol"] == "X"
    with pytest.raises(KeyError, match="a bar has no field 'keys'"):
        bar["keys"]


def test_flags_of_a_newer_engine_are_left_out() -> None:
    assert flag_words(1 << 15 | 2) == ("partial",)
