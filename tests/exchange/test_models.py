"""Decoding of what the exchange really sent, and of what it must not be able to break."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from klshm.config import ExchangeConfig
from klshm.errors import BadMessage
from klshm.exchange import models
from klshm.exchange.models import ErrorBody, Listing, Ticker


DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
recorded = pytest.mark.skipif(not DATA.is_dir(), reason="the recordings (../shared/data) are not here")

ROW = {
    "symbol": "BTCUSDT", "pair": "BTCUSDT", "contractType": "PERPETUAL", "deliveryDate": 4133404800000,
    "onboardDate": 1567965300000, "status": "TRADING", "quoteAsset": "USDT",
    "pricePrecision": 2, "quantityPrecision": 3,
}  # fmt: skip


def info(*rows: Any, **more: Any) -> models.ExchangeInfo:
    return models.decode_exchange_info(json.dumps({"symbols": list(rows), **more}).encode())


@recorded
@pytest.mark.parametrize(
    ("name", "rows", "taken"),
    [
        ("exchange-info/fapi_exchangeInfo_20241002_mainnet_eddysan.json.gz", 347, None),
        ("exchange-info/fapi_exchangeInfo_20260331_TESTNET_lbwnblb.json.gz", 705, 654),
    ],
)
def test_recorded_exchange_info(name: str, rows: int, taken: int | None) -> None:
    body = gzip.decompress((DATA / name).read_bytes())
    decoded = models.decode_exchange_info(body)
    assert len(decoded.listings) == rows and decoded.odd == 0
    expected = {
        s["symbol"]
        for s in json.loads(body)["symbols"]
        if s["contractType"] in ("PERPETUAL", "TRADIFI_PERPETUAL") and s["quoteAsset"] == "USDT"
    }
    selected = models.select(decoded.listings, ExchangeConfig())
    assert {x.symbol for x in selected} == expected
    assert taken is None or len(selected) == taken


@recorded
def test_recorded_rest_bodies() -> None:
    for path in sorted((DATA / "rest-bodies").glob("fapi_klines_*.json")):
        raw = json.loads(path.read_text())["data"]
        rows = models.decode_klines(json.dumps(raw).encode())
        assert [[r.open_time, r.open, r.volume, r.trade_count, r.taker_buy_quote_volume] for r in rows] == [
            [r[0], r[1], r[5], r[8], r[10]] for r in raw
        ]
    trades = json.loads((DATA / "rest-bodies/fapi_aggTrades_LTCUSDT_500.json").read_text())["data"]
    decoded = models.decode_aggregate_trades(json.dumps(trades).encode())
    assert [t.agg_id for t in decoded] == [t["a"] for t in trades]
    assert models.decode_server_time((DATA / "rest-bodies/fapi_time.json").read_bytes()) == 1620099477465
    body = (DATA / "rest-bodies/fapi_exchangeInfo_25symbols.json").read_bytes()
    assert len(models.decode_exchange_info(body).listings) == 25
    error = json.loads((DATA / "rest-bodies/dapi_klines_error_-4088.json").read_text())["data"]
    assert models.decode_error(json.dumps(error).encode()) == ErrorBody(-4088, "Maximum time interval is 200 days.")


@recorded
def test_recorded_errors() -> None:
    for line in (DATA / "frames" / "rest_errors.jsonl").read_text().splitlines():
        body = json.loads(line)["body"]
        if isinstance(body, dict):
            assert models.decode_error(json.dumps(body).encode()) == ErrorBody(body["code"], body["msg"])


@recorded
def test_recorded_tradifi_trades_with_new_keys() -> None:
    trades = json.loads((DATA / "clusdt-aggtrades" / "aggtrades_clusdt.json").read_text())
    assert len(models.decode_aggregate_trades(json.dumps(trades).encode())) == len(trades)


def test_odd_rows_are_left_out_and_counted() -> None:
    good = dict(ROW, newKey={"deep": [1]}, filters=[{"filterType": "UNHEARD_OF"}], contractType="PERPETUAL_9")
    bad = [
        {"symbol": "NOPRECISION"},
        dict(ROW, symbol=""),
        dict(ROW, symbol="A/B"),
        dict(ROW, symbol="A" * 61),
        dict(ROW, symbol="龙" * 21),
        dict(ROW, pricePrecision=7, quantityPrecision=3),
        dict(ROW, pricePrecision=-1),
        dict(ROW, pricePrecision="2"),
        "text",
        None,
    ]
    decoded = info(good, *bad)
    assert [x.symbol for x in decoded.listings] == ["BTCUSDT"]
    assert decoded.odd == len(bad)
    assert len(decoded.odd_examples) == 5 and "NOPRECISION" in decoded.odd_examples[0]


def test_missing_optional_keys_are_tolerated() -> None:
    decoded = info({"symbol": "XUSDT", "pricePrecision": 1, "quantityPrecision": 0})
    assert decoded.listings == (Listing("XUSDT", 1, 0),)
    assert decoded.weight_limit == 2400


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}], 6000),
        ([{"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}, 5, {"limit": "x"}], 2400),
        ([{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 0}], 2400),
    ],
)
def test_weight_limit(limits: list[Any], expected: int) -> None:
    assert info(ROW, rateLimits=limits).weight_limit == expected


@pytest.mark.parametrize(
    ("changes", "config", "taken"),
    [
        ({}, {}, True),
        ({"contractType": "TRADIFI_PERPETUAL"}, {}, True),
        ({"contractType": "CURRENT_QUARTER"}, {}, False),
        ({"contractType": ""}, {}, False),
        ({"quoteAsset": "USDC"}, {}, False),
        ({"quoteAsset": "USDC"}, {"quote_assets": ["USDT", "USDC"]}, True),
        ({"status": "SETTLING"}, {}, True),  # the judge decides by status
        ({}, {"symbols": ["ETHUSDT"]}, False),
        ({}, {"symbols": ["ETHUSDT", "BTCUSDT"]}, True),
        ({}, {"exclude": ["BTCUSDT"]}, False),
        ({}, {"symbols": ["BTCUSDT"], "exclude": ["BTCUSDT"]}, False),
    ],
)
def test_select(changes: dict[str, Any], config: dict[str, Any], taken: bool) -> None:
    listings = info(dict(ROW, **changes)).listings
    assert bool(models.select(listings, ExchangeConfig(**config))) is taken


@pytest.mark.parametrize(
    ("name", "good"),
    [("BTCUSDT", True), ("币安人生USDT", True), ("BTCUSDT_261225", True), ("1000PEPEUSDT", True), ("", False),
     ("A B", False), ("A-B", False), ("A'B", False), ("A\x00", False), ("龙" * 20, True), ("龙" * 21, False)],
)  # fmt: skip
def test_symbol_name_rule(name: str, good: bool) -> None:
    assert models.is_symbol_name(name) is good


def test_stream_symbol_lowers_only_ascii() -> None:
    assert models.stream_symbol("BTCUSDT_261225") == "btcusdt_261225"
    assert models.stream_symbol("币安人生USDT") == "币安人生usdt"
    assert models.stream_symbol("ÄUSDT") == "Äusdt"


def test_tickers_that_do_not_fit_are_left_out() -> None:
    body = b'[{"symbol":"A","count":5,"x":1},{"symbol":"B"},{"count":1},7]'
    assert models.decode_tickers(body) == {"A": Ticker("A", 5), "B": Ticker("B", 0)}


def test_klines_with_more_columns_are_tolerated() -> None:
    row = [1, "1", "1", "1", "1", "1", 2, "1", 3, "1", "1", "0", "new"]
    assert models.decode_klines(json.dumps([row]).encode())[0].trade_count == 3


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[", b"{}", b"[1]", b'[[1,"2"]]', b'{"symbols":3}', b"\xff", b"null"]
)
@pytest.mark.parametrize(
    "decode",
    [models.decode_exchange_info, models.decode_server_time, models.decode_klines, models.decode_aggregate_trades],
)
def test_anything_else_is_a_bad_message(body: bytes, decode: Any) -> None:
    with pytest.raises(BadMessage, match="expected the documented shape"):
        decode(body)


def test_tickers_of_another_shape_are_a_bad_message() -> None:
    with pytest.raises(BadMessage):
        models.decode_tickers(b'{"symbol":"A"}')


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"code":"x"}', b"\xff"])
def test_a_page_is_no_error_body(body: bytes) -> None:
    assert models.decode_error(body) is None
