from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


pytest.register_assert_rewrite("tests.core.feed")

from tests.lessons.support import Station  # noqa: E402 - after its assertions have been made to speak


@pytest.fixture
def make_station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Station]]:
    """Make engines whose segments and data lie in a temporary directory."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("KLSHM_INSTANCE", raising=False)
    stations: list[Station] = []

    def make(*symbols: str, **options: Any) -> Station:
        stations.append(Station(tmp_path / "data", *symbols, **options))
        return stations[-1]

    yield make
    for station in stations:
        station.segment.unlink()


@pytest.fixture
def station(make_station: Callable[..., Station]) -> Station:
    """One engine of BTCUSDT."""
    return make_station("BTCUSDT")
