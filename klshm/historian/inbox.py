"""Rows on their way from the historian: a private queue in front of each ring, so that it never blocks.

Two classes share a ring. Urgent rows (repairs, confirmations, commands) may fill all of it;
bulk rows (backfill) leave a quarter free for them. What does not fit waits in private memory;
bulk senders wait there, urgent ones never do. The ring's consumer moves a cursor when an entry
has taken effect, so nothing is overrun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import numpy as np

from klshm.shm import layout as lay
from klshm.shm.crash import Crash
from klshm.shm.layout import KLINE
from klshm.shm.ring import RingProducer
from klshm.shm.segment import Segment


__all__ = ["Outlet", "command", "historian_log", "worker_inbox"]

Rows = np.ndarray[Any, Any]

_QUEUE_ROWS: Final = 8192
_RESERVE: Final = 4
"""A quarter of the ring stays free of bulk rows."""


def worker_inbox(segment: Segment, worker: int, crash: Crash | None = None) -> Outlet:
    """Return the way into a worker's inbox; `crash` as for `Outlet`."""
    layout = segment.layout
    return Outlet(
        RingProducer(
            segment.words,
            layout.inbox_offset(worker) // 8,
            layout.inbox_rows,
            layout.historian_offset // 8 + lay.B_INBOX_TAILS + worker,
            layout.partition_offset(worker) // 8 + lay.B_CURSOR,
        ),
        crash=crash,
    )


def historian_log(segment: Segment, crash: Crash | None = None) -> Outlet:
    """Return the way to the persister, which stores backfilled rows; `crash` as for `Outlet`."""
    layout = segment.layout
    return Outlet(
        RingProducer(
            segment.words,
            layout.historian_log_offset // 8,
            layout.historian_log_rows,
            layout.historian_offset // 8 + lay.B_TAIL,
            layout.persister_offset // 8 + lay.B_CURSOR,
        ),
        crash=crash,
    )


def command(kind: int, slot: int, *, open_time: int = 0, price_decimals: int = 0, quantity_decimals: int = 0) -> Rows:
    """Return a command as an inbox entry, shape (1,), dtype KLINE.

    Args:
        kind: `lay.COMMAND_...`.
        slot: The symbol's slot.
        open_time: What the command says about time, UTC ms.
        price_decimals: The symbol's, for COMMAND_ADD.
        quantity_decimals: The symbol's, for COMMAND_ADD.
    """
    row = np.zeros(1, dtype=KLINE)
    row["interval"] = lay.INTERVAL_COMMAND
    row["state"] = kind
    row["slot"] = slot
    row["open_time"] = open_time
    row["price_decimals"] = price_decimals
    row["quantity_decimals"] = quantity_decimals
    return row


class Outlet:
    """One ring with its private queue.

    Args:
        producer: The ring, with the consumer that it waits for.
        queue_rows: Bulk rows held in private memory before senders wait.
        crash: Where this life of the historian dies, for tests.
    """

    def __init__(self, producer: RingProducer, queue_rows: int = _QUEUE_ROWS, *, crash: Crash | None = None) -> None:
        self._producer = producer
        self._queue_rows = queue_rows
        self._crash = crash or Crash()
        self._urgent: deque[Rows] = deque()
        self._bulk: deque[Rows] = deque()
        self._room = asyncio.Event()

    @property
    def queued(self) -> int:
        """Rows held in private memory."""
        return self.urgent_queued + sum(map(len, self._bulk))

    @property
    def urgent_queued(self) -> int:
        """Urgent rows held in private memory; whoever makes them should pause while there are many."""
        return sum(map(len, self._urgent))

    @property
    def delivered(self) -> bool:
        """Whether nothing is queued and the consumer has taken everything."""
        return not self.queued and self._producer.room() == self._producer.capacity

    def urgent(self, rows: Rows) -> None:
        """Send rows ahead of all bulk rows; never waits."""
        if len(rows):
            self._urgent.append(rows)
            self.flush()

    def append(self, rows: Rows) -> None:
        """Send rows after all bulk rows sent before; never waits."""
        if len(rows):
            self._bulk.append(rows)
            self.flush()

    async def bulk(self, rows: Rows) -> None:
        """Send rows in order; waits while the queue is full."""
        self.append(rows)
        while sum(map(len, self._bulk)) > self._queue_rows:
            self._room.clear()
            await self._room.wait()

    def flush(self) -> int:
        """Move what fits into the ring and show it; call it while anything is queued.

        Returns:
            Rows still queued.
        """
        producer = self._producer
        before = producer.position
        self._move(self._urgent, producer.room())
        if not self._urgent:
            self._move(self._bulk, producer.room() - producer.capacity // _RESERVE)
        if producer.position != before:
            self._crash.passing("historian.ring_written")
        producer.publish()
        if producer.position != before:
            self._crash.passing("historian.tail_moved")
        left = self.queued
        if left <= self._queue_rows:
            self._room.set()
        return left

    def _move(self, queue: deque[Rows], room: int) -> None:
        while queue and room > 0:
            rows = queue.popleft()
            self._producer.append(rows[:room])
            if len(rows) > room:
                queue.appendleft(rows[room:])
            room -= len(rows)
