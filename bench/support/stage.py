"""A segment with its symbols and its clock, and processes on it: a worker without launcher or historian."""

from __future__ import annotations

import gc
import os
import secrets
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from bench.support.market import BEGIN_MS, INTERVALS, PRICE_DECIMALS, QUANTITY_DECIMALS, names
from klshm.config import Config, ExchangeConfig, RunConfig
from klshm.config.settings import from_json, to_json
from klshm.intervals import code_of
from klshm.role import Role
from klshm.run.child import die_with, run_role
from klshm.shm import layout as lay
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment


__all__ = ["child", "cores", "make_layout", "pinned", "run_worker", "segment_of", "set_clock", "show_life", "wait_for"]

_PATIENCE_S: Final = 60.0


def make_layout(symbols: int, *, workers: int = 1, history_rows: int = 96, log_rows: int = 8192) -> Layout:
    """Return the layout of a segment whose symbols are dealt evenly.

    Args:
        symbols: Of all workers together.
        workers: Partitions.
        history_rows: Closed bars kept per series.
        log_rows: Capacity of each log.
    """
    return Layout(
        max_symbols=symbols,
        workers=workers,
        slots=-(-symbols // workers),
        interval_codes=tuple(code_of(name) for name in INTERVALS),
        history_rows=(history_rows,) * len(INTERVALS),
        log_rows=log_rows,
        inbox_rows=64,
        historian_log_rows=64,
        swap_interval_ms=50,
    )


@contextmanager
def segment_of(layout: Layout, port: int = 0, *, busy_poll: bool = False) -> Iterator[Segment]:
    """Make a segment of a name of its own, with symbols listed and serving; unlink it in the end.

    Args:
        layout: Its layout; the symbol at slot i belongs to worker i mod workers.
        port: Where its workers find their stream.
        busy_poll: Whether its workers spin.
    """
    instance = f"bench-{os.getpid()}-{secrets.token_hex(3)}"
    config = Config(
        instance=instance,
        exchange=ExchangeConfig(ws_url=f"ws://127.0.0.1:{port}"),
        run=RunConfig(workers=layout.workers, affinity="none", busy_poll=busy_poll),
    )
    segment = create_segment(instance, layout, to_json(config))
    try:
        _list_symbols(segment)
        set_clock(segment, BEGIN_MS + 5_000)
        segment.words[lay.H_STATE] = lay.STATE_SERVING
        show_life(segment)
        yield segment
    finally:
        segment.unlink()


def set_clock(segment: Segment, now_ms: int) -> None:
    """Let the exchange's clock show this time now, UTC ms."""
    historian = segment.block(segment.layout.historian_offset)
    now_ns = time.monotonic_ns()
    historian[lay.B_CLOCK_OFFSET_NS] = now_ms * 1_000_000 - now_ns
    historian[lay.B_CLOCK_ERROR_NS], historian[lay.B_CLOCK_SYNCED_NS] = 1_000_000, now_ns


def show_life(segment: Segment, for_s: float = 3600.0) -> None:
    """Let launcher and workers look alive for so long, for readers of a segment that nobody serves."""
    layout = segment.layout
    for offset in (layout.launcher_offset, *map(layout.partition_offset, range(layout.workers))):
        block = segment.block(offset)
        block[lay.B_HEARTBEAT_NS] = time.monotonic_ns() + int(for_s * 1e9)
        block[lay.B_PID] = os.getpid()


def _list_symbols(segment: Segment) -> None:
    layout = segment.layout
    title = names(layout.max_symbols)
    table = segment.region(layout.symbols_offset, len(title) * lay.SYMBOL_BYTES).view(lay.SYMBOL)
    table["name"] = table["pair"] = np.array(title, dtype="S32")
    table["status"], table["contract"] = lay.SYMBOL_TRADING, 1
    table["price_decimals"], table["quantity_decimals"] = PRICE_DECIMALS, QUANTITY_DECIMALS
    slots = np.arange(len(title))
    table["worker"], table["local_slot"] = slots % layout.workers, slots // layout.workers
    table["sequence"] = 2
    historian = segment.block(layout.historian_offset)
    historian[lay.B_SYMBOL_COUNT], historian[lay.B_SYMBOLS_VERSION] = len(title), 1


def run_worker(segment: Segment, worker: int = 0, *, is_frozen: bool = True) -> None:
    """Serve a worker in this process for ever, as a launcher's child does.

    Args:
        segment: Its segment.
        worker: Its number.
        is_frozen: Whether the garbage collector is spared what is loaded.
    """
    gc.collect()
    if is_frozen:
        gc.freeze()
    run_role(Role("worker", worker, segment, from_json(segment.config_bytes())))


@contextmanager
def child(work: Callable[[], Any], core: int | None = None) -> Iterator[int]:
    """Run work in a forked process, pinned to a core; kill it in the end. Yield its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            with pinned(core):
                work()
        except BaseException:
            traceback.print_exc()
        os._exit(0)  # whatever it is, it ends here: a forked child must never return
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def cores() -> tuple[int | None, int | None]:
    """Return a core for whoever sends and one for whoever works; None where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (None, None)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keep this process on a core as long as the context lasts; None: leave it as it is."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def wait_for(condition: Callable[[], Any], what: str, look_s: float = 0.001) -> Any:
    """Wait until a condition holds and return what it returned.

    Args:
        condition: Looked at again and again.
        what: What is waited for, for the error.
        look_s: Pause between two looks.

    Raises:
        TimeoutError: If it did not hold within a minute.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what}: not within {_PATIENCE_S:.0f} s")
        time.sleep(look_s)
    return found
