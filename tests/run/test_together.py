"""`--workers 0`: whatever ends a role ends the engine, in order, and is said."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from klshm.config import Config, DataConfig, ExchangeConfig, SegmentConfig
from klshm.errors import KlshmError
from klshm.role import Role
from klshm.run.sizes import layout_of
from klshm.run.together import run_together
from klshm.shm import layout as lay
from klshm.shm.layout import Layout
from klshm.shm.segment import Segment, create_segment


Make = Callable[[Config], Segment]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "main").mkdir()

    def made(config: Config, **changes: object) -> Segment:
        layout: Layout = dataclasses.replace(layout_of(config), **changes)  # type: ignore[arg-type]
        return create_segment("main", layout, b"{}")

    return made


def unreachable(tmp_path: Path, **exchange: str) -> Config:
    addresses = {"rest_url": "http://127.0.0.1:9", "ws_url": "ws://127.0.0.1:9", **exchange}
    return Config(
        exchange=ExchangeConfig(**addresses),  # type: ignore[arg-type]
        segment=SegmentConfig(max_symbols=8, log_rows=1024),
        data=DataConfig(directory=str(tmp_path)),
    )


def states(segment: Segment) -> list[str]:
    layout = segment.layout
    offsets = (layout.partition_offset(0), layout.historian_offset, layout.persister_offset)
    return [lay.ROLE_STATE_NAMES[int(segment.block(offset)[lay.B_ROLE_STATE])] for offset in offsets]


def error_of(segment: Segment, offset: int) -> str:
    block = segment.block(offset)
    return block[lay.B_ERROR_TEXT :].tobytes()[: int(block[lay.B_ERROR_LENGTH])].decode()


def test_a_check_that_fails_stops_all_in_order(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = unreachable(tmp_path)
    segment = make(config)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KlshmError("the market has gone home")

    with caplog.at_level(logging.INFO, "klshm"):
        assert run_together(config, segment, None, check=check) is False
    assert "stopping: the market has gone home" in caplog.text
    assert states(segment) == ["stopped", "stopped", "stopped"]
    assert int(segment.words[lay.H_STATE]) == lay.STATE_DRAINING
    assert "klshm disk" not in {thread.name for thread in threading.enumerate()}


def test_a_historian_that_fails_ends_the_engine(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = unreachable(tmp_path, proxy="ftp://nowhere:1")
    segment = make(config)
    assert run_together(config, segment, None) is False
    assert "role failed, the engine stops role=historian error=\"ConfigError: exchange.proxy = 'ftp://" in caplog.text
    assert "Traceback" not in caplog.text  # it was foreseen: one line says it all
    assert error_of(segment, segment.layout.historian_offset).startswith("ConfigError: exchange.proxy")
    assert states(segment)[0] == states(segment)[2] == "stopped"


def test_a_disk_thread_that_fails_ends_the_engine(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = unreachable(tmp_path)
    segment = make(config, interval_codes=(0, 1, 2, 3, 4, 250))  # type: ignore[call-arg]
    assert run_together(config, segment, None) is False
    assert "role failed, the engine stops role=persister" in caplog.text
    assert error_of(segment, segment.layout.persister_offset) != ""


def test_a_check_with_a_fault_of_ours_stops_all_in_order_and_is_raised(tmp_path: Path, make: Make) -> None:
    def check() -> None:
        raise RuntimeError("a bug")

    config = unreachable(tmp_path)
    segment = make(config)
    with pytest.raises(RuntimeError, match="a bug"):
        run_together(config, segment, None, check=check)
    assert states(segment) == ["stopped", "stopped", "stopped"]


@pytest.mark.parametrize("role", ["historian", "persister"])
def test_a_role_that_fails_while_it_stops_is_said(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    if role == "historian":
        monkeypatch.setattr("klshm.historian.process.serve", failing_at_its_end)
    else:
        monkeypatch.setattr("klshm.store.persister.serve", failing_disk)

    def check() -> None:
        raise KlshmError("enough")

    config = unreachable(tmp_path)
    segment = make(config)
    assert run_together(config, segment, None, check=check) is False
    assert f"role failed, the engine stops role={role} error='RuntimeError: a bug'" in caplog.text


async def failing_at_its_end(role: Role) -> None:
    with role.stop.in_loop() as stopped:
        await stopped.wait()
    raise RuntimeError("a bug")


def failing_disk(role: Role) -> None:
    while not role.stop.wait(60):
        pass
    raise RuntimeError("a bug")


def test_a_disk_that_hangs_is_left_behind(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr("klshm.store.persister.serve", lambda role: released.wait())
    monkeypatch.setattr("klshm.run.together._DISK_S", 0.1)

    def check() -> None:
        raise KlshmError("enough")

    config = unreachable(tmp_path)
    segment = make(config)
    try:
        assert run_together(config, segment, None, check=check) is False
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name == "klshm disk":
                thread.join()
    assert "the disk did not finish in time and is left role=persister" in caplog.text
