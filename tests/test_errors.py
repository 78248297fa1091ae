"""The tree of errors, its exit codes, and the one line that each becomes."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from klshm import errors
from klshm.errors import ExchangeRefused, IpBanned, KlshmError, RateLimited, UnknownInterval, UnknownSymbol


CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass)]


def test_all_are_exported_and_stand_under_one_root() -> None:
    assert {c.__name__ for c in CLASSES} == set(errors.__all__)
    assert all(issubclass(c, KlshmError) for c in CLASSES)


def test_the_picture_shows_every_error() -> None:
    assert errors.__doc__ is not None
    assert set(re.findall(r"[─ ](\w+)", errors.__doc__)) >= set(errors.__all__)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (2, {"InstanceAmbiguous", "UnknownSymbol", "UnknownInterval"}),
        (3, {"InstanceNotFound", "SegmentNotReady", "EngineGone"}),
        (4, {"ConfigError"}),
        (5, {"WaitTimeout"}),
        (6, {"StaleData"}),
    ],
)
def test_exit_codes(code: int, names: set[str]) -> None:
    assert {c.__name__ for c in CLASSES if c.exit_code == code} == names


@pytest.mark.parametrize("kind", [UnknownSymbol, UnknownInterval])
def test_unknown_names_are_key_errors_without_their_quotes(kind: type[KlshmError]) -> None:
    with pytest.raises(KeyError) as raised:
        raise kind("symbol 'X' is not carried")
    assert str(raised.value) == "symbol 'X' is not carried"


def test_errors_of_the_exchange_carry_what_they_know() -> None:
    refused = ExchangeRefused("no such symbol", status=400, code=-1121)
    assert (str(refused), refused.status, refused.code) == ("no such symbol", 400, -1121)
    assert RateLimited("wait", retry_after_s=3.5).retry_after_s == 3.5
    assert IpBanned("banned", until_ms=7).until_ms == 7


def test_plain_errors_survive_a_process_boundary() -> None:
    copied = pickle.loads(pickle.dumps(UnknownSymbol("symbol 'X'")))
    assert isinstance(copied, UnknownSymbol) and str(copied) == "symbol 'X'"
