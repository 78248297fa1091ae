"""Every command of the README, run as it stands there."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import engine, environment
from tests.support.exchange import exchange
from tests.support.processes import wait_for


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = dict(re.findall(r"<!-- command: (\w+) -->\n```\w+\n(.*?)```", README, re.DOTALL))


def test_the_readme_has_its_commands() -> None:
    assert set(COMMANDS) == {"demo", "look", "live", "history", "keep", "exact", "bench", "read", "test"}
    assert "--workers 4 --demo" in COMMANDS["demo"]
    assert COMMANDS["demo"].count("\n") == COMMANDS["test"].count("\n") == 1, "each is one command"


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_commands_that_look_at_an_engine_work(tmp_path: Path) -> None:
    with (
        exchange("--symbols", "8", "--rate", "100", "--start-at", "2026-11-20T12:00:40Z") as market,
        engine(tmp_path, market, "readme", "--workers", "2") as running,
    ):
        running.wait_live()
        environment = {**running.environment, "KLSHM_INSTANCE": "readme"}
        for line in (COMMANDS["look"] + COMMANDS["keep"]).splitlines():
            done = subprocess.run(words_of(line), cwd=ROOT, env=environment, capture_output=True, text=True)
            # The doctor judges the machine that this runs on.
            assert done.returncode == 0 or ("doctor" in line and done.returncode == 1), f"{line}\n{done.stderr}"
            assert done.stdout.strip(), line
        code = COMMANDS["read"]
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2, done.stdout


def words_of(line: str) -> list[str]:
    return [sys.executable if word in (".venv/bin/python", "python") else word for word in shlex.split(line)]


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_going_live_and_the_commands_beside_it_work_as_they_stand(tmp_path: Path) -> None:
    """The exchange's place is taken by the simulator, by the environment alone."""
    with exchange("--symbols", "8", "--rate", "100", "--start-at", "2026-11-20T12:00:40Z") as market:
        variables = environment(
            tmp_path,
            KLSHM_EXCHANGE__REST_URL=market.rest_url,
            KLSHM_EXCHANGE__WS_URL=f"ws://127.0.0.1:{market.port}",
            KLSHM_DATA__DIRECTORY=str(tmp_path / "data"),
            KLSHM_SEGMENT__MAX_SYMBOLS="64",
        )
        history = words_of(COMMANDS["history"])
        fetched = subprocess.run(history, cwd=ROOT, env=variables, capture_output=True, text=True)
        assert fetched.returncode == 0, fetched.stderr
        assert " rows fetched, 0 series failed" in fetched.stdout
        log = tmp_path / "live.log"
        live = words_of(COMMANDS["live"])
        with log.open("wb") as output:
            process = subprocess.Popen(live, cwd=ROOT, env=variables, stdout=output, stderr=output)
        try:
            wait_for(lambda: " is live:" in log.read_text() or process.poll() is not None, explain=log.read_text)
            # Two minutes have closed, and been confirmed.
            wait_for(lambda: market.now_ms() > market.start_ms + 160_000, explain=log.read_text)
            found = subprocess.run(words_of(COMMANDS["exact"]), cwd=ROOT, env=variables, capture_output=True, text=True)
            assert found.returncode == 0, found.stdout + found.stderr
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait() == 0, log.read_text()


def test_the_bench_measures_a_row_of_its_table() -> None:
    """One of its rows: all of them take ten minutes."""
    done = subprocess.run([*words_of(COMMANDS["bench"].strip()), "amend"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # 1: a target was missed on this machine
    assert "amend" in done.stdout and "failed:" not in done.stdout, done.stdout


def test_every_fault_of_the_table_has_its_test() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text[text.index("## Faults") : text.index("## Imports")]
    named = set(re.findall(r"`((?:tests|bench)/[\w/]+\.py)`", table))
    assert len(named) >= 20
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


def test_the_requirements_are_those_of_the_engine_extra() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["engine"]}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == wanted
