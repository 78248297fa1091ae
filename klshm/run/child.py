"""The first and the last lines of every forked role."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
from typing import Final

from klshm import logs
from klshm.errors import KlshmError
from klshm.role import Role
from klshm.run.affinity import pin
from klshm.shm import layout as lay


__all__ = ["fork_role", "new_loop", "run_role"]

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


def fork_role(role: Role, core: int | None) -> int:
    """Fork a process for a role.

    Args:
        role: The role; its stop signal is made for the child.
        core: Core to pin it to; None: not pinned.

    Returns:
        The child's pid.
    """
    launcher = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _child(role, core, launcher)
    except KeyboardInterrupt:
        code = 0
    except BaseException as error:
        # Whatever it is, it ends here: a forked child must never return into the launcher.
        _log.exception("role failed role=%s", role.name)
        role.report_error(f"{type(error).__name__}: {error}")
    finally:
        logging.shutdown()
        os._exit(code)


def run_role(role: Role) -> None:
    """Serve a role in this process until it is asked to stop."""
    if role.kind == "persister":
        from klshm.store.persister import serve

        serve(role)
        return
    from klshm.historian.process import serve as serve_historian
    from klshm.worker.process import serve as serve_worker

    serve_async = serve_worker if role.kind == "worker" else serve_historian
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve_async(role))


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's."""
    import uvloop

    return uvloop.new_event_loop()


def _child(role: Role, core: int | None, launcher: int) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != launcher:
        return 1  # the launcher died between the fork and the line above
    os.setsid()  # Ctrl-C reaches the launcher only, which stops the roles in order
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: role.stop.set())
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
