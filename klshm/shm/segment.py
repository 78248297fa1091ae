"""The segment: created by the launcher, mapped by everyone.

Creation is all or nothing: a temporary file is allocated, filled, locked and then linked to
its final name. The `flock` on it is inherited by every role on purpose, so it is held until
the last process of the engine is dead; that is the only true answer to "does it still run".
A segment is never truncated (readers would die of SIGBUS), only unlinked.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm.errors import (
    ConfigError,
    InstanceNotFound,
    InstanceRunning,
    SegmentDamaged,
    SegmentError,
    SegmentNotReady,
    SegmentTooLarge,
)
from klshm.shm import layout as lay
from klshm.shm.layout import Layout


__all__ = [
    "Segment",
    "check_instance_name",
    "create_segment",
    "instance_names",
    "open_segment",
    "segment_path",
    "shared_memory_directory",
    "sweep_temporary_segments",
]

Words = np.ndarray[Any, np.dtype[np.int64]]

_PREFIX: Final = "klshm."
_NAME: Final = re.compile(r"[a-z0-9-]{1,32}")


def shared_memory_directory() -> Path:
    """Return the directory that segments live in: `KLSHM_SHM_DIRECTORY`, else /dev/shm."""
    return Path(os.environ.get("KLSHM_SHM_DIRECTORY") or "/dev/shm")


def check_instance_name(name: str) -> str:
    """Return the name if it is a legal instance name.

    Raises:
        ConfigError: If it is not 1 to 32 of a-z, 0-9 and '-'.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"instance name {name!r} is not 1 to 32 characters of a-z, 0-9 and '-'; choose another")
    return name


def segment_path(instance: str) -> Path:
    """Return the path of an instance's segment."""
    return shared_memory_directory() / f"{_PREFIX}{check_instance_name(instance)}"


def instance_names() -> list[str]:
    """Return the names of all instances that have a segment here, sorted."""
    names = (p.name.removeprefix(_PREFIX) for p in shared_memory_directory().glob(f"{_PREFIX}*"))
    return sorted(name for name in names if _NAME.fullmatch(name))


class Segment:
    """A mapped segment.

    Attributes:
        path: Its file.
        layout: Its sizes and offsets.
        words: The whole segment, shape (total_bytes / 8,), dtype int64; read-only for readers.
        uuid: 32 hexadecimal digits, new for every segment.
    """

    def __init__(self, path: Path, descriptor: int, layout: Layout, *, writable: bool) -> None:
        self.path = path
        self.layout = layout
        self._descriptor = descriptor
        self._map = mmap.mmap(
            descriptor,
            layout.total_bytes,
            flags=mmap.MAP_SHARED,
            prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0),
        )
        self.words: Words = np.frombuffer(self._map, dtype=np.int64)
        self.inode = os.fstat(descriptor).st_ino

    @property
    def uuid(self) -> str:
        """Identity of this segment, 32 hexadecimal digits."""
        return self.words[lay.H_UUID : lay.H_UUID + 2].tobytes().hex()

    @property
    def descriptor(self) -> int:
        """File descriptor that holds the lock (creator and its children)."""
        return self._descriptor

    def region(self, offset_bytes: int, size_bytes: int) -> Words:
        """Return a part of the segment as words, shape (size_bytes / 8,), dtype int64."""
        return self.words[offset_bytes // 8 : (offset_bytes + size_bytes) // 8]

    def block(self, offset_bytes: int) -> Words:
        """Return a role block, shape (256,), dtype int64."""
        return self.region(offset_bytes, lay.BLOCK_BYTES)

    def config_bytes(self) -> bytes:
        """Return the resolved configuration the engine was started with, JSON."""
        length = int(self.words[lay.H_CONFIG_BYTES])
        return self.region(self.layout.config_offset, lay.CONFIG_BYTES).tobytes()[:length]

    def is_locked(self) -> bool:
        """Return whether any process of the engine that made this segment is alive.

        True as well for a segment that was unlinked or replaced while its engine lives on.
        """
        # A description of its own, of this very file: the name may be gone or belong to another by now.
        with open(f"/proc/self/fd/{self._descriptor}", "rb") as probe:
            try:
                fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def unlink(self) -> None:
        """Remove the segment's name; those who map it keep what they see."""
        try:
            if os.stat(self.path).st_ino == self.inode:
                self.path.unlink()
        except FileNotFoundError:
            return  # already gone: what was wanted

    def close(self) -> None:
        """Unmap the segment and close its descriptor; may be repeated.

        Raises:
            SegmentError: If an array that looks into the segment is still alive.
        """
        self.words = np.empty(0, dtype=np.int64)
        try:
            self._map.close()
        except BufferError as error:
            raise SegmentError("a view into the segment is still in use; keep copies, not views") from error
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def create_segment(
    instance: str, layout: Layout, config_json: bytes, *, mode: int = 0o600, group: str | None = None
) -> Segment:
    """Create, fill and lock the segment of an instance.

    Args:
        instance: Name of the instance.
        layout: Its sizes.
        config_json: Resolved configuration, at most 28 KiB.
        mode: Permissions of the file.
        group: Group that owns the file; None keeps the process's own.

    Returns:
        The segment, mapped for writing, its version written, state "starting".

    Raises:
        InstanceRunning: If a segment of that name exists.
        SegmentTooLarge: If shared memory has not enough room; says what it has and needs.
        SegmentError: If the configuration does not fit or the file cannot be made.
    """
    final = segment_path(instance)
    if len(config_json) > lay.CONFIG_BYTES:
        raise SegmentError(
            f"the resolved configuration has {len(config_json)} bytes, the segment holds {lay.CONFIG_BYTES}; "
            "shorten the symbol lists"
        )
    temporary = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SegmentError(
            f"cannot create {temporary}: {error.strerror}; is {temporary.parent} a tmpfs that you may write to?"
        ) from error
    segment = None
    try:
        _allocate(descriptor, layout.total_bytes, temporary.parent)
        segment = Segment(final, descriptor, layout, writable=True)
        _fill(segment, config_json)
        _own(temporary, mode, group)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segment.words[lay.H_VERSION] = lay.VERSION  # last: from here on readers may use it
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise InstanceRunning(
                f"{final} exists already; stop that engine or choose another --instance"
            ) from None
    except BaseException:
        # The map as well: it keeps the memory, and through a descriptor of its own the lock.
        if segment is None:
            os.close(descriptor)
        else:
            segment.close()
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return segment


def open_segment(instance: str, *, writable: bool = False) -> Segment:
    """Map the existing segment of an instance.

    Args:
        instance: Name of the instance.
        writable: True only for recovery; readers map it read-only.

    Raises:
        InstanceNotFound: If there is none; names the path looked at.
        SegmentNotReady: If its creator has not finished it.
        SegmentDamaged: If it is shorter than it says, or no segment at all.
        LayoutMismatch: If another layout wrote it.
    """
    path = segment_path(instance)
    try:
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError:
        running = instance_names()
        hint = f"running here: {', '.join(running)}" if running else "none runs here: start launcher.py"
        raise InstanceNotFound(f"no engine {instance!r}: {path} does not exist; {hint}") from None
    except PermissionError as error:
        raise SegmentError(
            f"may not open {path}: {error.strerror}; read as the engine's user, or set segment.mode and segment.group"
        ) from error
    except OSError as error:
        raise SegmentError(f"cannot open {path}: {error.strerror}; remove it and start the engine") from error
    try:
        size = os.fstat(descriptor).st_size
        if size < lay.HEADER_BYTES:
            raise SegmentDamaged(
                f"{path} has {size} bytes, expected at least {lay.HEADER_BYTES}; remove it and start the engine"
            )
        header = np.frombuffer(os.pread(descriptor, lay.HEADER_BYTES, 0), dtype=np.int64)
        if int(header[lay.H_MAGIC]) == lay.MAGIC and int(header[lay.H_VERSION]) == 0:
            raise SegmentNotReady(f"{path} is still being created; try again in a moment")
        layout = Layout.read_header(header, str(path))
        if size < layout.total_bytes:
            raise SegmentDamaged(f"{path} has {size} bytes, its header says {layout.total_bytes}; restart the engine")
        return Segment(path, descriptor, layout, writable=writable)
    except BaseException:
        os.close(descriptor)
        raise


def sweep_temporary_segments(instance: str) -> list[Path]:
    """Remove unfinished segments that a killed launcher of this instance left, and return them.

    Call it only while the lock on the instance's data directory is held.
    """
    leftovers = sorted(shared_memory_directory().glob(f"{_PREFIX}{check_instance_name(instance)}.*.tmp"))
    for path in leftovers:
        path.unlink(missing_ok=True)
    return leftovers


def _fill(segment: Segment, config_json: bytes) -> None:
    words, start = segment.words, segment.layout.config_offset // 8
    segment.layout.write_header(words)
    words[lay.H_UUID : lay.H_UUID + 2] = np.frombuffer(secrets.token_bytes(16), dtype=np.int64)
    words[lay.H_CREATED_MS] = time.time_ns() // 1_000_000
    padded = config_json + bytes(-len(config_json) % 8)
    words[start : start + len(padded) // 8] = np.frombuffer(padded, dtype=np.int64)
    words[lay.H_CONFIG_BYTES] = len(config_json)


def _allocate(descriptor: int, size_bytes: int, directory: Path) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise SegmentError(f"cannot allocate the segment in {directory}: {error.strerror}") from error
        status = os.statvfs(directory)
        raise SegmentTooLarge(
            f"{directory} has {status.f_bavail * status.f_frsize >> 20} MiB free, the segment needs "
            f"{-(-size_bytes >> 20)} MiB; lower segment.max_symbols or segment.history, or enlarge it "
            "(Docker: --shm-size)"
        ) from error


def _own(path: Path, mode: int, group: str | None) -> None:
    if group is not None:
        import grp

        try:
            os.chown(path, -1, grp.getgrnam(group).gr_gid)
        except KeyError:
            raise ConfigError(f"segment.group = {group!r}: no such group on this machine; create it first") from None
        except PermissionError as error:
            raise ConfigError(f"segment.group = {group!r}: {error.strerror}; be a member of it") from error
    os.chmod(path, mode)
