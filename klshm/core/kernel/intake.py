"""Intake by id: the running prefix of all applied trades, and the ring of the newest of them.

Only differences of prefixes mean anything, and only within one epoch: a hole begins a new one,
and filling the last hole makes all of them one again.
"""

from __future__ import annotations

from klshm.core import state as st
from klshm.core.compiled import compiled, merged
from klshm.core.kernel.records import is_final, ring_at, ring_first, ring_search, take_record
from klshm.core.kernel.rows import count, record_at, symbol_at
from klshm.core.prefetch import prefetch
from klshm.core.state import SUMS
from klshm.shm.counters import WORKER


__all__ = []

_ID_RESETS = WORKER.index("id_resets_total")

MOST_AHEAD = 1 << 32
"""No symbol trades so often while its worker is away."""
RESET_AFTER = 3
RESET_AHEAD_MS = 60_000
LOWEST = 1 << 62


@compiled
def is_far_ahead(m, slot, l):
    """Return whether a trade id is so far beyond all known ones that it would hide every honest one after it."""
    covered = m.state[symbol_at(m, slot) + st.S_COVERED_L]
    return covered != st.NONE and l - covered > MOST_AHEAD


@merged
def is_reset(m, slot, T):
    """Return whether ids have started anew: an old id with a much newer time, three times in a row."""
    state = m.state
    symbol = symbol_at(m, slot)
    if T <= state[symbol + st.S_LAST_T] + RESET_AHEAD_MS:
        state[symbol + st.S_RESETS] = 0
        return False
    state[symbol + st.S_RESETS] += 1
    return state[symbol + st.S_RESETS] >= RESET_AFTER


@merged
def reset_ids(m, slot, T):
    """Begin anew after the exchange restarted a symbol's ids; what was held is known to be incomplete."""
    state = m.state
    symbol = symbol_at(m, slot)
    count(m, _ID_RESETS, 1)
    state[symbol + st.S_EPOCH] += 1
    state[symbol + st.S_RING_COUNT] = 0
    state[symbol + st.S_HOLES] = 0
    for word in (
        st.S_LAST_A,
        st.S_LAST_L,
        st.S_COVERED_L,
        st.S_UNFILLED,
        st.S_FINAL_L,
        st.S_FINAL_MINUTE,
        st.S_FRAME_L,
        st.S_AHEAD_SINCE,
    ):
        state[symbol + word] = st.NONE
    state[symbol + st.S_JOINED] = T
    for k in range(SUMS):
        state[symbol + st.S_PREFIX + k] = 0
        state[symbol + st.S_START + k] = 0
    for index in range(st.RECORDS):
        record = record_at(m, slot, index)
        time = state[record + st.M_TIME]
        if time == st.NONE or is_final(m, record):
            state[record + st.M_HAS_OFF] = 0
            continue
        state[record + st.M_TIME] = st.NONE
        if take_record(m, slot, time) != st.NONE:
            state[record + st.M_PURE_CLEAN] = 0
            if time < state[symbol + st.S_OPEN_MINUTE]:
                state[record + st.M_HOLED] = st.FOREVER
            state[symbol + st.S_TOUCHED] |= 1 << index


@compiled
def write_entry_words(m, slot, position, f, l, T, E, price, quantity, epoch):
    """Fill a ring entry but for its prefix.

    Returns:
        Its first state word.
    """
    state = m.state
    entry = ring_at(m, slot, position)
    state[entry + st.R_F] = f
    state[entry + st.R_L] = l
    state[entry + st.R_T] = T
    state[entry + st.R_E] = E
    state[entry + st.R_EPOCH] = epoch
    state[entry + st.R_PRICE] = price
    state[entry + st.R_QUANTITY] = quantity
    return entry


@compiled
def shift_sums(m, to, sums):
    """Add a trade's sums to a prefix."""
    for k in range(SUMS):
        m.state[to + k] += m.state[sums + k]


@compiled
def push_entry(m, slot, f, l, T, E, price, quantity):
    """Add a trade that is newer than all others to the ring, but for the prefix after it.

    Returns:
        First state word of its ring entry.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    position = state[symbol + st.S_RING_COUNT]
    entry = write_entry_words(m, slot, position, f, l, T, E, price, quantity, state[symbol + st.S_EPOCH])
    state[symbol + st.S_RING_COUNT] = position + 1
    following = ring_at(m, slot, position + 1)  # the ring is too large for any near cache
    prefetch(state, following)
    prefetch(state, following + st.R_WORDS - 1)
    return entry


@compiled
def push_trade(m, slot, f, l, T, E, price, quantity, sums):
    """Add a trade that is newer than all others to the prefix and to the ring.

    Args:
        m: The memory.
        slot: Local slot.
        f: First trade id.
        l: Last trade id.
        T: Time of the first fill, ms.
        E: Event time, ms.
        price: In units of the symbol's decimals.
        quantity: In units of the symbol's decimals.
        sums: First state word of the trade's own sums.

    Returns:
        First state word of its ring entry.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    entry = push_entry(m, slot, f, l, T, E, price, quantity)
    for k in range(SUMS):
        state[symbol + st.S_PREFIX + k] += state[sums + k]
        state[entry + st.R_PREFIX + k] = state[symbol + st.S_PREFIX + k]
    return entry


@merged
def insert_trade(m, slot, f, l, T, E, price, quantity, sums, follows, precedes):
    """Put a trade that fills a hole where it belongs: every later prefix grows by it.

    Args:
        m: The memory.
        slot: Local slot.
        f: First trade id.
        l: Last trade id.
        T: Time of the first fill, ms.
        E: Event time, ms.
        price: In units of the symbol's decimals.
        quantity: In units of the symbol's decimals.
        sums: First state word of the trade's own sums.
        follows: Whether nothing is missing before it.
        precedes: Whether nothing is missing after it.

    Returns:
        Position of its ring entry, or -1 if it is older than the ring reaches back.
    """
    state = m.state
    symbol = symbol_at(m, slot)
    shift_sums(m, symbol + st.S_PREFIX, sums)
    before = ring_search(m, slot, f)
    first, end = ring_first(m, slot), state[symbol + st.S_RING_COUNT]
    for position in range(max(before + 1, first), end):
        shift_sums(m, ring_at(m, slot, position) + st.R_PREFIX, sums)
    full = end - first == st.RING
    if before == st.NONE and full and first == 0:  # what was before the oldest trade held now includes it
        shift_sums(m, symbol + st.S_START, sums)
    if (before == st.NONE and (first > 0 or full)) or (full and before == first):
        return st.NONE
    prefix, epoch = symbol + st.S_START, 0  # of the engine's start
    if before != st.NONE:
        prefix, epoch = ring_at(m, slot, before) + st.R_PREFIX, state[ring_at(m, slot, before) + st.R_EPOCH]
    if not follows:
        epoch = state[ring_at(m, slot, before + 1) + st.R_EPOCH] if precedes else st.NONE
    for position in range(end, before + 1, -1):
        for k in range(st.R_WORDS):
            state[ring_at(m, slot, position) + k] = state[ring_at(m, slot, position - 1) + k]
    state[symbol + st.S_RING_COUNT] += 1
    entry = write_entry_words(m, slot, before + 1, f, l, T, E, price, quantity, epoch)
    for k in range(SUMS):
        state[entry + st.R_PREFIX + k] = state[prefix + k] + state[sums + k]
    return before + 1


@compiled
def lower(m, at, amount):
    """Subtract from a prefix, down to a bound that no bar can reach back to."""
    m.state[at] = max(m.state[at] - amount, -LOWEST)


@compiled
def rebase_prefix(m, slot):
    """Let the running prefix begin at zero again, long before it could overflow."""
    state = m.state
    symbol = symbol_at(m, slot)
    for k in range(SUMS):
        amount = state[symbol + st.S_PREFIX + k]
        state[symbol + st.S_PREFIX + k] = 0
        lower(m, symbol + st.S_START + k, amount)
        for index in range(st.RECORDS):
            lower(m, record_at(m, slot, index) + st.M_OFF + k, amount)
            lower(m, record_at(m, slot, index) + st.M_END + k, amount)
        for position in range(ring_first(m, slot), state[symbol + st.S_RING_COUNT]):
            lower(m, ring_at(m, slot, position) + st.R_PREFIX + k, amount)


@merged
def rejoin_epochs(m, slot):
    """Make prefixes comparable again after the last hole was filled, but for trades that were given up."""
    state = m.state
    symbol = symbol_at(m, slot)
    epoch, from_id = state[symbol + st.S_EPOCH], state[symbol + st.S_UNFILLED]
    for position in range(ring_first(m, slot), state[symbol + st.S_RING_COUNT]):
        entry = ring_at(m, slot, position)
        if state[entry + st.R_F] >= from_id:
            state[entry + st.R_EPOCH] = epoch
