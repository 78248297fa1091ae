"""Golden tests: replayed recordings must give the exchange's own rows."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest

from klshm.sim.events import RawEvent
from klshm.sim.frames import agg_frame, kline_row
from klshm.sim.instrument import Instrument
from klshm.sim.intervals import MINUTE_MS
from klshm.sim.market import MarketOptions
from klshm.sim.replay import ReplayError, load
from klshm.sim.server import Settings, Simulator
from tests.sim.helpers import aggs_of, data, frames_of, naive, nine, trades_of


def replay(*paths: Path, options: MarketOptions | None = None) -> Simulator:
    return Simulator(Settings(replay=tuple(("BTCUSDT", path) for path in paths), market=options or MarketOptions()))


def full_minutes(simulator: Simulator, official: dict[int, list[str]], last_ms: int) -> dict[int, bool]:
    """Compare every minute that the recording covers to its end."""
    market = simulator.market
    instrument = market.instruments["BTCUSDT"]
    result = {}
    for opened, row in official.items():
        if market.start_ms <= opened and opened + MINUTE_MS <= last_ms:
            mine = kline_row(instrument.spec, "1m", instrument.bars("1m", [opened], market.now_ms)[0])
            result[opened] = nine(mine) == nine(row)
    return result


def by_time(rows: list[list[str]]) -> dict[int, list[str]]:
    return {int(row[0]): row for row in rows if row[0].isdigit()}


@pytest.mark.parametrize("boundary", [True, False])
def test_individual_trades_give_the_official_rows(boundary: bool) -> None:
    path = data("btcusdt-trades-2026-02-16/trades_btc_fut_2026-02-16_04.csv.gz")
    table = data("btcusdt-trades-2026-02-16/BTCUSDT-1m_2026-02-16T0359-0406.csv")
    simulator = replay(path, options=MarketOptions(boundary_effect=boundary))
    assert simulator.clock.start_ms == 1_771_214_401_422 - 10_000
    events = simulator.market.advance(simulator.clock.start_ms + 400_000)
    fills = trades_of(events)["BTCUSDT"]
    assert len(fills) == 11_947
    official = by_time(list(csv.reader(table.read_text().splitlines())))
    verdict = full_minutes(simulator, official, fills[-1].time_ms)
    assert list(verdict.values()) == [True] * 5
    aggs = aggs_of(events)["BTCUSDT"]
    assert sum(agg.group.quantity for agg in aggs) == sum(fill.quantity for fill in fills)
    # The rows print as the exchange prints them, padded.
    instrument = simulator.market.instruments["BTCUSDT"]
    printed = kline_row(instrument.spec, "1m", instrument.bars("1m", [1_771_214_460_000], simulator.market.now_ms)[0])
    assert [str(cell) for cell in printed[:11]] == official[1_771_214_460_000][:11]
    equal = [opened for opened in verdict if _rows_by_agg(aggs, opened) == nine(official[opened])[:6]]
    assert len(equal) == 5 if not boundary else len(equal) <= 5


def _rows_by_agg(aggs: list, opened: int) -> tuple[Decimal, ...]:  # type: ignore[type-arg]
    inside = [agg.group for agg in aggs if opened <= agg.group.first_ms < opened + MINUTE_MS]
    prices = [Decimal(group.price).scaleb(-2) for group in inside]
    sizes = [Decimal(group.quantity).scaleb(-3) for group in inside]
    quote = sum((p * q for p, q in zip(prices, sizes, strict=True)), Decimal())
    return prices[0], max(prices), min(prices), prices[-1], sum(sizes, Decimal()), quote


def test_recorded_agg_trades_give_the_official_rows_and_pass_unchanged() -> None:
    path = data("spot-btcusdt-2020-01-02/spot_aggTrades_BTCUSDT_20200102.json")
    archive = zipfile.ZipFile(data("spot-btcusdt-2020-01-02/BTCUSDT-1m-2020-01-02.zip"))
    simulator = replay(path)
    events = simulator.market.advance(simulator.clock.start_ms + 600_000)
    with archive, archive.open(archive.namelist()[0]) as file:
        official = by_time(list(csv.reader(io.TextIOWrapper(file))))
    recorded = json.loads(path.read_text())
    verdict = full_minutes(simulator, official, recorded[-1]["T"])
    assert list(verdict.values()) == [True] * 7
    sent = [json.loads(agg_frame(agg)) for agg in aggs_of(events)["BTCUSDT"]]
    for mine, row in zip(sent, recorded, strict=True):
        assert {key: mine[key] for key in "aflTm"} == {key: row[key] for key in "aflTm"}
        assert (Decimal(mine["p"]), Decimal(mine["q"])) == (Decimal(row["p"]), Decimal(row["q"]))
    for frame in frames_of(events)["BTCUSDT"]:
        fills = [f for f in trades_of(events)["BTCUSDT"] if frame.bar.open_time <= f.time_ms]
        fills = [f for f in fills if f.last_id <= frame.bar.last_id]
        assert nine(kline_row(frame.instrument.spec, "1m", frame.bar)) == naive(fills, 2, 6)


def test_recorded_frames_are_sent_verbatim_and_final_rows_are_official() -> None:
    paths = [data(f"btcusdt-live-2026-10-06/{name}") for name in ("aggTrade.jsonl", "kline_1m.subset.jsonl")]
    simulator = replay(*paths)
    market = simulator.market
    events = market.advance(simulator.clock.start_ms + 300_000)
    raw = [event for event in events if isinstance(event, RawEvent)]
    assert len(raw) == len(events)
    assert sorted(event.text for event in raw) == sorted(
        line for path in paths for line in path.read_text().splitlines()
    )
    assert [event.event_ms for event in raw] == sorted(event.event_ms for event in raw)
    finals = [json.loads(event.text)["k"] for event in raw if '"x":true' in event.text]
    assert len(finals) == 2
    instrument: Instrument = market.instruments["BTCUSDT"]
    for k in finals:
        row = kline_row(instrument.spec, "1m", instrument.bars("1m", [k["t"]], market.now_ms)[0])
        assert [row[1], row[2], row[3], row[4], row[5], row[7], row[8]] == [k[c] for c in "ohlcvqn"]
    assert instrument.agg_trades[0].agg_id == 3_476_323_248


def test_the_replayed_symbol_is_alone_and_has_a_history() -> None:
    path = data("btcusdt-trades-2026-02-16/trades_btc_fut_2026-02-16_04.csv.gz")
    market = replay(path).market
    assert [s for s, i in market.instruments.items() if i.status == "TRADING"] == ["BTCUSDT"]
    instrument = market.instruments["BTCUSDT"]
    assert instrument.history.close_at_end() == 6_839_260
    assert instrument.first_id == 7_294_395_046
    assert len(instrument.opens("1m", None, None, 499, market.now_ms)) == 499
    many = Simulator(Settings(replay=(("BTCUSDT", path),), symbols=5)).market
    assert sum(i.status == "TRADING" and not i.spec.extra for i in many.instruments.values()) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no trade"),
        ("[{]", "unreadable content"),
        ("a,b\n1,2\n", "found a row without"),
        ('[{"p":"1","q":"2"}]', "found a row without"),
        ("[]", "found no trade"),
    ],
)
def test_unusable_files_are_refused_clearly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    with pytest.raises(ReplayError, match=message) as caught:
        load("BTCUSDT", [path])
    assert str(path) in str(caught.value) and "expected trades" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be read"):
        load("BTCUSDT", [tmp_path / "none.csv"])


def test_archive_headers_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "aggs.csv"
    path.write_text(
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n5,1.25,0.5,10,12,1000,true\n"
    )
    fill = load("XYZUSDT", [path], 3, 3).fills[0]
    assert fill == (1000, 10, 12, 3, 1250, 500, 0, False, 5, "MARKET")
