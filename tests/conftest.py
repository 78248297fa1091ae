"""Kernels first, then the long tests: what plays for minutes overlaps with the rest."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings


# How long an example takes says nothing on a shared machine.
settings.register_profile("klshm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("klshm")

# A shell gives its background jobs an ignored SIGINT, and they their children: Ctrl-C would never come.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LONG_FIRST = ("recorded", "e2e", "fault", "stress")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels once before anything needs them at several places at the same time."""
    if not hasattr(session.config, "workerinput"):
        subprocess.run([sys.executable, "-c", "from klshm.run.kernels import load_kernels; load_kernels()"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by how long tests of a kind take; within a kind the order stays."""

    def rank(item: pytest.Item) -> int:
        marks = {mark.name for mark in item.iter_markers()}
        return next((index for index, name in enumerate(_LONG_FIRST) if name in marks), len(_LONG_FIRST))

    items.sort(key=rank)
