"""Real recordings of the exchange, played through the engine."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from klshm.core import events as ev
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.shm.compile import COMPILED
from tests.core.feed import CELLS, CLOSED, CONFIRMED, MINUTE, PARTIAL, Feed, event
from tests.core.oracle import Fill, Market
from tests.core.play import Play, by_arrival, merged


DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
MERGES = 1500 if COMPILED else 4


def data(name: str) -> Path:
    path = (DATA / name).resolve()
    if not path.exists():
        pytest.skip(f"the recording {name} is not here")
    return path


def jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data(name).read_text().splitlines()]


def decoded(messages: list[dict[str, Any]], symbol: str) -> list[Any]:
    decoder, batch = FrameDecoder({symbol: 0}, {}), EventBatch()
    for message in messages:
        decoder.decode(json.dumps({"stream": "x", "data": message}).encode(), batch)
    events = batch.take().copy()
    return [events[index : index + 1] for index in range(len(events))]


def cells_of(row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in CELLS)


def floats(values: list[str]) -> tuple[float, ...]:
    """Return the nine cells of an official row in the exchange's order (its close time left out)."""
    chosen = [*values[1:6], *values[7:11]]
    return tuple(float(Decimal(value)) for value in chosen)


# Live frames of 2026


def live_streams() -> tuple[list[Any], list[Any], dict[int, tuple[float, ...]]]:
    trades = jsonl("btcusdt-live-2026-10-06/aggTrade.jsonl")
    frames = jsonl("btcusdt-live-2026-10-06/kline_1m.subset.jsonl")
    final = {
        frame["k"]["t"]: tuple(float(frame["k"][key]) for key in "ohlcvqnVQ") for frame in frames if frame["k"]["x"]
    }
    assert len(trades) == 351 and len(frames) == 47 and len(final) == 2
    return decoded(trades, "BTCUSDT"), decoded(frames, "BTCUSDT"), final


def play_live(events: list[Any], start: int) -> tuple[Feed, int]:
    feed = Feed(start=start, joined_s=0)
    falls, seen = 0, (0, 0.0)
    for one in events:
        feed.now = max(feed.now, int(one["time"][0]))
        feed.apply(one)
        row = feed.live()
        falls += row["open_time"] == seen[0] and row["volume"] < seen[1]
        seen = row["open_time"], row["volume"]
    return feed, falls


def test_both_live_streams_in_the_order_they_were_sent() -> None:
    trades, frames, final = live_streams()
    events = sorted([*trades, *frames], key=lambda one: int(one["time"][0]))
    feed, falls = play_live(events, min(final))
    assert falls == 0
    for opened, cells in final.items():
        row = feed.stored(opened)
        assert row["state"] == CONFIRMED
        assert cells_of(row) == cells
    clean, equal = feed.count("frames_clean_total"), feed.count("frames_clean_equal_count_total")
    assert clean >= 26
    assert clean - equal == feed.count("frames_clean_total") - feed.count("frames_clean_equal_total") <= 1
    assert feed.count("frames_cut_exact_total") == feed.count("frames_cut_total") > 0
    assert feed.count("duplicates_total") == feed.count("holes_total") == feed.count("refused_total") == 0


def test_both_live_streams_in_any_order_that_keeps_each() -> None:
    trades, frames, final = live_streams()
    for seed in range(MERGES):
        feed, falls = play_live(merged(random.Random(seed), trades, frames), min(final))
        assert falls == 0
        for opened, cells in final.items():
            row = feed.stored(opened)
            assert row["state"] == CONFIRMED
            assert cells_of(row) == cells
        assert feed.count("frames_clean_total") - feed.count("frames_clean_equal_total") <= 2
        assert feed.count("contradictions_total") == 0


def test_one_live_stream_late_by_up_to_three_seconds() -> None:
    trades, frames, final = live_streams()
    for seed in range(MERGES):
        rng = random.Random(seed)
        lag = rng.randint(-3_000, 3_000)
        keyed = [(int(one["time"][0]), one) for one in trades]
        keyed += [(int(one["time"][0]) + lag, one) for one in frames]
        feed, falls = play_live([one for _, one in sorted(keyed, key=lambda pair: pair[0])], min(final))
        assert falls == 0
        assert all(cells_of(feed.stored(opened)) == cells for opened, cells in final.items())


def test_the_second_minute_from_its_trades_alone() -> None:
    trades, _, final = live_streams()
    feed, _ = play_live(trades, min(final))
    feed.now += 60_000
    feed.apply(event(kind=ev.TICK, time=feed.now))
    row = feed.stored(max(final))
    assert cells_of(row) == final[max(final)]
    assert row["state"] == CLOSED


# Individual trades of 2026, through groups and frames of the oracle


def test_individual_trades_through_groups_and_frames() -> None:
    path = data("btcusdt-trades-2026-02-16/trades_btc_fut_2026-02-16_04.csv.gz")
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    fills = [
        Fill(
            int(row["trade_id"]),
            int(row["exch_ts_ms"]),
            Decimal(row["price"]),
            Decimal(row["qty"]),
            row["is_buyer_maker"].lower() == "false",
        )
        for row in rows
    ]
    fills.sort(key=lambda fill: fill.id)
    start = fills[0].time // MINUTE * MINUTE
    market = Market(start, 5, fills)
    with data("btcusdt-trades-2026-02-16/BTCUSDT-1m_2026-02-16T0359-0406.csv").open() as file:
        official = {int(row[0]): floats(row) for row in list(csv.reader(file))[1:]}
    rng = random.Random(1)
    play = Play(market, decimals=(2, 3), joined_ms=fills[0].time - start, rest=False)
    play.run(by_arrival(rng, market.groups(), 10, 3) + by_arrival(rng, market.frames(rng), 10, 3), then_ms=10_000)
    assert play.falls == []
    assert play.feed.count("frames_clean_total") - play.feed.count("frames_clean_equal_total") <= 1
    for opened in range(start + MINUTE, start + 5 * MINUTE, MINUTE):
        row = play.feed.stored(opened)
        assert row["state"] == CONFIRMED
        assert cells_of(row) == official[opened]


# Spot, 2020: aggregate trades alone


def test_seven_spot_minutes_from_aggregate_trades() -> None:
    trades = json.loads(data("spot-btcusdt-2020-01-02/spot_aggTrades_BTCUSDT_20200102.json").read_text())
    archive = data("spot-btcusdt-2020-01-02/BTCUSDT-1m-2020-01-02.zip")
    checksum = data("spot-btcusdt-2020-01-02/BTCUSDT-1m-2020-01-02.zip.CHECKSUM").read_text().split()[0]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == checksum
    with zipfile.ZipFile(archive) as zipped:
        text = zipped.read(zipped.namelist()[0]).decode()
    official = {int(row[0]): floats(row) for row in csv.reader(io.StringIO(text))}
    messages = [{**trade, "e": "aggTrade", "E": trade["T"] + 100, "s": "BTCUSDT"} for trade in trades]
    start = trades[0]["T"] // MINUTE * MINUTE
    feed, _ = play_live(decoded(messages, "BTCUSDT"), start)
    for opened in range(start + MINUTE, start + 8 * MINUTE, MINUTE):
        assert cells_of(feed.stored(opened)) == official[opened]
    assert feed.stored(start)["flags"] & PARTIAL


# A traded stock: trade ids that are skipped are no loss, aggregate ids that are skipped are


def stock_trades() -> tuple[list[dict[str, Any]], int]:
    trades = json.loads(data("clusdt-aggtrades/aggtrades_clusdt.json").read_text())
    messages = [{**trade, "e": "aggTrade", "E": trade["T"] + 100, "s": "CLUSDT"} for trade in trades]
    return messages, trades[0]["T"] // MINUTE * MINUTE


def test_skipped_trade_ids_are_no_holes() -> None:
    trades, start = stock_trades()
    assert sum(later["f"] != one["l"] + 1 for one, later in zip(trades, trades[1:], strict=False)) == 2
    feed, _ = play_live(decoded(trades, "CLUSDT"), start)
    assert feed.count("holes_total") == 0
    assert feed.count("trades_total") == len(trades)
    last = [trade for trade in trades if trade["T"] // MINUTE == trades[-1]["T"] // MINUTE]
    assert feed.live()["volume"] == float(sum(Decimal(trade["q"]) for trade in last))


def test_skipped_aggregate_ids_are_holes_with_exact_bounds() -> None:
    trades, start = stock_trades()
    lost = [*range(-40, -35), -20]
    kept = [trade for index, trade in enumerate(trades, -len(trades)) if index not in lost]
    feed, _ = play_live(decoded(kept, "CLUSDT"), start)
    assert feed.count("holes_total") == 2
    feed.now += MINUTE
    feed.apply(event(kind=ev.TICK, time=feed.now))
    feed.check()
    assert (feed.need()["first_agg_id"], feed.need()["last_agg_id"]) == (trades[-40]["a"], trades[-36]["a"])
    for one in decoded([trades[index] for index in lost], "CLUSDT"):
        feed.apply(one)
    assert feed.count("holes_filled_total") == 2
    whole, _ = play_live(decoded(trades, "CLUSDT"), start)
    whole.now += MINUTE
    whole.apply(event(kind=ev.TICK, time=whole.now))
    for opened in range(start, trades[-1]["T"], MINUTE):
        assert cells_of(feed.stored(opened)) == cells_of(whole.stored(opened))
