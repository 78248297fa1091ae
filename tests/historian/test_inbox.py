"""The queues in front of the rings, on real segments."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from klshm.historian.inbox import Outlet, command, historian_log, worker_inbox
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.shm.ring import RingProducer
from tests.historian.support import Consumers
from tests.support.segments import segment


def rows(first: int, count: int) -> Any:
    made = np.zeros(count, dtype=KLINE)
    made["open_time"] = np.arange(first, first + count)
    return made


def test_rows_arrive_in_order_and_nothing_is_overrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch, inbox_rows=64) as made:
        outlet, consumers = worker_inbox(made, 1), Consumers(made)
        outlet.append(rows(0, 200))
        assert outlet.queued == 200 - 48  # a quarter stays free
        while outlet.flush() or not outlet.delivered:
            consumers.take()
        consumers.take()
        assert list(consumers.inbox[1]["open_time"]) == list(range(200))
        assert len(consumers.inbox[0]) == 0


def test_urgent_rows_overtake_bulk_and_use_the_whole_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch, inbox_rows=64) as made:
        outlet, consumers = worker_inbox(made, 0), Consumers(made)
        outlet.append(rows(0, 100))
        outlet.urgent(rows(1000, 20))
        assert outlet.urgent_queued == 4 and outlet.queued == 52 + 4
        consumers.take()
        assert list(consumers.inbox[0]["open_time"]) == [*range(48), *range(1000, 1016)]
        outlet.flush()
        consumers.take()
        assert list(consumers.inbox[0]["open_time"][64:]) == [*range(1016, 1020), *range(48, 92)]
        outlet.flush()
        consumers.take()
        assert outlet.delivered and len(consumers.inbox[0]) == 120


def test_bulk_sender_waits_while_the_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with segment(tmp_path, monkeypatch, historian_log_rows=64) as made:
            consumers = Consumers(made)
            layout = made.layout
            producer = RingProducer(
                made.words,
                layout.historian_log_offset // 8,
                layout.historian_log_rows,
                layout.historian_offset // 8 + lay.B_TAIL,
                layout.persister_offset // 8 + lay.B_CURSOR,
            )
            outlet = Outlet(producer, queue_rows=10)
            sender = asyncio.create_task(outlet.bulk(rows(0, 70)))
            await asyncio.sleep(0)
            assert outlet.queued == 22 and not sender.done()
            outlet.flush()
            await asyncio.sleep(0)
            assert not sender.done()
            consumers.take()
            assert outlet.flush() == 0
            await sender
            consumers.take()
            assert list(consumers.log["open_time"]) == list(range(70))
            await outlet.bulk(rows(0, 0))

    asyncio.run(main())


def test_log_waits_for_the_persister(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch, historian_log_rows=64) as made:
        outlet = historian_log(made)
        outlet.append(rows(0, 60))
        assert outlet.queued == 12 and not outlet.delivered


def test_successor_of_a_killed_historian_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with segment(tmp_path, monkeypatch) as made:
        consumers = Consumers(made)
        worker_inbox(made, 0).append(rows(0, 5))
        worker_inbox(made, 0).append(rows(5, 5))
        consumers.take()
        assert list(consumers.inbox[0]["open_time"]) == list(range(10))


def test_command_is_an_inbox_entry() -> None:
    row = command(lay.COMMAND_ADD, 7, open_time=60_000, price_decimals=2, quantity_decimals=3)[0]
    assert (row["interval"], row["state"], row["slot"], row["open_time"]) == (255, lay.COMMAND_ADD, 7, 60_000)
    assert (row["price_decimals"], row["quantity_decimals"]) == (2, 3)


def test_tails_lie_apart_from_the_counters_in_use() -> None:
    from klshm.shm.counters import HISTORIAN

    assert lay.B_COUNTERS + len(HISTORIAN) <= lay.B_INBOX_TAILS
    assert lay.B_INBOX_TAILS + lay.MAX_WORKERS <= lay.B_ERROR_MS
