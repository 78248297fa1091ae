"""What happens to the segment of a dead engine, case by case."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from klshm.config import Config, DataConfig, ExchangeConfig, HistorianConfig, settings
from klshm.errors import InstanceRunning, KlshmError, SegmentError
from klshm.run.early_stop import EarlyStop, StoppedEarly
from klshm.run.recover import ASIDE, recover, set_aside
from klshm.shm import layout as lay
from klshm.shm.segment import create_segment, instance_names, segment_path
from tests.support.processes import engine_processes, exit_code, fork
from tests.support.segments import make_layout


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(tmp_path))
    (tmp_path / "data").mkdir()
    return tmp_path


OURS = "https://exchange.example"


def config(shared: Path, *, keep: bool = True, rest_url: str = OURS) -> Config:
    """Return the configuration of an engine whose data lies in a test's directory."""
    return Config(
        instance="left",
        data=DataConfig(directory=str(shared)),
        exchange=ExchangeConfig(rest_url=rest_url),
        historian=HistorianConfig(from_archive=keep),
    )


def leave(*, magic: int = lay.MAGIC, state: int = lay.STATE_SERVING, config_json: bytes = b"{}") -> Path:
    """Leave a segment behind, as an engine does that is killed."""
    segment = create_segment("left", make_layout(), config_json)
    segment.words[lay.H_STATE] = state
    segment.words[lay.H_MAGIC] = magic
    segment.close()
    return segment.path


@contextmanager
def taken(early: EarlyStop) -> Iterator[None]:
    """Let the two signals end a start while the block runs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    early.install()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_nothing_left_is_nothing_to_do(shared: Path) -> None:
    recover(config(shared, keep=False), shared / "data")
    assert list((shared / "data").iterdir()) == []


def test_a_dead_segment_is_drained_and_removed(shared: Path) -> None:
    path = leave()
    descriptors = len(os.listdir("/proc/self/fd"))
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()
    assert (shared / "data" / "journal").exists()
    assert len(os.listdir("/proc/self/fd")) == descriptors  # the launcher keeps nothing open


def test_a_segment_that_never_served_is_no_source(shared: Path) -> None:
    """It was being seeded when its start was cut off: rows in it may be half written."""
    path = leave(state=lay.STATE_STARTING)
    assert recover(config(shared), shared / "data") is None
    assert not path.exists()
    assert not (shared / "data" / "journal").exists()


def test_what_a_dead_segment_held_is_kept_when_wanted(shared: Path) -> None:
    leave()
    held = recover(config(shared), shared / "data")
    assert held is not None
    found = held.read()
    assert (found.state.origin, len(found.state.symbols), found.clock) == ("segment", 0, None)
    held.close()


def test_what_cannot_be_saved_stays(shared: Path) -> None:
    path = leave()
    (shared / "data" / "journal").write_text("no directory")
    with pytest.raises(KlshmError, match="could not be saved, see the message above; mend that and start again"):
        recover(config(shared, keep=False), shared / "data")
    assert path.exists()
    (shared / "data" / "journal").unlink()
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()


def test_an_unreadable_segment_is_set_aside_and_hides_from_readers(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = leave(magic=1)
    content = path.read_bytes()
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()
    assert Path(f"{path}{ASIDE}").read_bytes() == content
    assert f"aside={path}{ASIDE}" in caplog.text
    assert instance_names() == []


@pytest.mark.parametrize("magic", [lay.MAGIC, 1])
def test_the_segment_of_a_living_engine_is_not_touched(shared: Path, magic: int) -> None:
    segment = create_segment("left", make_layout(), b"{}")
    segment.words[lay.H_MAGIC] = magic
    with pytest.raises(InstanceRunning, match="instance 'left' is running"):
        recover(config(shared, keep=False), shared / "data")
    assert segment.path.exists()
    segment.close()


@pytest.mark.parametrize("kind", ["directory", "pipe", "dangling link"])
def test_what_is_no_file_is_named_and_left(shared: Path, kind: str) -> None:
    path = segment_path("left")
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(shared / "nowhere")
    with pytest.raises(SegmentError, match="is in the way and .*; remove it or choose another --instance"):
        recover(config(shared, keep=False), shared / "data")
    assert os.path.lexists(path)


def test_every_unreadable_segment_is_kept(shared: Path) -> None:
    wanted = []
    for number in (1, 2, 3):
        wanted.append(leave(magic=number).read_bytes())
        recover(config(shared), shared / "data")
    assert sorted(path.read_bytes() for path in set_aside("left")) == sorted(wanted)
    assert [path.name for path in set_aside("left")] == [f"klshm.left{ASIDE}{end}" for end in ("", ".2", ".3")]
    assert instance_names() == []


def test_what_cannot_be_set_aside_is_named_and_left(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = leave(magic=1)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(SegmentError, match="is in the way and cannot be renamed: Operation not permitted; remove it"):
        recover(config(shared), shared / "data")
    assert path.exists()


# Whose it is


@pytest.mark.parametrize("magic", [lay.MAGIC, 1])
def test_the_segment_of_another_user_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch, magic: int) -> None:
    path, owner = leave(magic=magic), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(SegmentError, match=f"belongs to user {owner}, this engine runs as {owner + 1}; .* --instance"):
        recover(config(shared), shared / "data")
    assert path.exists()
    assert list((shared / "data").iterdir()) == []


@pytest.mark.parametrize("state", [lay.STATE_STARTING, lay.STATE_SERVING])
@pytest.mark.parametrize(("key", "theirs"), [("data.directory", "/elsewhere"), ("exchange.rest_url", "https://b.c")])
def test_the_segment_of_another_directory_or_exchange_is_refused(
    shared: Path, key: str, theirs: str, state: int
) -> None:
    other = config(shared)
    if key == "data.directory":
        other = dataclasses.replace(other, data=DataConfig(directory=theirs))
    else:
        other = config(shared, rest_url=theirs)
    path = leave(state=state, config_json=settings.to_json(other))
    with pytest.raises(SegmentError, match=f"whose {key} is {theirs}, this one's is .*; start with that one to save"):
        recover(config(shared), shared / "data")
    assert path.exists()
    assert list((shared / "data").iterdir()) == []
    recover(other, shared / "data")
    assert not path.exists()


@pytest.mark.parametrize(
    "theirs", [OURS, f"{OURS}/", "http://127.0.0.1:1234", "http://localhost:1", "http://[::1]:7", "http://127.3.2.1"]
)
def test_our_own_segment_is_taken_through_a_link_too(shared: Path, theirs: str) -> None:
    """And a simulator's, which has another port each time."""
    (shared / "link").symlink_to(shared)
    path = leave(config_json=settings.to_json(config(shared / "link", rest_url=theirs)))
    recover(config(shared), shared / "data")
    assert not path.exists()


@pytest.mark.parametrize("text", [b"[1]", b"\xff", b'{"data": 1}', b'{"data": {"directory": 1}}', b""])
def test_a_segment_that_does_not_say_whose_it_is_is_taken_as_ours(shared: Path, text: bytes) -> None:
    path = leave(config_json=text)
    recover(config(shared), shared / "data")
    assert not path.exists()


def test_a_link_to_a_segment_of_ours_is_no_segment(shared: Path) -> None:
    target = leave().rename(shared / "target")
    segment_path("left").symlink_to(target)
    with pytest.raises(SegmentError, match="is in the way and cannot be opened"):
        recover(config(shared), shared / "data")
    assert target.exists()


def test_without_room_for_a_process_nothing_is_lost(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    path, mask = leave(), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with monkeypatch.context() as patch, pytest.raises(BlockingIOError):
        patch.setattr(os, "fork", refuse)
        recover(config(shared, keep=False), shared / "data")
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()


def test_a_fault_of_ours_ends_the_child_and_leaves_the_segment(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(segment: object, directory: object) -> str:
        raise RuntimeError("a bug")

    path = leave()
    with monkeypatch.context() as patch, pytest.raises(KlshmError, match="could not be saved"):
        patch.setattr("klshm.store.recovery.drain_segment", broken)
        recover(config(shared, keep=False), shared / "data")
    assert path.exists()
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()


def test_a_signal_while_the_child_drains_kills_it(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(segment: object, directory: object) -> str:
        os.kill(os.getppid(), signal.SIGTERM)
        while True:
            signal.pause()

    path, family = leave(), engine_processes(os.getpid())
    monkeypatch.setattr("klshm.store.recovery.drain_segment", hang)
    with taken(EarlyStop()), pytest.raises(StoppedEarly):
        recover(config(shared, keep=False), shared / "data")
    assert engine_processes(os.getpid()) == family
    assert path.exists()


def test_a_signal_ends_recovery_and_it_can_be_repeated(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, family, launcher = leave(), engine_processes(os.getpid()), os.getpid()
    # However far it is when the signal comes: either it was done, or the segment is still there.
    with taken(EarlyStop()), caplog.at_level(logging.INFO, "klshm"), pytest.raises(StoppedEarly):
        killer = fork(lambda: (time.sleep(0.002), os.kill(launcher, signal.SIGTERM)))
        recover(config(shared, keep=False), shared / "data")
        while True:
            time.sleep(1)
    assert exit_code(killer) == 0
    assert "stopping before the engine was up signal=SIGTERM" in caplog.text
    assert engine_processes(os.getpid()) == family  # the child is dead
    recover(config(shared, keep=False), shared / "data")
    assert not path.exists()
