"""From bytes to events: every shape of frame, and everything that must be refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from klshm.core import events as ev
from klshm.core.messages import EventBatch, FrameDecoder, parse_decimal
from klshm.errors import BadMessage


FRAMES = Path(__file__).parents[2] / ".." / "shared" / "data" / "frames" / "ws_frames.jsonl"
SYMBOLS = {"BTCUSDT": 3, "币安人生USDT": 4}
PAIRS = {("BTCUSDT", "PERPETUAL"): 3, ("UMAUSDT", "PERPETUAL"): 5}

TRADE = {
    **{"e": "aggTrade", "E": 1781416439080, "a": 3339472008, "s": "BTCUSDT", "p": "64339.20", "q": "0.123"},
    **{"nq": "0.1", "f": 7786568797, "l": 7786568801, "T": 1781416438930, "m": True, "st": 1},
}
BAR = {
    **{"t": 1791271440000, "T": 1791271499999, "s": "BTCUSDT", "i": "1m", "f": 8149110997, "L": 8149111032},
    **{"o": "85294.90", "c": "85294.80", "h": "85294.9", "l": "85294.80", "v": "0.671", "n": 33, "x": False},
    **{"q": "57232.84120", "V": "0.304", "Q": "25929.64960", "B": "0"},
}
KLINE = {"e": "kline", "E": 1791271449268, "s": "BTCUSDT", "k": BAR}
CONTINUOUS = {"e": "continuous_kline", "E": 1, "ps": "BTCUSDT", "ct": "PERPETUAL", "k": {**BAR, "x": True}}


def decode(data: Any, stream: str = "x") -> Any:
    decoder, batch = FrameDecoder(dict(SYMBOLS), dict(PAIRS)), EventBatch(1)
    payload = data if isinstance(data, bytes) else json.dumps({"stream": stream, "data": data}).encode()
    try:
        decoder.decode(payload, batch)
    except BadMessage:
        assert batch.count == 0
        raise
    return batch.take()


def test_an_aggregate_trade() -> None:
    (one,) = decode(TRADE)
    assert (one["kind"], one["slot"], one["time"], one["open_time"]) == (ev.TRADE, 3, 1781416439080, 1781416438930)
    assert (one["a"], one["f"], one["l"], one["flag"]) == (3339472008, 7786568797, 7786568801, 1)
    assert (one["open"], one["price_decimals"]) == (6433920, 2)
    assert (one["volume"], one["quantity_decimals"]) == (123, 3)  # q, not nq


def test_a_kline_frame_brings_its_cells_to_common_decimals() -> None:
    (one,) = decode(KLINE)
    assert (one["kind"], one["time"], one["open_time"], one["flag"]) == (ev.FRAME, 1791271449268, 1791271440000, 0)
    assert (one["f"], one["l"], one["trade_count"]) == (8149110997, 8149111032, 33)
    assert [int(one[name]) for name in ("open", "high", "low", "close")] == [8529490, 8529490, 8529480, 8529480]
    assert (one["volume"], one["taker_buy_volume"], one["quantity_decimals"]) == (671, 304, 3)
    assert (one["quote_volume"], one["taker_buy_quote_volume"], one["quote_decimals"]) == (5723284120, 2592964960, 5)


def test_frames_of_other_intervals_say_nothing() -> None:
    assert len(decode({**KLINE, "k": {**BAR, "i": "1h"}})) == 0


def test_a_continuous_kline_counts_only_when_it_is_final() -> None:
    (one,) = decode(CONTINUOUS)
    assert (one["f"], one["l"], one["flag"]) == (-2, -2, 1)
    assert len(decode({**CONTINUOUS, "k": BAR})) == 0


def test_new_keys_and_spaces_are_tolerated() -> None:
    text = json.dumps({"data": {**TRADE, "brand_new": {"x": [1]}}}).replace(":", " : ")
    assert len(decode(text.encode())) == 1


def test_names_that_are_not_ascii() -> None:
    (one,) = decode(json.dumps({"data": {**TRADE, "s": "币安人生USDT"}}, ensure_ascii=False).encode())
    assert one["slot"] == 4


def test_unknown_symbols_are_counted() -> None:
    decoder, batch = FrameDecoder({}, {}), EventBatch()
    for data in (TRADE, KLINE, CONTINUOUS):
        decoder.decode(json.dumps({"data": data}).encode(), batch)
    assert (decoder.unknown_symbols, batch.count) == (3, 0)


def test_tickers_of_other_markets_and_unknown_symbols_are_left_out() -> None:
    row = {"e": "24hrTicker", "E": 5, "s": "BTCUSDT", "L": 77, "st": 1}
    events = decode([row, {**row, "st": 2}, {**row, "s": "OTHER"}], "!ticker@arr")
    assert [(int(one["kind"]), int(one["slot"]), int(one["l"]), int(one["time"])) for one in events] == [
        (ev.TICKER, 3, 77, 5)
    ]


def test_a_batch_grows_and_starts_anew() -> None:
    batch = EventBatch(1)
    for number in range(5):
        batch.append((number, *[0] * (ev.E_WORDS - 1)))
    assert batch.take()["kind"].tolist() == [0, 1, 2, 3, 4]
    batch.append((7, *[0] * 21))
    words, number = batch.take_words()
    assert (words[:: ev.E_WORDS][:number].tolist(), number, batch.count) == ([7], 1, 0)
    assert batch.count == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [("83091.70", (8309170, 2)), ("0", (0, 0)), ("0.000001", (1, 6)), ("5", (5, 0)), ("1.", (1, 0))],
)
def test_plain_decimals(text: str, read: tuple[int, int]) -> None:
    assert parse_decimal(text) == read


@given(some.decimals(min_value=0, max_value=10**9, places=8, allow_nan=False))
def test_decimals_are_read_exactly(value: Decimal) -> None:
    digits, places = parse_decimal(f"{value:f}")
    assert Decimal(digits).scaleb(-places) == value


ABSURD = ["", ".", ".5", "-1", "+1", "1e5", "NaN", "Infinity", "1,5", "0x10", " 1", "1 ", "1_000", "٣", "²", "9" * 19]


@pytest.mark.parametrize("text", ABSURD)
def test_numbers_that_are_not_plain_decimals(text: str) -> None:
    with pytest.raises(BadMessage):
        parse_decimal(text)


@pytest.mark.parametrize("key", ["p", "q"])
@pytest.mark.parametrize("text", ABSURD)
def test_a_trade_with_an_absurd_number_is_refused_whole(key: str, text: str) -> None:
    with pytest.raises(BadMessage):
        decode({**TRADE, key: text})


@pytest.mark.parametrize("key", ["o", "h", "l", "c", "v", "q", "V", "Q"])
@pytest.mark.parametrize("text", [*ABSURD[:8], "0." + "0" * 16 + "1"])
def test_a_frame_with_an_absurd_number_is_refused_whole(key: str, text: str) -> None:
    bar = {**BAR, **dict.fromkeys("ohlcvqVQ", "123456789012345678")}
    with pytest.raises(BadMessage):
        decode({**KLINE, "k": {**bar, key: text}})


@pytest.mark.parametrize("key", sorted(set(TRADE) - {"nq", "st"}))
def test_a_trade_that_lacks_a_field_is_refused(key: str) -> None:
    with pytest.raises(BadMessage):
        decode({name: value for name, value in TRADE.items() if name != key})


@pytest.mark.parametrize("key", sorted(set(BAR) - {"T", "s", "B"}))
def test_a_frame_that_lacks_a_field_is_refused(key: str) -> None:
    with pytest.raises(BadMessage):
        decode({**KLINE, "k": {name: value for name, value in BAR.items() if name != key}})


@pytest.mark.parametrize("key", ["E", "a", "f", "l", "T"])
@pytest.mark.parametrize("value", [1 << 70, -(1 << 70), 1.5, "1", None, True, [1]])
def test_ids_and_times_are_whole_numbers_of_64_bits(key: str, value: Any) -> None:
    with pytest.raises(BadMessage):
        decode({**TRADE, key: value})


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff\xfe", b"null", b"[]", b"[" * 5_000, b'{"data":{}}', b'{"data":{"e":"other"}}']
)
def test_what_is_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(payload)


GOOD = [json.dumps({"stream": "x", "data": data}).encode() for data in (TRADE, KLINE, CONTINUOUS)]


@given(some.binary(max_size=200))
def test_nothing_but_a_bad_message_comes_of_any_bytes(payload: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(payload)


@given(
    base=some.sampled_from(GOOD),
    cuts=some.lists(some.tuples(some.integers(0, 400), some.binary(max_size=3)), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_nothing_but_a_bad_message_ever_comes_of_damaged_bytes(base: bytes, cuts: list[tuple[int, bytes]]) -> None:
    payload = bytearray(base)
    for at, patch in cuts:
        payload[at : at + len(patch)] = patch
    try:
        decode(bytes(payload))
    except BadMessage:
        pass


def recorded() -> list[Any]:
    if not FRAMES.exists():
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason="the recorded frames are not here"))]
    lines = [json.loads(line) for line in FRAMES.read_text().splitlines()]
    return [pytest.param(line, id=f"{index}-{line['kind'][:9]}") for index, line in enumerate(lines)]


@pytest.mark.parametrize("line", recorded())
def test_every_recorded_frame_is_read_or_refused(line: Any) -> None:
    frame = line["frame"]
    data = frame.get("data", frame) if "stream" in frame else frame
    decoder, batch = FrameDecoder({data.get("s"): 0}, {(data.get("ps"), data.get("ct")): 0}), EventBatch()
    payload = json.dumps({"stream": "x", "data": data}).encode()
    if data.get("e") in ("aggTrade", "kline", "continuous_kline"):
        decoder.decode(payload, batch)
        assert decoder.unknown_symbols == 0
        told = data["e"] == "aggTrade" or data["k"]["x"] and data["k"]["i"] == "1m"
        assert batch.count == int(told)
    else:
        with pytest.raises(BadMessage):
            decoder.decode(payload, batch)
        assert batch.count == 0
