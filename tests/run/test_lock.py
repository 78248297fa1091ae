"""Who owns the directory of an instance."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from klshm.config import Config, DataConfig
from klshm.errors import ConfigError, InstanceRunning
from klshm.run.lock import InstanceLock, data_directory


def test_the_directory_is_made_private_and_found_writable(tmp_path: Path) -> None:
    directory = data_directory(Config(instance="one", data=DataConfig(str(tmp_path / "deep" / "data"))))
    assert directory == tmp_path / "deep" / "data" / "one"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write to .*/file/main: Not a directory; choose another with --set"):
        data_directory(Config(data=DataConfig(str(tmp_path / "file"))))


def test_a_lock_is_held_until_the_last_who_inherited_it_is_dead(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with InstanceLock(tmp_path, "one"):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)  # until the test closes its end
            os._exit(0)
    with pytest.raises(InstanceRunning, match="instance 'one' is running .* choose another --instance"):
        InstanceLock(tmp_path, "one", wait_s=0.1).__enter__()
    os.close(writing)
    os.waitpid(pid, 0)
    os.close(reading)
    with InstanceLock(tmp_path, "one", wait_s=0.0):
        pass


def test_an_engine_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path, "one")
    first.__enter__()
    threading.Timer(0.2, first.__exit__).start()
    with InstanceLock(tmp_path, "one", wait_s=60.0):
        pass


def test_a_refused_lock_leaves_no_descriptor(tmp_path: Path) -> None:
    with InstanceLock(tmp_path, "one"):
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(InstanceRunning):
            InstanceLock(tmp_path, "one", wait_s=0.0).__enter__()
        assert len(os.listdir("/proc/self/fd")) == before
