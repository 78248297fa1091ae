from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .segments import Desk


@pytest.fixture
def make_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Desk]]:
    """Make segments in a directory of this test's own."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("KLSHM_INSTANCE", raising=False)
    desks: list[Desk] = []

    def make(*args: Any, **options: Any) -> Desk:
        desks.append(Desk(*args, **options))
        return desks[-1]

    before = len(os.listdir("/proc/self/fd"))
    yield make
    for desk in desks:
        desk.close()
    assert len(os.listdir("/proc/self/fd")) <= before, "a test left descriptors open"


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """One engine `test` with BTCUSDT and ETHUSDT."""
    desk = make_desk()
    desk.list_symbol("BTCUSDT")
    desk.list_symbol("ETHUSDT")
    return desk
