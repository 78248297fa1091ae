"""The simulator as a process: one line when it is ready, one line when it cannot be, and an end with its parent."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klshm.sim.faults import PARAMETERS
from tests.support.processes import PROJECT, is_alive, wait_for


def test_quick_end_and_one_ready_line() -> None:
    command = [sys.executable, "-m", "klshm.sim", "--symbols", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert set(ready) == {"event", "port", "start_ms", "symbols"} and ready["symbols"] == 1
    assert abs(ready["start_ms"] - time.time() * 1000) < 60_000
    with socket.create_connection(("127.0.0.1", ready["port"])):
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert process.stdout.read() == ""
    process.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--start-at", "soon"], 2, "expected ISO-8601"),
        (["--symbols", "0"], 2, "expected a whole number from 1"),
        (["--faults", "other"], 2, "expected one of standard"),
        (["--replay", "none.csv"], 1, "none.csv: cannot be read"),
        (["--replay", "none.csv", "--start-at", "1"], 2, "expected one of them"),
        (["--rate", "0"], 2, "expected a positive number"),
    ],
)
def test_bad_arguments(arguments: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "klshm.sim", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == code and message in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "klshm.sim", "--port", str(taken.getsockname()[1]), "--symbols", "1"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 1 and "cannot listen on 127.0.0.1" in done.stderr and "--port 0" in done.stderr


def test_exits_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'klshm.sim', '--symbols', '1', '--exit-with-parent'],"
        " stdout=subprocess.PIPE, text=True)\n"
        "p.stdout.readline()\nprint(p.pid, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT, check=True)
    pid = int(done.stdout)
    wait_for(lambda: not is_alive(pid))


def test_help_documents_every_switch_and_fault() -> None:
    command = [sys.executable, "-m", "klshm.sim", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=True).stdout
    assert "POST /sim/faults" in text and "The schedule `standard`" in text
    assert all(f"\n    {name} " in text for name in PARAMETERS)
    options = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    for option in options:
        # The description stands on the line of the option or on the next one.
        entry = text.split(f"\n  {option}", 1)[1].split("\n  --")[0]
        assert len(entry.split()) > 3, f"{option} has no description"
    assert len(options) > 20
