"""Official rows of the exchange, folded by the engine, against the official rows of longer intervals."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from klshm import intervals
from klshm.core import events as ev
from klshm.core.engine import Engine, partition_layout
from klshm.core.messages import EventBatch
from klshm.shm.compile import COMPILED
from tests.core.feed import CELLS, CONFIRMED, DERIVED, MINUTE, event
from tests.core.play import units
from tests.core.test_golden import cells_of, data


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


def prices_and_volumes(name: str) -> dict[int, list[Decimal]]:
    with data(f"klines-15m-30m-1h/{name}").open() as file:
        lines = list(csv.reader(file))[1:]
    times = [datetime.fromisoformat(line[0]).replace(tzinfo=UTC) for line in lines]
    return {round(t.timestamp()) * 1000: [Decimal(x) for x in line[1:6]] for t, line in zip(times, lines, strict=True)}


def test_quarters_fold_to_the_official_half_hours_and_hours() -> None:
    """The last rows of each file were still forming when it was saved."""
    quarters = prices_and_volumes("ETHUSDT_15m.csv")
    kept = ("1m", "15m", "30m", "1h")
    engine, layout = fold_engine(kept, len(quarters))
    last = max(quarters) + 15 * MINUTE
    adding = event(kind=ev.SYMBOL_ADD, l=1, open_time=min(quarters), price_decimals=2, quantity_decimals=3)
    engine.apply(adding, last + 10 * MINUTE)
    batch = EventBatch(len(quarters))
    for opened, (o, h, l, c, v) in quarters.items():
        # The files tell neither turnover nor counts: any that can be will do.
        sums = [units(v, 3), units(v, 3), 0, 0]
        cells = [*(units(price, 2) for price in (o, h, l, c)), *sums, 1]
        batch.append((ev.REST_ROW, 0, last + MINUTE, opened, 1, *[0] * 4, 2, 3, 5, *cells, 0))
    engine.apply(batch.take(), last + 10 * MINUTE)
    for index, (interval, name) in enumerate((("30m", "ETHUSDT_30m.csv"), ("1h", "ETHUSDT_1h.csv")), start=2):
        length = intervals.length_ms(interval)
        official = prices_and_volumes(name)
        whole = [t for t in official if all(q in quarters for q in range(t, t + length, 15 * MINUTE))]
        differing = []
        for opened in whole:
            row = stored(engine, layout, index, interval, opened)
            assert row["open_time"] == opened
            if tuple(row[cell] for cell in CELLS[:5]) != tuple(float(value) for value in official[opened]):
                differing.append(opened)
        assert len(whole) > 100
        assert set(differing) <= set(sorted(whole)[-4:])
