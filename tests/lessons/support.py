"""One worker's engine on a real segment, with what lists its symbols, stores its bars and reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from klshm.config import Config, DataConfig
from klshm.config.settings import to_json
from klshm.core.engine import partition_layout
from klshm.exchange.models import Listing
from klshm.historian.symbols import SymbolBook
from klshm.role import Role
from klshm.shm import layout as lay
from klshm.shm.segment import create_segment
from klshm.shm.view import PartitionView
from klshm.store import names
from klshm.store.archive_reader import ArchiveReader
from klshm.store.persister import serve
from tests.core.feed import START, Feed


INSTANCE = "lessons"


class Station(Feed):
    """An engine that readers can attach to and a persister can store.

    Args:
        directory: Data directory.
        symbols: Names; each has the slot of its place.
        room: Further slots.
        start: Open time of minute 0, UTC ms.
        joined_s: When the symbols join, seconds from minute 0; None: none does.
    """

    def __init__(
        self, directory: Path, *symbols: str, room: int = 0, start: int = START, joined_s: float | None = 49.0
    ) -> None:
        slots = len(symbols) + room
        self.config = Config(instance=INSTANCE, data=DataConfig(directory=str(directory)))
        self.segment = create_segment(INSTANCE, partition_layout(slots), to_json(self.config))
        self.segment.words[lay.H_STATE] = lay.STATE_SERVING
        self.book = SymbolBook(self.segment)
        super().__init__(slots, start, None, memory=self.segment.words)
        for slot, name in enumerate(symbols):
            self.book.add([Listing(name, 2, 3, "TRADING", name, "PERPETUAL", "USDT", start)], {})
            if joined_s is not None:
                self.at(joined_s)
                self.add(slot)

    def add(self, slot: int = 0, symbol: int | None = None, origin: int | None = None, decimals: Any = (2, 3)) -> None:
        """Let a symbol join; its place in the symbols table is its slot."""
        super().add(slot, slot if symbol is None else symbol, origin, decimals)

    def after_kill(self, time_s: float) -> Feed:
        """Return a new worker over the memory that this one leaves; its first symbol joins again.

        Args:
            time_s: When it starts, seconds from minute 0.
        """
        feed = Feed(self.layout.slots, self.start, None, memory=self.words)
        feed.at(time_s)
        feed.engine.recover()
        feed.add(0, symbol=0)
        return feed

    @property
    def view(self) -> PartitionView:
        """What readers map."""
        return PartitionView(self.segment, 0)

    def store(self) -> None:
        """Let a persister store what is there, and end."""
        role = Role("persister", 0, self.segment, self.config)
        role.stop.set()
        serve(role)

    def archived(self, open_time: int, interval: str = "1m", symbol: str = "BTCUSDT") -> Any:
        """Return the stored bar of an open time."""
        reader = ArchiveReader(names.archive_path(names.data_directory(self.config)))
        try:
            (row,) = reader.read_series(symbol, interval, open_time, open_time, 1)
        finally:
            reader.close()
        return row
