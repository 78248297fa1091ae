"""What the other tests rely on: a failure in a forked process must not pass for success."""

from __future__ import annotations

import os
import signal

from tests.support.processes import engine_processes, exit_code, fork, forked, is_alive


def fail() -> None:
    raise RuntimeError("meant")


def test_exit_codes_of_forked_processes() -> None:
    assert exit_code(fork(lambda: None)) == 0
    assert exit_code(fork(fail)) == 1


def test_what_is_forked_lives_as_long_as_its_block() -> None:
    with forked(signal.pause) as pid:
        assert is_alive(pid)
        assert engine_processes(os.getpid()).count(pid) == 1
    assert not is_alive(pid)
