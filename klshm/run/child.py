"""The first and the last lines of every forked role."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterable
from typing import Final

from klshm import logs
from klshm.errors import KlshmError
from klshm.role import Role, Stop
from klshm.run.affinity import pin
from klshm.shm import layout as lay


__all__ = ["die_with", "fork_role", "load_roles", "new_loop", "run_role"]

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_MODULES: Final = {
    "worker": "klshm.worker.process",
    "historian": "klshm.historian.process",
    "persister": "klshm.store.persister",
}


def fork_role(role: Role, core: int | None, private: Iterable[int] = ()) -> int:
    """Fork a process for a role.

    Args:
        role: The role; the child makes a stop flag of its own.
        core: Core to pin it to; None: not pinned.
        private: The launcher's own descriptors, which the child closes: a role that is started late would
            hold more of them than one that is started first.

    Returns:
        The child's pid.

    Raises:
        OSError: If there is no room for another process.
    """
    launcher = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that came before the child has its own handlers would be lost in the launcher's.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        return pid
    code = 1
    try:
        code = _child(role, core, launcher, private)
    except KeyboardInterrupt:
        code = 0
    except BaseException as error:
        # Whatever it is, it ends here: a forked child must never return into the launcher.
        _log.exception("role failed role=%s", role.name)
        role.report_error(f"{type(error).__name__}: {error}")
    finally:
        logging.shutdown()
        os._exit(code)


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies.

    Args:
        parent: Pid of the parent; if it is dead already, this process ends here.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def load_roles() -> None:
    """Import what roles need, once for all of them: forked then, each shares it and begins at once.

    None of it starts a thread or opens a file, which every fork would inherit.
    """
    for name in ("uvloop", *_MODULES.values()):
        importlib.import_module(name)


def run_role(role: Role) -> None:
    """Serve a role in this process until it is asked to stop."""
    serve = importlib.import_module(_MODULES[role.kind]).serve
    if role.kind == "persister":
        serve(role)
        return
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(role))


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's."""
    import uvloop

    return uvloop.new_event_loop()


def _child(role: Role, core: int | None, launcher: int, private: Iterable[int]) -> int:
    die_with(launcher)
    os.setsid()  # Ctrl-C reaches the launcher only, which stops the roles in order
    signal.set_wakeup_fd(-1)
    for descriptor in private:
        os.close(descriptor)
    role.stop = Stop()  # the flag inherited is that of every process this role has had
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: role.stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    logs.configure(role.config.log.level, role.config.log.format, role.name)
    role.block[lay.B_CPU] = core if pin(core) and core is not None else -1
    gc.collect()
    gc.freeze()
    try:
        run_role(role)
    except KlshmError as error:
        _log.error("role stopped role=%s error=%s", role.name, error)
        role.report_error(str(error))
        return 1
    return 0
