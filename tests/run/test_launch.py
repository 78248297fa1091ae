"""From the command line to a running engine and back to nothing, where nothing is wrong; and the demo's end."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from klshm.shm import layout as lay
from klshm.shm.segment import create_segment
from tests.support.engine import environment, launcher, refused
from tests.support.processes import engine_processes, is_alive, wait_for
from tests.support.segments import make_layout


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.mark.parametrize("workers", ["1", "0"])
def test_a_demo_runs_for_its_duration_and_leaves_nothing(tmp_path: Path, workers: str) -> None:
    with launcher(tmp_path, "--demo", "--workers", workers, "--duration", "1") as running:
        running.wait_live()
        family = engine_processes(running.process.pid)
        assert running.process.wait() == 0, running.text()
        assert running.left() == []
        assert "stopped clean=True" in running.text()
        assert "Traceback" not in running.text()
        wait_for(lambda: not any(is_alive(pid) for pid in family))


@pytest.mark.parametrize("workers", ["1", "0"])
def test_a_demo_ends_with_its_simulator(tmp_path: Path, workers: str) -> None:
    with launcher(tmp_path, "--demo", "--workers", workers) as running:
        running.wait_live()
        [simulator] = [pid for pid in engine_processes(running.process.pid) if "klshm.sim" in _command(pid)]
        os.kill(simulator, signal.SIGKILL)
        assert running.process.wait() == 1, running.text()
        assert (
            "stopping: the simulator has ended (exit code -9): it said nothing; start the demo again" in running.text()
        )
        assert "stopped clean=False" in running.text()
        assert running.left() == []


def test_ctrl_c_reaches_the_whole_group_and_still_drains(tmp_path: Path) -> None:
    with launcher(tmp_path, "--demo", "--workers", "1") as running:
        running.wait_live()
        for pid in engine_processes(running.process.pid):
            if os.getpgid(pid) == os.getpgid(running.process.pid):  # what a terminal's Ctrl-C reaches
                os.kill(pid, signal.SIGINT)
        assert running.process.wait() == 0, running.text()
        assert "stream lost" not in running.text()  # the simulator is stopped last
        assert "the simulator has ended" not in running.text()
        assert running.left() == []


def test_ctrl_c_while_kernels_are_compiled(tmp_path: Path) -> None:
    with launcher(tmp_path, "--workers", "1", KLSHM_CACHE=str(tmp_path / "cache")) as running:
        running.wait_said("compiling kernels done=")
        assert running.end() == 0, running.text()
        assert "stopping before the engine was up signal=SIGINT" in running.text()
        assert "Traceback" not in running.text()
        assert running.left() == []
    with launcher(tmp_path, "--workers", "1", KLSHM_CACHE=str(tmp_path / "other")) as running:
        running.wait_said("compiling kernels done=")
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "stopping before the engine was up" in running.text(), explain=running.text)
        running.process.send_signal(signal.SIGTERM)
        # The compiler may have come to an end in between: then the first signal is what ended it.
        assert running.process.wait() in (0, 1)
        assert running.left() == []


SIGNALLED = """
import os, signal
from klshm.run import launch
create = launch.create_segment
def create_and_be_stopped(*arguments, **options):
    segment = create(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return segment
launch.create_segment = create_and_be_stopped
"""


def test_ctrl_c_in_the_instant_the_segment_is_there_leaves_nothing(tmp_path: Path) -> None:
    with launcher(tmp_path, "--workers", "1", first=SIGNALLED) as running:
        assert running.process.wait() == 0, running.text()
        assert "stopping before the engine was up signal=SIGINT" in running.text()
        assert running.left() == []


def test_a_closed_output_does_not_stop_the_engine(tmp_path: Path) -> None:
    with launcher(tmp_path, "--demo", "--workers", "1", "--duration", "1", closed_output=True) as running:
        assert running.process.wait() == 0, running.text()
        assert re.search(r"standard output is closed reason='Broken pipe'", running.text())


def test_what_the_options_ask_for_is_what_runs(tmp_path: Path) -> None:
    options = ("--demo", "--workers", "1", "--no-backfill", "--set", "sim.faults=standard")
    with launcher(tmp_path, *options) as running:
        running.wait_live()
        config = json.loads(running.klshm("config", "show", "--running", "--json").stdout)
        assert config["historian"]["concurrency"] == 0
        assert config["chaos"]["kill_worker_after_s"] == 45  # a demo of faults shows one of ours too
        assert running.end() == 0, running.text()


NO_ROOM_AGAIN = """
import errno, os
from klshm.run.resume import Resume
def broken(self, segment):
    raise RuntimeError("a bug")
Resume.seed = broken
allocate, made = os.posix_fallocate, []
def once(*arguments):
    if made:
        raise OSError(errno.ENOSPC, "No space left on device")
    made.append(allocate(*arguments))
os.posix_fallocate = once
"""


def test_a_second_segment_without_room_says_why_and_what_could_be_removed(tmp_path: Path) -> None:
    """What was seeded by half is given up, and then there is no room for another."""
    left = Path(environment(tmp_path)["KLSHM_SHM_DIRECTORY"], "klshm.demo")
    left.write_bytes(bytes(100))
    with launcher(tmp_path, "--set", "historian.from_archive=true", first=NO_ROOM_AGAIN) as running:
        assert running.process.wait() == 1, running.text()
        last = running.text().splitlines()[-1]
        assert re.fullmatch(rf"launcher: .* the segment needs .*, or remove what was set aside: {left}\.\w+", last)
        assert "Traceback" not in running.text().partition("going on from nothing")[2]
        assert running.left() == ["klshm.demo.unreadable"]


def test_a_machine_that_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery needs a process; what it could not save stays."""
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", environment(tmp_path)["KLSHM_SHM_DIRECTORY"])
    left = create_segment("demo", make_layout(), b"{}")
    left.words[lay.H_STATE] = lay.STATE_SERVING
    left.close()
    refuse = 'raise BlockingIOError(11, "Resource temporarily unavailable")'
    code, line = refused(tmp_path, first=f"import os\ndef refuse(): {refuse}\nos.fork = refuse")
    assert (code, line) == (1, "launcher: Resource temporarily unavailable")
    assert left.path.exists()


def test_a_start_sweeps_what_killed_writers_of_the_snapshot_left(tmp_path: Path) -> None:
    left = tmp_path / "data" / "demo" / "initial_state.bin.0123456789abcdef.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    in_the_way = Path(environment(tmp_path)["KLSHM_SHM_DIRECTORY"], "klshm.demo")
    in_the_way.mkdir()
    assert refused(tmp_path)[1].endswith("is in the way and no file; remove it or choose another --instance")
    assert not left.exists()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
