"""A forked role: how it ends, and that it dies with its launcher; what roles do is tested with whole engines."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.config import Config, DataConfig, ExchangeConfig
from klshm.role import Role
from klshm.run.child import die_with, fork_role
from klshm.shm import layout as lay
from klshm.shm.segment import Segment
from tests.support.processes import exit_code, fork, is_alive, wait_for
from tests.support.segments import segment


def test_a_child_whose_launcher_is_dead_already_ends() -> None:
    assert exit_code(fork(lambda: die_with(os.getpid()))) == 1  # its own pid is nobody's parent here


def test_a_child_dies_with_its_launcher() -> None:
    reading, writing = os.pipe()

    def launch() -> None:
        launcher = os.getpid()
        child = os.fork()
        if child == 0:
            die_with(launcher)
            os.write(writing, f"{os.getpid()}\n".encode())
            while True:
                signal.pause()
        signal.pause()

    launcher = fork(launch)
    child = int(os.read(reading, 100))
    os.kill(launcher, signal.SIGKILL)
    assert exit_code(launcher) == -signal.SIGKILL
    wait_for(lambda: not is_alive(child))
    os.close(reading)
    os.close(writing)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segment]:
    (tmp_path / "main").mkdir()
    with segment(tmp_path, monkeypatch) as made:
        yield made


def error_of(role: Role) -> str:
    return role.block[lay.B_ERROR_TEXT :].tobytes()[: int(role.block[lay.B_ERROR_LENGTH])].decode()


def test_a_role_ends_with_a_reason_that_outlives_it(
    made: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(role: Role) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("klshm.store.persister.serve", broken)
    data = DataConfig(directory=str(tmp_path))
    foreseen = Role("historian", 0, made, Config(data=data, exchange=ExchangeConfig(proxy="ftp://nowhere:1")))
    unforeseen = Role("persister", 0, made, Config(data=data))
    for role, reason in ((foreseen, "exchange.proxy = 'ftp://nowhere:1'"), (unforeseen, "RuntimeError: a bug")):
        assert exit_code(fork_role(role, None)) == 1
        assert error_of(role).startswith(reason)


def test_a_role_that_is_asked_to_stop_ends_well(made: Segment, tmp_path: Path) -> None:
    config = Config(data=DataConfig(directory=str(tmp_path)), exchange=ExchangeConfig(rest_url="http://127.0.0.1:9"))
    role = Role("historian", 0, made, config)
    pid = fork_role(role, min(os.sched_getaffinity(0)))
    wait_for(lambda: role.block[lay.B_ROLE_STATE] == lay.ROLE_CONNECTING)
    assert (role.block[lay.B_PID], role.block[lay.B_CPU]) == (pid, min(os.sched_getaffinity(0)))
    os.kill(pid, signal.SIGINT)  # the launcher's to judge
    os.kill(pid, signal.SIGTERM)
    assert exit_code(pid) == 0
    assert role.block[lay.B_ROLE_STATE] == lay.ROLE_STOPPED
