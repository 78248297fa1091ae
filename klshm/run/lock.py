"""The directory of an instance, and the lock that says who owns it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from klshm.config import Config
from klshm.errors import ConfigError, InstanceRunning


__all__ = ["InstanceLock", "data_directory"]

_WAIT_S: Final = 5.0
_LOOK_S: Final = 0.05


def data_directory(config: Config) -> Path:
    """Return the directory of the instance, made and found writable.

    Raises:
        ConfigError: If it cannot be made or written to.
    """
    directory = Path(config.data.directory) / config.instance
    probe = directory / f".probe.{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


class InstanceLock:
    """The lock on the instance's directory; a context manager, inherited by every role on purpose.

    It is held until the last process of the engine is dead.

    Args:
        directory: Directory of the instance.
        instance: Its name, for messages.
        wait_s: How long to wait for an engine that is just ending.
    """

    def __init__(self, directory: Path, instance: str, wait_s: float = _WAIT_S) -> None:
        self._path = directory / "lock"
        self._instance = instance
        self._wait_s = wait_s
        self._descriptor = -1

    def __enter__(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self._path, error) from error
        try:
            self._take()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __exit__(self, *error: object) -> None:
        os.close(self._descriptor)

    def _take(self) -> None:
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise InstanceRunning(
                        f"instance {self._instance!r} is running (it holds {self._path}); "
                        "stop it or choose another --instance"
                    ) from None
            # A lock that is waited for in the kernel knows no timeout: looking is all there is.
            time.sleep(_LOOK_S)


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"data.directory: cannot write to {path}: {error.strerror}; choose another with --set data.directory=..."
    )
