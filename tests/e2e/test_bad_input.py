"""Whatever is wrong: one line that says what, what was expected and what to do, and the documented exit code."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from klshm.errors import UnsupportedPlatform
from klshm.run.machine import check_machine, check_packages
from klshm.shm import layout as lay
from klshm.shm.segment import create_segment
from tests.support.engine import environment, launcher, refused
from tests.support.processes import PROJECT, wait_for
from tests.support.segments import make_layout


pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CONFIGURATION, USAGE, ERROR = 4, 2, 1


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--bogus"], USAGE, "unrecognized arguments: --bogus"),
        (["more"], USAGE, "unrecognized arguments: more"),
        (["--workers"], USAGE, "--workers: expected one argument"),
        (["--workers", "-1"], USAGE, "found '-1', expected a whole number, 0 to 64"),
        (["--workers", "100"], USAGE, "found '100', expected a whole number, 0 to 64"),
        (["--workers", "two"], USAGE, "found 'two', expected a whole number, 0 to 64"),
        (["--duration", "-3"], USAGE, "found '-3', expected seconds, 0 or more"),
        (["--duration", "nan"], USAGE, "found 'nan', expected seconds, 0 or more"),
        (["--duration", "soon"], USAGE, "found 'soon', expected seconds, 0 or more"),
        (["--set", "run.workers"], CONFIGURATION, "--set run.workers: expected section.key=value"),
        (["--set", "run.wokers=2"], CONFIGURATION, "unknown key run.wokers, expected workers, affinity, busy_poll"),
        (["--set", "run.workers=many"], CONFIGURATION, 'run.workers = "many", expected a whole number'),
        (["--set", "klines.intervals=1m,7m"], CONFIGURATION, "klines.intervals"),
        (["--set", "segment.log_rows=100"], CONFIGURATION, "segment.log_rows = 100, expected a power of two"),
        (["--set", "segment.max_symbols=9000"], CONFIGURATION, "segment.log_rows = 4096, expected at least"),
        (["--set", "segment.group=no-such-group"], CONFIGURATION, "no such group on this machine"),
        (["--set", "run.affinity=4000"], CONFIGURATION, "run.affinity names core 4000"),
        (["--set", "exchange.rest_url=ftp://host"], CONFIGURATION, "exchange.rest_url"),
        (["--set", "exchange.proxy=ftp://host:1"], CONFIGURATION, "exchange.proxy"),
        (["--config", "no/such/file.toml"], CONFIGURATION, "no/such/file.toml: cannot be read: No such file"),
        (["--config", "configs"], CONFIGURATION, "configs: cannot be read: Is a directory"),
        (["--config", "launcher.py"], CONFIGURATION, "launcher.py: is not valid TOML"),
        (["--config", "pyproject.toml"], CONFIGURATION, "pyproject.toml: unknown key build-system"),
        (["--instance", "BAD name"], CONFIGURATION, "instance name 'BAD name' is not 1 to 32 characters"),
        (["--demo", "--set", "sim.faults=none"], ERROR, "the simulator did not start (exit code 2)"),
    ],
)
def test_a_wrong_option_is_one_line(tmp_path: Path, options: list[str], code: int, text: str) -> None:
    found, line = refused(tmp_path, *options)
    assert (found, text in line) == (code, True), line


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[run]\nworkers = 'two'\n", 'run.workers = "two", expected a whole number'),
        (b"[run]\nworker = 2\n", "unknown key run.worker"),
        (b"[walk]\nworkers = 2\n", "unknown key walk"),
        (b"run = 3\n", "unknown key run"),
        (b"[run]\nworkers = \xff\n", "is not valid TOML"),
        (b"\x00", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    code, line = refused(tmp_path, "--config", str(file), own=True)
    assert code == CONFIGURATION
    assert str(file) in line
    assert text in line


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"CONFIG_PATH": "/no/such.toml"}, "/no/such.toml: cannot be read"),
        ({"KLSHM_RUN__WORKERS": "two"}, 'KLSHM_RUN__WORKERS: run.workers = "two"'),
        ({"KLSHM_RUN__WORKRES": "2"}, "KLSHM_RUN__WORKRES: unknown key run.workres"),
        ({"KLSHM_INSTANCE": "A"}, "KLSHM_INSTANCE"),
        ({"HTTPS_PROXY": "ftp://host:1", "NO_PROXY": ""}, "HTTPS_PROXY or ALL_PROXY = 'ftp://host:1'"),
    ],
)
def test_a_wrong_variable_is_one_line(tmp_path: Path, variables: dict[str, str], text: str) -> None:
    code, line = refused(tmp_path, "--set", f"data.directory={tmp_path}", own=True, **variables)
    assert (code, text in line) == (CONFIGURATION, True), line


def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, line = refused(tmp_path, "--set", f"data.directory={tmp_path}/file")
    assert (code, "data.directory: cannot write to" in line) == (CONFIGURATION, True), line
    assert "--set data.directory=" in line
    (tmp_path / "data" / "demo" / "lock").mkdir(parents=True)
    code, line = refused(tmp_path)
    assert (code, "lock: Is a directory" in line) == (CONFIGURATION, True), line


def test_shared_memory_that_is_too_small(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("a small tmpfs can be mounted by root only")
    try:
        code, line = refused(tmp_path, KLSHM_SHM_DIRECTORY=str(small))
        assert code == ERROR
        assert f"{small} has 4 MiB free, the segment needs" in line
        assert "segment.max_symbols" in line
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_shared_memory_that_is_not_there(tmp_path: Path) -> None:
    code, line = refused(tmp_path, KLSHM_SHM_DIRECTORY=str(tmp_path / "none"))
    assert (code, "is" in line and "a tmpfs that you may write to?" in line) == (ERROR, True), line


def test_a_python_without_the_packages(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "launcher.py"], capture_output=True, text=True, cwd=PROJECT, env=environment(tmp_path)
    )
    assert done.returncode == ERROR
    assert done.stderr.startswith("launcher: not installed for ")
    assert done.stderr.endswith("run: pip install -r requirements.txt\n")
    with pytest.raises(UnsupportedPlatform, match="not installed for .*: no_such_package; run: pip install"):
        check_packages(["numpy", "no_such_package"])


def test_a_machine_that_cannot_run_it() -> None:
    check_machine("linux", "x86_64")
    with pytest.raises(UnsupportedPlatform, match="needs Linux .* this is darwin; run it on Linux"):
        check_machine("darwin", "arm64")
    for machine in ("aarch64", "riscv64"):
        with pytest.raises(UnsupportedPlatform, match=f"memory order of x86_64, this is {machine}"):
            check_machine("linux", machine)


@pytest.mark.parametrize("version", [(3, 10, 12), (3, 15, 0)])
def test_a_python_that_cannot_run_it(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match="launcher: klshm needs Python 3.11 to 3.14, this is "):
        runpy.run_path(str(PROJECT / "launcher.py"))


@pytest.mark.parametrize("option", ["-h", "--help", "-v", "--version"])
def test_help_and_version_load_no_compiler(tmp_path: Path, option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "launcher.py", option],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(tmp_path),
    )
    assert done.returncode == 0
    assert "klshm" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "klshm.run.launch" in loaded
    assert not loaded & {"numba", "lmdb", "aiohttp", "picows", "uvloop"}


# What lies where the segment shall be


@pytest.mark.parametrize("kind", ["foreign", "short", "other layout"])
def test_a_segment_that_cannot_be_read_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    shared = Path(environment(tmp_path)["KLSHM_SHM_DIRECTORY"])
    left = shared / "klshm.demo"
    if kind == "other layout":
        monkeypatch.setenv("KLSHM_SHM_DIRECTORY", str(shared))
        made = create_segment("demo", make_layout(), b"{}")
        made.words[lay.H_VERSION] = (lay.VERSION_MAJOR + 1) << 16
        made.close()
    else:
        left.write_bytes(np.random.default_rng(1).bytes(100_000 if kind == "foreign" else 100))
    content = left.read_bytes()
    with launcher(tmp_path, "--set", "exchange.rest_url=http://127.0.0.1:9") as running:
        running.wait_said("a segment that cannot be read was left")
        wait_for(lambda: left.exists(), explain=running.text)
        assert running.end() == 0, running.text()
        assert running.left() == ["klshm.demo.unreadable"]
        assert (shared / "klshm.demo.unreadable").read_bytes() == content
        assert "Traceback" not in running.text()


@pytest.mark.parametrize("readable", [True, False])
def test_a_segment_whose_engine_lives_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    monkeypatch.setenv("KLSHM_SHM_DIRECTORY", environment(tmp_path)["KLSHM_SHM_DIRECTORY"])
    made = create_segment("demo", make_layout(), b"{}")
    if not readable:
        made.words[lay.H_MAGIC] = 0
    content = made.path.read_bytes()
    code, line = refused(tmp_path)  # its creator, this process, holds the lock
    assert (code, "instance 'demo' is running" in line) == (ERROR, True), line
    assert made.path.read_bytes() == content
    made.unlink()
    made.close()


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    left = Path(environment(tmp_path)["KLSHM_SHM_DIRECTORY"]) / "klshm.demo"
    left.mkdir()
    code, line = refused(tmp_path)
    assert (code, "in the way and no file; remove it" in line) == (ERROR, True), line
    assert left.is_dir()


def test_a_second_engine_of_the_same_name(tmp_path: Path) -> None:
    with launcher(tmp_path, "--set", "exchange.rest_url=http://127.0.0.1:9") as running:
        running.wait_said("kernels loaded")
        code, line = refused(tmp_path)
        assert (code, "instance 'demo' is running" in line) == (ERROR, True), line
        code, line = refused(tmp_path, "--set", f"data.directory={tmp_path}/other")
        assert (code, "instance 'demo' is running" in line) == (ERROR, True), line
        assert "choose another --instance" in line
        assert running.process.poll() is None
        assert running.end(signal.SIGTERM) == 0, running.text()
        assert running.left() == []
