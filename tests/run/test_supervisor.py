"""Roles that hang, die, are asked to stop by hand, and the ordered end: real processes."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klshm.shm import layout as lay
from klshm.shm.counters import LAUNCHER, Counters
from klshm.shm.segment import Segment, open_segment
from tests.support.engine import Engine, addresses, launcher
from tests.support.exchange import Exchange, exchange
from tests.support.processes import engine_processes, is_alive, wait_for
from tests.support.servers import free_port


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def market() -> Iterator[Exchange]:
    with exchange("--symbols", "6", "--rate", "50") as running:
        yield running


@contextmanager
def live(tmp_path: Path, market: Exchange, *options: str) -> Iterator[Engine]:
    """Run a launcher against the simulator until its workers are live."""
    with launcher(tmp_path, *addresses(market.port), *options) as running:
        running.wait_live()
        yield running


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Segment]:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path / "shm"))
    return lambda: open_segment("demo")


def pid_of(segment: Segment, worker: int) -> int:
    return int(segment.block(segment.layout.partition_offset(worker))[lay.B_PID])


def state_of(segment: Segment, worker: int) -> int:
    return int(segment.block(segment.layout.partition_offset(worker))[lay.B_ROLE_STATE])


def is_replaced(segment: Segment, worker: int, old: int) -> bool:
    return pid_of(segment, worker) != old and state_of(segment, worker) == lay.ROLE_LIVE


def test_a_role_that_ends_or_hangs_is_replaced(tmp_path: Path, market: Exchange, opened: Callable[[], Segment]) -> None:
    with live(tmp_path, market, "--workers", "2") as running:
        segment = opened()
        counters = Counters(segment.block(segment.layout.launcher_offset), LAUNCHER)
        assert len(os.listdir(f"/proc/{running.process.pid}/task")) == 1  # no thread: forks stay safe
        other = pid_of(segment, 1)

        asked = pid_of(segment, 0)
        os.kill(asked, signal.SIGTERM)  # by hand, one role only: it ends in order, and comes back
        wait_for(lambda: is_replaced(segment, 0, asked), explain=running.text)

        hung = pid_of(segment, 0)
        os.kill(hung, signal.SIGSTOP)
        wait_for(lambda: is_replaced(segment, 0, hung), explain=running.text)
        assert f"role hangs role=worker 0 pid={hung}" in running.text()
        assert not is_alive(hung)
        assert not Path(f"/proc/{hung}").exists()  # reaped before it was replaced

        killed = pid_of(segment, 0)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: is_replaced(segment, 0, killed), explain=running.text)

        assert pid_of(segment, 1) == other
        for pid in (pid_of(segment, 0), other):  # none holds what is the launcher's alone, however late it came
            held = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.exists()]
            assert "anon_inode:[pidfd]" not in held
        assert counters.get("restarts_total") == 3
        assert counters.get("hung_total") == 1
        endings = re.findall(r"role ended role=worker 0 pid=(\d+) status=(.*) restart_in_s=([\d.]+)", running.text())
        assert [(int(pid), ending) for pid, ending, _ in endings] == [
            (asked, "exit 0"),
            (hung, "signal 9 (Killed)"),
            (killed, "signal 9 (Killed)"),
        ]
        assert [pause for _, _, pause in endings] == ["0.0", "0.5", "1.0"]  # later each time
        assert len(os.listdir(f"/proc/{running.process.pid}/task")) == 1
        assert running.end() == 0, running.text()
        assert "stopping signal=SIGINT; a second one ends at once" in running.text()
        assert "stopped clean=True" in running.text()
        assert running.left() == []
        assert "Traceback" not in running.text()


@pytest.mark.parametrize("workers", ["2", "0"])
def test_a_second_signal_ends_at_once(tmp_path: Path, market: Exchange, workers: str) -> None:
    # However long it takes until the second signal comes: nothing else ends what hangs.
    first = "from klshm.run import supervisor; supervisor._STOP_S |= {'worker': 3600.0, 'historian': 3600.0}"
    with launcher(tmp_path, *addresses(market.port), "--workers", workers, first=first) as running:
        running.wait_live()
        family = engine_processes(running.process.pid)
        # What hangs would hold up the ordered stop: its own loop in one process, a worker otherwise.
        stopped = family[-1] if workers == "2" else running.process.pid
        os.kill(stopped, signal.SIGSTOP)
        running.process.send_signal(signal.SIGINT)
        if workers == "2":
            wait_for(lambda: "stopping signal=SIGINT" in running.text(), explain=running.text)
            running.process.send_signal(signal.SIGTERM)
        else:
            running.process.send_signal(signal.SIGTERM)
            running.process.send_signal(signal.SIGCONT)
        code = running.process.wait()
        assert code == 1, running.text()
        assert running.left() == ["klshm.demo"]  # nobody had time to store what it holds
        assert "stopped clean" not in running.text()
        wait_for(lambda: not any(is_alive(pid) for pid in family))


def test_a_role_that_does_not_stop_is_killed_and_said(
    tmp_path: Path, market: Exchange, opened: Callable[[], Segment]
) -> None:
    with live(tmp_path, market, "--workers", "1") as running:
        os.kill(pid_of(opened(), 0), signal.SIGSTOP)
        assert running.end(signal.SIGTERM) == 1, running.text()
        assert "role did not stop in time and is killed role=worker 0" in running.text()
        assert "stopped clean=False" in running.text()
        assert "the segment stays, and the next start takes it" in running.text()
        assert running.left() == ["klshm.demo"]


def test_a_stop_that_cannot_store_leaves_the_segment_to_the_next_start(
    tmp_path: Path, market: Exchange, opened: Callable[[], Segment]
) -> None:
    first = "from klshm.run import supervisor; supervisor._STOP_S |= {'persister': 1.0}"
    with launcher(tmp_path, *addresses(market.port), "--workers", "1", first=first) as running:
        running.wait_live()
        segment = opened()
        os.kill(int(segment.block(segment.layout.persister_offset)[lay.B_PID]), signal.SIGSTOP)
        assert running.end(signal.SIGTERM) == 1, running.text()
        assert "role did not stop in time and is killed role=persister" in running.text()
        assert running.left() == ["klshm.demo"]
    with launcher(tmp_path, *addresses(market.port), "--workers", "1", "--duration", "1") as again:
        assert again.process.wait() == 0, again.text()
        assert "recovered from the segment of a crashed engine" in again.text()
        assert again.left() == []


def test_a_launcher_that_was_paused_kills_nobody(
    tmp_path: Path, market: Exchange, opened: Callable[[], Segment]
) -> None:
    with live(tmp_path, market, "--workers", "1") as running:
        segment = opened()
        block = segment.block(segment.layout.launcher_offset)
        os.kill(running.process.pid, signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        beat = int(block[lay.B_HEARTBEAT_NS])
        workers_line = segment.block(segment.layout.partition_offset(0))
        wait_for(lambda: int(workers_line[lay.B_HEARTBEAT_NS]) - beat > 4e9)  # longer than a role may be silent
        os.kill(running.process.pid, signal.SIGCONT)
        wait_for(lambda: int(block[lay.B_HEARTBEAT_NS]) - beat > 5e9)
        assert Counters(block, LAUNCHER).get("hung_total") == 0
        assert running.end() == 0, running.text()


# What a machine may do


def test_what_chaos_kills_is_replaced_once(tmp_path: Path, market: Exchange, opened: Callable[[], Segment]) -> None:
    with live(tmp_path, market, "--workers", "1", "--set", "chaos.kill_worker_after_s=0.3") as running:
        segment = opened()
        running.wait_said("role ended role=worker 0")
        killed = int(re.findall(r"chaos kills a worker pid=(\d+)", running.text())[0])
        wait_for(lambda: is_replaced(segment, 0, killed), explain=running.text)
        assert f"role ended role=worker 0 pid={killed} status=signal 9 (Killed)" in running.text()
        assert running.end() == 0, running.text()
        assert running.text().count("chaos kills") == 1


REFUSE = """
import os
from klshm.run import supervisor
fork, start, calls = os.fork, supervisor.Supervisor.start, []
def refuse():
    calls.append(1)
    if len(calls) in (3, 4, 5):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
def begin(self):
    os.fork = refuse
    start(self)
supervisor.Supervisor.start = begin
"""


def test_a_machine_without_room_for_a_process_is_asked_again_ever_later(tmp_path: Path, market: Exchange) -> None:
    with launcher(tmp_path, *addresses(market.port), "--workers", "2", first=REFUSE) as running:
        running.wait_live()
        refusals = re.findall(r"no process for a role role=(.*) reason='(.*)' again_in_s=([\d.]+)", running.text())
        assert {reason for _, reason, _ in refusals} == {"Resource temporarily unavailable"}
        pauses = [(role, pause) for role, _, pause in refusals]
        assert pauses == [("worker 0", "0.0"), ("worker 1", "0.0"), ("worker 0", "0.5")]
        assert running.end() == 0, running.text()


UNKILLABLE = """
import os, signal
from klshm.run import supervisor
supervisor._STOP_S |= {"worker": 1.0, "historian": 1.0}
supervisor._REAP_S = 0.3
kill = os.kill
os.kill = lambda pid, number: None if number == signal.SIGKILL else kill(pid, number)
"""


def test_what_cannot_be_killed_is_left_behind_and_ends_with_the_launcher(
    tmp_path: Path, market: Exchange, opened: Callable[[], Segment]
) -> None:
    with launcher(tmp_path, *addresses(market.port), "--workers", "1", first=UNKILLABLE) as running:
        running.wait_live()
        family = engine_processes(running.process.pid)
        worker = pid_of(opened(), 0)
        os.kill(worker, signal.SIGSTOP)
        assert running.end() == 1, running.text()
        assert f"role cannot be killed and is left behind role=worker 0 pid={worker}" in running.text()
        assert running.left() == ["klshm.demo"]
        wait_for(lambda: not any(is_alive(pid) for pid in family))


# What is said


@pytest.mark.parametrize(("workers", "module"), [("1", "supervisor"), ("0", "together")])
def test_every_minute_has_a_line(tmp_path: Path, market: Exchange, workers: str, module: str) -> None:
    first = f"from klshm.run import {module}; {module}._STATUS_S = 0.1"
    with launcher(tmp_path, *addresses(market.port), "--workers", workers, first=first) as running:
        wait_for(lambda: running.text().count("status workers=live symbols=6 messages=") > 1, explain=running.text)
        assert running.end() == 0, running.text()


def test_a_start_that_takes_long_is_said_once(tmp_path: Path) -> None:
    first = "from klshm.run import supervisor; supervisor._LIVE_S, supervisor._STATUS_S = 0.3, 0.1"
    with launcher(tmp_path, *addresses(free_port()), "--workers", "1", first=first) as running:
        running.wait_said("not all workers are live after 0 s; the engine goes on and keeps trying")
        said = running.text().count("status workers=")
        wait_for(lambda: running.text().count("status workers=") > said + 2, explain=running.text)
        assert running.text().count("not all workers are live") == 1
        assert running.end() == 0, running.text()


def test_a_disk_that_cannot_be_used_is_said_and_used_as_soon_as_it_can(tmp_path: Path, market: Exchange) -> None:
    journal = tmp_path / "data" / "demo" / "journal"
    journal.parent.mkdir(parents=True)
    journal.write_text("no directory")
    with launcher(tmp_path, *addresses(market.port), "--workers", "1") as running:
        running.wait_said("journal failed failures=1 ")
        running.wait_live()
        journal.unlink()
        wait_for(running.archive.exists, explain=running.text)
        assert running.end() == 0, running.text()
        assert "Traceback" not in running.text()
