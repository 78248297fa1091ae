"""How old is a trade when a reader can see it? From before send() to visible in shared memory.

Frames that were built before go out one by one at an even pace, each timed. Between two sends the
sender looks at the segment until the trade of the oldest frame that was not yet seen is there: so
two cores are enough, one for sender and observer, one for the worker. Every frame is measured.

Beside klshm's worker: the same with `busy_poll`, a bare blocking recv() loop (the floor: it wakes,
receives and stores one word) and the plain stack.

    python -m bench.scenario.latency --rate 10000
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from bench.baselines.bare_recv import RECEIVED_WORD, run_bare_recv
from bench.baselines.plain_stack import run_plain_stack
from bench.support.figures import percentiles
from bench.support.market import BEGIN_MS, Trades
from bench.support.stage import child, cores, make_layout, pinned, run_worker, segment_of, set_clock
from bench.support.wire import accept_subscriber, framed
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["WARM_UP_S", "bytes_seen", "latencies_us", "measure", "moments_ns", "trade_seen"]

_SYMBOLS: Final = 40
WARM_UP_S: Final = 0.5
_LOST_S: Final = 10.0

Work = Callable[[Segment, int], None]
Seen = Callable[[Segment, Trades, Any], Callable[[int], bool]]


def measure(quick: bool, rates: tuple[int, ...] = (10_000,)) -> dict[str, float]:
    """Return percentiles in microseconds of all kinds of workers at the paces asked for.

    Args:
        quick: Shorter.
        rates: Frames per second.
    """
    seconds = 2.0 if quick else 5.0
    figures: dict[str, float] = {}
    for rate in rates:
        kinds: dict[str, tuple[Work, Seen, bool]] = {
            "bare": (run_bare_recv, bytes_seen, False),
            "klshm": (lambda segment, port: run_worker(segment), trade_seen, False),
            "busy_poll": (lambda segment, port: run_worker(segment), trade_seen, True),
        }
        if rate <= 20_000:  # more is beyond it: it falls behind for ever
            kinds["plain_stack"] = (run_plain_stack, trade_seen, False)
        for kind, (work, seen, busy_poll) in kinds.items():
            name = kind if rates == (10_000,) else f"{kind}_{rate}"
            figures |= percentiles(name, latencies_us(rate, seconds, work, seen, busy_poll))
    return figures


def latencies_us(
    rate: int,
    seconds: float,
    work: Work,
    seen: Seen,
    busy_poll: bool,
    symbols: int = _SYMBOLS,
    is_pinned: bool = True,
) -> Any:
    """Return the microseconds from before its send() until each frame was visible.

    Args:
        rate: Frames per second.
        seconds: How long is measured, after half a second of warm-up.
        work: The worker; takes the segment and the port of the stream.
        seen: Makes what tells whether a frame is visible.
        busy_poll: Whether klshm's worker spins.
        symbols: Symbols that trade in turn.
        is_pinned: Whether the worker is kept on a core.
    """
    sent_ns, _, seen_ns = moments_ns(rate, seconds, work, seen, busy_poll, symbols, is_pinned)
    return (seen_ns - sent_ns)[int(rate * WARM_UP_S) :] / 1000


def moments_ns(
    rate: int,
    seconds: float,
    work: Work,
    seen: Seen,
    busy_poll: bool,
    symbols: int = _SYMBOLS,
    is_pinned: bool = True,
) -> Any:
    """Return when each frame was sent, when its send() had returned, and when it was seen: CLOCK_MONOTONIC ns.

    Those of the warm-up too; the arguments are those of `latencies_us`.
    """
    count = int(rate * (seconds + WARM_UP_S))
    trades = _in_turn(count, symbols, rate)
    frames = [framed(payload) for payload in trades.payloads()]
    streams = 0 if work is run_bare_recv else 2 * symbols
    observer_core, worker_core = cores()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            segment_of(make_layout(symbols), port, busy_poll=busy_poll) as segment,
            child(lambda: work(segment, port), worker_core if is_pinned else None),
            pinned(observer_core),
        ):
            connection, _ = accept_subscriber(listener, lambda asked: len(asked) >= streams)
            time.sleep(1.0)  # let the worker finish what belongs to its start
            set_clock(segment, BEGIN_MS)
            moments = _send_and_look(connection, frames, rate, seen(segment, trades, frames))
        connection.close()
    return moments


def _in_turn(count: int, symbols: int, rate: int) -> Trades:
    number = np.arange(count)
    ids = 1_000_000 + number // symbols
    return Trades(
        symbols=symbols,
        slot=number % symbols,
        a=ids,
        first=ids,
        last=ids,
        time_ms=BEGIN_MS + 5 + number * 1000 // rate,
        price=10_000 + number % 50,
        quantity=1 + number % 7,
        is_maker=np.zeros(count, dtype=np.int64),
    )


def _send_and_look(connection: socket.socket, frames: list[bytes], rate: int, is_seen: Callable[[int], bool]) -> Any:
    moments = np.zeros((3, len(frames)), dtype=np.int64)
    sent, returned, seen = (memoryview(row.data) for row in moments)
    clock, send, total = time.monotonic_ns, connection.sendall, len(frames)
    begin_ns = clock() + 10_000_000
    number = oldest = 0
    lost_ns = begin_ns + int((total / rate + _LOST_S) * 1e9)
    while oldest < total:
        now_ns = clock()
        if number < total and now_ns >= begin_ns + number * 1_000_000_000 // rate:
            sent[number] = clock()
            send(frames[number])
            returned[number] = clock()
            number += 1
        while oldest < number and is_seen(oldest):
            seen[oldest] = clock()
            oldest += 1
        if now_ns > lost_ns:
            raise TimeoutError(f"{total - oldest} of {total} frames were not visible after {_LOST_S:.0f} s")
    return moments


def trade_seen(segment: Segment, trades: Trades, frames: Any) -> Callable[[int], bool]:
    """A trade is visible when the live 1m row of its symbol carries its id."""
    layout = segment.layout
    rows = segment.region(layout.live_offset(0), layout.slots * layout.intervals * lay.ROW_BYTES)
    words: Any = memoryview(rows.data)
    at = (trades.slot * layout.intervals * lay.ROW_WORDS + lay.W_LAST_AGG_ID).tolist()
    ids = trades.a.tolist()
    return lambda number: bool(words[at[number]] >= ids[number])


def bytes_seen(segment: Segment, trades: Trades, frames: Any) -> Callable[[int], bool]:
    """A frame is visible when so many bytes have been received."""
    words: Any = memoryview(segment.block(segment.layout.partition_offset(0)).data)
    ends = np.cumsum([len(frame) for frame in frames]).tolist()
    return lambda number: bool(words[RECEIVED_WORD] >= ends[number])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency from the socket to shared memory.")
    parser.add_argument("--rate", type=int, nargs="*", default=[10_000], help="frames per second (default 10000)")
    parser.add_argument("--quick", action="store_true", help="two seconds each instead of five")
    options = parser.parse_args()
    print(json.dumps(measure(options.quick, tuple(options.rate))))


if __name__ == "__main__":
    main()
