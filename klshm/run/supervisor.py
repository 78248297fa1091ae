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
from dataclasses import dataclass, field
from typing import Final

from klshm.config import Config
from klshm.role import Role
from klshm.run.child import fork_role
from klshm.shm import layout as lay
from klshm.shm.counters import LAUNCHER, Counters
from klshm.shm.segment import Segment


__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_ROUND_S: Final = 0.25
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
        historian = Child(Role("historian", 0, segment, config), None)
        persister = Child(Role("persister", 0, segment, config), None)
        workers = [Child(Role("worker", index, segment, config), core) for index, core in enumerate(cores)]
        self.children = [persister, historian, *workers]
        self._signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = wakeup
        self._stop_signal = 0
        self._stop_count = 0

    # Called by the launcher

    @property
    def stopping(self) -> bool:
        """Whether a signal asked the engine to stop."""
        return self._stop_signal != 0

    def install_signals(self) -> None:
        """Let SIGINT and SIGTERM end the loop; a second one ends the process at once, exit code 1."""
        signal.set_wakeup_fd(self._wakeup)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def start(self) -> None:
        """Fork all roles."""
        for child in self.children:
            self._fork(child)

    def wait_live(self, timeout_s: float) -> bool:
        """Supervise until all workers are live; return False if the time ran out or a signal came."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s and not self._stop_signal:
            if all(int(c.role.block[lay.B_ROLE_STATE]) == lay.ROLE_LIVE for c in self._workers()):
                return True
            self.round(0.05)
        return False

    def run(self, duration_s: float | None) -> None:
        """Supervise until a signal comes or the time is over."""
        began_s = time.monotonic()
        kill_after_s = self.config.chaos.kill_worker_after_s
        status_s = began_s + _STATUS_S
        while not self._stop_signal and (duration_s is None or time.monotonic() - began_s < duration_s):
            self.round(_ROUND_S)
            now_s = time.monotonic()
            if kill_after_s and now_s - began_s >= kill_after_s:
                kill_after_s = 0.0
                victim = self._workers()[0]
                _log.warning("chaos kills a worker pid=%d", victim.pid)
                os.kill(victim.pid, signal.SIGKILL)
            if now_s >= status_s:
                status_s += _STATUS_S
                self._say_status()

    def round(self, wait_s: float) -> None:
        """Look after the children once, waiting at most so long for something to happen."""
        before_s = time.monotonic()
        self._wait(wait_s)
        now_s = time.monotonic()
        self._block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
        for child in self.children:
            self._reap(child)
        # A launcher that was itself stopped must not take everyone else for hung.
        if now_s - before_s < wait_s + _PAUSED_S:
            for child in self.children:
                self._watch(child)
        for child in self.children:
            if child.pid == 0 and now_s >= child.start_at_s:
                self._fork(child)

    def stop(self) -> bool:
        """Stop the roles in order: intake, then what feeds the disk, then the disk.

        Returns:
            Whether every role ended by itself.
        """
        self.segment.words[lay.H_STATE] = lay.STATE_DRAINING
        clean = self._stop_all([child for child in self.children if child.role.kind != "persister"])
        clean = self._stop_all([child for child in self.children if child.role.kind == "persister"]) and clean
        return clean

    # Inside

    def _workers(self) -> list[Child]:
        return [child for child in self.children if child.role.kind == "worker"]

    def _on_signal(self, number: int, frame: object) -> None:
        self._stop_count += 1
        if self._stop_count > 1:
            for child in self.children:
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
            self.segment.words[lay.H_STATE] = lay.STATE_CLOSED
            self.segment.unlink()
            os._exit(1)
        self._stop_signal = number
        _log.info("stopping signal=%s; a second one ends at once", signal.Signals(number).name)

    def _fork(self, child: Child) -> None:
        child.pid = fork_role(child.role, child.core)
        child.descriptor = os.pidfd_open(child.pid)
        child.began_s = time.monotonic()
        child.killed = False

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
        now_s = time.monotonic()
        if now_s - child.began_s >= _STABLE_S:
            child.backoff_s = 0.0
        child.start_at_s = now_s + child.backoff_s
        state = int(self.segment.words[lay.H_STATE])
        if state != lay.STATE_DRAINING:
            child.restarts += 1
            self.counters.add("restarts_total")
            _log.error(
                "role ended role=%s pid=%d status=%s restart_in_s=%.1f",
                *(child.role.name, child.pid, _ending(status), child.backoff_s),
            )
        child.backoff_s = min(max(_FIRST_BACKOFF_S, child.backoff_s * 2), _LONGEST_BACKOFF_S)
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

    def _stop_all(self, children: list[Child]) -> bool:
        for child in children:
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + max(_STOP_S[child.role.kind] for child in children)
        clean = True
        while sum(self._reap(child) for child in children) < len(children):
            if time.monotonic() >= deadline_s:
                for child in children:
                    if child.pid:
                        _log.error("role did not stop in time and is killed role=%s", child.role.name)
                        os.kill(child.pid, signal.SIGKILL)
                clean = False
                deadline_s = time.monotonic() + _REAP_S
            self._block[lay.B_HEARTBEAT_NS] = time.monotonic_ns()
            self._wait(0.05)
        return clean

    def _say_status(self) -> None:
        from klshm.run.status import status_line

        self.counters.add("status_lines_total")
        _log.info("%s", status_line(self.segment))


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit {os.WEXITSTATUS(status)}"
