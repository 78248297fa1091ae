"""What the historian's rows become: events, subscriptions, or nothing."""

from __future__ import annotations

import dataclasses

import numpy as np

from klshm.core.events import REST_ROW, SYMBOL_ADD, SYMBOL_ORIGIN, SYMBOL_REMOVE
from klshm.historian.inbox import command, worker_inbox
from klshm.historian.symbols import SymbolBook
from klshm.shm import layout as lay
from klshm.shm.layout import KLINE
from klshm.shm.segment import Segment
from klshm.worker.inbox import ROWS_PER_TURN, Inbox
from tests.worker.support import add, listing


class Subscribed:
    """Takes note of what an inbox subscribes."""

    def __init__(self, segment: Segment, worker: int = 0) -> None:
        self.symbols: dict[int, tuple[str, str, str]] = {}
        self.inbox = Inbox(segment, worker, self._add, self.symbols.pop)

    def _add(self, slot: int, symbol: str, pair: str, contract: str) -> None:
        self.symbols[slot] = (symbol, pair, contract)


def send(segment: Segment, *rows: np.ndarray) -> None:  # type: ignore[type-arg]
    outlet = worker_inbox(segment, 0)
    for row in rows:
        outlet.urgent(row)
    outlet.flush()


def bar(slot: int, interval: int, **values: object) -> np.ndarray:  # type: ignore[type-arg]
    row = np.zeros(1, dtype=KLINE)
    row["slot"], row["interval"], row["price_decimals"], row["quantity_decimals"] = slot, interval, 2, 3
    for name, value in values.items():
        row[name] = value
    return row


def test_known_symbols_are_those_that_trade_or_are_halted(made: Segment) -> None:
    book = SymbolBook(made)
    entries = book.add([listing(name, onboard_date=7) for name in ("A", "B", "C", "币安人生USDT")], {})
    statuses = (lay.SYMBOL_TRADING, lay.SYMBOL_HALTED, lay.SYMBOL_DELISTED, lay.SYMBOL_TRADING)
    book.replace(dataclasses.replace(e, status=s) for e, s in zip(entries, statuses, strict=True))
    at = Subscribed(made)
    events = at.inbox.known_symbols()
    assert events["kind"].tolist() == [SYMBOL_ADD] * 3
    assert events["slot"].tolist() == [0, 1, 3]
    assert events["open_time"].tolist() == [7] * 3
    assert (events["price_decimals"][0], events["quantity_decimals"][0]) == (2, 3)
    assert at.symbols[1] == ("B", "B", "PERPETUAL")
    assert at.symbols[3][0] == "币安人生USDT"


def test_a_worker_is_idle_once_the_table_gives_it_nothing(shared: Segment) -> None:
    at = Subscribed(shared)
    other = Subscribed(shared, worker=1)
    assert not at.inbox.is_idle()  # an empty table says nothing yet
    [entry] = add(shared, "A")
    assert entry.worker == 0
    assert not at.inbox.is_idle()
    assert other.inbox.is_idle()
    assert len(other.inbox.known_symbols()) == 0


def test_commands_add_halted_symbols_too_and_never_tombstones(made: Segment) -> None:
    book = SymbolBook(made)
    entries = book.add([listing(name) for name in ("A", "B", "C")], {})
    statuses = (lay.SYMBOL_TRADING, lay.SYMBOL_HALTED, lay.SYMBOL_DELISTED)
    book.replace(dataclasses.replace(e, status=s) for e, s in zip(entries, statuses, strict=True))
    at = Subscribed(made)
    send(made, *(command(lay.COMMAND_ADD, slot) for slot in range(3)))
    events = at.inbox.take()
    assert events["kind"].tolist() == [SYMBOL_ADD, SYMBOL_ADD]
    assert events["slot"].tolist() == [0, 1]
    assert events["l"].tolist() == [0, 1]
    assert list(at.symbols) == [0, 1]


def test_commands_remove_and_tell_the_origin(made: Segment) -> None:
    add(made, "A", "B")
    at = Subscribed(made)
    at.inbox.known_symbols()
    send(
        made,
        command(lay.COMMAND_ORIGIN, 1, open_time=60_000),
        command(lay.COMMAND_REMOVE, 0),
        command(lay.COMMAND_HISTORY_DONE, 1),
    )
    events = at.inbox.take()
    assert events["kind"].tolist() == [SYMBOL_ORIGIN, SYMBOL_REMOVE]
    assert events["open_time"].tolist() == [60_000, 0]
    assert list(at.symbols) == [1]


def test_a_bar_becomes_a_rest_row(made: Segment) -> None:
    add(made, "A")
    at = Subscribed(made)
    five_minutes = made.layout.interval_codes[1]
    send(made, bar(0, five_minutes, open_time=300_000, open=1.25, volume=0.5, trade_count=4, event_time=9))
    [event] = at.inbox.take()
    assert (event["kind"], event["interval"], event["open_time"], event["time"]) == (REST_ROW, 1, 300_000, 9)
    assert (event["open"], event["volume"], event["trade_count"]) == (125, 500, 4)
    assert (event["price_decimals"], event["quantity_decimals"], event["quote_decimals"]) == (2, 3, 5)


def test_rows_that_concern_nobody_here_are_left_out(made: Segment) -> None:
    [entry] = add(made, "A")
    book = SymbolBook(made)
    at = Subscribed(made)
    kept = set(made.layout.interval_codes)
    foreign = next(code for code in range(32) if code not in kept)
    send(made, bar(7, 0), bar(0, foreign))  # no such slot; an interval that is not kept
    assert len(at.inbox.take()) == 0
    book.replace([dataclasses.replace(entry, worker=1)])
    send(made, bar(0, made.layout.interval_codes[0]))
    assert len(at.inbox.take()) == 0


def test_room_is_given_back_when_rows_have_taken_effect(made: Segment) -> None:
    add(made, "A")
    at = Subscribed(made)
    word = made.block(made.layout.partition_offset(0))
    send(made, *(bar(0, made.layout.interval_codes[0], open_time=n * 60_000) for n in range(ROWS_PER_TURN + 5)))
    assert len(at.inbox.take()) == ROWS_PER_TURN
    assert int(word[lay.B_CURSOR]) == 0
    at.inbox.done()
    assert int(word[lay.B_CURSOR]) == ROWS_PER_TURN
    # A worker killed between the two takes the same rows again: its successor begins at the word.
    assert len(Subscribed(made).inbox.take()) == 5
