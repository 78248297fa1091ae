"""`config`: what is in force and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands.support import Run
from tests.support.desk import Desk
from tests.support.processes import PROJECT


def test_config_shows_what_is_in_force(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("config", "show", "--json").document["run"]["workers"] == 2
    (tmp_path / "c.toml").write_text("[run]\nworkers = 3\n")
    monkeypatch.setenv("KLSHM_WEB__PORT", "9")
    arguments = ("--config", str(tmp_path / "c.toml"), "--set", "log.level=debug", "--instance", "x")
    document = run("config", "show", *arguments, "--json").document
    assert (document["run"]["workers"], document["web"]["port"], document["log"]["level"]) == (3, 9, "debug")
    assert document["instance"] == "x"
    assert "[run]\nworkers = 3\n" in run("config", "show", *arguments).out
    explained = {row["key"]: row for row in run("config", "explain", *arguments, "--json").document}
    assert explained["run.workers"]["source"] == str(tmp_path / "c.toml") and explained["run.workers"]["default"] == 2
    assert explained["web.port"]["source"] == "KLSHM_WEB__PORT"
    assert explained["run.busy_poll"]["source"] == "default"
    assert explained["run.busy_poll"]["variable"] == "KLSHM_RUN__BUSY_POLL"
    checked = run("config", "check", *arguments, "--json").document
    assert checked["ok"] is True and len(checked["changed"]) == 4
    monkeypatch.delenv("KLSHM_WEB__PORT")
    assert run("config", "check").out == "ok: no file, defaults, 0 keys differ from the defaults\n"


def test_config_explains_one_key(run: Run) -> None:
    text = run("config", "explain", "run.workers").out
    assert text.startswith("run.workers = 2   (default)\n    worker processes")
    assert "KLSHM_RUN__WORKERS" in text
    assert len(run("config", "explain", "run", "--json").document) == 3
    found = run("config", "explain", "run.nothing")
    assert found.code == 4 and "unknown key run.nothing" in found.err


def test_config_default_is_the_shipped_file(run: Run) -> None:
    assert run("config", "default").out == (PROJECT / "configs/klshm.toml").read_text(encoding="utf-8")
    assert run("config", "default", "--json").document["run.workers"] == 2


def test_a_wrong_configuration_is_exit_code_4(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[run]\nworkres = 3\n")
    found = run("config", "check", "--config", "c.toml")
    assert (found.code, found.out) == (4, "")
    assert found.err == (
        "klshm: c.toml: unknown key run.workres, expected workers, affinity, busy_poll; nearest is run.workers\n"
    )


def test_config_of_a_running_engine(desk: Desk, run: Run) -> None:
    assert run("config", "show", "--running", "--json").document["data"]["directory"] == "/nonexistent"
