"""`--workers 0`: everything in one process and one event loop, and one thread for the disk.

The same roles as everywhere; only the disk needs a thread, or its syncs would stop the intake.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from typing import Final

from klshm.config import Config
from klshm.role import Role
from klshm.run.child import new_loop
from klshm.run.status import live_block, status_line
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["run_together"]

_log = logging.getLogger(__name__)

_BEAT_S: Final = 0.1
_STATUS_S: Final = 60.0
_DISK_S: Final = 20.0


def run_together(config: Config, segment: Segment, duration_s: float | None) -> int:
    """Run all roles here until a signal comes or the time is over; return the exit code.

    Args:
        config: The resolved configuration.
        segment: The segment, created by this process.
        duration_s: Seconds after the worker is live; None: until a signal.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_run(config, segment, duration_s))


async def _run(config: Config, segment: Segment, duration_s: float | None) -> int:
    from klshm.historian.process import serve as serve_historian
    from klshm.store.persister import serve as serve_persister
    from klshm.worker.process import serve as serve_worker

    worker, historian = Role("worker", 0, segment, config), Role("historian", 0, segment, config)
    persister = Role("persister", 0, segment, config)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    disk = threading.Thread(target=serve_persister, args=(persister,), name="klshm disk")
    disk.start()
    roles = [asyncio.create_task(serve_worker(worker)), asyncio.create_task(serve_historian(historian))]
    segment.words[lay.H_STATE] = lay.STATE_SERVING
    watch = asyncio.create_task(_watch(config, segment, worker, duration_s, stopped))
    await asyncio.wait([asyncio.create_task(stopped.wait()), watch, *roles], return_when=asyncio.FIRST_COMPLETED)
    watch.cancel()
    segment.words[lay.H_STATE] = lay.STATE_DRAINING
    worker.stop.set()
    historian.stop.set()
    results = await asyncio.gather(*roles, return_exceptions=True)
    persister.stop.set()
    await asyncio.to_thread(disk.join, _DISK_S)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        _log.error("role failed: %s: %s", type(failure).__name__, failure)
    clean = not failures and not disk.is_alive()
    _log.info("stopped clean=%s", clean)
    return 0 if clean else 1


async def _watch(
    config: Config, segment: Segment, worker: Role, duration_s: float | None, stopped: asyncio.Event
) -> None:
    block = segment.block(segment.layout.launcher_offset)
    live_s: float | None = None
    status_s = time.monotonic() + _STATUS_S
    while not stopped.is_set():
        now_s = time.monotonic()
        block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
        if live_s is None and int(worker.block[lay.B_ROLE_STATE]) == lay.ROLE_LIVE:
            live_s = now_s
            print(live_block(config, segment), flush=True)  # noqa: T201 - this is the command's own voice
        if live_s is not None and duration_s is not None and now_s - live_s >= duration_s:
            return
        if now_s >= status_s:
            status_s += _STATUS_S
            _log.info("%s", status_line(segment))
        await asyncio.sleep(_BEAT_S)
