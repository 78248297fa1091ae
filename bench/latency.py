"""Latency from the socket to shared memory: how old is a trade when a reader can see it?

    python bench/latency.py --rate 10000 --seconds 10
    python bench/latency.py --rate 10000 --seconds 10 --naive    # the twin

Three processes. A sender speaks WebSocket and sends aggTrade frames that were built before, one
`send` each, and notes CLOCK_MONOTONIC just before. A real worker (`klshm.worker`) takes them. A
reader spins on the live row of one symbol; the row's `last_agg_id` tells which trade it sees.
The twin is what one would write without klshm: aiohttp, json and one store per field.

Sender, worker and reader want a core each: on fewer the tail shows the scheduler, and --spin is
not worth trying. The result is one JSON document on stdout, and a file in bench/results/ with --save.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import mmap
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final


os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: a forked child must have one thread

import numpy as np

from klshm.config import Config, ExchangeConfig, RunConfig
from klshm.config.settings import to_json
from klshm.intervals import code_of
from klshm.shm import layout as lay
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment
from klshm.shm.view import PartitionView


__all__ = ["main"]

RESULTS: Final = Path(__file__).parent / "results"
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FIRST_ID: Final = 1_000_000
WARM_UP_S: Final = 2.0
INTERVALS: Final = ("1m", "5m", "30m", "4h", "1d", "1w")


class Shared:
    """When each trade was sent, by its number, and the sender's port; shared by fork."""

    def __init__(self, trades: int) -> None:
        self._map = mmap.mmap(-1, 8 * (trades + 2))
        self.words = np.frombuffer(self._map, dtype=np.int64)
        self.sent_ns = self.words[2:]


def main() -> None:
    """Measure and print."""
    options = _options()
    trades = int(options.rate * (options.seconds + WARM_UP_S))
    names = [f"B{number:03d}USDT" for number in range(options.symbols)]
    shared = Shared(trades)
    listener = socket.create_server(("127.0.0.1", 0))
    segment = _segment(f"bench-{os.getpid()}", names, listener.getsockname()[1], options.spin)
    children: list[int] = []
    try:
        children.append(_fork(lambda: _send(listener, shared, names, options.rate, trades)))
        children.append(_fork(lambda: _work_naively(segment, listener) if options.naive else _work(segment)))
        seen_ns = _look(segment, options.symbols, trades, shared)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        segment.unlink()
    result = _summary(options, shared, seen_ns)
    print(json.dumps(result))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        name = f"latency-{'naive' if options.naive else 'klshm'}-{options.rate}{'-spin' if options.spin else ''}.json"
        (RESULTS / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Latency from the socket to shared memory.")
    parser.add_argument("--rate", type=int, default=10_000, help="trades per second (default 10000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time measured, after 2 s of warm-up (default 10)")
    parser.add_argument("--symbols", type=int, default=40, help="symbols that trade in turn (default 40)")
    parser.add_argument("--spin", action="store_true", help="run.busy_poll: the worker spins")
    parser.add_argument("--naive", action="store_true", help="the twin instead of klshm's worker")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results/")
    return parser.parse_args()


def _fork(body: Any) -> int:
    child = os.fork()
    if child:
        return child
    try:
        body()
    finally:
        os._exit(1)


# -- the segment, as launcher and historian would leave it ----------------------------------------


def _segment(instance: str, names: list[str], port: int, spin: bool) -> Segment:
    layout = Layout(
        max_symbols=len(names),
        workers=1,
        slots=len(names),
        interval_codes=tuple(code_of(name) for name in INTERVALS),
        history_rows=(96,) * len(INTERVALS),
        log_rows=8192,
        inbox_rows=64,
        historian_log_rows=64,
        swap_interval_ms=50,
    )
    config = Config(
        instance=instance,
        exchange=ExchangeConfig(ws_url=f"ws://127.0.0.1:{port}"),
        run=RunConfig(workers=1, affinity="none", busy_poll=spin),
    )
    segment = create_segment(instance, layout, to_json(config))
    table = segment.region(layout.symbols_offset, len(names) * lay.SYMBOL_BYTES).view(lay.SYMBOL)
    for slot, name in enumerate(names):
        row = table[slot]
        row["name"] = row["pair"] = name.encode()
        row["status"], row["contract"], row["local_slot"], row["sequence"] = lay.SYMBOL_TRADING, 1, slot, 2
        row["price_decimals"], row["quantity_decimals"] = 2, 3
    historian = segment.block(layout.historian_offset)
    historian[lay.B_SYMBOL_COUNT], historian[lay.B_SYMBOLS_VERSION] = len(names), 1
    historian[lay.B_CLOCK_OFFSET_NS] = time.time_ns() - time.monotonic_ns()
    historian[lay.B_CLOCK_ERROR_NS], historian[lay.B_CLOCK_SYNCED_NS] = 1_000_000, time.monotonic_ns()
    segment.words[lay.H_STATE] = lay.STATE_SERVING
    return segment


# -- the sender -----------------------------------------------------------------------------------


def _send(listener: socket.socket, shared: Shared, names: list[str], rate: int, trades: int) -> None:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _shake_hands(connection)
    _answer_subscriptions(connection, 2 * len(names))
    begin_ms = time.time_ns() // 1_000_000 + 500
    frames = [_trade_frame(names, number, begin_ms + number * 1000 // rate) for number in range(trades)]
    begin_ns = time.monotonic_ns() + (begin_ms - time.time_ns() // 1_000_000) * 1_000_000
    connection.setblocking(True)
    for number, frame in enumerate(frames):
        due_ns = begin_ns + number * 1_000_000_000 // rate
        while True:
            now_ns = time.monotonic_ns()
            if now_ns >= due_ns:
                break
            if due_ns - now_ns > 200_000:
                time.sleep((due_ns - now_ns - 150_000) / 1e9)
        shared.sent_ns[number] = time.monotonic_ns()
        connection.sendall(frame)
    shared.words[0] = 1
    time.sleep(3600)


def _shake_hands(connection: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(4096)
    headers = {
        line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in request.split(b"\r\n")[1:] if line
    }
    accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def _answer_subscriptions(connection: socket.socket, expected: int) -> None:
    subscribed = 0
    while subscribed < expected:
        opcode, payload = _read_frame(connection)
        if opcode == 1:
            message = json.loads(payload)
            subscribed += len(message.get("params", []))
            connection.sendall(_frame(json.dumps({"result": None, "id": message["id"]}).encode()))


def _read_frame(connection: socket.socket) -> tuple[int, bytes]:
    head = _read(connection, 2)
    length = head[1] & 127
    if length == 126:
        (length,) = struct.unpack(">H", _read(connection, 2))
    mask = _read(connection, 4)
    data = _read(connection, length)
    return head[0] & 15, bytes(byte ^ mask[index & 3] for index, byte in enumerate(data))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise SystemExit("the worker closed the connection")
        data += part
    return data


def _frame(payload: bytes) -> bytes:
    head = (
        struct.pack(">BB", 0x81, len(payload)) if len(payload) < 126 else struct.pack(">BBH", 0x81, 126, len(payload))
    )
    return head + payload


def _trade_frame(names: list[str], number: int, time_ms: int) -> bytes:
    name = names[number % len(names)]
    agg_id = FIRST_ID + number // len(names)
    price, quantity = 100 + number % 50 / 100, (1 + number % 7) / 1000
    return _frame(
        (
            f'{{"stream":"{name.lower()}@aggTrade","data":{{"e":"aggTrade","E":{time_ms},"a":{agg_id},"s":"{name}",'
            f'"p":"{price:.2f}","q":"{quantity:.3f}","nq":"{quantity:.3f}","f":{agg_id},"l":{agg_id},"T":{time_ms},'
            f'"m":false,"st":1}}}}'
        ).encode()
    )


# -- the worker, and its twin -----------------------------------------------------------------------


def _work(segment: Segment) -> None:
    from klshm.config.settings import from_json
    from klshm.role import Role
    from klshm.worker.process import serve

    role = Role("worker", 0, segment, from_json(segment.config_bytes()))
    work = serve(role)
    if asyncio.iscoroutine(work):
        import uvloop

        uvloop.run(work)


def _work_naively(segment: Segment, listener: socket.socket) -> None:
    import aiohttp

    layout = segment.layout
    rows = segment.region(layout.live_offset(0), layout.slots * layout.intervals * lay.ROW_BYTES).view(lay.KLINE)
    port = listener.getsockname()[1]

    async def follow() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}/market/stream") as ws,
        ):
            names = [f"B{number:03d}USDT" for number in range(layout.slots)]
            slots = {name: slot for slot, name in enumerate(names)}
            params = [f"{name.lower()}@{stream}" for name in names for stream in ("aggTrade", "kline_1m")]
            await ws.send_json({"method": "SUBSCRIBE", "params": params, "id": 1})
            async for message in ws:
                data = json.loads(message.data).get("data")
                if data is None:
                    continue
                price, quantity = float(data["p"]), float(data["q"])
                first = slots[data["s"]] * layout.intervals
                for row in rows[first : first + layout.intervals]:
                    row["close"] = price
                    row["high"] = max(price, row["high"])
                    row["low"] = min(price, row["low"] or price)
                    row["volume"] += quantity
                    row["quote_volume"] += price * quantity
                    row["trade_count"] += data["l"] - data["f"] + 1
                    row["event_time"] = data["E"]
                    row["last_agg_id"] = data["a"]
                    row["sequence"] += 2

    asyncio.run(follow())


# -- the reader -------------------------------------------------------------------------------------


def _look(segment: Segment, symbols: int, trades: int, shared: Shared) -> Any:
    """Spin on the first symbol's live row; return when each of its trades was first seen, 0: skipped over."""
    view = PartitionView(segment, 0)
    words = memoryview(view._live)
    seen_ns = np.zeros(trades, dtype=np.int64)
    last_sequence, last_id = words[lay.W_SEQUENCE], 0
    finish_ns = 0
    while True:
        sequence = words[lay.W_SEQUENCE]
        if sequence == last_sequence or sequence & 1:
            if shared.words[0]:
                now_ns = time.monotonic_ns()
                finish_ns = finish_ns or now_ns + 1_000_000_000
                if now_ns > finish_ns:
                    return seen_ns
            continue
        agg_id = words[lay.W_LAST_AGG_ID]
        if words[lay.W_SEQUENCE] != sequence:
            continue
        now_ns = time.monotonic_ns()
        last_sequence = sequence
        if agg_id != last_id and agg_id >= FIRST_ID:
            seen_ns[(agg_id - FIRST_ID) * symbols] = now_ns
            last_id = agg_id


def _summary(options: argparse.Namespace, shared: Shared, seen_ns: Any) -> dict[str, Any]:
    sent_ns = shared.sent_ns[: len(seen_ns)]
    warm = sent_ns >= sent_ns[0] + int(WARM_UP_S * 1e9)
    probes = np.arange(len(seen_ns)) % options.symbols == 0
    measured = warm & probes & (seen_ns > 0)
    latencies_us = (seen_ns[measured] - sent_ns[measured]) / 1000
    if not len(latencies_us):
        raise SystemExit("no trade was seen: is the worker's log telling why?")
    percentiles = {f"p{p:g}": round(float(np.percentile(latencies_us, p)), 1) for p in (50, 90, 99, 99.9)}
    elapsed_s = (sent_ns[-1] - sent_ns[0]) / 1e9
    return {
        "bench": "latency",
        "worker": "naive" if options.naive else "klshm",
        "what": "microseconds from before send() to visible in the live row, reader spinning",
        "latency_us": {**percentiles, "max": round(float(latencies_us.max()), 1)},
        "trades_measured": len(latencies_us),
        "trades_not_seen_singly": int((warm & probes & (seen_ns == 0)).sum()),
        "rate_wanted": options.rate,
        "rate_sent": round(len(seen_ns) / elapsed_s, 1),
        "symbols": options.symbols,
        "busy_poll": options.spin,
        **_machine(),
    }


def _machine() -> dict[str, Any]:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent)
    return {
        "machine": {
            "cpu": models[0] if models else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_average_1m": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "linux": platform.release()},
        "commit": git.stdout.strip(),
        "command": "python bench/latency.py " + " ".join(sys.argv[1:]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
