"""Keeps the roles of one engine alive, and stops them in order.

A plain loop without threads, event loop or database: what the launcher holds, every fork
inherits. It sleeps in poll() until a child ends, a signal comes or a quarter second has passed.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from klshm.config import Config
from klshm.errors import KlshmError
from klshm.role import Role
from klshm.run.child import fork_role
from klshm.run.notify import Notifier
from klshm.shm import layout as lay
from klshm.shm.counters import LAUNCHER, Counters
from klshm.shm.segment import Segment


__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_ROUND_S: Final = 0.25
_ROUND_BEFORE_LIVE_S: Final = 0.05
_LIVE_S: Final = 120.0
_PAUSED_S: Final = 0.5
_HUNG_S: Final = {"worker": 3.0, "historian": 5.0, "persister": 10.0}
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 30.0
_STABLE_S: Final = 30.0
_STOP_S: Final = {"worker": 5.0, "historian": 5.0, "persister": 20.0}
_REAP_S: Final = 5.0
_STATUS_S: Final = 60.0


@dataclass
class Child:
    """A role, its process and how often it had to be started again."""

    role: Role
    core: int | None
    pid: int = 0
    descriptor: int = -1
    began_s: float = 0.0
    restarts: int = 0
    backoff_s: float = 0.0
    start_at_s: float = 0.0
    killed: bool = field(default=False)


class Supervisor:
    """The launcher's loop.

    Args:
        config: The resolved configuration.
        segment: The segment, created by this process.
        cores: Core per worker, None: not pinned.
    """

    def __init__(self, config: Config, segment: Segment, cores: list[int | None]) -> None:
        self.config = config
        self.segment = segment
        self.counters = Counters(segment.block(segment.layout.launcher_offset), LAUNCHER)
        self._block = segment.block(segment.layout.launcher_offset)
        self._kill_after_s = config.chaos.kill_worker_after_s
        historian = Child(Role("historian", 0, segment, config), None)
        persister = Child(Role("persister", 0, segment, config), None)
        workers = [Child(Role("worker", index, segment, config), core) for index, core in enumerate(cores)]
        self.children = [persister, historian, *workers]
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = wakeup
        self._stop_signal = 0
        self._clean = True
        self._notifier = Notifier()

    # Called by the launcher

    def install_signals(self) -> None:
        """Let SIGINT and SIGTERM end the loop; a second one ends the process at once, exit code 1."""
        signal.set_wakeup_fd(self._wakeup)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def start(self) -> None:
        """Fork all roles."""
        for child in self.children:
            self._fork(child)

    def run(
        self,
        duration_s: float | None,
        on_live: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Supervise until a signal comes, the time is over or a check fails.

        Args:
            duration_s: Seconds after all workers are live; None: until a signal.
            on_live: Called once, when all workers are live.
            check: Called every round; an error that it raises ends the engine, in order.
        """
        began_s = time.monotonic()
        live_s: float | None = None
        warned = False
        self._notifier.ready("connecting")
        status_s = began_s + _STATUS_S
        while not self._stop_signal:
            self.round(_ROUND_BEFORE_LIVE_S if live_s is None else _ROUND_S)
            now_s = time.monotonic()
            if live_s is None and self._all_live():
                live_s = now_s
                self._notifier.status("live")
                on_live()
            elif live_s is None and not warned and now_s - began_s >= _LIVE_S:
                warned = True
                _log.warning("not all workers are live after %.0f s; the engine goes on and keeps trying", _LIVE_S)
            if live_s is not None:
                self._make_chaos(now_s - live_s)
                if duration_s is not None and now_s - live_s >= duration_s:
                    return
            if now_s >= status_s:
                status_s += _STATUS_S
                self._say_status()
            try:
                check()
            except KlshmError as error:
                _log.error("stopping: %s", error)
                self._clean = False
                return

    def round(self, wait_s: float) -> None:
        """Look after the children once, waiting at most so long for something to happen."""
        before_s = time.monotonic()
        self._wait(wait_s)
        now_s = time.monotonic()
        self._show_life()
        for child in self.children:
            self._reap(child)
        # A launcher that was itself stopped must not take everyone else for hung.
        if now_s - before_s < wait_s + _PAUSED_S:
            for child in self.children:
                self._watch(child)
        for child in self.children:
            if child.pid == 0 and time.monotonic() >= child.start_at_s:
                self._fork(child)

    def stop(self) -> bool:
        """Stop the roles in order: intake, then what feeds the disk, then the disk.

        Returns:
            Whether nothing failed: no check, and every role ended by itself and without an error.
        """
        self.segment.words[lay.H_STATE] = lay.STATE_DRAINING
        self._notifier.stopping()
        self._stop_all([child for child in self.children if child.role.kind != "persister"])
        self._stop_all([child for child in self.children if child.role.kind == "persister"])
        return self._clean

    # Inside

    def _workers(self) -> list[Child]:
        return [child for child in self.children if child.role.kind == "worker"]

    def _all_live(self) -> bool:
        return all(int(child.role.block[lay.B_ROLE_STATE]) == lay.ROLE_LIVE for child in self._workers())

    def _make_chaos(self, live_s: float) -> None:
        victim = self._workers()[0]
        if 0 < self._kill_after_s <= live_s and victim.pid:
            self._kill_after_s = 0.0
            _log.warning("chaos kills a worker pid=%d", victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stop_signal:
            for child in self.children:
                if child.pid:
                    with suppress(ProcessLookupError):  # reaped just now
                        os.kill(child.pid, signal.SIGKILL)
            self.segment.words[lay.H_STATE] = lay.STATE_CLOSED  # and stays: nobody had time to store what it holds
            os._exit(1)
        self._stop_signal = number
        _log.info("stopping signal=%s; a second one ends at once", signal.Signals(number).name)

    def _fork(self, child: Child) -> None:
        try:
            child.pid = fork_role(child.role, child.core, self._own_descriptors())
        except OSError as error:
            child.began_s = time.monotonic()  # or what never ran would count as stable, and be tried without a pause
            pause_s = self._plan_restart(child)
            _log.error(
                "no process for a role role=%s reason=%r again_in_s=%.1f", child.role.name, error.strerror, pause_s
            )
            return
        child.descriptor = os.pidfd_open(child.pid)
        child.began_s = time.monotonic()
        child.killed = False

    def _own_descriptors(self) -> list[int]:
        others = [child.descriptor for child in self.children if child.descriptor >= 0]
        return [self._signals, self._wakeup, *others]

    def _plan_restart(self, child: Child) -> float:
        """The first restart is at once, each further one later, until the role has been stable."""
        now_s = time.monotonic()
        pause_s = 0.0 if now_s - child.began_s >= _STABLE_S else child.backoff_s
        child.start_at_s = now_s + pause_s
        child.backoff_s = min(max(_FIRST_BACKOFF_S, pause_s * 2), _LONGEST_BACKOFF_S)
        return pause_s

    def _wait(self, wait_s: float) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        for child in self.children:
            if child.descriptor >= 0:
                poll.register(child.descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(wait_s * 1000):
            if descriptor == self._signals:
                os.read(self._signals, 512)

    def _reap(self, child: Child) -> bool:
        """Take notice of a child's end; return whether it is gone."""
        if child.pid == 0:
            return True
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == 0:
            return False
        os.close(child.descriptor)
        if int(self.segment.words[lay.H_STATE]) == lay.STATE_DRAINING:
            if status != 0:
                self._clean = False
                _log.error("role ended badly role=%s status=%s", child.role.name, _ending(status))
        else:
            pause_s = self._plan_restart(child)
            child.restarts += 1
            self.counters.add("restarts_total")
            _log.error(
                "role ended role=%s pid=%d status=%s restart_in_s=%.1f",
                *(child.role.name, child.pid, _ending(status), pause_s),
            )
        child.pid, child.descriptor = 0, -1
        return True

    def _watch(self, child: Child) -> None:
        """Kill a role that shows no life; it is started again once it is reaped."""
        if child.pid == 0 or child.killed:
            return
        limit_s = _HUNG_S[child.role.kind]
        silent_s = (time.monotonic_ns() - int(child.role.block[lay.B_HEARTBEAT_NS])) / 1e9
        if min(silent_s, time.monotonic() - child.began_s) > limit_s:
            _log.error("role hangs role=%s pid=%d silent_s=%.1f", child.role.name, child.pid, silent_s)
            self.counters.add("hung_total")
            child.killed = True
            os.kill(child.pid, signal.SIGKILL)

    def _stop_all(self, children: list[Child]) -> None:
        for child in children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + max(_STOP_S[child.role.kind] for child in children)
        killed = False
        while sum(self._reap(child) for child in children) < len(children):
            late = [child for child in children if child.pid] if time.monotonic() >= deadline_s else []
            for child in late:
                self._clean = False
                if killed:
                    _log.error("role cannot be killed and is left behind role=%s pid=%d", child.role.name, child.pid)
                else:
                    _log.error("role did not stop in time and is killed role=%s", child.role.name)
                    os.kill(child.pid, signal.SIGKILL)
            if late and killed:
                return
            if late:
                killed, deadline_s = True, time.monotonic() + _REAP_S
            self._show_life()
            self._wait(0.05)

    def _show_life(self) -> None:
        self._block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
        self._notifier.alive()

    def _say_status(self) -> None:
        from klshm.run.status import status_line

        self.counters.add("status_lines_total")
        line = status_line(self.segment)
        self._notifier.status(line)
        _log.info("%s", line)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.strsignal(number)})"
    return f"exit {os.WEXITSTATUS(status)}"
