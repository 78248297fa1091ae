"""What a start does with the segment that a crashed engine left behind.

A segment that can be read is drained into the journal by a child, copied, then removed. One that cannot
be read (damaged, foreign, of another layout) is set aside under another name, never deleted: it
may be all that is left of the last minute. Neither happens while a process of its engine lives, nor
to what another user, another data directory or another exchange left: that is not ours to store.
"""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from klshm.config import Config
from klshm.errors import InstanceRunning, KlshmError, SegmentError
from klshm.run.aside import Aside
from klshm.shm import layout as lay
from klshm.shm.segment import Segment, open_segment, segment_path
from klshm.store.remains import SegmentCopy


__all__ = ["ASIDE", "recover", "set_aside"]

_log = logging.getLogger(__name__)

ASIDE: Final = ".unreadable"
"""Follows the name of an unreadable segment, a number after it from the second on; no instance is called so."""


def recover(config: Config, directory: Path) -> SegmentCopy | None:
    """Save what a crashed engine left in shared memory, then free its name.

    A segment that no role ever served from is an earlier start that was cut off: what it was seeded with is
    still where it came from.

    Args:
        config: The resolved configuration.
        directory: Directory of the instance, locked by this process.

    Returns:
        A copy of it; None if it is not to be gone on from or there is nothing.

    Raises:
        InstanceRunning: If that engine is alive after all.
        SegmentError: If another user, another directory's or another exchange's engine left it.
        KlshmError: If what it left could not be saved; it stays where it is.
    """
    instance = config.instance
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
        _refuse_if_of_another(segment, config)
        held = None
        if int(segment.words[lay.H_STATE]) != lay.STATE_STARTING:
            draining = Aside("recovery", lambda: _drain(segment, directory))
            try:
                held = _copied(segment) if config.historian.from_archive else None
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


def set_aside(instance: str) -> list[Path]:
    """Return the unreadable segments of an instance that were set aside; they take up shared memory."""
    path = segment_path(instance)
    return sorted(path.parent.glob(f"{path.name}{ASIDE}*"))


def _refuse_if_alive(instance: str, path: Path) -> None:
    """Raise if a process holds the segment's lock; what is in the segment does not matter for that."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise SegmentError(
            f"{path} is in the way and cannot be opened: {error.strerror}; remove it or choose another --instance"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SegmentError(f"{path} is in the way and no file; remove it or choose another --instance")
        if status.st_uid != os.geteuid():
            raise SegmentError(
                f"{path} belongs to user {status.st_uid}, this engine runs as {os.geteuid()}; "
                "start it as that user, let the file be removed, or choose another --instance"
            )
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InstanceRunning(
            f"instance {instance!r} is running (it holds {path}); stop it or choose another --instance"
        ) from None
    finally:
        os.close(descriptor)


def _refuse_if_of_another(segment: Segment, config: Config) -> None:
    """Raise if the segment's engine kept its data elsewhere, or its data is of another exchange."""
    try:
        left = json.loads(segment.config_bytes())
        directory, url = left["data"]["directory"], left["exchange"]["rest_url"]
        same_directory = os.path.realpath(directory) == os.path.realpath(config.data.directory)
        # A simulator of this machine gets another port each time.
        same_exchange = _is_loopback(url) or url.rstrip("/") == config.exchange.rest_url.rstrip("/")
    except (ValueError, LookupError, TypeError, AttributeError):
        return  # it is our user's, and does not say
    for key, same, theirs, ours in (
        ("data.directory", same_directory, directory, config.data.directory),
        ("exchange.rest_url", same_exchange, url, config.exchange.rest_url),
    ):
        if not same:
            raise SegmentError(
                f"{segment.path} was left by an engine whose {key} is {theirs}, this one's is {ours}; start with "
                "that one to save it, remove the file to give it up, or choose another --instance"
            )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _set_aside(path: Path, error: KlshmError) -> None:
    aside = path.with_name(path.name + ASIDE)
    numbers = itertools.count(2)
    while os.path.lexists(aside):
        aside = path.with_name(f"{path.name}{ASIDE}.{next(numbers)}")
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
