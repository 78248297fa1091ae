"""The short way: the next trade of an open minute in which nothing but trades has happened since the last one.

Most trades are like that, and most of what the long way (`trades`) looks at cannot have changed
since it looked last: the minute before has passed its cut on, the earlier minutes know that
a later trade has come, nothing is missing and nothing is in doubt. So the long way notes at its
end that a symbol is steady, everything else that happens to the symbol makes it unsteady, and
a steady trade takes effect in its minute alone.
"""

from __future__ import annotations

from klshm.core import events as ev
from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.intake import MOST_AHEAD, push_entry
from klshm.core.kernel.match import add_pure_price
from klshm.core.kernel.records import find_record, is_final, record_index
from klshm.core.kernel.rows import count, list_slot, record_at, symbol_at
from klshm.core.kernel.splice import hold_newest
from klshm.core.kernel.watch import note_streams, remember_newest
from klshm.core.prefetch import prefetch
from klshm.core.state import LINE, MINUTE, VOLUME
from klshm.shm.counters import WORKER
from klshm.shm.exact import MAX_SUM


__all__ = []

_TRADES = WORKER.index("trades_total")

FUTURE_MS = 60_000
"""A trade or frame further ahead of the exchange's clock than this is refused."""
MOST_FILLS = 1 << 20
"""No order fills so often within 100 ms."""
AHEAD = 4
"""So many events before a trade its memory is asked for: long enough to come, short enough to stay."""
MOST_PLAIN = 1 << 30
"""Price and quantity below this cannot overflow a product; those above take the long way, which looks closely."""


@merged
def note_steady(m, slot, f, time, whole):
    """Say whether the next trade of minute `time` may take the short way, after one took the long way.

    Args:
        m: The memory.
        slot: Local slot.
        f: First trade id of the trade.
        time: The minute its time says.
        whole: Whether nothing is missing between it and the trade before.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    record = find_record(m, slot, time)
    if not whole or record == st.NONE or time != state[symbol + st.S_OPEN_MINUTE] or state[symbol + st.S_TOUCHED] != 0:
        return
    held = state[record + st.M_HAS_TRADES] == 1 and state[record + st.M_HAS_OFF] == 1 and not is_final(m, record)
    before, after = find_record(m, slot, time - MINUTE), find_record(m, slot, time + MINUTE)
    passed = before == st.NONE or state[before + st.M_BASE] != st.BASE_FINAL or f > state[before + st.M_BASE_L]
    if held and passed and after == st.NONE:
        state[symbol + st.S_STEADY] = time


@merged
def is_plain(m, symbol, events, at):
    """Return whether a trade is the very next one of a steady symbol, in its decimals, and small."""
    state = m.state
    a, f, l = events[at + ev.E_A], events[at + ev.E_F], events[at + ev.E_L]
    E, T = events[at + ev.E_TIME], events[at + ev.E_OPEN_TIME]
    latest = state[st.C_NOW] + FUTURE_MS
    return (
        state[symbol + st.S_STEADY] <= T < state[symbol + st.S_STEADY] + MINUTE
        and a == state[symbol + st.S_LAST_A] + 1
        and state[symbol + st.S_LAST_L] < f <= l
        and l - f < MOST_FILLS
        and l - state[symbol + st.S_COVERED_L] <= MOST_AHEAD
        and T <= latest
        and 0 < E <= latest
        and events[at + ev.E_PRICE_DECIMALS] == state[symbol + st.S_PRICE_DECIMALS]
        and events[at + ev.E_QUANTITY_DECIMALS] == state[symbol + st.S_QUANTITY_DECIMALS]
        and 0 < events[at + ev.E_CELLS] < MOST_PLAIN
        and 0 < events[at + ev.E_CELLS + VOLUME] < MOST_PLAIN
    )


@compiled
def fits(m, symbol, record, k, amount):
    """Return whether a sum of the open minute can grow by an amount; the prefix has a limit of its own."""
    return m.state[symbol + st.S_PREFIX + k] - m.state[record + st.M_OFF + k] <= MAX_SUM - amount


@compiled
def add_sum(m, symbol, entry, record, k, amount):
    """Let the prefix grow, and the ring and the open minute have what it is now.

    Args:
        m: The memory.
        symbol: First state word of the symbol.
        entry: First state word of the trade's ring entry.
        record: First state word of the minute's record.
        k: Which of the sums.
        amount: The trade's own.
    """
    state = m.state
    total = state[symbol + st.S_PREFIX + k] + amount
    state[symbol + st.S_PREFIX + k] = total
    state[entry + st.R_PREFIX + k] = total
    state[record + st.M_END + k] = total
    state[record + st.M_PURE + VOLUME + k] += amount


@merged
def fetch_ahead(m, events, at):
    """Ask for the lines that a trade will need; of hundreds of symbols no near cache holds them.

    Nothing has looked at the event yet: a slot that is none asks for a line that is none, which is no fault.
    """
    slot = events[at + ev.E_SLOT]
    symbol = symbol_at(m, slot)
    record = record_at(m, slot, record_index(events[at + ev.E_OPEN_TIME]))
    for line in range(st.S_LINES):
        prefetch(m.state, symbol + line * LINE)
    for line in range(st.M_LINES):
        prefetch(m.state, record + line * LINE)


@merged
def apply_steady(m, slot, events, at):
    """Apply a trade the short way: what `push_trade`, `add_pure` and `hold_trade` do, its sums in registers.

    Args:
        m: The memory.
        slot: Local slot.
        events: The events.
        at: First word of the trade.

    Returns:
        Whether it could; if not, nothing has changed.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    if not is_plain(m, symbol, events, at):
        return False
    record = record_at(m, slot, record_index(state[symbol + st.S_STEADY]))
    l = events[at + ev.E_L]
    if state[record + st.M_PEND] != st.PEND_NO and l >= state[record + st.M_BASE_L]:
        return False  # it meets the frame that was ahead of it
    price, quantity = events[at + ev.E_CELLS], events[at + ev.E_CELLS + VOLUME]
    turnover = price * quantity
    taken = 0 if events[at + ev.E_FLAG] != 0 else 1
    taken_quantity, taken_turnover = taken * quantity, taken * turnover
    room = fits(m, symbol, record, 0, quantity) and fits(m, symbol, record, 1, turnover)
    room = room and fits(m, symbol, record, 2, taken_quantity) and fits(m, symbol, record, 3, taken_turnover)
    if not room or state[symbol + st.S_PREFIX + 1] > MAX_SUM // 2:
        return False
    f, T = events[at + ev.E_F], events[at + ev.E_OPEN_TIME]
    E = max(events[at + ev.E_TIME], T)
    count(m, _TRADES, 1)
    state[symbol + st.S_LAST_EVENT] = max(state[symbol + st.S_LAST_EVENT], E)
    entry = push_entry(m, slot, f, l, T, E, price, quantity)
    remember_newest(m, slot, events[at + ev.E_A], l, T, E)
    note_streams(m, slot, T, l)
    add_pure_price(m, record, price)
    hold_newest(m, record, f, l, E, price)
    add_sum(m, symbol, entry, record, 0, quantity)
    add_sum(m, symbol, entry, record, 1, turnover)
    add_sum(m, symbol, entry, record, 2, taken_quantity)
    add_sum(m, symbol, entry, record, 3, taken_turnover)
    add_sum(m, symbol, entry, record, 4, l - f + 1)
    list_slot(m, slot)
    return True
