from __future__ import annotations

import gzip
import json
from collections import Counter

from klshm.sim.catalogue import catalogue
from tests.sim.client import Session, client
from tests.sim.helpers import START_MS
from tests.support.exchange import exchange


def test_the_full_listing_is_as_large_and_as_odd_as_the_exchange_s() -> None:
    async def body(session: Session) -> None:
        async with session.get("/fapi/v1/exchangeInfo", auto_decompress=False) as response:
            packed = await response.read()
            assert response.headers["Content-Encoding"] == "gzip"
        async with session.get("/fapi/v1/exchangeInfo", headers={"Accept-Encoding": "identity"}) as response:
            plain = await response.read()
            assert "Content-Encoding" not in response.headers
        assert gzip.decompress(packed) == plain and len(plain) > 1_000_000 > 10 * len(packed)
        symbols = json.loads(plain)["symbols"]
        names = {row["symbol"] for row in symbols}
        status = Counter(row["status"] for row in symbols)
        assert len(symbols) == len(names) == 924
        assert (status["TRADING"], status["SETTLING"], status["PENDING_TRADING"]) == (789, 129, 1)
        assert set(status) >= {"PRE_DELIVERING", "DELIVERING", "DELIVERED", "PRE_SETTLE", "CLOSE"}
        kinds = Counter(row["contractType"] for row in symbols)
        assert kinds["CURRENT_QUARTER"] == kinds["NEXT_QUARTER"] == 2 and kinds["TRADIFI_PERPETUAL"] > 150
        assert set(kinds) >= {"PERPETUAL", "PREDICTION_PERPETUAL", "", "PERPETUAL_DELIVERING", "NEXT_MONTH"}
        assert {row["quoteAsset"] for row in symbols} == {"USDT", "USDC"}
        assert sum(not name.isascii() for name in names) == 5 and max(map(len, names)) == 17
        underlying = {row["underlyingType"] for row in symbols}
        assert underlying >= {"COIN", "INDEX", "PREMARKET", "COMMODITY", "EQUITY", "KR_EQUITY", "FX"}
        unknown = [row for row in symbols if any("UNKNOWN" in each["filterType"] for each in row["filters"])]
        assert unknown
        assert all(row["deliveryDate"] < 2_000_000_000_000 for row in symbols if row["status"] == "SETTLING")

    with exchange("--listing", "full") as market:
        client(market.port, body)


def test_the_compact_listing_has_what_was_asked_for_and_a_few_odd_rows() -> None:
    specs = catalogue(1, 20, 100.0, START_MS, 60)
    assert len([spec for spec in specs if not spec.extra]) == 20
    assert [spec.symbol for spec in specs if spec.extra] == [
        "BTCUSDT_261230", "ETHUSDC", "OMGUSDT", "SOONUSDT", "ODDUSDT", "BTCUSD_PERP", "LUNAUSDT",
    ]  # fmt: skip
    assert [spec.symbol for spec in specs if not spec.listed] == ["BTCUSD_PERP", "LUNAUSDT"]
