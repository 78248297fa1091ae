from __future__ import annotations

import os
import platform
import resource
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from klshm.config import Config, RunConfig, SegmentConfig
from klshm.doctor import machine


def verdicts(lines: list[Any]) -> list[tuple[str, str]]:
    return [(line.topic, line.verdict) for line in lines]


@pytest.mark.parametrize(
    ("release", "verdict"), [("6.18.1", "ok"), ("5.16.0-1", "ok"), ("5.10.0-28-amd64", "warn"), ("5.2.9", "bad")]
)
def test_kernels(monkeypatch: pytest.MonkeyPatch, release: str, verdict: str) -> None:
    monkeypatch.setattr(platform, "release", lambda: release)
    lines = machine.system()
    assert verdicts(lines) == [("system", verdict), ("Python", "ok")]
    assert bool(lines[0].advice) == (verdict != "ok")


def test_other_machines_and_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PYTHON", ((2, 7), (3, 0)))
    assert verdicts(machine.system())[1] == ("Python", "bad")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    (line,) = machine.system()
    assert line.verdict == "bad" and "riscv64" in line.advice


def test_requirements_of_the_package() -> None:
    assert machine.requirement("numpy<3,>=2.0") == ("numpy", "<3,>=2.0", "")
    assert machine.requirement('python-socks[asyncio] (<3,>=2.7) ; extra == "engine"') == (
        "python-socks", "<3,>=2.7", "engine",
    )
    assert machine.requirement("ruff; extra == 'dev'") == ("ruff", "", "dev")
    assert machine.requirement("?") == ("?", "", "")


def test_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert verdicts(machine.packages()) == [("packages", "ok")]
    engine = ['lmdb>=2.3; extra == "engine"', 'nonesuch>=1; extra == "engine"']
    wanted = ["numpy<2.0,>=1.0", *engine, 'ruff<0; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    lines = machine.packages()
    assert verdicts(lines) == [("packages", "ok"), ("packages", "warn"), ("packages", "bad")]
    assert "(tested: <2.0,>=1.0)" in lines[1].found and "nonesuch" in lines[2].found

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert verdicts(machine.packages()) == [("packages", "warn")]


def test_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    monkeypatch.setattr(machine, "_text", lambda path: (tmp_path / path.name).read_text() if
                        (tmp_path / path.name).exists() else "")
    wanted = {4: "ok", 5: "warn"}
    for workers, verdict in wanted.items():
        assert verdicts(machine.cores(Config(run=RunConfig(workers=workers)))) == [("cores", verdict)]
    assert verdicts(machine.cores(Config(run=RunConfig(workers=4, busy_poll=True)))) == [("cores", "warn")]
    (tmp_path / "isolated").write_text("2-3")
    (tmp_path / "scaling_governor").write_text("powersave")
    (tmp_path / "cpu.max").write_text("150000 100000")
    lines = machine.cores(Config(run=RunConfig(workers=2)))
    assert verdicts(lines) == [("cores", "ok"), ("governor", "warn"), ("quota", "warn")]
    assert "isolated: 2-3" in lines[0].found and "1.5 cores" in lines[2].found
    (tmp_path / "cpu.max").write_text("max 100000")
    (tmp_path / "scaling_governor").write_text("performance")
    assert verdicts(machine.cores(Config(run=RunConfig(workers=2)))) == [("cores", "ok"), ("governor", "ok")]


@pytest.mark.parametrize(("soft", "verdict"), [(64, "bad"), (512, "warn"), (4096, "ok")])
def test_files(monkeypatch: pytest.MonkeyPatch, soft: int, verdict: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, 9999))
    assert verdicts(machine.files()) == [("limits", verdict)]


def test_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert machine.memory(Config(), meminfo) == []
    meminfo.write_text("MemTotal: 99 kB\nMemAvailable:   8000000 kB\n")
    assert verdicts(machine.memory(Config(), meminfo)) == [("memory", "ok")]
    large = Config(segment=SegmentConfig(max_symbols=60_000))
    assert verdicts(machine.memory(large, meminfo)) == [("memory", "warn")]
    assert machine.memory(Config())[0].verdict in ("ok", "warn")
