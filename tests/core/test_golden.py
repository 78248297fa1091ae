"""Real recordings of the exchange, played through the engine."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm import intervals
from klshm.core import events as ev
from klshm.core.engine import Engine, partition_layout
from klshm.core.messages import EventBatch, FrameDecoder
from klshm.shm.compile import COMPILED
from tests.core.feed import CELLS, CLOSED, CONFIRMED, DERIVED, MINUTE, PARTIAL, Feed, event
from tests.core.oracle import Fill, Market
from tests.core.play import Play, by_arrival, merged, units


DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
MERGES = 300 if COMPILED else 4


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


# Official rows: folds of folds


def official_rows(lines: list[list[str]]) -> Iterator[tuple[int, list[Decimal]]]:
    for line in lines:
        if line[0].isdigit():
            yield int(line[0]), [Decimal(value).normalize() for value in (*line[1:6], *line[7:11])]


def fold_engine(kept: tuple[str, ...], rows: int) -> tuple[Engine, Any]:
    layout = partition_layout(1, kept, -(-(rows + 4) // 32) * 32)
    words = np.zeros(layout.total_bytes // 8, np.int64)
    return Engine(words, layout), layout


def feed_rows(engine: Engine, rows: list[tuple[int, list[Decimal]]], decimals: tuple[int, int]) -> None:
    last = rows[-1][0] + MINUTE
    adding = event(kind=ev.SYMBOL_ADD, l=1, open_time=rows[0][0], price_decimals=decimals[0])
    adding["quantity_decimals"] = decimals[1]
    engine.apply(adding, last + 10 * MINUTE)
    pd, qd = decimals
    batch = EventBatch(len(rows))
    for opened, (o, h, l, c, v, q, n, tv, tq) in rows:
        prices = [units(price, pd) for price in (o, h, l, c)]
        sums = [units(v, qd), units(q, pd + qd), units(tv, qd), units(tq, pd + qd)]
        batch.append((ev.REST_ROW, 0, last + MINUTE, opened, *[0] * 5, pd, qd, pd + qd, *prices, *sums, int(n), 0))
    engine.apply(batch.take(), last + 10 * MINUTE)


def stored(engine: Engine, layout: Any, index: int, interval: str, opened: int) -> Any:
    from klshm.shm.layout import KLINE, ROW_WORDS

    number = (opened - intervals.anchor_ms(interval)) // intervals.length_ms(interval)
    row = layout.history_row(0, index) + number % layout.history_rows[index]
    at = layout.history_offset(0) // 8 + row * ROW_WORDS
    return engine.memory.words[at : at + ROW_WORDS].copy().view(KLINE)[0]


def test_folds_of_three_days_equal_direct_folds() -> None:
    lines = []
    for day in (3, 4, 5):
        with data(f"btcusdt-1m-2025-09/BTCUSDT-1m-2025-09-0{day}.csv").open() as file:
            lines += list(csv.reader(file))
    rows = list(official_rows(lines))
    assert [opened for opened, _ in rows] == list(range(rows[0][0], rows[0][0] + 4320 * MINUTE, MINUTE))
    kept = ("1m", "5m", "30m", "4h", "1d")
    engine, layout = fold_engine(kept, len(rows))
    feed_rows(engine, rows, (2, 3))
    for index, interval in enumerate(kept[1:], start=1):
        length = intervals.length_ms(interval)
        for opened in range(rows[0][0], rows[0][0] + 4320 * MINUTE, length):
            part = [cells for time, cells in rows if opened <= time < opened + length]
            sums = [sum(column, Decimal(0)) for column in zip(*(cells[4:] for cells in part), strict=True)]
            prices = [part[0][0], max(c[1] for c in part), min(c[2] for c in part), part[-1][3]]
            row = stored(engine, layout, index, interval, opened)
            assert row["open_time"] == opened
            assert cells_of(row) == tuple(float(value) for value in (*prices, *sums))
            assert (row["state"], row["flags"]) == (CONFIRMED, DERIVED)


def test_a_month_with_minutes_without_trades_folds_to_the_official_hours_and_days() -> None:
    with gzip.open(data("algousdt-2024-09/ALGOUSDT-1m-2024-09.csv.gz"), "rt") as file:
        rows = list(official_rows(list(csv.reader(file))))
    days = 30 if COMPILED else 2
    rows = rows[: days * 1440]
    assert sum(cells[6] == 0 for _, cells in rows) == (446 if COMPILED else 9)
    kept = ("1m", "1h", "1d")
    engine, layout = fold_engine(kept, len(rows))
    feed_rows(engine, rows, (4, 1))
    for interval, name in (("1h", "ALGO_USDT_1h.2024-09.csv"), ("1d", "ALGO_USDT_1d.2024-09.csv")):
        with data(f"algousdt-2024-09/{name}").open() as file:
            official = [line for line in csv.reader(file) if line[0].isdigit()]
        official = [line for line in official if int(line[0]) <= rows[-1][0] + MINUTE - intervals.length_ms(interval)]
        assert len(official) == days * (24 if interval == "1h" else 1)
        for line in official:
            row = stored(engine, layout, kept.index(interval), interval, int(line[0]))
            assert tuple(row[name] for name in CELLS[:5]) == tuple(float(value) for value in line[1:6])


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
