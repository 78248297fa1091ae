"""Decimal sums as integers, published as float64 and restored exactly.

A sum is `units`, an int64 count of 10^-d. Published is the float64 nearest to units / 10^d,
rounded half to even, which is `float()` of the exchange's decimal string. Above 2^53 units a
float64 no longer names one integer, so the record also keeps
`residual = units - split(value, scale)`, and `units = split(value, scale) + residual` whatever
`split` rounds to: both directions use the same function (SHM section 2).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from klshm.shm.compile import kernel


__all__ = ["EXACT_LIMIT", "MAX_SUM", "POWERS", "nearest", "residual", "split"]

EXACT_LIMIT: Final = 1 << 53
MAX_SUM: Final = 1 << 61
"""Sums at or above this many units count as overflow."""

POWERS: Final = np.array([10**n for n in range(19)], dtype=np.int64)
"""Powers of ten, the scales of decimals 0..18."""


@kernel("int64(float64, int64)")
def split(value: float, scale: int) -> int:
    """Return a count of 1/scale near `value`, the same for the same arguments everywhere."""
    whole = np.floor(value)
    return int(np.int64(whole) * np.int64(scale) + np.int64(np.rint((value - whole) * np.float64(scale))))


@kernel("float64(int64, int64)")
def nearest(units: int, scale: int) -> float:
    """Return the float64 nearest to units / scale, ties to even; 0 <= units < 2^61, scale <= 10^9."""
    if units <= EXACT_LIMIT:
        return np.float64(units) / np.float64(scale)
    whole = units // scale
    rest = units - whole * scale
    length = 0
    probe = whole
    while probe > 0:
        probe >>= 1
        length += 1
    if length > 53:  # few decimals: the significand ends inside `whole`
        cut = length - 53
        significand = whole >> cut
        lost = whole - (significand << cut)
        half = np.int64(1) << np.int64(cut - 1)
        if lost > half or (lost == half and (rest > 0 or significand & 1)):
            significand += 1
        return np.float64(significand) * np.float64(np.int64(1) << np.int64(cut))
    # The remaining bits of the 53-bit significand come from `rest`.
    shift = 53 - length
    quotient = (rest << shift) // scale
    remainder = (rest << shift) - quotient * scale
    significand = (whole << shift) + quotient
    if 2 * remainder > scale or (2 * remainder == scale and significand & 1):
        significand += 1
    return np.float64(significand) / np.float64(np.int64(1) << np.int64(shift))


@kernel("int64(int64, float64, int64)")
def residual(units: int, value: float, scale: int) -> int:
    """Return what `split` misses: units - split(value, scale)."""
    missed: int = units - split(value, scale)
    return missed
