"""Loading the kernels before anything is forked."""

from __future__ import annotations

import ast
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from klshm.core.kernel import WAVES
from klshm.run import kernels
from klshm.shm.compile import COMPILED
from tests.support.processes import PROJECT, engine_processes


KERNELS = Path(kernels.__file__).parents[1] / "core" / "kernel"


def test_every_module_of_kernels_is_loaded() -> None:
    there = {f"klshm.core.kernel.{path.stem}" for path in KERNELS.glob("*.py") if path.stem != "__init__"}
    assert kernels.load_kernels() >= 0.0
    assert there <= set(sys.modules)


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
    assert len(others) == kernels._NUMBER
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


def test_no_wave_needs_what_comes_after_it_or_is_compiled_beside_it() -> None:
    done: set[str] = set()
    for here, beside in WAVES:
        for group in (here, beside):
            known = set(done)
            for name in group:
                calls = set(re.findall(r"from klshm\.core\.kernel\.(\w+)", (KERNELS / f"{name}.py").read_text()))
                late = calls - known
                assert not late or group is beside and late <= set(here), f"{name} is compiled before {late}"
                known.add(name)
        done |= {*here, *beside}
    assert done == {path.stem for path in KERNELS.glob("*.py")} - {"__init__"}


def test_a_kernel_is_merged_into_the_only_one_that_calls_it() -> None:
    """One with several callers would be compiled several times, one with none not at all."""
    merged, calls = set(), Counter[str]()
    for path in KERNELS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "merged" in {ast.unparse(mark) for mark in node.decorator_list}:
                merged.add(node.name)
            if isinstance(node, ast.Call):
                calls[ast.unparse(node.func)] += 1
    assert merged and {name: calls[name] for name in merged} == dict.fromkeys(merged, 1)


@pytest.mark.skipif(not COMPILED, reason="nothing to compile")
def test_a_cold_start_compiles_in_two_processes_what_a_warm_one_finds(tmp_path: Path) -> None:
    code = """
import importlib, logging, os
from klshm.run import kernels
kernels._COLD_S = -1.0
kernels._WAVES = ((("klshm.shm.exact",), ()), (("klshm.shm.ring",), ("klshm.shm.halves",)))
forks = []
os.register_at_fork(after_in_parent=lambda: forks.append(1))
kernels.load_kernels()
from klshm.shm.halves import mark_row
print(len(forks), sum(mark_row.stats.cache_hits.values()), sum(mark_row.stats.cache_misses.values()))
"""
    environment = {**os.environ, "KLSHM_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1 1 0\n"


def test_who_gives_up_ends_the_second_compiler_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_COLD_S", -1.0)
    monkeypatch.setattr(kernels, "_WAVES", ((("time",), ("klshm.core.engine",)),))
    family = engine_processes(os.getpid())

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kernels.load_kernels(stop)
    assert engine_processes(os.getpid()) == family


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
    # Engines of other tests may take a turn in between.
    assert len(looks) >= 3 + kernels._NUMBER


def test_where_nothing_can_be_cached_kernels_are_loaded_all_the_same() -> None:
    code = "from klshm.run.kernels import load_kernels; load_kernels(); import klshm.core.engine"
    nowhere = dict.fromkeys(("KLSHM_CACHE", "XDG_CACHE_HOME", "HOME"), "/proc/none")
    environment = {**os.environ, **nowhere, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/proc", capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "no private directory for compiled kernels; they are compiled anew at every start\n"
