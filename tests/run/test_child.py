"""A forked role and its launcher's death; what roles do is tested with whole engines."""

from __future__ import annotations

import os
import signal

from klshm.run.child import die_with
from tests.support.processes import exit_code, fork, is_alive, wait_for


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
    wait_for(lambda: not is_alive(child), 60)
    os.close(reading)
    os.close(writing)
