"""What a start does with the segment that a crashed engine left behind.

A segment that can be read is drained into the journal by a child, then removed. One that cannot
be read (damaged, foreign, of another layout) is set aside under another name, never deleted: it
may be all that is left of the last minute. Neither happens while a process of its engine lives.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from klshm.errors import InstanceRunning, KlshmError, SegmentError
from klshm.run.child import die_with
from klshm.shm.segment import Segment, open_segment, segment_path


__all__ = ["ASIDE", "recover"]

_log = logging.getLogger(__name__)

ASIDE: Final = ".unreadable"
"""End of the name that an unreadable segment is given; no instance can be called so."""


def recover(instance: str, directory: Path) -> None:
    """Save what a crashed engine left in shared memory, then free its name.

    Args:
        instance: Name of the instance.
        directory: Its directory, locked by this process.

    Raises:
        InstanceRunning: If that engine is alive after all.
        KlshmError: If what it left could not be saved; it stays where it is.
    """
    path = segment_path(instance)
    if not os.path.lexists(path):
        return
    _refuse_if_alive(instance, path)
    try:
        segment = open_segment(instance)
    except KlshmError as error:
        _set_aside(path, error)
        return
    try:
        _drain_in_child(segment, directory)
        segment.unlink()
    finally:
        segment.close()


def _refuse_if_alive(instance: str, path: Path) -> None:
    """Raise if a process holds the segment's lock; what is in the segment does not matter for that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SegmentError(
            f"{path} is in the way and cannot be opened: {error.strerror}; remove it or choose another --instance"
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SegmentError(f"{path} is in the way and no file; remove it or choose another --instance")
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstanceRunning(
            f"instance {instance!r} is running (it holds {path}); stop it or choose another --instance"
        ) from None
    finally:
        os.close(descriptor)


def _set_aside(path: Path, error: KlshmError) -> None:
    aside = path.with_name(path.name + ASIDE)
    try:
        path.replace(aside)
    except OSError as refusal:
        raise SegmentError(
            f"{path} is in the way and cannot be renamed: {refusal.strerror}; remove it or choose another --instance"
        ) from refusal
    _log.warning(
        "a segment that cannot be read was left; remove it when you are done with it aside=%s: %s", aside, error
    )


def _drain_in_child(segment: Segment, directory: Path) -> None:
    """Drain in a process of its own: a database that the launcher opened, every role would inherit."""
    launcher = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    # What a signal handler raises within fork() itself is lost.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    if pid == 0:
        os._exit(_drain(segment, directory, launcher, mask))
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _, status = os.waitpid(pid, 0)
    except BaseException:
        # Asked to stop meanwhile. Draining may be cut off at any instant and repeated.
        with suppress(ProcessLookupError, ChildProcessError):  # it had just ended by itself
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    if status != 0:
        raise KlshmError(
            f"what a crashed engine left in {segment.path} could not be saved, see the message above; "
            "mend that and start again, or remove the file to give it up"
        )


def _drain(segment: Segment, directory: Path, launcher: int, mask: set[int | signal.Signals]) -> int:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to judge
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with(launcher)
        from klshm.store.recovery import drain_segment

        began_s = time.monotonic()
        drained = drain_segment(segment, directory)
        _log.info("recovered from the segment of a crashed engine %s seconds=%.2f", drained, time.monotonic() - began_s)
        code = 0
    except KlshmError as error:
        _log.error("recovery failed: %s", error)
    except BaseException:
        # Whatever it is, it ends here: a forked child must never return into the launcher.
        _log.exception("recovery failed path=%s", segment.path)
    finally:
        logging.shutdown()
    return code
