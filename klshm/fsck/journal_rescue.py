"""What can still be read of a journal: its blocks go into the archive, its open bars into a new journal."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from klshm import intervals
from klshm.config import StoreConfig
from klshm.shm.layout import KLINE
from klshm.store.archive import Archive
from klshm.store.batch import Batch, Listing, unite
from klshm.store.journal import Journal


__all__ = ["archive_journal", "renew_journal"]

_FLUSH_ROWS: Final = 32_768


def archive_journal(directory: Path, archive_path: Path, store: StoreConfig) -> int:
    """Archive all blocks whose checksum is right; return how many rows they had.

    The blocks stay in the journal: an engine that starts archives them again, which changes nothing.

    Args:
        directory: The journal; a look at it must have found it readable.
        archive_path: The archive.
        store: Its cache and limits.
    """
    journal = Journal(directory, is_rescue=True)
    try:
        archive, after, rows = None, 0, 0
        while blocks := journal.read(after, _FLUSH_ROWS):
            batch = unite([block for _, block in blocks if block is not None])
            archive = archive or Archive(archive_path, store)
            archive.write(batch)
            after, rows = blocks[-1][0], rows + len(batch)
        if archive is not None:
            archive.close()
        return rows
    finally:
        journal.close()


def renew_journal(directory: Path, aside: Path, *, is_broken: bool) -> Path:
    """Put a new journal in the place of a damaged one, with the open bars that are whole.

    Args:
        directory: The journal.
        aside: What the damaged one is called from now on.
        is_broken: Nothing of it can be read.

    Returns:
        `aside`.
    """
    fresh = directory.with_name(directory.name + ".new")
    for leftover in fresh.glob("*"):
        leftover.unlink()
    bars: dict[tuple[str, str], Any] = {}
    if not is_broken:
        damaged = Journal(directory, is_rescue=True)
        try:
            bars, _ = damaged.latest()
        finally:
            damaged.close()
    journal = Journal(fresh)
    try:
        _keep_open_bars(journal, bars)
    finally:
        journal.close()
    os.replace(directory, aside)
    os.replace(fresh, directory)
    return aside


def _keep_open_bars(journal: Journal, bars: dict[tuple[str, str], Any]) -> None:
    symbols: dict[str, int] = defaultdict(lambda: len(symbols))
    rows = np.zeros(len(bars), dtype=KLINE)
    for index, ((symbol, _), row) in enumerate(bars.items()):
        rows[index] = row
        rows["slot"][index] = symbols[symbol]
    if len(rows):
        listings = tuple(Listing(symbol) for symbol in symbols)
        journal.put_latest(Batch(listings, rows), dict(enumerate(intervals.INTERVALS)))
