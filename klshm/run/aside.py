"""A piece of work in a process of its own, beside the launcher: what opens a database, or may hang on a disk.

A database that the launcher opened, every role would inherit.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from klshm.errors import KlshmError
from klshm.run.child import die_with


__all__ = ["Aside"]

_log = logging.getLogger(__name__)


class Aside:
    """A child that does one thing, says in the log how it went, and ends.

    A signal that ends the launcher's start while it waits kills the child: whatever is done here may be
    cut off at any instant and repeated.

    Args:
        name: What it does, for messages.
        work: Does it; a KlshmError that it raises is logged in one line.

    Raises:
        OSError: If there is no room for another process.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        launcher = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # What a signal handler raises within fork() itself is lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            raise
        if self._pid == 0:
            os._exit(_work(name, work, launcher, mask))
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except BaseException:
            self.kill()
            raise

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; after the time given it is killed.

        Args:
            timeout_s: Seconds; None: for ever.

        Returns:
            Whether it did what it was for.
        """
        try:
            if timeout_s is not None and not self._ends_within(timeout_s):
                self.kill()
                return False
            _, status = os.waitpid(self._pid, 0)
        except BaseException:
            self.kill()
            raise
        self._pid = 0
        return status == 0

    def kill(self) -> None:
        """End it, if it has not ended; one that the disk holds is left to the kernel."""
        if self._pid == 0:
            return
        with suppress(ProcessLookupError, ChildProcessError):  # it had just ended by itself
            os.kill(self._pid, signal.SIGKILL)
            self._ends_within(1.0)
            os.waitpid(self._pid, os.WNOHANG)
        self._pid = 0

    def _ends_within(self, timeout_s: float) -> bool:
        descriptor = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        finally:
            os.close(descriptor)


def _work(name: str, work: Callable[[], None], launcher: int, mask: set[int | signal.Signals]) -> int:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to judge
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with(launcher)
        work()
        code = 0
    except KlshmError as error:
        _log.error("%s failed: %s", name, error)
    except BaseException:
        # Whatever it is, it ends here: a forked child must never return into the launcher.
        _log.exception("%s failed", name)
    finally:
        logging.shutdown()
    return code
