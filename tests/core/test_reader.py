"""The recogniser beside the typed decoder: the same events, in the same order, from whatever comes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from klshm.core import events as ev
from klshm.core.kernel.recognise import ENTRY_WORDS, SLACK, enter_name, recognise
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.core.reader import FrameReader
from klshm.errors import BadMessage
from klshm.shm.compile import COMPILED
from tests.core.test_messages import BAR, CONTINUOUS, KLINE, PAIRS, TRADE


DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
LIVE = DATA / "btcusdt-live-2026-10-06"
SLOTS = {"BTCUSDT": 3, "币安人生USDT": 4, "1000000MOGUSDT": 0, "A" * 24: 7, "B" * 25: 8, "U": 9}
MUTATIONS = 20_000 if COMPILED else 2_000


def wire(data: Any, stream: str = "btcusdt@aggTrade", spaced: bool = False) -> bytes:
    """Return a combined frame as the exchange writes it: no spaces, names in UTF-8."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    if spaced:  # as in the recordings
        head, bar = text.split('"k":{', 1)
        text = head + '"k":{' + bar.replace(",", ", ")
    return f'{{"stream":"{stream}","data":{text}}}'.encode()


def decoded(frames: list[bytes]) -> tuple[Any, list[str], int]:
    decoder, batch, refused = FrameDecoder(dict(SLOTS), dict(PAIRS)), EventBatch(1), []
    for frame in frames:
        try:
            decoder.decode(frame, batch)
        except BadMessage as error:
            refused.append(str(error))
    return batch.take().copy(), refused, decoder.unknown_symbols


def read(frames: list[bytes]) -> tuple[Any, list[str], int]:
    reader, batch = FrameReader(dict(SLOTS), dict(PAIRS)), EventBatch(1)
    refused = reader.read(frames, batch)
    return batch.take().copy(), [str(error) for error in refused], reader.unknown_symbols


def table(names: dict[str, int], entries: int = 64) -> Any:
    made = np.zeros(entries * ENTRY_WORDS, dtype=np.int64)
    for name, slot in names.items():
        enter_name(made, np.frombuffer(name.encode() + b'"' + bytes(SLACK), dtype=np.uint8), slot)
    return made


NAMES = table(SLOTS)


def recognised(frame: bytes) -> Any:
    """Return the event that the recogniser alone makes of a frame, None if it leaves it."""
    text = frame + b"\n" + bytes(SLACK)
    words = np.full(ev.E_WORDS, -77, dtype=np.int64)
    end = len(frame) + 1
    known = recognise(np.frombuffer(text, dtype=np.uint8), 0, end + 1, NAMES, words, 0, 1)
    return words.view(ev.EVENT)[0] if known else None


def assert_never_more(frame: bytes) -> bool:
    """Check that what is recognised is what the decoder makes of it; return whether it was."""
    event = recognised(frame) if b"\n" not in frame else None
    if event is None:
        return False
    events, refused, unknown = decoded([frame])
    assert (refused, unknown, len(events)) == ([], 0, 1), frame
    assert events[0] == event, frame
    return True


@pytest.mark.parametrize("data", [TRADE, KLINE], ids=["trade", "kline"])
def test_the_two_hot_frames_are_recognised(data: Any) -> None:
    spelled = dict(data)
    if "k" in spelled:
        spelled["k"] = {**BAR, "h": "85294.90"}
        assert assert_never_more(wire(spelled, "btcusdt@kline_1m", spaced=True))
    assert assert_never_more(wire(spelled))
    assert assert_never_more(wire({**spelled, "s": "1000000MOGUSDT"}))
    assert assert_never_more(wire({**spelled, "s": "A" * 24}))
    assert assert_never_more(wire({**spelled, "s": "U"}))


def changed(**fields: Any) -> Any:
    return {**TRADE, **fields}


def bar(**fields: Any) -> Any:
    return {**KLINE, "k": {**BAR, "h": "85294.90", **fields}}


LEFT = {
    "unknown symbol": wire(changed(s="NOUSDT")),
    "name too long": wire(changed(s="B" * 25)),
    "empty name": wire(changed(s="")),
    "foreign letters": wire(changed(s="币安人生USDT"), "币安人生usdt@aggTrade"),
    "foreign symbol": wire(changed(s="币安人生USDT")),
    "escape": wire(TRADE).replace(b"BTCUSDT", b"BTC\\u0055SDT"),
    "escape in the stream": wire(TRADE).replace(b"btcusdt", b"btc\\u0075sdt"),
    "endless stream": wire(TRADE, "b" * 80),
    "other order": wire(dict(reversed(TRADE.items()))),
    "one key more": wire(changed(X="MARKET")),
    "one key less": wire({key: value for key, value in TRADE.items() if key != "nq"}),
    "space": wire(TRADE).replace(b',"a"', b', "a"'),
    "two spaces": wire(KLINE, spaced=True).replace(b', "o"', b',  "o"'),
    "sign": wire(changed(p="-1.0")),
    "plus": wire(changed(p="+1.0")),
    "exponent": wire(changed(p="1e5")),
    "no digit": wire(changed(p="")),
    "no digit before the point": wire(changed(p=".5")),
    "no digit behind the point": wire(changed(p="5.")),
    "two points": wire(changed(p="5.5.5")),
    "19 digits": wire(changed(p="1234567890123456789")),
    "19 digits with a point": wire(changed(p="1234567890.123456789")),
    "whole number of 19 digits": wire(changed(a=10**18)),
    "negative id": wire(changed(f=-1)),
    "needless zero": wire(TRADE).replace(b'"a":3', b'"a":03'),
    "number as text": wire(changed(a="5")),
    "no flag": wire(changed(m=None)),
    "not false": wire(TRADE).replace(b"true", b"trud"),
    "not plain nq": wire(changed(nq="x")),
    "other event": wire(CONTINUOUS),
    "other interval": wire(bar(i="3m")),
    "decimals differ": wire(KLINE),
    "volumes differ": wire(bar(v="0.6710")),
    "quotes differ": wire(bar(Q="1.5")),
    "no trades": wire(bar(f=-1, L=-1, n=0)),
    "endless name in the bar": wire(bar(s="B" * 80)),
    "cut": wire(TRADE)[:-1],
    "more behind it": wire(TRADE) + b" ",
    "nothing": b"",
    "an array": b"[]",
    "no comma": wire(KLINE).replace(b',"o"', b'."o"'),
}


@pytest.mark.parametrize("name", LEFT)
def test_whatever_is_not_certain_is_left_to_the_decoder(name: str) -> None:
    assert recognised(LEFT[name]) is None


def test_frames_keep_their_order_whoever_reads_them() -> None:
    rng = random.Random(5)
    frames = [wire(changed(a=n)) if rng.random() < 0.7 else rng.choice([*LEFT.values()]) for n in range(500)]
    events, refused, unknown = decoded(frames)
    found, refusals, unknowns = read(frames)
    assert np.array_equal(found, events)
    assert (refusals, unknowns) == (refused, unknown)
    assert len(refused) > 10 and unknown > 5


def test_a_line_end_within_a_frame_moves_no_other() -> None:
    pretty = json.dumps({"stream": "x", "data": TRADE}, indent=1).encode()
    two = wire(changed(a=5)) + b"\n" + wire(changed(a=6))
    frames = [wire(changed(a=1)), pretty, two, wire(changed(a=9)), b"\n", wire(changed(a=10))]
    events, refused, _ = decoded(frames)
    found, refusals, _ = read(frames)
    assert found["a"].tolist() == events["a"].tolist() == [1, TRADE["a"], 9, 10]
    assert refusals == refused


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_two_frames_in_one_are_one(place: int, others: int) -> None:
    two = wire(changed(a=5)) + b"\n" + wire(changed(a=6))
    frames = [wire(changed(a=number)) for number in range(others)]
    frames.insert(min(place, others), two)
    events, refused, _ = decoded(frames)
    found, refusals, _ = read(frames)
    assert found["a"].tolist() == events["a"].tolist() == list(range(others))
    assert refusals == refused and len(refused) == 1


def test_nothing_is_read_from_nothing() -> None:
    events, refused, unknown = read([])
    assert (len(events), refused, unknown) == (0, [], 0)


def recorded() -> Iterator[bytes]:
    if not LIVE.exists():
        pytest.skip("the recordings are not here")
    for name, spaced in (("aggTrade.jsonl", "btcusdt@aggTrade"), ("kline_1m.subset.jsonl", "btcusdt@kline_1m")):
        for line in (LIVE / name).read_text().splitlines():
            yield f'{{"stream":"{spaced}","data":{line}}}'.encode()


def test_recorded_frames_are_recognised() -> None:
    frames = list(recorded())
    events, refused, unknown = decoded(frames)
    found, refusals, unknowns = read(frames)
    assert np.array_equal(found, events)
    assert (refusals, unknowns) == (refused, unknown) == ([], 0)
    assert all(assert_never_more(frame) for frame in frames)


def valid_frames() -> list[bytes]:
    spaced = wire(bar(), "btcusdt@kline_1m", spaced=True)
    return [wire(TRADE), wire(bar(x=True), "btcusdt@kline_1m"), spaced, wire(changed(s="U", m=False))]


def test_mutated_frames_never_say_more_than_the_decoder() -> None:
    rng, valid = random.Random(7), valid_frames()
    letters = bytes(range(256)) + b'0123456789".,:{}-+eE \\' * 8
    known = 0
    for _ in range(MUTATIONS):
        frame = bytearray(rng.choice(valid))
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            at = rng.randrange(len(frame))
            kind = rng.randrange(4)
            if kind == 0:
                frame[at] = rng.choice(letters)
            elif kind == 1:
                frame.insert(at, rng.choice(letters))
            elif kind == 2:
                del frame[at]
            else:
                other = rng.randrange(len(frame))
                frame[at], frame[other] = frame[other], frame[at]
        known += assert_never_more(bytes(frame))
    assert 0 < known < MUTATIONS


plain = some.decimals(min_value=0, max_value=10**10, allow_nan=False, allow_infinity=False, places=4).map(
    lambda number: f"{Decimal(number):.4f}"
)
ids = some.integers(0, 10**18 - 1)


@settings(max_examples=300 if COMPILED else 60, deadline=None)
@given(some.tuples(ids, ids, ids, ids, ids), plain, plain, some.booleans())
def test_any_plain_trade_is_recognised(numbers: Any, price: str, quantity: str, maker: bool) -> None:
    E, a, f, l, T = numbers
    assert assert_never_more(wire(changed(E=E, a=a, f=f, l=l, T=T, p=price, q=quantity, m=maker)))


@settings(max_examples=300 if COMPILED else 60, deadline=None)
@given(some.lists(plain, min_size=8, max_size=8), some.tuples(ids, ids, ids), some.booleans(), some.booleans())
def test_any_plain_bar_is_recognised(cells: Any, numbers: Any, final: bool, spaced: bool) -> None:
    f, L, n = numbers
    fields = dict(zip("ochlvqVQ", cells, strict=True), f=f, L=L, n=n, x=final)
    data = {**KLINE, "k": {**BAR, **fields}}
    assert assert_never_more(wire(data, spaced=spaced))


def test_symbols_come_and_go() -> None:
    slots: dict[str, int] = {}
    reader, batch = FrameReader(slots, {}), EventBatch()

    def slot_of(name: str) -> int | None:
        reader.read([wire(changed(s=name))], batch)
        events = batch.take()
        return int(events["slot"][0]) if len(events) else None

    for number in range(300):
        slots[f"S{number}USDT"] = number
        reader.learn()
    assert [slot_of(f"S{number}USDT") for number in range(300)] == list(range(300))
    del slots["S7USDT"]
    reader.learn()
    assert slot_of("S7USDT") is None
    assert slot_of("S8USDT") == 8
    slots["S8USDT"] = 7
    reader.learn()
    assert slot_of("S8USDT") == 7
    assert reader.unknown_symbols == 1


def test_names_that_no_frame_can_be_recognised_by_are_not_entered() -> None:
    assert np.count_nonzero(table({"B" * 25: 1, "币": 2, "": 3, 'A"': 4, "A\\": 5})) == 0


def test_names_that_fall_on_one_place_are_told_apart() -> None:
    names = {f"{chr(65 + n // 26)}{chr(65 + n % 26)}USDT": n for n in range(60)}
    made = table(names)  # 60 of 64: most places are taken
    entries = made.reshape(-1, ENTRY_WORDS)
    assert sorted(entries[entries[:, 0] > 0, 0] - 1) == list(range(60))
