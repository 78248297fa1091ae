"""Every command: help, exit codes, the instance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from klshm.version import __version__
from tests.commands.support import Run, process
from tests.support.desk import Desk


def test_help_of_every_noun(run: Run) -> None:
    top = run("--help")
    assert top.code == 0 and "exit codes: 0 ok, 1 error" in " ".join(top.out.split())
    nouns = re.findall(r"^    (\w+) ", top.out, re.MULTILINE)
    expected = "status symbols live history closed top snapshot audit fsck doctor backfill layout config"
    assert nouns == expected.split()
    for noun in nouns:
        assert "--json" in run(noun, "--help").out
    for verb in ("show", "explain", "check", "default"):
        assert run("config", verb, "--help").code == 0
    assert run("--version").out == f"klshm {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["history"], ["closed", "--when", "later"], ["config"]])
def test_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


@pytest.mark.parametrize("value", ["-1", "x"])
def test_counts_are_checked(run: Run, value: str) -> None:
    found = run("history", "BTCUSDT", "1m", "--limit", value)
    assert found.code == 2 and f"invalid count value: '{value}'" in found.err


@pytest.mark.parametrize("noun", [["status"], ["symbols"], ["live"], ["history", "X"], ["closed"], ["top", "--once"]])
def test_without_an_engine_it_is_exit_code_3(make_desk: object, run: Run, noun: list[str]) -> None:
    found = run(*noun, "--json")
    assert (found.code, found.out) == (3, "")
    assert found.err.startswith("klshm: no engine runs here") and found.err.count("\n") == 1


def test_the_instance_may_stand_on_both_sides(make_desk: Callable[..., Desk], run: Run) -> None:
    for name in ("one", "two"):
        make_desk(name).list_symbol(f"{name.upper()}USDT")
    found = run("symbols", "--json")
    assert found.code == 2 and "2 engines run here: one, two" in found.err
    for arguments in (["--instance", "two", "symbols", "--json"], ["symbols", "--instance", "two", "--json"]):
        assert [row["symbol"] for row in run(*arguments).document] == ["TWOUSDT"]
    assert run("--json", "--instance=one", "symbols").document[0]["symbol"] == "ONEUSDT"
    assert run("--instance", "three", "symbols").code == 3
    assert run("--instance", "No!", "symbols").code == 4


def test_stale_data_is_exit_code_6(desk: Desk, run: Run) -> None:
    desk.beat(5.0)
    assert run("live", "BTCUSDT", "1m").code == 6
    assert run("status", "--json").document["state"] == "serving", "the status of a silent engine can be read"


def test_the_module_runs(desk: Desk) -> None:
    with process("symbols", "--json") as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, "")
    assert len(json.loads(out)) == 2
