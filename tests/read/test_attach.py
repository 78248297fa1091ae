"""Which engine is meant, and whether it lives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import klshm
from klshm.errors import (
    ConfigError,
    EngineGone,
    InstanceAmbiguous,
    InstanceNotFound,
    StaleData,
    UnsupportedPlatform,
)
from klshm.read.attach import check_platform, resolve_instance, running_instances
from klshm.shm import layout as lay
from tests.support.desk import Desk


def test_a_named_engine_is_taken(make_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch) -> None:
    make_desk("one")
    make_desk("two")
    assert running_instances() == ["one", "two"]
    assert resolve_instance("one") == "one"
    monkeypatch.setenv("KLSHM_INSTANCE", "two")
    assert resolve_instance() == "two"
    with klshm.attach() as reader:
        assert reader.instance == "two"
    assert resolve_instance("one") == "one", "what is said counts more than the environment"


def test_the_only_running_engine_is_taken(make_desk: Callable[..., Desk]) -> None:
    with pytest.raises(InstanceNotFound, match="no engine runs here"):
        klshm.attach()
    make_desk("one")
    assert resolve_instance() == "one"
    stopped = make_desk("two")
    stopped.words[lay.H_STATE] = lay.STATE_CLOSED
    assert resolve_instance() == "one", "what has stopped does not count"
    make_desk("three")
    with pytest.raises(InstanceAmbiguous, match="2 engines run here: one, three; name one with --instance"):
        klshm.attach()


def test_leftovers_do_not_count_as_running(make_desk: Callable[..., Desk], tmp_path: Path) -> None:
    make_desk("one")
    (tmp_path / "klshm.broken").write_bytes(b"x" * 100)
    assert running_instances() == ["one"]


def test_an_illegal_name_is_refused(make_desk: Callable[..., Desk]) -> None:
    with pytest.raises(ConfigError, match="instance name 'No!'"):
        klshm.attach("No!")


def test_an_ended_engine_cannot_be_attached_to(desk: Desk) -> None:
    desk.words[lay.H_STATE] = lay.STATE_CLOSED
    with pytest.raises(EngineGone, match="stopped"):
        klshm.attach("test")


def test_silence_is_judged_by_both_arguments(desk: Desk) -> None:
    desk.beat(50.0)
    with pytest.raises(StaleData, match=r"the launcher of .* last showed life \d+\.\d s ago, more than 3 s"):
        klshm.attach("test", gone_after_s=3600.0)
    with pytest.raises(EngineGone, match="more than 40 s"):
        klshm.attach("test", gone_after_s=40.0)
    klshm.attach("test", stale_after_s=3600.0).close()


def test_an_engine_that_never_beat_is_only_starting(desk: Desk) -> None:
    desk.words[desk.block(0) + lay.B_HEARTBEAT_NS] = 0
    klshm.attach("test").close()


DYING = """
import sys
from tests.support.desk import Desk
desk = Desk("dying")
desk.beat(4.0)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_killed_engine_is_gone_at_once(make_desk: Callable[..., Desk]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", DYING],
        env=os.environ,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(StaleData):
            klshm.attach("dying")
        assert running_instances() == ["dying"]
        process.kill()
    with pytest.raises(EngineGone, match="died .* s ago"):
        klshm.attach("dying")
    assert running_instances() == []


@pytest.mark.parametrize(
    ("system", "machine", "words"),
    [("darwin", "x86_64", "this is darwin"), ("linux", "aarch64", "this machine is aarch64")],
)
def test_other_platforms_are_refused(system: str, machine: str, words: str) -> None:
    with pytest.raises(UnsupportedPlatform, match=words):
        check_platform(system, machine)
    check_platform("linux", "x86_64")


def test_only_known_ways_to_wait() -> None:
    with pytest.raises(ValueError, match="expected 'futex' or 'spin'"):
        klshm.attach("test", wait="sleep")  # type: ignore[arg-type]
