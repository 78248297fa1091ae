"""The state file that all processes of this machine share."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klshm.exchange.budget import StateFile, default_state_path
from klshm.exchange.gate import Gate
from klshm.exchange.governor import Governor, GovernorState, Priority


URL = "https://fapi.binance.com"
T0 = 29_000_000 * 60_000 + 10_000


def test_default_path_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_path() == tmp_path / "klshm" / "governor.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_path() == tmp_path / ".local" / "state" / "klshm" / "governor.json"


def opened(path: Path, mine: GovernorState, minute: int = 7, url: str = URL) -> GovernorState:
    with StateFile(path, url).opened(mine, minute):
        pass
    return mine


def test_state_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "governor.json"
    state = opened(path, GovernorState({7: 1200}, 11, 99))
    assert opened(path, GovernorState()) == state == GovernorState({7: 1200}, 11, 99)
    assert opened(path, GovernorState(), url="http://127.0.0.1:1") == GovernorState()
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".tmp"] == []


def test_unchanged_state_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    opened(path, GovernorState({7: 1200}))
    written = path.stat().st_ino
    opened(path, GovernorState({7: 1200}))
    assert path.stat().st_ino == written
    opened(path, GovernorState({7: 1201}))
    assert path.stat().st_ino != written


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [
        ({7: 100}, {7: 1200}, {7: 1200}),
        ({7: 1200}, {7: 100}, {7: 1200}),
        # a clock that is wrong counts in another minute, and takes nothing from this one
        ({7: 1200}, {8: 3}, {7: 1200, 8: 3}),
        ({7: 5}, {6: 100, 900: 1}, {6: 100, 7: 5}),
        ({900: 5}, {7: 100}, {7: 100}),
    ],
)
def test_processes_of_one_address_learn_from_each_other(
    tmp_path: Path, mine: dict[int, int], theirs: dict[int, int], both: dict[int, int]
) -> None:
    path = tmp_path / "governor.json"
    path.write_text(json.dumps({URL: {"used": theirs, "banned_until_ms": 5000}}))
    assert opened(path, GovernorState(mine)) == GovernorState(both, 0, 5000)


def test_a_command_whose_clock_is_fast_makes_nobody_forget_what_was_used(tmp_path: Path) -> None:
    """Its first request goes out by the local clock; the exchange's is not known yet."""
    path = tmp_path / "governor.json"
    engine = Gate(Governor(0.9, 0.6), lambda: T0, StateFile(path, URL))
    fast = Gate(Governor(0.9, 0.6), lambda: T0 + 60_000, StateFile(path, URL))

    async def main() -> None:
        for _ in range(432):
            await engine.admit(5, Priority.REPAIR)
        await fast.admit(1, Priority.REPAIR)
        waiting = asyncio.create_task(engine.admit(5, Priority.REPAIR))
        await asyncio.sleep(0)
        assert not waiting.done() and engine.governor.used(T0) == 2160
        waiting.cancel()

    asyncio.run(main())


def test_an_address_is_the_same_however_it_is_spelt_and_another_through_a_proxy(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    opened(path, GovernorState({7: 5}))
    assert opened(path, GovernorState(), url="https://FAPI.binance.com/") == GovernorState({7: 5})
    with StateFile(path, URL, "socks5://127.0.0.1:1080").opened(state := GovernorState(), 7):
        assert state == GovernorState()


def test_old_entries_of_other_addresses_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "governor.json"
    now_ms = time.time_ns() // 1_000_000
    week_ms = 7 * 86_400_000
    path.write_text(json.dumps({"a": {"saved_ms": now_ms - week_ms - 1}, "b": {"saved_ms": now_ms}, "c": 1}))
    opened(path, GovernorState({7: 1}))
    assert sorted(json.loads(path.read_text())) == ["b", URL]


@pytest.mark.parametrize(
    "text", ["{", "[]", *(f'{{"{URL}": {entry}}}' for entry in ("3", '{"used": "x"}', '{"used": {"x": 1}}'))]
)
def test_damaged_file_counts_as_empty(tmp_path: Path, text: str) -> None:
    path = tmp_path / "governor.json"
    path.write_text(text)
    assert opened(path, GovernorState()) == GovernorState()
    opened(path, GovernorState({7: 2}))
    assert opened(path, GovernorState()) == GovernorState({7: 2})


def test_unwritable_place_costs_one_warning_and_each_counts_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    file, state = StateFile(blocked / "governor.json", URL), GovernorState({7: 1})
    for _ in range(3):
        with file.opened(state, 7):
            state.used[7] += 1
    assert state.used == {7: 4}
    assert len(caplog.records) == 1
    assert "governor.json" in caplog.text


def test_a_lock_that_is_never_given_back_is_waited_for_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "governor.json"
    file, state = StateFile(path, URL), GovernorState({7: 1})
    with open(tmp_path / "governor.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(30):
            with file.opened(state, 7):
                state.used[7] += 1
        assert file._patience_s == 0.0, "an event loop would stand still for each of them"
    assert not path.exists()
    assert caplog.text.count("locked by a process that does not go on") == 1
    with file.opened(state, 7):
        state.used[7] += 1
    assert json.loads(path.read_text())[URL]["used"] == {"7": 32}
    assert file._patience_s > 0


_SPENDER = """
import asyncio, sys, time
from pathlib import Path
from klshm.exchange import budget
from klshm.exchange.budget import StateFile
from klshm.exchange.gate import Gate
from klshm.exchange.governor import Governor, Priority

budget._LOCK_S = 3600.0  # on a busy machine the others may hold it for longer than a request would wait

async def main():
    gate = Gate(Governor(0.9, 0.6), lambda: %d, StateFile(Path(sys.argv[1]), "x"))
    spent = 0
    while True:
        task = asyncio.create_task(gate.admit(5, Priority.REPAIR))
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            return spent
        spent += 5

print(asyncio.run(main()))
"""


def test_processes_together_spend_no_more_than_one_may(tmp_path: Path) -> None:
    """Each counted alone would spend the whole share: three times what the exchange grants."""
    command = [sys.executable, "-c", _SPENDER % T0, str(tmp_path / "governor.json")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    spent = [int(process.communicate()[0]) for process in running]
    assert sum(spent) == 2160 and len(spent) == 3
