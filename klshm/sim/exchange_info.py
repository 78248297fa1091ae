"""The exchangeInfo body, with the odd rows and unknown values that clients must survive."""

from __future__ import annotations

import gzip

import orjson

from .frames import decimal
from .instrument import Instrument
from .market import Market


__all__ = ["ExchangeInfo"]


class ExchangeInfo:
    """Build the body when the market's listing changed, and keep it in both encodings."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._version = -1
        self._plain = b""
        self._packed = b""

    def body(self, now_ms: int, *, packed: bool) -> bytes:
        """Return the body; its serverTime is that of the last change of the listing, as clients must not use it."""
        if self._version != self._market.version:
            self._version = self._market.version
            self._plain = orjson.dumps(_document(self._market, now_ms))
            self._packed = gzip.compress(self._plain, 6)
        return self._packed if packed else self._plain


def _document(market: Market, now_ms: int) -> dict[str, object]:
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
            {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
        ],
        "exchangeFilters": [],
        "assets": [
            {"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"},
            {"asset": "USDC", "marginAvailable": True, "autoAssetExchange": "-10000"},
        ],
        "symbols": [_symbol(found) for found in market.instruments.values() if found.listed],
    }


def _symbol(instrument: Instrument) -> dict[str, object]:
    spec = instrument.spec
    p, q = spec.price_decimals, spec.quantity_decimals
    tick = decimal(spec.tick, p).rstrip("0") if spec.tick > 1 else decimal(spec.tick, p)
    tick = decimal(spec.tick, p) if tick.endswith(".") else tick
    filters: list[dict[str, object]] = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": decimal(spec.tick, p),
            "maxPrice": decimal(spec.reference_price * 100, p),
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": decimal(1, q),
            "maxQty": decimal(spec.order_size * 10**6, q),
            "stepSize": decimal(1, q),
        },
        {
            "stepSize": decimal(1, q),
            "filterType": "MARKET_LOT_SIZE",
            "maxQty": decimal(spec.order_size * 10**5, q),
            "minQty": decimal(1, q),
        },
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MIN_NOTIONAL", "notional": "5"},
        {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
        {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
    ]
    if spec.extra:
        filters.append({"filterType": "SIMULATED_UNKNOWN_FILTER", "depth": [1, 2], "note": None})
    return {
        "symbol": spec.symbol,
        "pair": spec.pair,
        "contractType": spec.contract_type,
        "deliveryDate": spec.delivery_ms,
        "onboardDate": spec.onboard_ms,
        "status": instrument.status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": spec.base,
        "quoteAsset": spec.quote,
        "marginAsset": spec.quote,
        "pricePrecision": p,
        "quantityPrecision": q,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": spec.underlying,
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": filters,
        "orderTypes": [
            "LIMIT",
            "MARKET",
            "STOP",
            "STOP_MARKET",
            "TAKE_PROFIT",
            "TAKE_PROFIT_MARKET",
            "TRAILING_STOP_MARKET",
        ],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "permissionSets": ["GRID", "COPY", "DCA", "PSB"],
    }
