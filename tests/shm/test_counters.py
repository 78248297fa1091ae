"""Counters by name."""

from __future__ import annotations

import pytest

from klshm.shm import counters
from klshm.shm import layout as lay
from klshm.shm.counters import HISTORIAN, LAUNCHER, PERSISTER, WEB, WORKER, Counters, index_of
from klshm.shm.segment import Segment


ROLES = {"WORKER": WORKER, "HISTORIAN": HISTORIAN, "PERSISTER": PERSISTER, "LAUNCHER": LAUNCHER, "WEB": WEB}


def test_counters_are_words_of_the_roles_block(segment: Segment) -> None:
    block = segment.block(segment.layout.partition_offset(0))
    mine = Counters(block, WORKER)
    mine.add("trades_total")
    mine.add("trades_total", 4)
    mine.set("lag_p99_us", 77)
    assert mine.get("trades_total") == 5
    assert block[index_of(WORKER, "trades_total")] == 5
    everything = Counters(segment.block(segment.layout.partition_offset(0)), WORKER).as_dict()
    assert set(everything) == set(WORKER)
    assert {name: value for name, value in everything.items() if value} == {"trades_total": 5, "lag_p99_us": 77}
    assert not segment.block(segment.layout.partition_offset(1))[lay.B_COUNTERS :].any()


@pytest.mark.parametrize("role", ROLES)
def test_every_name_has_a_word_of_its_own(role: str) -> None:
    names = ROLES[role]
    assert len(set(names)) == len(names) <= lay.COUNTERS
    assert all(name.isidentifier() and name.islower() for name in names)
    assert role in counters.__all__


def test_the_historians_counters_end_before_the_tails_of_the_inboxes() -> None:
    assert index_of(HISTORIAN, HISTORIAN[-1]) < lay.B_INBOX_TAILS
    assert lay.B_INBOX_TAILS + lay.MAX_WORKERS == lay.B_ERROR_MS


def test_an_unknown_counter_is_an_error(segment: Segment) -> None:
    with pytest.raises(KeyError):
        Counters(segment.block(segment.layout.web_offset), WEB).get("trades_total")
