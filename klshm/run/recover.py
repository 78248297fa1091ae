"""What a start does with the segment that a crashed engine left behind.

A segment that can be read is drained into the journal by a child, copied, then removed. One that cannot
be read (damaged, foreign, of another layout) is set aside under another name, never deleted: it
may be all that is left of the last minute. Neither happens while a process of its engine lives.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from pathlib import Path
from typing import Final

from klshm.errors import InstanceRunning, KlshmError, SegmentError
from klshm.run.aside import Aside
from klshm.shm import layout as lay
from klshm.shm.segment import Segment, open_segment, segment_path
from klshm.store.remains import SegmentCopy


__all__ = ["ASIDE", "recover"]

_log = logging.getLogger(__name__)

ASIDE: Final = ".unreadable"
"""End of the name that an unreadable segment is given; no instance can be called so."""


def recover(instance: str, directory: Path, *, keep: bool = False) -> SegmentCopy | None:
    """Save what a crashed engine left in shared memory, then free its name.

    A segment that no role ever served from is an earlier start that was cut off: what it was seeded with is
    still where it came from.

    Args:
        instance: Name of the instance.
        directory: Its directory, locked by this process.
        keep: Whether what it holds is wanted.

    Returns:
        A copy of it, None if it is not wanted or there is nothing.

    Raises:
        InstanceRunning: If that engine is alive after all.
        KlshmError: If what it left could not be saved; it stays where it is.
    """
    path = segment_path(instance)
    if not os.path.lexists(path):
        return None
    _refuse_if_alive(instance, path)
    try:
        segment = open_segment(instance)
    except KlshmError as error:
        _set_aside(path, error)
        return None
    try:
        held = None
        if int(segment.words[lay.H_STATE]) != lay.STATE_STARTING:
            draining = Aside("recovery", lambda: _drain(segment, directory))
            try:
                held = _copied(segment) if keep else None
                drained = draining.wait()
            except BaseException:
                draining.kill()
                raise
            if not drained:
                raise KlshmError(
                    f"what a crashed engine left in {path} could not be saved, see the message above; "
                    "mend that and start again, or remove the file to give it up"
                )
        segment.unlink()
        return held
    finally:
        segment.close()


def _copied(segment: Segment) -> SegmentCopy | None:
    try:
        return SegmentCopy(segment)
    except (OSError, ValueError) as error:
        _log.warning("what a crashed engine left is not gone on from, its bars are in the journal: %s", error)
        return None


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


def _drain(segment: Segment, directory: Path) -> None:
    from klshm.store.recovery import drain_segment

    began_s = time.monotonic()
    drained = drain_segment(segment, directory)
    _log.info("recovered from the segment of a crashed engine %s seconds=%.2f", drained, time.monotonic() - began_s)
