"""The newest trade of a symbol, and whether trades and official frames keep up with each other."""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled
from klshm.core.kernel.rows import symbol_at


__all__ = []


@compiled
def note_streams(m, slot, T, l):
    """Watch whether trades and official frames keep up with each other (BARS section 5)."""
    state = m.state
    symbol = symbol_at(m, slot)
    if l >= state[symbol + st.S_FRAME_L]:
        state[symbol + st.S_AHEAD_SINCE] = st.NONE
    elif state[symbol + st.S_AHEAD_SINCE] != st.NONE:
        state[symbol + st.S_AHEAD_SINCE] = state[st.C_NOW]  # late, but not mute
    if T > state[symbol + st.S_FRAME_E] + 500 and state[symbol + st.S_BEHIND_SINCE] == st.NONE:
        state[symbol + st.S_BEHIND_SINCE] = state[st.C_NOW]


@compiled
def remember_newest(m, slot, a, l, T, E):
    """Note the identity of the newest trade."""
    state = m.state
    symbol = symbol_at(m, slot)
    state[symbol + st.S_RESETS] = 0
    if state[symbol + st.S_JOINED] == st.FOREVER:
        state[symbol + st.S_JOINED] = T
    state[symbol + st.S_LAST_A] = a
    state[symbol + st.S_LAST_L] = l
    state[symbol + st.S_COVERED_L] = max(state[symbol + st.S_COVERED_L], l)
    state[symbol + st.S_LAST_T] = T
    state[symbol + st.S_LAST_E] = E
