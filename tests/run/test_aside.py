"""Work in a process of its own: done, failed, hung, cut off."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klshm.errors import JournalError
from klshm.run.aside import Aside
from tests.support.processes import engine_processes, is_alive, wait_for


def hang() -> None:
    while True:
        signal.pause()


def test_work_that_is_done(tmp_path: Path) -> None:
    done = Aside("the work", lambda: (tmp_path / "x").write_text(str(os.getppid())) and None)
    assert done.wait()
    assert (tmp_path / "x").read_text() == str(os.getpid())
    done.kill()  # it has ended: nothing is left to do
    assert engine_processes(os.getpid()) == [os.getpid()]


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Path]:
    """What the child says goes to a file: its log is its own."""
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("klshm").addHandler(handler)
    yield tmp_path / "log"
    logging.getLogger("klshm").removeHandler(handler)
    handler.close()


def test_an_error_of_ours_is_one_line_any_other_has_its_trace(said: Path) -> None:
    def refuse() -> None:
        raise JournalError("no journal; make one")

    def fault() -> None:
        raise RuntimeError("a bug")

    assert not Aside("the work", refuse).wait()
    assert said.read_text() == "the work failed: no journal; make one\n"
    assert not Aside("the work", fault).wait()
    assert "RuntimeError: a bug" in said.read_text()


def test_what_ends_by_itself_ends_as_a_failure() -> None:
    assert not Aside("the work", lambda: sys.exit(3)).wait()
    assert not Aside("the work", lambda: os.kill(os.getpid(), signal.SIGKILL)).wait()


def test_what_hangs_is_killed_after_its_time() -> None:
    began_s = time.monotonic()
    assert not Aside("the work", hang).wait(0.2)
    assert time.monotonic() - began_s >= 0.2
    assert engine_processes(os.getpid()) == [os.getpid()]
    assert Aside("the work", lambda: None).wait(60.0)


def test_it_may_be_cut_off() -> None:
    aside = Aside("the work", hang)
    [pid] = [pid for pid in engine_processes(os.getpid()) if pid != os.getpid()]
    aside.kill()
    assert not is_alive(pid)


def test_a_signal_for_the_launcher_is_not_the_childs_ctrl_c_is_the_launchers_to_judge() -> None:
    aside = Aside("the work", hang)
    [pid] = [pid for pid in engine_processes(os.getpid()) if pid != os.getpid()]
    wait_for(lambda: _ignores(pid, signal.SIGINT))
    os.kill(pid, signal.SIGINT)
    assert is_alive(pid)
    aside.kill()


def _ignores(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [mask] = [line.split()[1] for line in lines if line.startswith("SigIgn")]
    return bool(int(mask, 16) >> (number - 1) & 1)
