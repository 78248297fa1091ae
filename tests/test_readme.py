"""Every command of the README, run as it stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import engine
from tests.support.exchange import exchange


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"<!-- command: (\w+) -->\n```\w+\n(.*?)```", README, re.DOTALL))


def test_the_readme_has_its_commands() -> None:
    assert set(COMMANDS) == {"demo", "look", "live", "read", "test"}
    assert "--workers 4 --demo" in COMMANDS["demo"]
    assert COMMANDS["demo"].count("\n") == COMMANDS["test"].count("\n") == 1, "each is one command"


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_the_commands_that_look_at_an_engine_work(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "8", "--rate", "100", "--start-at", "2026-11-20T12:00:40Z") as market,
        engine(tmp_path, market, "readme", "--workers", "2") as running,
    ):
        running.wait_live()
        environment = {**running.environment, "KLSHM_INSTANCE": "readme"}
        for line in COMMANDS["look"].splitlines():
            command = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(line)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert done.stdout.strip(), line
        code = COMMANDS["read"]
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2, done.stdout


def test_the_requirements_are_those_of_the_engine_extra() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["engine"]}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == wanted
