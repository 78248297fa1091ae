"""Shared memory, the data directory, the kernel cache, and when the disk will be full."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from klshm import intervals
from klshm.config import Config
from klshm.doctor.lines import BAD, OK, WARN, Line, mib
from klshm.errors import KlshmError
from klshm.run.sizes import layout_of
from klshm.shm.segment import open_segment, segment_path, shared_memory_directory
from klshm.store import names


__all__ = ["Growth", "Stored", "data", "days_until_full", "growth", "kernel_cache", "measure", "shared_memory"]

_DAY_MS: Final = 86_400_000
_FEW_DAYS: Final = 14.0
_SOME_DAYS: Final = 90.0
_LOW_BYTES: Final = 1 << 30
_LEAST_BYTES: Final = 128 << 20
_NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs")
_ROW_BYTES: Final = 128.0
"""A bar on a full page of 1024 bytes."""
_FIRST_PAGE_ROWS: Final = 7
_BUSY_S: Final = 2.0


class Stored(NamedTuple):
    """What an archive holds of one interval.

    Attributes:
        interval: Its name.
        series: Number of current series.
        days: How far back the oldest of them reaches, days.
    """

    interval: str
    series: int
    days: float


class Growth(NamedTuple):
    """How an archive grows.

    Attributes:
        row_bytes: Bytes that one more bar takes.
        free_bytes: Bytes inside the file that are free; they are used before it grows.
        stored: What it holds, per interval.
    """

    row_bytes: float
    free_bytes: int
    stored: list[Stored]


def shared_memory(config: Config) -> list[Line]:
    """Hold what the segment needs against what is there."""
    directory, needed = shared_memory_directory(), layout_of(config).total_bytes
    try:
        status = os.statvfs(directory)
    except OSError as error:
        return [Line("shared memory", BAD, f"{directory}: {error.strerror}", "mount a tmpfs there")]
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{directory} has {mib(free)} of {mib(size)} free, the segment of {config.instance!r} needs {mib(needed)}"
    if segment_path(config.instance).exists():
        return _present(config, found)
    if free < needed:
        advice = "lower segment.max_symbols or segment.history, or enlarge it (Docker: --shm-size)"
        return [Line("shared memory", BAD, found, advice)]
    return [Line("shared memory", OK, found)]


def _present(config: Config, found: str) -> list[Line]:
    try:
        segment = open_segment(config.instance)
        runs = segment.is_locked()
        segment.close()
    except KlshmError as error:
        return [Line("shared memory", WARN, found, f"{error}; the next start sets it aside")]
    if runs:
        return [Line("shared memory", OK, f"{found}; it runs")]
    return [Line("shared memory", WARN, f"{found}; a crashed engine's lies there", "start it: it takes over the rest")]


def kernel_cache() -> list[Line]:
    """Look for the directory of compiled kernels."""
    if importlib.util.find_spec("numba") is None:
        return []  # the packages' line says it
    from klshm.shm.compile import cache_directory

    directory = cache_directory()
    if directory is None:
        advice = "make ~/.cache or $KLSHM_CACHE writable by you alone: kernels are compiled at every start, 25 s"
        return [Line("kernel cache", WARN, "no private directory", advice)]
    compiled = any(directory.rglob("*.nbc"))
    return [Line("kernel cache", OK, f"{directory}, {'compiled' if compiled else 'empty: the first start takes 25 s'}")]


def data(config: Config) -> list[Line]:
    """Look at the directory of the instance's files, and the space around it."""
    directory = names.data_directory(config)
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        advice = "choose another with --set data.directory=..."
        return [Line("data", BAD, f"{there} cannot be written to", advice)]
    kind = _file_system(there)
    lines = [Line("data", OK, f"{directory}, {kind or 'unknown file system'}")]
    if kind in _NETWORK:
        lines = [Line("data", BAD, f"{directory} lies on {kind}", "SQLite and LMDB need a local disk: data.directory")]
    elif kind == "tmpfs":
        lines = [Line("data", WARN, f"{directory} lies on tmpfs", "it is gone after a reboot: data.directory")]
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    if free < _LOW_BYTES:
        verdict = BAD if free < _LEAST_BYTES else WARN
        lines.append(Line("disk", verdict, f"{mib(free)} free", "free some, or set store.retention_days"))
    else:
        lines.append(Line("disk", OK, f"{mib(free)} free"))
    if status.f_files and status.f_favail < 1000:
        lines.append(Line("disk", BAD, f"{status.f_favail} inodes free", "remove files"))
    return lines


def growth(config: Config) -> list[Line]:
    """Say when the disk will be full, from the archive's own rows."""
    path = names.archive_path(names.data_directory(config))
    if not path.exists():
        return []
    try:
        found = measure(path)
    except (sqlite3.Error, ValueError) as error:
        return [Line("growth", WARN, f"{path} could not be read: {error}", "python -m klshm fsck")]
    if not found.stored or not found.row_bytes:
        return []
    status = os.statvfs(path.parent)
    free = status.f_bavail * status.f_frsize
    retention = {name: float(days) for name, days in config.store.retention_days.items()}
    per_day = _bytes_per_day(found, retention)
    days = days_until_full(found, retention, free)
    said = (
        f"{mib(path.stat().st_size)} stored, {found.row_bytes:.0f} bytes a bar, {mib(found.free_bytes)} of it free "
        f"for new ones, {mib(per_day)} a day"
    )
    if days is None:
        return [Line("growth", OK, f"{said}; it does not fill the disk")]
    end_s = time.time() + days * 86_400
    when = f"in {days:,.0f} days" + (f", {datetime.fromtimestamp(end_s, UTC):%Y-%m-%d}" if days < 36_500 else "")
    verdict = BAD if days < _FEW_DAYS else WARN if days < _SOME_DAYS else OK
    advice = "set store.retention_days (such as {1m = 90}), or move data.directory" if verdict != OK else ""
    return [Line("growth", verdict, f"{said}; the disk is full {when}", advice)]


def measure(path: Path) -> Growth:
    """Return how an archive grows.

    Raises:
        sqlite3.Error: If it cannot be read.
        ValueError: If it holds what is none of klshm's.
    """
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        rows = 0
        spans: dict[str, tuple[int, float]] = {}
        tables = connection.execute("SELECT table_name, interval, retired FROM series").fetchall()
        for table, interval, retired in tables:
            length_ms = intervals.length_ms(interval)
            query = f"SELECT min(open_time), max(open_time) FROM {names.quoted(table)}"
            first, last = connection.execute(query).fetchone()
            if first is None:
                continue
            rows += (last - first) // length_ms + 1
            if not retired:
                number, days = spans.get(interval, (0, 0.0))
                spans[interval] = number + 1, max(days, (last - first + length_ms) / _DAY_MS)
        connection.execute("COMMIT")
    stored = [Stored(name, *spans[name]) for name in intervals.INTERVALS if name in spans]
    # Small tables are mostly empty pages: only what lies beyond each table's first one tells what a bar takes.
    beyond = rows - len(tables) * _FIRST_PAGE_ROWS
    enough = beyond > len(tables) * _FIRST_PAGE_ROWS
    row_bytes = (pages - free - len(tables)) * size / beyond if enough else _ROW_BYTES
    return Growth(row_bytes if rows else 0.0, free * size, stored)


def days_until_full(found: Growth, retention: dict[str, float], free_bytes: int) -> float | None:
    """Return after how many days a disk is full; None: never.

    Args:
        found: How the archive grows.
        retention: Days kept per interval; not named: for ever.
        free_bytes: Room on the disk.
    """
    room = float(free_bytes + found.free_bytes)
    rates = {one.interval: _rate(found, one) for one in found.stored}
    # An interval stops growing once it reaches as far back as it is kept.
    bounded = [one for one in found.stored if one.interval in retention]
    ends = sorted((max(0.0, retention[one.interval] - one.days), one.interval) for one in bounded)
    now = 0.0
    for end, interval in ends:
        rate = sum(rates.values())
        if rate * (end - now) >= room:
            return now + room / rate
        room -= rate * (end - now)
        now = end
        rates[interval] = 0.0
    rate = sum(rates.values())
    return now + room / rate if rate else None


def _bytes_per_day(found: Growth, retention: dict[str, float]) -> float:
    grown: Iterable[Stored] = (one for one in found.stored if one.days < retention.get(one.interval, 1e9))
    return sum(_rate(found, one) for one in grown)


def _rate(found: Growth, one: Stored) -> float:
    return one.series * _DAY_MS / intervals.length_ms(one.interval) * found.row_bytes


def _file_system(path: Path) -> str:
    """Return the type of the file system that a path lies on, empty if that cannot be said."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in mounts:
        fields = line.split()
        point = fields[4].replace("\\040", " ")
        is_above = point == "/" or path.resolve() == Path(point) or Path(point) in path.resolve().parents
        if is_above and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind
