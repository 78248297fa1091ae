from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fsck.world import World, make_world
from tests.store.conftest import make_engine
from tests.support.exchange import Exchange, exchange


__all__ = ["make_engine"]


@pytest.fixture(scope="package")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "3", "--rate", "20", "--start-at", "2026-11-20T12:04:05Z") as running:
        yield running


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path / "shm"))


@pytest.fixture(scope="package")
def pristine(market: Exchange, tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        return make_world(market, tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def world(pristine: World, tmp_path: Path) -> World:
    """The files of an instance, for this test alone."""
    return pristine.copy(tmp_path / "data")
