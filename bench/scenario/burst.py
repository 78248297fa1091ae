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
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from bench.baselines.plain_stack import run_plain_stack
from bench.support.figures import print_figures
from bench.support.market import QUANTITY_DECIMALS, Trades, names
from bench.support.stage import child, cores, make_layout, run_worker, segment_of, wait_for
from bench.support.wire import accept_subscriber, framed
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["Work", "intake_per_s", "klshm_worker", "measure"]

Work = Callable[[Segment, int, int], None]

_SYMBOLS: Final = 200
_SEND_BYTES: Final = 65_536
_SPREAD_MS: Final = 5_000
"""The event time of a burst; it lies before the exchange's clock."""
_TRADES_PER_KLINE: Final = 10
_HEAD: Final = b'{"stream":"'
_READY: Final = 64
"""First of the marks that say which senders are ready; before them, when each began."""
_SYMBOLS_PER_CONNECTION: Final = 512
_PACED_SENDS_PER_S: Final = 1000


def measure(quick: bool) -> dict[str, float]:
    """Return messages per second of klshm's worker and of the plain stack.

    Args:
        quick: Fewer messages.
    """
    trades = 120_000 if quick else 400_000
    klshm = intake_per_s(trades, _SYMBOLS, klshm_worker)
    plain = intake_per_s(trades // 10, _SYMBOLS, lambda segment, worker, port: run_plain_stack(segment, port))
    return {"messages_per_s": klshm, "plain_stack_per_s": plain}


def klshm_worker(segment: Segment, worker: int, port: int) -> None:
    """Serve one of klshm's workers for ever; it finds the port in the segment's configuration."""
    run_worker(segment, worker)


def intake_per_s(
    count: int,
    symbols: int,
    work: Work,
    *,
    workers: int = 1,
    history_rows: int = 96,
    offered_per_s: float = 0.0,
    readers: Sequence[Callable[[Segment], None]] = (),
) -> float:
    """Return how many messages a second the workers take together.

    Args:
        count: Trades of each worker; kline frames come on top.
        symbols: Of each worker.
        work: A worker; takes the segment, its number and the port of the stream.
        workers: How many, each with connections of 512 symbols at most, and a sender for each.
        history_rows: Closed bars kept per series.
        offered_per_s: Messages that each worker is sent a second; 0: as many as it takes.
        readers: What further processes do meanwhile.
    """
    trades = Trades.make(count, symbols, _SPREAD_MS)
    layout = make_layout(symbols * workers, workers=workers, history_rows=history_rows)
    every_ms = max(1, _SPREAD_MS * symbols * _TRADES_PER_KLINE // count)
    streams = [
        stream
        for worker in range(workers)
        for stream in _streams(trades, every_ms, names(symbols * workers)[worker::workers])
    ]
    senders, messages = len(streams), sum(stream.messages for stream in streams)
    marks = np.frombuffer(mmap.mmap(-1, 4096), dtype=np.int64)
    sender_core, worker_core = cores() if workers == 1 else (None, None)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = listener.getsockname()[1]
        segment = stack.enter_context(segment_of(layout, port))
        for _ in streams:
            send = partial(_send, listener, streams, marks, offered_per_s * workers / messages)
            stack.enter_context(child(send, sender_core))
        for worker in range(workers):
            stack.enter_context(child(partial(work, segment, worker, port), worker_core))
        for reader in readers:
            stack.enter_context(child(partial(reader, segment)))
        wait_for(lambda: marks[:senders].all(), "the workers subscribe")
        newest, ids = _newest_ids(trades), [_live(segment, worker)["last_agg_id"][:, 0] for worker in range(workers)]
        wait_for(lambda: all(np.array_equal(each, newest) for each in ids), "the last trades are visible")
        elapsed_ns = time.monotonic_ns() - int(marks[:senders].min())
        for worker in range(workers):
            _check(_live(segment, worker), trades)
    return messages / elapsed_ns * 1e9


@dataclass(frozen=True)
class _Stream:
    """What one connection carries.

    Attributes:
        symbols: Whose streams, in lower case.
        messages: Their number.
        data: Their frames.
    """

    symbols: list[str]
    messages: int
    data: bytes


def _streams(trades: Trades, every_ms: int, title: list[str]) -> list[_Stream]:
    """Return what a worker's connections carry; it fills one after the other."""
    symbols = [name.lower() for name in title]
    parts = [symbols[at : at + _SYMBOLS_PER_CONNECTION] for at in range(0, len(symbols), _SYMBOLS_PER_CONNECTION)]
    number = {name.encode(): index for index, part in enumerate(parts) for name in part}
    frames: list[list[bytes]] = [[] for _ in parts]
    for payload in trades.payloads(every_ms, title):
        frames[number[payload[len(_HEAD) : payload.index(b"@")]]].append(framed(payload))
    return [_Stream(part, len(mine), b"".join(mine)) for part, mine in zip(parts, frames, strict=True)]


def _send(listener: socket.socket, streams: list[_Stream], marks: Any, shares_per_s: float) -> None:
    """Send the stream of whichever connection comes; all senders begin together.

    Args:
        listener: Where it comes in.
        streams: One per connection.
        marks: Shared by all senders.
        shares_per_s: How often the whole stream could be sent in a second; 0: as fast as it is taken.
    """
    of_symbol = {name: index for index, stream in enumerate(streams) for name in stream.symbols}

    def number_of(asked: list[str]) -> int:
        return of_symbol[asked[0].split("@")[0]]

    connection, asked = accept_subscriber(
        listener, lambda asked: bool(asked) and len(asked) == 2 * len(streams[number_of(asked)].symbols)
    )
    number = number_of(asked)
    time.sleep(1.0)  # let the worker finish what belongs to its start
    marks[_READY + number] = 1
    while not marks[_READY : _READY + len(streams)].all():
        time.sleep(0.001)
    view = memoryview(streams[number].data)
    bytes_per_s = len(view) * shares_per_s
    step = min(_SEND_BYTES, max(1, int(bytes_per_s / _PACED_SENDS_PER_S))) if bytes_per_s else _SEND_BYTES
    began_ns = time.monotonic_ns()
    marks[number] = began_ns
    for at in range(0, len(view), step):
        if bytes_per_s:
            time.sleep(max(0.0, at / bytes_per_s - (time.monotonic_ns() - began_ns) / 1e9))
        connection.sendall(view[at : at + step])
    time.sleep(3600)


def _live(segment: Segment, worker: int) -> Any:
    layout = segment.layout
    rows = segment.region(layout.live_offset(worker), layout.slots * layout.intervals * lay.ROW_BYTES)
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
