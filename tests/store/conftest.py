from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.engine import Engine


@pytest.fixture
def make_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """Make engines whose segments and data lie in a temporary directory."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    engines: list[Engine] = []

    def make(**options: Any) -> Engine:
        engines.append(Engine(tmp_path / "data", **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.segment.unlink()
    gc.collect()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    return make_engine()
