from __future__ import annotations

import json
from typing import Any

import pytest

from klshm.sim.events import AggEvent, Event, KlineEvent
from klshm.sim.faults import Faults
from klshm.sim.stream_faults import StreamFaults
from tests.sim.client import Session, client, fault, stream, until
from tests.sim.helpers import START_MS, run
from tests.support.exchange import exchange


MINUTE_MS = 60_000


def events() -> list[Event]:
    return run(seconds=70, symbols=3)[1]


def with_faults(*faults: dict[str, Any]) -> StreamFaults:
    active = Faults()
    for parameters in faults:
        active.start(parameters, START_MS)
    return StreamFaults(active)


def finals(sent: list[Event]) -> list[Event]:
    return [event for event in sent if isinstance(event, KlineEvent) and event.final]


def test_nothing_wrong_nothing_changed() -> None:
    sent = events()
    assert with_faults().apply(sent, START_MS) is sent


def test_mute_drop_duplicate() -> None:
    sent = events()
    muted = with_faults({"name": "mute", "stream": "aggTrade", "symbol": "BTCUSDT", "seconds": 5})
    left = muted.apply(sent, START_MS)
    assert not any(isinstance(e, AggEvent) and e.instrument.spec.symbol == "BTCUSDT" for e in left)
    assert any(isinstance(e, AggEvent) for e in left) and any(isinstance(e, KlineEvent) for e in left)
    assert len(muted.apply(sent, START_MS + 5_000)) == len(sent)
    aggs = sum(isinstance(e, AggEvent) for e in sent)
    every = {"probability": 1.0, "seconds": 5}
    assert len(with_faults({"name": "drop", **every}).apply(sent, START_MS)) == len(sent) - aggs
    assert len(with_faults({"name": "duplicate", **every}).apply(sent, START_MS)) == len(sent) + aggs


def test_final_frames_late_or_missing_and_klines_reordered() -> None:
    sent = events()
    assert finals(sent)
    late = with_faults({"name": "delay_x", "delay_ms": 3000, "seconds": 1})
    assert len(late.apply(sent, START_MS)) == len(sent) - len(finals(sent))
    assert late.apply([], START_MS + 2_999) == []
    assert late.apply([], START_MS + 3_000) == finals(sent)
    lost = with_faults({"name": "delay_x", "probability": 1.0, "seconds": 1})
    assert len(lost.apply(sent, START_MS)) == len(sent) - len(finals(sent))
    assert lost.apply([], START_MS + 60_000) == []
    behind = with_faults({"name": "reorder", "delay_ms": 400, "seconds": 1})
    assert not any(isinstance(e, KlineEvent) for e in behind.apply(sent, START_MS))
    assert any(isinstance(e, KlineEvent) for e in behind.apply([], START_MS + 400))


def test_delays_of_final_frames_are_spread_over_their_jitter() -> None:
    sent = events()
    late = with_faults({"name": "delay_x", "delay_ms": 100, "jitter_ms": 25_000, "seconds": 1})
    late.apply(finals(sent) * 40, START_MS)
    came = [len(late.apply([], START_MS + at_ms)) for at_ms in (99, 5_100, 10_100, 15_100, 20_100, 25_100, 60_000)]
    assert came[0] == came[-1] == 0 and min(came[1:-1]) > 0 and sum(came) == 40 * len(finals(sent))


@pytest.mark.parametrize("behind", [[], [{"name": "reorder", "delay_ms": 400, "seconds": 100}]])
def test_final_frames_after_the_first_of_the_next_candle(behind: list[dict[str, Any]]) -> None:
    faults = with_faults({"name": "delay_x", "after_next": True, "seconds": 100}, *behind)
    turned = faults.apply(events(), START_MS) + faults.apply([], START_MS + 400)
    # Where nothing more was traded there is no next candle yet.
    assert {final.instrument.spec.symbol for final in finals(turned)} >= {"BTCUSDT", "ETHUSDT", "SOLUSDT"}
    for final in finals(turned):
        before = turned[turned.index(final) - 1]
        assert isinstance(before, KlineEvent) and isinstance(final, KlineEvent)
        assert before.instrument is final.instrument and before.bar.open_time == final.bar.open_time + MINUTE_MS


def test_late_missing_and_turned_final_frames_on_the_wire() -> None:
    plan = [
        {"at_s": 0, "name": "delay_x", "symbol": "BTCUSDT", "after_next": True, "seconds": 600},
        {"at_s": 0, "name": "delay_x", "symbol": "ETHUSDT", "probability": 1.0, "seconds": 600},
        {"at_s": 0, "name": "delay_x", "symbol": "SOLUSDT", "delay_ms": 1500, "seconds": 600},
    ]

    async def body(session: Session) -> None:
        names = [f"{name}usdt@kline_1m" for name in ("btc", "eth", "sol", "xrp")]
        seen: dict[str, list[Any]] = {}
        async with stream(session, "/market/ws", *names) as ws:
            while not any(k["x"] for k in seen.get("SOLUSDT", [])):
                k = (await ws.receive_json())["k"]
                seen.setdefault(k["s"], []).append(k)
        ended = min(k["t"] for k in seen["SOLUSDT"])

        def order(symbol: str) -> list[tuple[int, bool]]:
            moves = [((k["t"] - ended) // MINUTE_MS, k["x"]) for k in seen[symbol]]
            return [move for place, move in enumerate(moves) if place == 0 or move != moves[place - 1]]

        assert order("XRPUSDT") == [(0, False), (0, True), (1, False)]
        assert order("BTCUSDT") == [(0, False), (1, False), (0, True), (1, False)]
        assert order("ETHUSDT") == [(0, False), (1, False)]
        late = seen["SOLUSDT"]
        assert late[-1]["x"] and sum(k["t"] > ended for k in late) > 2

    options = ("--symbols", "4", "--rate", "400", "--start-at", "2026-11-20T12:00:57Z", "--faults", json.dumps(plan))
    with exchange(*options) as market:
        client(market.port, body)


def test_mute_silences_a_stream_that_stays_subscribed_and_tickers_too() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/stream", "!miniTicker@arr", "!ticker@arr", "btcusdt@aggTrade") as ws:
            await fault(session, name="mute", stream="ticker", symbol="BTCUSDT", seconds=600)
            await fault(session, name="mute", stream="miniTicker", seconds=600)
            await fault(session, name="mute", stream="aggTrade", symbol="BTCUSDT", seconds=600)
            await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert len((await until(ws, lambda m: m.get("id") == 2))["result"]) == 3
            for _ in range(2):
                message = await ws.receive_json()
                assert message["stream"] == "!ticker@arr"
                symbols = {row["s"] for row in message["data"]}
                assert "BTCUSDT" not in symbols and "ETHUSDT" in symbols
            await fault(session, name="clear")
            wanted = {"!miniTicker@arr", "btcusdt@aggTrade"}
            await until(ws, lambda m: wanted.discard(m["stream"]) or not wanted)

    with exchange("--symbols", "3", "--rate", "300") as market:
        client(market.port, body)


def test_frames_cut_short_on_the_wire() -> None:
    async def body(session: Session) -> None:
        async with stream(session, "/market/ws", "btcusdt@kline_1m") as ws:
            await fault(session, name="bad_json", stream="kline", count=2)
            broken = 0
            while broken < 2:
                text = await ws.receive_str()
                try:
                    json.loads(text)
                except json.JSONDecodeError:
                    broken += 1
            json.loads(await ws.receive_str())

    with exchange("--symbols", "1", "--rate", "200") as market:
        client(market.port, body)
