"""The command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench.__main__ as command
from bench.report import BEGIN, END
from bench.rows import ROWS


def test_list_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {row.name for row in ROWS} <= {line.split()[0] for line in lines}


def test_an_unknown_name_is_refused_and_the_known_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["kernel", "kernle"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("bench: no row 'kernle'; rows are burst, kernel, ")


def test_a_row_is_measured_printed_saved_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "REPORT.md"
    report.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr(command, "_REPORT", report)
    saved = tmp_path / "figures.json"
    assert command.main(["ring", "--quick", "--json", str(saved), "--report"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1].split()[0] == "ring"
    assert "peers: nautilus_trader " in said
    document = json.loads(saved.read_text())
    assert document["about"]["machine"]["cpu"]
    assert document["about"]["versions"]["numpy"]
    assert len(document["runs"]["micro.ring"]) == 3
    assert document["rows"][0]["figure"] > 0
    text = report.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| ring | log entry written |" in text
    assert "old" not in text
