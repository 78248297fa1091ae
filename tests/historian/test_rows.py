"""The exchange's rows as records: exact, or refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.errors import BadMessage
from klshm.exchange.models import RestKline, decode_klines
from klshm.historian.rows import closed_only, gap_after, kline_rows
from klshm.shm import layout as lay
from klshm.shm.exact import split


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
M = 60_000
T0 = 29_000_000 * M
CELLS = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")


def raw(open_time: int = T0, length: int = M, **changes: Any) -> RestKline:
    cells: dict[str, Any] = {
        "open": "10.0", "high": "12.0", "low": "9.5", "close": "11.0", "volume": "3.000", "quote_volume": "31.2",
        "trade_count": 4, "taker_buy_volume": "1.000", "taker_buy_quote_volume": "10.4",
    }  # fmt: skip
    return RestKline(open_time=open_time, close_time=open_time + length - 1, **{**cells, **changes})


def convert(rows: list[RestKline], interval: str = "1m", *, sent_ms: int = T0 + 100 * M, **changes: Any) -> Any:
    return kline_rows(
        rows, interval, **{"slot": 3, "price_decimals": 2, "quantity_decimals": 3, **changes}, sent_ms=sent_ms
    )


def units(row: Any, name: str, residual: str) -> int:
    scale = 10 ** (int(row["price_decimals"]) + int(row["quantity_decimals"]))
    return int(split(row[name], scale)) + int(row[residual])


def test_fields_of_a_row() -> None:
    (row,) = convert([raw()], sent_ms=T0 + 2 * M)
    assert [row[name] for name in CELLS] == [10.0, 12.0, 9.5, 11.0, 3.0, 31.2, 1.0, 10.4]
    assert (row["open_time"], row["trade_count"], row["slot"], row["interval"]) == (T0, 4, 3, 0)
    assert (row["event_time"], row["revision"], row["last_agg_id"], row["last_trade_id"]) == (T0 + 2 * M, 1, -1, -1)
    assert (row["price_decimals"], row["quantity_decimals"], row["flags"], row["sequence"]) == (2, 3, 0, 0)


@pytest.mark.parametrize(("age_ms", "state"), [(29_999, lay.STATE_CLOSED), (30_000, lay.STATE_CONFIRMED)])
def test_state_by_age(age_ms: int, state: int) -> None:
    assert convert([raw()], sent_ms=T0 + M + age_ms)[0]["state"] == state


def test_open_candle_is_dropped() -> None:
    rows = [raw(T0), raw(T0 + M)]
    assert closed_only(rows, T0 + 2 * M - 1) == rows[:1]
    assert closed_only(rows, T0 + 2 * M) == rows


def test_minute_without_trades_is_filled() -> None:
    flat = raw(open="1", high="1", low="1", close="1", volume="0", quote_volume="0", trade_count=0,
               taker_buy_volume="0", taker_buy_quote_volume="0")  # fmt: skip
    assert convert([flat])[0]["flags"] == lay.FLAG_FILLED


def test_nothing_becomes_nothing() -> None:
    assert len(convert([])) == 0 and gap_after(convert([]), "1m") is None


def test_week_opens_on_monday() -> None:
    monday = 1_567_382_400_000
    assert len(convert([raw(monday, 7 * 86_400_000)], "1w", sent_ms=monday * 2)) == 1
    with pytest.raises(BadMessage, match="not aligned"):
        convert([raw(monday + 86_400_000, 7 * 86_400_000)], "1w", sent_ms=monday * 2)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([raw(T0 + 1)], "not aligned"),
        ([raw(T0, 2 * M)], "closes at another time"),
        ([raw(T0), raw(T0)], "not after the row before"),
        ([raw(T0 + M), raw(T0)], "not after the row before"),
        ([raw(low="10.5")], "low above"),
        ([raw(high="10.9")], "high below"),
        ([raw(volume="-1")], "not below 0"),
        ([raw(open="nan")], "finite"),
        ([raw(high="inf")], "finite"),
        ([raw(close="")], "finite"),
        ([raw(volume="1_0")], "finite"),
        ([raw(trade_count=-1)], "trade count"),
        ([raw(trade_count=2**32)], "trade count"),
        ([raw(volume="0.0000001234")], "decimals"),
        ([raw(quote_volume="99999999999999.5")], "beyond what can be carried"),
    ],
)
def test_one_bad_row_refuses_the_batch(rows: list[RestKline], words: str) -> None:
    with pytest.raises(BadMessage, match=words):
        convert([raw(T0 - M), *rows] if len(rows) == 1 and rows[0].open_time >= T0 else rows)


def test_gaps_are_told_not_refused() -> None:
    assert gap_after(convert([raw(T0), raw(T0 + M), raw(T0 + 5 * M)]), "1m") == T0 + M
    assert gap_after(convert([raw(T0), raw(T0 + M)]), "1m") is None


def test_decimals_grow_with_the_strings_but_not_by_padding() -> None:
    (row,) = convert([raw(open="10.00000", volume="3.00000")])
    assert (row["price_decimals"], row["quantity_decimals"]) == (2, 3)
    (row,) = convert([raw(open="10.00010", volume="3.00010", quote_volume="31.123456789")])
    assert (row["price_decimals"], row["quantity_decimals"]) == (4, 5)


def decimal_text(draw: Any, most_units: int, decimals: int) -> str:
    number = draw(st.integers(0, most_units))
    return f"{number // 10**decimals}.{number % 10**decimals:0{decimals}d}" if decimals else str(number)


@given(st.data())
def test_every_cell_is_the_nearest_float_and_restores_its_integer(data: Any) -> None:
    price, quantity = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 4))
    quotes = [decimal_text(data.draw, data.draw(st.sampled_from([10**6, 2**52, 2**53, 2**60])), price + quantity)
              for _ in range(2)]  # fmt: skip
    prices = sorted((decimal_text(data.draw, 10**9, price) for _ in range(4)), key=Decimal)
    volumes = [decimal_text(data.draw, 2**50, quantity) for _ in range(2)]
    row = raw(low=prices[0], open=prices[1], close=prices[2], high=prices[3], volume=volumes[0],
              taker_buy_volume=volumes[1], quote_volume=quotes[0], taker_buy_quote_volume=quotes[1])  # fmt: skip
    (made,) = convert([row], price_decimals=price, quantity_decimals=quantity)
    for name in CELLS:
        assert float(made[name]) == float(getattr(row, name))
    scale = 10 ** (int(made["price_decimals"]) + int(made["quantity_decimals"]))
    assert units(made, "quote_volume", "quote_residual") == int(Decimal(quotes[0]) * scale)
    assert units(made, "taker_buy_quote_volume", "taker_quote_residual") == int(Decimal(quotes[1]) * scale)


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings (../shared/data) are not here")
def test_recorded_rows_pass() -> None:
    for name, interval in (("fapi_klines_2.json", "1d"), ("fapi_klines_3.json", "1d"), ("fapi_klines_0.json", "5m")):
        body = json.dumps(json.loads((DATA / "rest-bodies" / name).read_text())["data"]).encode()
        rows = decode_klines(body)
        made = convert(rows, interval, sent_ms=2**60)
        assert len(made) == len(rows) and gap_after(made, interval) is None
        for row, record in zip(rows, made, strict=True):
            scale = Decimal(10) ** (int(record["price_decimals"]) + int(record["quantity_decimals"]))
            assert units(record, "quote_volume", "quote_residual") == int(Decimal(row.quote_volume) * scale)
    assert np.any(made["open_time"] > 0)
