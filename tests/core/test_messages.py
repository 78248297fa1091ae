"""Decoding: what the exchange has sent, and what must never get in."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.core.events import FRAME, TICKER, TRADE
from klshm.core.messages import EventBatch, FrameDecoder, parse_decimal
from klshm.errors import BadMessage


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
TRADE_FRAME = {
    "stream": "btcusdt@aggTrade",
    "data": {
        **{"e": "aggTrade", "E": 1791382992488, "a": 3477868433, "s": "BTCUSDT", "p": "83091.70", "q": "0.022"},
        **{"nq": "0.022", "f": 8153634393, "l": 8153634394, "T": 1791382992338, "m": False, "st": 1},
    },
}
KLINE_FRAME = {
    "stream": "btcusdt@kline_1m",
    "data": {
        **{"e": "kline", "E": 1791382992723, "s": "BTCUSDT"},
        "k": {
            **{"t": 1791382980000, "T": 1791383039999, "s": "BTCUSDT", "i": "1m", "f": 8153633367, "L": 8153634395},
            **{"o": "83084.90", "c": "83091.60", "h": "83091.70", "l": "83051.20", "v": "13.551", "n": 1027},
            **{"x": False, "q": "1125714.73960", "V": "6.426", "Q": "533856.66860", "B": "0"},
        },
    },
}


def decoder() -> FrameDecoder:
    return FrameDecoder({"BTCUSDT": 3, "币安人生USDT": 4}, {("BTCUSDT", "PERPETUAL"): 3})


def decode(frame: object) -> np.ndarray:  # type: ignore[type-arg]
    batch = EventBatch(4)
    decoder().decode(frame if isinstance(frame, bytes) else json.dumps(frame).encode(), batch)
    return batch.take().copy()


def changed(frame: dict[str, object], **values: object) -> dict[str, object]:
    copied = json.loads(json.dumps(frame))
    target = copied["data"].get("k", copied["data"])
    for name, value in values.items():
        if value is None:
            del target[name]
        else:
            target[name] = value
    return copied  # type: ignore[no-any-return]


def test_a_trade_becomes_integers() -> None:
    (event,) = decode(TRADE_FRAME)
    assert (event["kind"], event["slot"], event["time"], event["open_time"]) == (TRADE, 3, 1791382992488, 1791382992338)
    assert (event["a"], event["f"], event["l"], event["flag"]) == (3477868433, 8153634393, 8153634394, 0)
    assert (event["open"], event["price_decimals"]) == (8309170, 2)
    assert (event["volume"], event["quantity_decimals"]) == (22, 3)


def test_a_kline_frame_becomes_integers() -> None:
    (event,) = decode(KLINE_FRAME)
    assert (event["kind"], event["slot"], event["open_time"], event["flag"]) == (FRAME, 3, 1791382980000, 0)
    assert (event["f"], event["l"], event["trade_count"]) == (8153633367, 8153634395, 1027)
    prices = [int(event[name]) for name in ("open", "high", "low", "close")]
    assert prices == [8308490, 8309170, 8305120, 8309160]
    assert (event["volume"], event["taker_buy_volume"], event["quantity_decimals"]) == (13551, 6426, 3)
    assert (event["quote_volume"], event["taker_buy_quote_volume"]) == (112571473960, 53385666860)
    assert event["quote_decimals"] == 5


def test_numbers_of_one_frame_share_their_decimals() -> None:
    (event,) = decode(changed(KLINE_FRAME, v="13.5", V="6.4261"))
    assert (event["volume"], event["taker_buy_volume"], event["quantity_decimals"]) == (135000, 64261, 4)


def test_new_keys_and_spaces_are_tolerated() -> None:
    text = json.dumps(changed(TRADE_FRAME, brand_new={"x": [1]})).replace(":", ": ").encode()
    assert len(decode(text)) == 1


@pytest.mark.parametrize("interval", ["5m", "1h"])
def test_other_intervals_are_passed_over(interval: str) -> None:
    assert len(decode(changed(KLINE_FRAME, i=interval))) == 0


def test_unknown_symbols_are_counted() -> None:
    used = decoder()
    batch = EventBatch()
    for frame in (changed(TRADE_FRAME, s="NOSUCHUSDT"), {**KLINE_FRAME, "data": {**KLINE_FRAME["data"], "s": "X"}}):
        used.decode(json.dumps(frame).encode(), batch)
    assert (batch.count, used.unknown_symbols) == (0, 2)


def test_symbols_beyond_ascii_are_found() -> None:
    (event,) = decode(json.dumps(changed(TRADE_FRAME, s="币安人生USDT"), ensure_ascii=False).encode())
    assert event["slot"] == 4


def test_continuous_klines_count_only_when_they_close() -> None:
    bar = dict(KLINE_FRAME["data"]["k"])  # type: ignore[call-overload, index]
    frame = {"stream": "x", "data": {"e": "continuous_kline", "E": 5, "ps": "BTCUSDT", "ct": "PERPETUAL", "k": bar}}
    assert len(decode(frame)) == 0
    bar["x"] = True
    (event,) = decode(frame)
    assert (event["kind"], event["slot"], event["l"]) == (FRAME, 3, -2)


def test_tickers_tell_the_newest_trade_id_of_usd_m_symbols() -> None:
    rows = [
        {"e": "24hrTicker", "E": 7, "s": "BTCUSDT", "L": 99, "st": 1},
        {"e": "24hrTicker", "E": 7, "s": "BTCUSDT", "L": 1, "st": 2},
        {"e": "24hrTicker", "E": 7, "s": "OTHERUSDT", "L": 5, "st": 1},
    ]
    (event,) = decode({"stream": "!ticker@arr", "data": rows})
    assert (event["kind"], event["slot"], event["l"]) == (TICKER, 3, 99)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"not json",
        b"{}",
        b'{"stream":"btcusdt@aggTrade"}',
        b'{"stream":"!ticker@arr","data":{}}',
        b'{"stream":"x","data":{"e":"nonsense"}}',
        *(changed(TRADE_FRAME, **{key: None}) for key in ("E", "a", "s", "p", "q", "f", "l", "T", "m")),
        *(changed(KLINE_FRAME, **{key: None}) for key in ("t", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q")),
        *(changed(TRADE_FRAME, p=text) for text in ("NaN", "Infinity", "-1.0", "1e5", "", ".", "1.2.3", "٣", "9" * 19)),
        changed(TRADE_FRAME, q="-0.1"),
        changed(TRADE_FRAME, a="12"),
        changed(TRADE_FRAME, p=83091.70),
        changed(KLINE_FRAME, v="nan"),
    ],
)
def test_what_does_not_fit_is_refused_whole(frame: object) -> None:
    batch = EventBatch()
    payload = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
    with pytest.raises(BadMessage):
        decoder().decode(payload, batch)
    assert batch.count == 0


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_what_is_documented(payload: bytes) -> None:
    batch = EventBatch()
    try:
        decoder().decode(payload, batch)
    except (BadMessage, UnicodeDecodeError):
        assert batch.count == 0


@given(st.decimals(min_value=0, max_value=10**9, places=8, allow_nan=False))
def test_decimals_are_read_exactly(value: Decimal) -> None:
    digits, places = parse_decimal(f"{value:f}")
    assert Decimal(digits).scaleb(-places) == value


def test_a_batch_grows_and_starts_anew() -> None:
    batch = EventBatch(2)
    for number in range(5):
        batch.append((TRADE, number, *[0] * 20))
    first = batch.take().copy()
    assert first["slot"].tolist() == [0, 1, 2, 3, 4]
    batch.extend(first)
    batch.extend(np.concatenate((first, first, first)))
    assert batch.count == 20
    assert batch.take()["slot"].tolist() == [0, 1, 2, 3, 4] * 4


def test_recorded_frames_parse_or_are_refused() -> None:
    path = DATA / "frames" / "ws_frames.jsonl"
    if not path.exists():
        pytest.skip(f"the recording is not in {DATA}")
    kinds = []
    for line in path.read_text(encoding="utf-8").splitlines():
        frame = json.loads(line)["frame"]
        wrapped = frame if isinstance(frame, dict) and "stream" in frame else {"stream": "x", "data": frame}
        try:
            decode(wrapped)
            kinds.append("parsed")
        except BadMessage:
            kinds.append("refused")
    assert kinds.count("parsed") >= 8
    assert "refused" in kinds  # acknowledgements and errors are no data frames
