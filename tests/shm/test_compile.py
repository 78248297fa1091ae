"""Where compiled kernels are kept: apart for every version of the sources, in a private place, or nowhere."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klshm.shm import compile as under_test
from klshm.shm.compile import cache_directory, kernel, kernel_sources


PACKAGE = Path(under_test.__file__).parents[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing but the places named by the test be usable."""
    monkeypatch.delenv("KLSHM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.chdir("/proc")
    return tmp_path


def test_the_first_usable_place_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() is None
    monkeypatch.chdir(home)
    found = [cache_directory()]
    monkeypatch.setenv("HOME", str(home / "home"))
    found.append(cache_directory())
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    found.append(cache_directory())
    monkeypatch.setenv("KLSHM_CACHE", "~/cache")
    found.append(cache_directory())
    assert all(found)
    digest = found[0].name  # type: ignore[union-attr]
    places = [Path("data"), home / "home" / ".cache", home / "xdg", home / "home" / "cache"]
    assert found == [place / "klshm" / "kernels" / digest for place in places]
    assert [path.stat().st_mode & 0o777 for path in found if path] == [0o700] * 4


def test_a_place_that_others_may_write_to_is_not_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are pickles: who may write them runs code as us."""
    monkeypatch.setenv("KLSHM_CACHE", str(home))
    directory = cache_directory()
    assert directory is not None
    directory.chmod(0o770)
    assert cache_directory() is None
    directory.chmod(0o700)
    assert cache_directory() == directory
    if os.getuid() == 0:
        os.chown(directory, 65534, 65534)
        assert cache_directory() is None


def test_a_user_without_a_home(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root: another user")
    code = """
import os, klshm.shm.compile as c
del os.environ["HOME"]
os.setuid(54321)  # no such user, as in some containers
print(c.cache_directory())
"""
    environment = {**os.environ, "KLSHM_CACHE": str(home)}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_every_source_that_kernels_use_is_part_of_the_key() -> None:
    """Numba's own cache looks at the file of the kernel alone: it would run old callees and constants."""
    code = """
import sys
from klshm.run.kernels import load_kernels
load_kernels()
print(*(module.__file__ for name, module in sys.modules.items() if name.startswith(("klshm.shm", "klshm.core"))))
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = {Path(name) for name in done.stdout.split()}
    assert PACKAGE / "core" / "kernel" / "apply.py" in loaded
    assert loaded <= set(kernel_sources())


def test_kernels_take_nothing_from_elsewhere() -> None:
    import ast

    for source in kernel_sources():
        if source.parent.name != "kernel":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("klshm") or node.module.startswith(("klshm.core", "klshm.shm"))


@pytest.mark.parametrize("name", ["shm/layout.py", "core/kernel/rows.py"])
def test_a_changed_source_has_a_cache_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KLSHM_CACHE", str(home / "cache"))
    before = cache_directory()
    changed = PACKAGE / name
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path == changed))
    after = cache_directory()
    assert before is not None and after is not None and before != after


def test_without_a_place_there_is_a_warning_and_no_cache(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert under_test._prepare() is False
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "they are compiled anew at every start" in caplog.text
    before = sys.modules["numba"].config.CACHE_DIR
    monkeypatch.setenv("KLSHM_CACHE", str(home))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    try:
        assert under_test._prepare() is True
        assert sys.modules["numba"].config.CACHE_DIR == os.environ["NUMBA_CACHE_DIR"] == str(cache_directory())
    finally:
        sys.modules["numba"].config.CACHE_DIR = before


def test_kernels_with_and_without_signatures() -> None:
    @kernel("int64(int64, int64)", cache=False)
    def add(one, other):
        return one + other

    @kernel(cache=False)
    def half(value):
        return value / 0 if value == 0 else value / 2

    assert add(2, 3) == 5
    assert half(3) == 1.5
