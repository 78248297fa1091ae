"""`top`: the table of all symbols, once and in a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

from tests.commands.support import BAR, Run
from tests.support.desk import Desk
from tests.support.processes import PROJECT


def test_top_once(desk: Desk, run: Run) -> None:
    for order in ("volume", "change", "name", "trades"):
        lines = run("top", "--once", "--sort", order).out.splitlines()
        assert lines[0].startswith("klshm test   serving") and "\x1b" not in "".join(lines)
        assert lines[5].startswith("SYMBOL") and len(lines) == 8
        assert lines[6].startswith("BTCUSDT") and lines[6].endswith("partial")
    document = run("top", "--once", "--json").document
    assert document["status"]["instance"] == "test" and list(document["bars"][0]) == BAR
    assert run("top", "--interval", "0").code == 1


def test_top_in_a_terminal_gives_the_screen_back(desk: Desk) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "klshm", "top", "--interval", "0.05"],
        stdout=follower,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "40", "LINES": "8"},
    ) as running:
        os.close(follower)
        seen = b""
        while seen.count(b"SYMBOL") < 2:
            seen += os.read(leader, 4096)
        running.send_signal(signal.SIGINT)
        while not seen.endswith(b"\x1b[?1049l"):
            seen += os.read(leader, 4096)
        assert running.stderr is not None and running.stderr.read() == b""
    os.close(leader)
    assert seen.startswith(b"\x1b[?1049h")
    text = re.sub(r"\x1b\[[?0-9]*[A-Za-z]", "", seen.decode())
    assert max(len(line) for line in text.splitlines()) <= 40
    assert "币安人生USDT" not in text, "eight lines hold one symbol"
