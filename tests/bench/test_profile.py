"""Where the time goes: every profile in small."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import profile
from bench.support.kernel_names import write_map


ROOT = Path(__file__).resolve().parents[2]


def run(name: str, directory: Path) -> str:
    command = [sys.executable, "-m", "bench.profile", "--quick", name, "--directory", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = (directory / f"profile-{name}.txt").read_text()
    assert text.startswith(f"{name}: ")
    assert f"`python -m bench.profile --quick {name} " in text
    return text


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("kernel", ["ns a touched symbol"]),
        ("burst", ["read, 512 frames at once", "kernel", "all"]),
        ("latency", ["read and kernel", "bare blocking recv()", "klshm with busy_poll"]),
        ("wake", ["the reader's system call", "spinning reader"]),
        ("cut", ["memcpy into warm memory", "(take_cuts)", "(snapshot)"]),
        ("bulk", ["192,000 rows", "'executemany'", "(write)"]),
    ],
)
def test_a_profile_names_its_stages(name: str, lines: list[str], tmp_path: Path) -> None:
    text = run(name, tmp_path)
    assert [line for line in lines if line not in text] == []


@pytest.mark.skipif(shutil.which("perf") is None, reason="no perf")
def test_samples_name_the_kernels(tmp_path: Path) -> None:
    text = run("kernel", tmp_path)
    if "perf failed" in text:
        pytest.skip("perf may not sample here")
    assert re.search(r"\d%  \[JIT\] tid \d+ +\[\.\] apply\.apply_events", text)


def test_without_perf_the_profile_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert profile._sampled("apply_again(1)") == "Samples: perf is not on PATH, none were taken."


def test_unknown_names_are_refused_and_the_known_ones_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["kernle"]) == 2
    assert capsys.readouterr().err == (
        "bench.profile: no profile 'kernle'; profiles are kernel, burst, latency, wake, cut, bulk\n"
    )


def test_kernels_have_an_address_and_a_size() -> None:
    path = write_map()
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    finally:
        path.unlink()
    found = {name: (int(address, 16), int(size, 16)) for address, size, name in lines}
    address, size = found["apply.apply_events"]
    assert address > 0 < size
    # No two functions lie upon each other.
    ranges = sorted({where for name, where in found.items()})
    assert all(begin + size <= after for (begin, size), (after, _) in zip(ranges, ranges[1:], strict=False))
