"""Proof that minutes without trades are empty: ids that leave no room for one (BARS section 5)."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.closing import confirm
from klshm.core.kernel.minutes import move_need
from klshm.core.kernel.records import find_record, is_empty, take_record
from klshm.core.kernel.rows import oldest_row, symbol_at
from klshm.core.kernel.stored import confirm_stored_empty
from klshm.core.state import MINUTE


__all__ = []


@compiled
def prove_empty(m, slot, first, end):
    """The ids leave no room for a trade in the minutes from `first` to before `end`: confirm them empty."""
    state = m.state
    for time in range(max(first, oldest_row(m, slot, 0)), end, MINUTE):
        record = take_record(m, slot, time)
        if record == st.NONE:
            confirm_stored_empty(m, slot, time)
        elif state[record + st.M_BASE] != st.BASE_EMPTY and is_empty(m, record):
            state[record + st.M_BASE] = st.BASE_EMPTY
            confirm(m, slot, record, st.SOURCE_EMPTY)
    move_need(m, slot)


@compiled
def ends_by(m, slot, time, trade_id):
    """Return whether a minute is final and holds no trade after an id."""
    record = find_record(m, slot, time)
    if record == st.NONE or trade_id == st.NONE or m.state[record + st.M_BASE] != st.BASE_FINAL:
        return False
    return trade_id <= m.state[record + st.M_BASE_L]


@merged
def prove_empty_before(m, slot, T):
    """A contiguous trade at `T` proves the whole minutes since the trade before it empty.

    But not a minute that the earlier group may reach into: it was sent after the minute began,
    and its own minute is not known to end with it.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    own = state[symbol + st.S_LAST_T] // MINUTE * MINUTE
    first = own + MINUTE
    if first >= T // MINUTE * MINUTE:
        return
    if not ends_by(m, slot, own, state[symbol + st.S_LAST_L]) and state[symbol + st.S_LAST_E] >= first:
        first = state[symbol + st.S_LAST_E] // MINUTE * MINUTE + MINUTE
    prove_empty(m, slot, first, T // MINUTE * MINUTE)
