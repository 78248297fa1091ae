"""`status`, as people read it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from tests.commands.support import Run
from tests.support.desk import Desk


@pytest.fixture
def no_descriptors_left() -> Iterator[None]:
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) <= before


def test_status_for_people(desk: Desk, run: Run, no_descriptors_left: None) -> None:
    text = run("status").out
    assert re.search(r"^symbols +trading 2  live 2  quiet 2  silent 0$", text, re.MULTILINE)
    assert re.search(r"^role +index +pid", text, re.MULTILINE)
