"""How many messages a second one worker takes from a socket to published bars, beside the plain stack.

A sender of its own core sends frames that were built before, 64 KiB at once, as fast as the socket
takes them: aggregate trades of 200 symbols (Zipf), and one message in ten is the kline frame of a
symbol that has just traded, more than an exchange sends in a burst. The clock runs from the first send until the last
trade of every symbol stands in its live row. Then the bars are compared with the trades' own sums.
"""

from __future__ import annotations

import mmap
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.baselines.plain_stack import run_plain_stack
from bench.support.figures import print_figures
from bench.support.market import QUANTITY_DECIMALS, Trades
from bench.support.stage import child, cores, make_layout, run_worker, segment_of, wait_for
from bench.support.wire import accept_subscriber, framed
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["intake_per_s", "measure"]

_SYMBOLS: Final = 200
_SEND_BYTES: Final = 65_536
_SPREAD_MS: Final = 5_000
"""The event time of a burst; it lies before the exchange's clock."""
_TRADES_PER_KLINE: Final = 10


def measure(quick: bool) -> dict[str, float]:
    """Return messages per second of klshm's worker and of the plain stack.

    Args:
        quick: Fewer messages.
    """
    trades = 120_000 if quick else 400_000
    klshm = intake_per_s(trades, _SYMBOLS, lambda segment, port: run_worker(segment))
    plain = intake_per_s(trades // 10, _SYMBOLS, run_plain_stack)
    return {"messages_per_s": klshm, "plain_stack_per_s": plain}


def intake_per_s(count: int, symbols: int, work: Callable[[Segment, int], None]) -> float:
    """Return how many messages a second a worker takes.

    Args:
        count: Trades; kline frames come on top.
        symbols: Over how many symbols.
        work: The worker; takes the segment and the port of the stream.
    """
    trades = Trades.make(count, symbols, _SPREAD_MS)
    payloads = trades.payloads(max(1, _SPREAD_MS * symbols * _TRADES_PER_KLINE // count))
    stream = b"".join(map(framed, payloads))
    marks = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    sender_core, worker_core = cores()
    with (
        segment_of(make_layout(symbols), port) as segment,
        child(lambda: _send(listener, stream, 2 * symbols, marks), sender_core),
        child(lambda: work(segment, port), worker_core),
    ):
        wait_for(lambda: marks[0], "the worker subscribes")
        ids = _live(segment)["last_agg_id"][:, 0]
        newest = _newest_ids(trades)
        wait_for(lambda: np.array_equal(ids, newest), "the last trades are visible")
        elapsed_ns = time.monotonic_ns() - int(marks[0])
        _check(_live(segment), trades)
    listener.close()
    return len(payloads) / elapsed_ns * 1e9


def _send(listener: socket.socket, stream: bytes, streams: int, marks: Any) -> None:
    connection = accept_subscriber(listener, streams)
    time.sleep(1.0)  # let the worker finish what belongs to its start
    view = memoryview(stream)
    marks[0] = time.monotonic_ns()
    for at in range(0, len(view), _SEND_BYTES):
        connection.sendall(view[at : at + _SEND_BYTES])
    time.sleep(3600)


def _live(segment: Segment) -> Any:
    layout = segment.layout
    rows = segment.region(layout.live_offset(0), layout.slots * layout.intervals * lay.ROW_BYTES)
    return rows.view(lay.KLINE).reshape(layout.slots, layout.intervals)


def _newest_ids(trades: Trades) -> Any:
    newest = np.zeros(trades.symbols, dtype=np.int64)
    newest[trades.slot] = trades.a
    return newest


def _check(rows: Any, trades: Trades) -> None:
    volume = trades.answer()["volume"] / 10**QUANTITY_DECIMALS
    if not np.allclose(rows["volume"][:, 1], volume, rtol=1e-9):
        raise AssertionError("the bars' volume is not that of the trades sent")


if __name__ == "__main__":
    print_figures(measure)
