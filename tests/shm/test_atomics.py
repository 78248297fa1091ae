"""Each access does what its name says about values; their order is the stress tests' business."""

from __future__ import annotations

import math

import numpy as np
import pytest

from klshm.shm import atomics
from klshm.shm.compile import kernel


@kernel("void(int64[::1], int64[::1])", cache=False)
def exercise(words, out):
    atomics.store_relaxed(words, 1, 7)
    atomics.fence_release()
    atomics.store_release(words, 2, -5)
    out[0] = atomics.load_acquire(words, 1)
    atomics.fence_acquire()
    out[1] = atomics.load_relaxed(words, 2)


def test_what_is_stored_is_loaded() -> None:
    words, out = np.zeros(4, dtype=np.int64), np.zeros(2, dtype=np.int64)
    exercise(words, out)
    assert words.tolist() == [0, 7, -5, 0]
    assert out.tolist() == [7, -5]


@kernel("int64(float64)", cache=False)
def to_bits(value):
    return atomics.bits_of_float(value)


@kernel("float64(int64)", cache=False)
def to_float(word):
    return atomics.float_of_bits(word)


@pytest.mark.parametrize("value", [0.0, 1.0, -13.551, 1e300, 5e-324, math.inf])
def test_floats_and_their_words(value: float) -> None:
    word = to_bits(value)
    assert word == np.float64(value).view(np.int64)
    assert to_float(word) == value
