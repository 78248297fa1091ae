"""The configuration: its keys and defaults (`schema`), and how one is resolved (`settings`).

``keys`` lists the keys with their meaning, ``limits`` what each may be, ``layers`` the places
values come from, ``toml`` how they are written.
"""

from __future__ import annotations

from klshm.config.schema import (
    ChaosConfig,
    Config,
    DataConfig,
    ExchangeConfig,
    HistorianConfig,
    KlinesConfig,
    LogConfig,
    RunConfig,
    SegmentConfig,
    SimConfig,
    StoreConfig,
    WebConfig,
)


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
