from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from klshm.doctor import machine
from klshm.doctor.lines import Line
from tests.commands.support import Run
from tests.support.processes import PROJECT


def test_both_forms_and_the_exit_code(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"--set=data.directory={tmp_path / 'data'}"
    monkeypatch.setattr(machine, "files", lambda: [Line("limits", "ok", "many")])
    document = run("doctor", "--json", where, "--instance", "here").document
    assert document["instance"] == "here"
    assert document["ok"] + document["warn"] + document["bad"] == len(document["lines"])
    topics = {line["topic"] for line in document["lines"]}
    assert {"system", "Python", "packages", "cores", "limits", "shared memory", "data", "disk", "clock"} <= topics
    assert all(bool(line["advice"]) or line["verdict"] == "ok" for line in document["lines"])
    monkeypatch.setattr(machine, "files", lambda: [Line("limits", "bad", "64 open files", "ulimit -n 1024")])
    people = run("doctor", where)
    assert people.code == 1 and "bad   limits         64 open files -> ulimit -n 1024\n" in people.out
    assert not (tmp_path / "data").exists()


def test_it_needs_neither_the_compiler_nor_the_network(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('numba', 'aiohttp', 'lmdb', 'uvloop', 'picows', 'msgspec', 'psutil'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'numba' else found(name, package)\n"
        "from klshm.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    options = ["doctor", f"--set=data.directory={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, cwd=PROJECT)
    assert done.stderr == "" and "packages" in done.stdout
