from __future__ import annotations

import pytest

from klshm.errors import ArchiveError
from klshm.shm import layout as lay
from klshm.shm.counters import PERSISTER, Counters
from klshm.store.trouble import Step
from tests.store.engine import Engine


def test_a_failure_alarms_and_is_tried_ever_less_often(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("klshm.store.trouble.time.monotonic", lambda: now[0])
    role, resets, tries = engine.role(), [], []
    counters = Counters(role.block, PERSISTER)
    counters.set("alarm", 1)
    step = Step("archive", 2, role, counters, lambda: resets.append(1))

    def broken() -> int:
        tries.append(now[0])
        raise ArchiveError("no space")

    while now[0] < 200:
        assert not step.attempt(broken)
        now[0] += 0.125
    gaps = [later - earlier for earlier, later in zip(tries, tries[1:], strict=False)]
    assert gaps == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert counters.get("alarm") == 3
    assert counters.get("failures_total") == len(tries) == len(resets)
    assert int(role.block[lay.B_ERROR_LENGTH]) == len("no space")
    now[0] += 30
    assert step.attempt(lambda: 0)  # nothing to store proves nothing
    assert (counters.get("alarm"), step.failures) == (3, len(tries))
    assert step.attempt(lambda: 5)
    assert (counters.get("alarm"), step.failures) == (1, 0)


def test_a_fault_of_our_own_is_not_hidden(engine: Engine) -> None:
    role = engine.role()
    step = Step("archive", 2, role, Counters(role.block, PERSISTER), lambda: None)
    with pytest.raises(ZeroDivisionError):
        step.attempt(lambda: 1 // 0)
