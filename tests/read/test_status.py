"""The status document of an engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import klshm
from klshm.config import Config, DataConfig, ExchangeConfig
from klshm.shm import counters
from klshm.shm import layout as lay
from klshm.shm.counters import index_of
from tests.support.desk import START, Desk


FORM: dict[str, Any] = {
    "instance": str,
    "version": str,
    "state": str,
    "started_ms": int,
    "data_directory": str,
    "segment": {"path", "bytes"},
    "exchange": {"rest_url", "offset_ms", "error_ms", "weight_used", "weight_limit", "banned_until_ms", "weights"},
    "symbols": {"trading", "live", "quiet", "silent"},
    "bars": {"closed", "confirmed", "filled", "partial", "late", "corrected"},
    "match_rate": {"tick", "settle", "aggtrade_only"},
    "lag_ms": {"p50", "p99"},
    "messages_per_s": float,
    "connections": int,
    "swaps": int,
    "journal": {"behind_rows", "last_commit_ms"},
    "processes": list,
    "rings": list,
    "counters": {"workers", "historian", "persister", "launcher"},
}


def count(desk: Desk, worker: int, **values: int) -> None:
    for name, value in values.items():
        desk.words[desk.block(worker) + index_of(counters.WORKER, name)] = value


@pytest.fixture
def busy(make_desk: Callable[..., Desk]) -> Desk:
    config = Config(
        instance="test",
        exchange=ExchangeConfig(rest_url="http://127.0.0.1:1"),
        data=DataConfig(directory="/somewhere"),
    )
    desk = make_desk(workers=2, config=config)
    desk.list_symbol("BTCUSDT", 0)
    desk.list_symbol("ETHUSDT", 1)
    desk.list_symbol("OLDUSDT", 1, lay.SYMBOL_DELISTED)
    desk.list_symbol("NEWUSDT", 0)
    desk.live("BTCUSDT", "1m", START, trade_count=5)
    desk.live("ETHUSDT", "1m", START)
    desk.publish()
    return desk


def test_its_form_is_the_decided_one(busy: Desk) -> None:
    with klshm.attach("test") as reader:
        document = reader.status()
    assert list(document) == list(FORM)
    for name, form in FORM.items():
        if isinstance(form, set):
            assert set(document[name]) == form, name
        else:
            assert isinstance(document[name], form), name
    assert document["state"] == "serving" and document["instance"] == "test"
    assert document["data_directory"] == "/somewhere/test"
    assert document["segment"] == {"path": str(busy.segment.path), "bytes": busy.layout.total_bytes}
    assert document["exchange"]["rest_url"] == "http://127.0.0.1:1"
    assert abs(document["started_ms"] - time.time() * 1000) < 3_600_000


def test_symbols_are_counted_by_what_their_minute_says(busy: Desk) -> None:
    count(busy, 0, symbols_silent=1)
    with klshm.attach("test") as reader:
        assert reader.status()["symbols"] == {"trading": 3, "live": 2, "quiet": 1, "silent": 1}


def test_numbers_are_sums_over_the_workers(busy: Desk) -> None:
    count(busy, 0, closed_total=10, confirmed_by_rest_total=1, confirmed_empty_total=2, lag_p50_us=1500, connections=1)
    count(busy, 1, closed_total=5, confirmed_by_final_frame_total=4, lag_p50_us=900, lag_p99_us=2500, connections=2)
    with klshm.attach("test") as reader:
        document = reader.status()
    assert document["bars"]["closed"] == 15 and document["bars"]["confirmed"] == 7
    assert document["lag_ms"] == {"p50": 1.5, "p99": 2.5}, "the slower worker counts"
    assert document["connections"] == 3


def test_the_match_rate_counts_known_losses_as_misses(busy: Desk) -> None:
    with klshm.attach("test") as reader:
        assert reader.status()["match_rate"] == {"tick": None, "settle": None, "aggtrade_only": None}
        count(
            busy,
            0,
            match_settle_traded_compared_total=90,
            match_settle_traded_equal_total=90,
            match_settle_partial_compared_total=10,
            match_settle_partial_equal_total=10,
            match_settle_provisional_compared_total=99,
            match_settle_provisional_equal_total=90,
            match_settle_filled_compared_total=1001,
            match_settle_filled_equal_total=1000,
            match_aggtrade_compared_total=4,
            match_aggtrade_equal_total=1,
        )
        assert reader.status()["match_rate"] == {"tick": None, "settle": 180 / 200, "aggtrade_only": 0.25}


def test_the_rate_is_that_between_two_looks(busy: Desk) -> None:
    with klshm.attach("test") as reader:
        count(busy, 0, messages_total=1000)
        assert reader.status()["messages_per_s"] == 0
        count(busy, 0, messages_total=3000)
        assert reader.status()["messages_per_s"] > 0
        assert reader.status()["messages_per_s"] == 0


def test_the_exchange_clock_is_told_against_ours(busy: Desk) -> None:
    with klshm.attach("test") as reader:
        assert reader.status()["exchange"]["offset_ms"] is None
        before_ms = time.time_ns() // 1_000_000
        busy.set_clock(before_ms + 500, error_ns=2_500_000)
        late_ms = time.time_ns() // 1_000_000 - before_ms
        exchange = reader.status()["exchange"]
    assert 499 - late_ms <= exchange["offset_ms"] <= 501
    assert exchange["error_ms"] == 2.5
    assert exchange["banned_until_ms"] is None


def test_processes_tell_their_life_and_last_words(busy: Desk) -> None:
    block = busy.block(1)
    busy.words[block + lay.B_INCARNATION] = 3
    busy.words[block + lay.B_CPU] = -1
    busy.words[block + lay.B_ROLE_STATE] = lay.ROLE_LIVE
    text = "disk full: wörds".encode()
    busy.words[block + lay.B_ERROR_LENGTH] = len(text)
    room = busy.words[block + lay.B_ERROR_TEXT : block + lay.B_ERROR_TEXT + 3].view("u1")
    room[: len(text)] = list(text)
    del room
    busy.beat_worker(1, 2.0)
    with klshm.attach("test") as reader:
        processes = {(p["role"], p["index"]): p for p in reader.status()["processes"]}
    assert set(processes) == {("launcher", 0), ("worker", 0), ("worker", 1)}, "roles that never ran are left out"
    worker = processes["worker", 1]
    assert worker["restarts"] == 2 and worker["cpu"] is None and worker["pid"] == 1
    assert worker["state"] == "live" and worker["error"] == "disk full: wörds"
    assert 2000 <= worker["heartbeat_age_ms"] < 60_000
    assert processes["worker", 0]["error"] is None and processes["worker", 0]["cpu"] == 0


def test_every_counter_and_the_level_of_every_ring_is_told(busy: Desk) -> None:
    count(busy, 1, trades_total=12)
    layout = busy.layout
    historian, worker = layout.historian_offset // 8, busy.block(1)
    busy.words[historian + lay.B_INBOX_TAILS + 1] = 30
    busy.words[worker + lay.B_CURSOR] = 10
    busy.words[historian + index_of(counters.HISTORIAN, "weight_backfill_total")] = 700
    with klshm.attach("test") as reader:
        document = reader.status()
    assert document["counters"]["workers"][1]["trades_total"] == 12
    assert set(document["counters"]["persister"]) == set(counters.PERSISTER)
    assert document["exchange"]["weights"] == {"repair": 0, "confirm": 0, "listings": 0, "backfill": 700}
    assert document["rings"] == [
        {"ring": "inbox", "index": 0, "rows": 0, "capacity": layout.inbox_rows},
        {"ring": "inbox", "index": 1, "rows": 20, "capacity": layout.inbox_rows},
        {"ring": "historian_log", "index": 0, "rows": 0, "capacity": layout.historian_log_rows},
    ]
