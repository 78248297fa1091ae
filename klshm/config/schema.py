"""Every setting, its default, its unit, its meaning and its limits; the only place defaults live.

Precedence: these defaults < configuration file (TOML) < `KLSHM_<SECTION>__<KEY>` < `--set`.
Unknown keys are errors. `klshm.settings.load` resolves all of it into one frozen `Config`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from klshm.config.crash_points import CRASH_POINTS
from klshm.config.limits import Each, Intervals, Limit, Matches, OneOf, PerName, PowerOfTwo, Range, Url, anything
from klshm.intervals import INTERVALS


__all__ = [
    "ChaosConfig",
    "Config",
    "DataConfig",
    "ExchangeConfig",
    "HistorianConfig",
    "KlinesConfig",
    "LogConfig",
    "RunConfig",
    "SegmentConfig",
    "SimConfig",
    "StoreConfig",
    "WebConfig",
]

_SYMBOL: Final = Matches(r"((?![a-z])\w)+", "a name in upper case such as BTCUSDT")
_CONTRACTS: Final = OneOf(("PERPETUAL", "TRADIFI_PERPETUAL", "CURRENT_QUARTER", "NEXT_QUARTER"))
_CORES: Final = Matches(r"auto|none|\d+(,\d+)*", '"auto", "none" or a list of cores such as "2,3,6"')


def _key(default: Any, meaning: str, limit: Limit = anything) -> Any:
    """Declare a key: its default, what it means (shown in the shipped file and in `config explain`), its limit."""
    metadata = {"meaning": meaning, "limit": limit}
    if isinstance(default, (dict, list)):
        kind = type(default)
        return field(default_factory=lambda: kind(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ExchangeConfig:
    """What to take from the exchange, and how to reach it."""

    rest_url: str = _key("https://fapi.binance.com", "base address of the REST interface", Url(("https", "http")))
    ws_url: str = _key(
        "wss://fstream.binance.com", "base address of the streams; /market/... is appended", Url(("wss", "ws"))
    )
    proxy: str = _key(
        "",
        "http://, socks5:// proxy for REST and streams; empty: HTTPS_PROXY, ALL_PROXY or none",
        Url(("http", "https", "socks5", "socks5h", "socks4"), may_be_empty=True),
    )
    contract_types: list[str] = _key(
        ["PERPETUAL", "TRADIFI_PERPETUAL"], "contract types taken", Each(_CONTRACTS, at_least=1)
    )
    quote_assets: list[str] = _key(["USDT"], "quote assets taken", Each(_SYMBOL, at_least=1))
    symbols: list[str] = _key([], "allow-list of symbols; empty: all", Each(_SYMBOL))
    exclude: list[str] = _key([], "symbols never taken", Each(_SYMBOL))
    official_stream: str = _key(
        "kline", '"kline" (exact) or "continuousKline" (closes only)', OneOf(("kline", "continuousKline"))
    )
    trade_stream: str = _key("aggTrade", 'trade stream; "aggTrade" is the only one', OneOf(("aggTrade",)))
    connect_timeout_s: float = _key(10.0, "seconds until a connection attempt counts as failed", Range(0.1, 300))
    reconnect_max_s: float = _key(30.0, "longest pause between two connection attempts, seconds", Range(1, 3600))
    rotate_after_s: float = _key(
        82_800.0, "age at which a connection is replaced without a gap, seconds; the exchange ends it after a day",
        Range(1, 86_400),
    )
    weight_share: float = _key(
        0.9, "share of the request weight of this address that repair may use up to", Range(0.01, 1)
    )
    backfill_weight_share: float = _key(0.6, "share of the request weight that backfill may use up to", Range(0.01, 1))
    request_margin_ms: int = _key(50, "ms by which timed requests arrive after the wanted moment", Range(0, 10_000))


@dataclass(frozen=True)
class KlinesConfig:
    """Which bars are kept and when they count as settled."""

    intervals: list[str] = _key(
        ["1m", "5m", "30m", "4h", "1d", "1w"], "kept intervals, shortest first; 1m must be first", Intervals()
    )
    settle_ms: int = _key(250, "ms after the close, plus measured lag, until a bar counts as settled", Range(0, 30_000))
    amend_minutes: int = _key(5, "minutes after its close that trades may still change a bar", Range(1, 5))


@dataclass(frozen=True)
class RunConfig:
    """Processes."""

    workers: int = _key(2, "worker processes; 0: everything in one process", Range(0, 64))
    affinity: str = _key("auto", '"auto", "none" or a list of cores such as "2,3,6"', _CORES)
    busy_poll: bool = _key(False, "spin instead of sleeping: lower latency, one whole core per worker")


@dataclass(frozen=True)
class SegmentConfig:
    """Shared memory."""

    max_symbols: int = _key(1024, "room for so many symbols", Range(1, 65_535))
    history: dict[str, int] = _key(
        {"1m": 1000, "5m": 500, "30m": 500, "4h": 500, "1d": 500, "1w": 200},
        "closed bars kept per interval",
        PerName(Range(32, 1_000_000)),
    )
    swap_interval_ms: int = _key(50, "ms between two publications of the halves", Range(5, 10_000))
    log_rows: int = _key(65_536, "capacity of each closed-bar log, rows of 128 bytes", PowerOfTwo(64, 2**26))
    mode: str = _key(
        "0600",
        "permissions of the segment, octal",
        Matches(r"0?[67][0-7]{2}", 'octal digits such as "0600" that let the owner read and write'),
    )
    group: str = _key("", "group that owns the segment; empty: the user's own")


@dataclass(frozen=True)
class DataConfig:
    """Files."""

    directory: str = _key("data", "directory of archive, journal and snapshots", Matches(r".+", "a path"))


@dataclass(frozen=True)
class StoreConfig:
    """Journal and archive."""

    flush_interval_s: float = _key(5.0, "seconds between two writes of the open bars", Range(0.05, 3600))
    flush_rows: int = _key(1000, "changed open bars that trigger such a write earlier", Range(1, 10_000_000))
    open_bars: bool = _key(False, "also keep open bars in SQLite")
    wal_limit_bytes: int = _key(
        256 * 1024 * 1024, "size of the SQLite WAL at which flushing pauses, bytes", Range(1 << 20)
    )
    cache_bytes: int = _key(64 * 1024 * 1024, "SQLite page cache, bytes", Range(0))
    mmap_bytes: int = _key(0, "SQLite memory map, bytes; 0: off", Range(0))
    retention_days: dict[str, int] = _key({}, "days kept per interval; not named: for ever", PerName(Range(1, 36_500)))


@dataclass(frozen=True)
class HistorianConfig:
    """Backfill, repair and clock."""

    concurrency: int = _key(15, "backfill requests under way at once, at most; 0: no backfill", Range(0, 200))
    bars_per_interval: dict[str, int] = _key(
        {"default": 1000, "1w": 200},
        "bars fetched for a new series",
        PerName(Range(1, 1_000_000), ("default", *INTERVALS)),
    )
    from_archive: bool = _key(True, "go on from what earlier runs have stored; false: from nothing, as a demo does")


@dataclass(frozen=True)
class WebConfig:
    """The local web server."""

    host: str = _key("127.0.0.1", "address to listen on", Matches(r"\S+", "an address or host name"))
    port: int = _key(8787, "port to listen on", Range(0, 65_535))


@dataclass(frozen=True)
class LogConfig:
    """Log output."""

    level: str = _key("info", "debug, info, warning or error", OneOf(("debug", "info", "warning", "error")))
    format: str = _key("text", '"text" or "json" (one JSON object per line)', OneOf(("text", "json")))


@dataclass(frozen=True)
class ChaosConfig:
    """Faults the launcher makes on purpose, for demonstrations and tests."""

    kill_worker_after_s: float = _key(
        -1.0,
        "kill one worker so many seconds after all are live; 0: never; -1: after 45 s in a demo with `sim.faults`",
        Range(-1),
    )
    crash_at: list[str] = _key(
        [],
        "points at which a role dies as by kill -9: its first life at the first of its own, its second at the next ...",
        Each(OneOf(CRASH_POINTS)),
    )
    crash_after_n: int = _key(1, "how often a life passes its point until it dies there", Range(1, 2**31 - 1))


@dataclass(frozen=True)
class SimConfig:
    """The bundled exchange simulator that `--demo` starts."""

    symbols: int = _key(40, "symbols that trade", Range(1, 1000))
    rate: float = _key(400.0, "trades per second over all symbols", Range(0))
    seed: int = _key(1, "seed of everything that looks random", Range(0))
    start_at: str = _key(
        "",
        "exchange time at start, ISO 8601 UTC or ms; empty: now",
        Matches(r"|\d{10,16}|\d{4}-\d\d-\d\d([T ].+)?", "empty, ISO 8601 UTC or milliseconds since 1970"),
    )
    faults: str = _key("", 'schedule of faults, such as "standard"')
    boundary_effect: bool = _key(True, "aggregate trades may cross minute ends, as on the exchange")
    id_gaps: bool = _key(True, "trade ids are skipped now and then, as on the exchange")
    history_days: int = _key(400, "days of history before the start", Range(0, 4000))


@dataclass(frozen=True)
class Config:
    """The resolved configuration of one engine."""

    instance: str = _key(
        "main",
        "name of the engine, of its segment and of its directory below data.directory",
        Matches(r"[a-z0-9-]{1,32}", "1 to 32 characters of a-z, 0-9 and '-'"),
    )
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    klines: KlinesConfig = field(default_factory=KlinesConfig)
    run: RunConfig = field(default_factory=RunConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)
    data: DataConfig = field(default_factory=DataConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    historian: HistorianConfig = field(default_factory=HistorianConfig)
    web: WebConfig = field(default_factory=WebConfig)
    log: LogConfig = field(default_factory=LogConfig)
    sim: SimConfig = field(default_factory=SimConfig)
    chaos: ChaosConfig = field(default_factory=ChaosConfig)
