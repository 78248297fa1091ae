"""Decimal sums: the published float64 is the nearest one, and the integer comes back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from klshm.shm import exact
from klshm.shm.exact import MAX_SUM, POWERS, nearest, residual, split


decimals = st.integers(0, 9)
units = st.one_of(st.integers(0, MAX_SUM - 1), st.integers(1 << 51, 1 << 60), st.integers(0, 10**12))


def text_of(number: int, places: int) -> str:
    """Return the decimal as the exchange prints it."""
    return str(Decimal(number).scaleb(-places))


@given(units, decimals)
@example((1 << 53) + 1, 0)
@example((1 << 53) - 1, 9)
@example(MAX_SUM - 1, 9)
@example(MAX_SUM - 1, 0)
@example(0, 9)
def test_published_is_what_float_makes_of_the_text(number: int, places: int) -> None:
    assert nearest(number, 10**places) == float(text_of(number, places))


@given(units, decimals)
@example(MAX_SUM - 1, 0)
def test_the_integer_comes_back(number: int, places: int) -> None:
    value = nearest(number, 10**places)
    missed = residual(number, value, 10**places)
    assert -32768 <= missed <= 32767, "the record has 16 bits for it"
    assert split(value, 10**places) + missed == number


@given(st.integers(0, (1 << 51) - 1), decimals)
@example((1 << 51) - 1, 9)
def test_prices_and_quantities_need_no_residual(number: int, places: int) -> None:
    assert split(nearest(number, 10**places), 10**places) == number


@given(st.integers(1 << 53, MAX_SUM - 1), st.integers(0, 3))
def test_ties_go_to_even(number: int, places: int) -> None:
    """With few decimals ties are frequent: float() of the text is the judge."""
    even = number // 10**places * 10**places
    for tie in (even, even + 10**places // 2):
        assert nearest(tie, 10**places) == float(text_of(tie, places))


def test_the_naive_way_is_wrong_where_this_one_is_right() -> None:
    """Sums of a busy day: what division and rounding alone would publish and restore."""
    chance = random.Random(1)
    sums = [chance.randrange(1 << 53, 1 << 60) for _ in range(2000)]
    published_wrong = sum(number / 10**8 != float(text_of(number, 8)) for number in sums)
    naive = sum(float(number) / float(10**8) != float(text_of(number, 8)) for number in sums)
    assert published_wrong == 0, "Python's own division of integers rounds once"
    assert naive > 0, "dividing the rounded float rounds twice"
    assert all(nearest(number, 10**8) == float(text_of(number, 8)) for number in sums)
    sums = [chance.randrange(1 << 52, 1 << 53) for _ in range(2000)]
    assert any(round(nearest(number, 10**8) * 10**8) != number for number in sums)


def test_powers() -> None:
    assert POWERS.tolist() == [10**n for n in range(19)]
    assert exact.EXACT_LIMIT == 1 << 53


PROBE = """
import json, sys
from klshm.shm.compile import COMPILED
from klshm.shm.exact import nearest, split
numbers = json.load(sys.stdin)
values = [(number, places, float(nearest(number, 10**places))) for number, places in numbers]
answers = [(value.hex(), int(split(value, 10**places))) for number, places, value in values]
json.dump([COMPILED, answers], sys.stdout)
"""


def answers(numbers: list[tuple[int, int]], disable: str) -> tuple[bool, list[list[object]]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(numbers),
        env={**os.environ, "NUMBA_DISABLE_JIT": disable},
        capture_output=True,
        text=True,
        check=True,
    )
    compiled, found = json.loads(done.stdout)
    return compiled, found


@pytest.mark.filterwarnings("error")
def test_compiled_and_plain_agree() -> None:
    chance = random.Random(20261120)
    numbers = [(chance.randrange(1 << chance.randrange(1, 62)) % MAX_SUM, chance.randrange(10)) for _ in range(5000)]
    numbers += [
        (edge + step, places) for edge in (1 << 51, 1 << 53, MAX_SUM - 9) for step in (0, 1, 8) for places in (0, 9)
    ]
    (compiled, fast), (plain, slow) = answers(numbers, "0"), answers(numbers, "1")
    assert (compiled, plain) == (True, False)
    assert fast == slow
