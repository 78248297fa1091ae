"""`--workers 0`: everything in one process and one event loop, and one thread for the disk.

The same roles as everywhere; only the disk needs a thread, or its syncs would stop the intake.
There is no process to start again: a role that fails ends the engine, in order, with exit code 1.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from klshm.config import Config
from klshm.errors import KlshmError
from klshm.role import Role
from klshm.run.child import new_loop
from klshm.run.notify import Notifier
from klshm.run.status import status_line
from klshm.shm import layout as lay
from klshm.shm.segment import Segment


__all__ = ["run_together"]

_log = logging.getLogger(__name__)

_BEAT_S: Final = 0.1
_STATUS_S: Final = 60.0
_DISK_S: Final = 25.0
"""A little longer than the persister gives itself to drain."""


def run_together(
    config: Config,
    segment: Segment,
    duration_s: float | None,
    on_live: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Run all roles here until a signal comes, the time is over, a role fails or a check does.

    Args:
        config: The resolved configuration.
        segment: The segment, created by this process.
        duration_s: Seconds after the worker is live; None: until a signal.
        on_live: Called once, when the worker is live.
        check: Called several times a second; an error that it raises ends the engine, in order.

    Returns:
        Whether nothing failed.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_Together(config, segment).run(duration_s, on_live, check))


class _Together:
    def __init__(self, config: Config, segment: Segment) -> None:
        self._segment = segment
        self._worker = Role("worker", 0, segment, config)
        self._historian = Role("historian", 0, segment, config)
        self._persister = Role("persister", 0, segment, config)
        self._block = segment.block(segment.layout.launcher_offset)
        self._asked = asyncio.Event()
        self._clean = True
        self._notifier = Notifier()

    async def run(self, duration_s: float | None, on_live: Callable[[], None], check: Callable[[], None]) -> bool:
        from klshm.historian.process import serve as serve_historian
        from klshm.worker.process import serve as serve_worker

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        disk = self._start_disk(loop)
        roles = [
            loop.create_task(serve_worker(self._worker), name="worker 0"),
            loop.create_task(serve_historian(self._historian), name="historian"),
        ]
        watch = loop.create_task(self._watch(duration_s, on_live, check), name="watch")
        asked = loop.create_task(self._asked.wait())
        self._notifier.ready("connecting")
        waited: list[asyncio.Future[Any]] = [asked, watch, disk, *roles]
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        for role, future in ((self._worker, roles[0]), (self._historian, roles[1]), (self._persister, disk)):
            if future.done():
                self._judge(role, future)
        self._segment.words[lay.H_STATE] = lay.STATE_DRAINING
        self._notifier.stopping()
        await self._drain(roles, disk)
        asked.cancel()
        if watch.cancel():
            await asyncio.wait([watch])
        else:
            watch.result()  # it never ends by itself: raise what ended it
        return self._clean

    async def _drain(self, roles: list[asyncio.Task[None]], disk: asyncio.Future[None]) -> None:
        """Stop the roles in order: intake, then what feeds the disk, then the disk."""
        running = [(role, task) for role, task in zip((self._worker, self._historian), roles, strict=True)]
        running = [(role, task) for role, task in running if not task.done()]
        for role, _ in running:
            role.stop.set()
        if running:
            await asyncio.wait([task for _, task in running])
        for role, task in running:
            if task.exception() is not None:
                self._judge(role, task)
        if not disk.done():
            self._persister.stop.set()
            await asyncio.wait([disk], timeout=_DISK_S)
            if not disk.done():
                self._clean = False
                _log.error("the disk did not finish in time and is left role=persister seconds=%.0f", _DISK_S)
            elif disk.exception() is not None:
                self._judge(self._persister, disk)

    def _start_disk(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Start the persister's thread; the future is done when it has ended."""
        from klshm.store.persister import serve

        ended: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            failure: BaseException | None = None
            try:
                serve(self._persister)
            except BaseException as error:
                failure = error
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, ended, failure)

        # A daemon: a disk that hangs must not keep the process from ending.
        threading.Thread(target=work, name="klshm disk", daemon=True).start()
        return ended

    def _judge(self, role: Role, future: asyncio.Future[None]) -> None:
        """Say why a role ended that was not asked to."""
        self._clean = False
        error = future.exception()
        text = "it ended by itself" if error is None else f"{type(error).__name__}: {error}"
        unforeseen = error if not isinstance(error, KlshmError) else None
        _log.error("role failed, the engine stops role=%s error=%r", role.name, text, exc_info=unforeseen)
        role.report_error(text)

    def _on_signal(self, number: int) -> None:
        if self._asked.is_set():
            self._segment.words[lay.H_STATE] = lay.STATE_CLOSED  # and stays: nobody had time to store what it holds
            os._exit(1)
        _log.info("stopping signal=%s; a second one ends at once", signal.Signals(number).name)
        self._asked.set()

    async def _watch(self, duration_s: float | None, on_live: Callable[[], None], check: Callable[[], None]) -> None:
        live_s: float | None = None
        status_s = time.monotonic() + _STATUS_S
        while True:
            now_s = time.monotonic()
            self._block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
            self._notifier.alive()
            if live_s is None and int(self._worker.block[lay.B_ROLE_STATE]) == lay.ROLE_LIVE:
                live_s = now_s
                self._notifier.status("live")
                on_live()
            if live_s is not None and duration_s is not None and now_s - live_s >= duration_s:
                self._asked.set()
            if now_s >= status_s:
                status_s += _STATUS_S
                line = status_line(self._segment)
                self._notifier.status(line)
                _log.info("%s", line)
            try:
                check()
            except KlshmError as error:
                if not self._asked.is_set():
                    self._clean = False
                    _log.error("stopping: %s", error)
                    self._asked.set()
            await asyncio.sleep(_BEAT_S)


def _settle(future: asyncio.Future[None], failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)
