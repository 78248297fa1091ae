"""Loading the kernels before anything is forked."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klshm.run import kernels


KERNELS = Path(kernels.__file__).parents[1] / "core" / "kernel"


def test_every_module_of_kernels_is_loaded() -> None:
    there = {f"klshm.core.kernel.{path.stem}" for path in KERNELS.glob("*.py") if path.stem != "__init__"}
    assert there <= set(kernels._MODULES)
    assert kernels.load_kernels() >= 0.0
    assert set(kernels._MODULES) <= set(sys.modules)


def test_progress_is_told_only_where_it_takes_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    kernels.load_kernels()
    assert caplog.text == ""
    monkeypatch.setattr(kernels, "_SLOW_S", -1.0)
    kernels.load_kernels()
    first, *others = [record.getMessage() for record in caplog.records]
    assert first.startswith("compiling kernels; this happens once per version")
    assert len(others) == len(kernels._MODULES)
    assert others[-1].startswith(f"compiling kernels done={len(others)} of={len(others)} elapsed_s=")


def test_a_process_that_is_to_be_forked_has_one_thread() -> None:
    """What has threads cannot be forked safely; numpy alone would start some."""
    code = """
import os
from klshm.run.kernels import load_kernels
load_kernels()
print(len(os.listdir("/proc/self/task")))
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_every_kernel_module_is_named_after_those_it_calls() -> None:
    import re
    from pathlib import Path

    import klshm.core.kernel as package

    directory = Path(package.__file__).parent
    files = {path.stem for path in directory.glob("*.py")} - {"__init__"}
    assert set(package.MODULES) == files
    for number, name in enumerate(package.MODULES):
        calls = set(re.findall(r"from klshm\.core\.kernel\.(\w+)", (directory / f"{name}.py").read_text()))
        assert calls <= set(package.MODULES[:number]), f"{name} stands before what it calls"


def test_processes_that_start_together_take_turns(tmp_path: Path) -> None:
    """The second waits for the lock that the first holds while it compiles."""
    import fcntl

    from klshm.shm.compile import cache_directory

    directory = cache_directory()
    assert directory is not None
    looks = []
    with (directory / "turn").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def look() -> None:
            looks.append(1)
            if len(looks) == 3:
                fcntl.flock(held, fcntl.LOCK_UN)

        kernels.load_kernels(look)
    assert len(looks) == 3 + len(kernels._MODULES)
