"""What a service manager is told: by datagrams to a real socket, from a real launcher too."""

from __future__ import annotations

import configparser
import logging
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klshm.run.launch import _parser
from klshm.run.notify import Notifier
from tests.support.engine import addresses, launcher
from tests.support.exchange import exchange
from tests.support.processes import PROJECT, wait_for


UNIT = PROJECT / "configs" / "systemd" / "klshm.service"


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.told: list[str] = []

    def look(self) -> list[str]:
        """Take what has come; return all that came so far, by lines."""
        while True:
            try:
                self.told += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.told


@contextmanager
def manager(address: str) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(address)
        yield Manager(listening)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_messages_reach_a_socket_of_either_kind(tmp_path: Path, is_abstract: bool) -> None:
    name = f"klshm-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with manager("\0" + name if is_abstract else name) as listening:
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name if is_abstract else name})
        notifier.ready("serving")
        notifier.status("all is well")
        notifier.alive()  # nobody watches
        notifier.stopping()
        assert listening.look() == ["READY=1", "STATUS=serving", "STATUS=all is well", "STOPPING=1"]


@pytest.mark.parametrize(
    ("pid", "signs"), [("", 1), (str(os.getpid()), 1), ("1", 0)], ids=["whoever", "this process", "another"]
)
def test_the_watchdog_is_told_no_oftener_than_it_needs(tmp_path: Path, pid: str, signs: int) -> None:
    with manager(str(tmp_path / "notify")) as listening:
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3600000000", "WATCHDOG_PID": pid}
        notifier = Notifier(environment)
        for _ in range(5):
            notifier.alive()
        assert listening.look() == ["WATCHDOG=1"] * signs


def test_a_manager_that_does_not_listen_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "one"})
    with caplog.at_level(logging.WARNING):
        notifier.ready("serving")
        notifier.stopping()
        notifier.alive()
    assert len(caplog.records) == 1 and "does not listen" in caplog.text


@pytest.mark.e2e
@pytest.mark.timeout(300)
@pytest.mark.parametrize("workers", ["1", "0"])
def test_a_launcher_is_ready_lives_and_stops_in_the_managers_eyes(tmp_path: Path, workers: str) -> None:
    with exchange("--symbols", "4", "--rate", "50") as market, manager(str(tmp_path / "notify")) as listening:
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        with launcher(tmp_path, *addresses(market.port), "--workers", workers, **told) as running:
            running.wait_live()
            wait_for(lambda: listening.look().count("WATCHDOG=1") > 5, explain=running.text)
            assert listening.told[:2] == ["READY=1", "STATUS=connecting"] and "STATUS=live" in listening.told
            os.kill(running.process.pid, signal.SIGSTOP)  # a launcher that hangs gives no sign
            listening.look()
            silent = len(listening.told)
            with pytest.raises(subprocess.TimeoutExpired):
                running.process.wait(1.0)
            assert len(listening.look()) == silent
            os.kill(running.process.pid, signal.SIGCONT)
            assert running.stop() == 0
            assert "STOPPING=1" in listening.look()


def test_the_unit_starts_what_there_is() -> None:
    """Its command line is one that the launcher takes; keys that may be repeated are not used."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    python, script, *options = service["ExecStart"].split()
    assert python.endswith("/bin/python") and Path(script).name == "launcher.py"
    assert _parser().parse_args(options).workers == 4
    assert (service["Type"], service["KillMode"], service["RestartPreventExitStatus"]) == ("notify", "mixed", "2 4")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True)
    problems = [line for line in done.stderr.splitlines() if "klshm.service" in line and "not executable" not in line]
    assert problems == []
