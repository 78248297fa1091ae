"""System, Python, packages, cores, limits."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from klshm.config import Config
from klshm.doctor.lines import BAD, OK, WARN, Line
from klshm.errors import UnsupportedPlatform
from klshm.run.machine import check_machine
from klshm.run.sizes import layout_of


__all__ = ["cores", "files", "memory", "packages", "requirement", "system"]

_PYTHON: Final = ((3, 11), (3, 15))
_PIDFD_KERNEL: Final = (5, 3)
_WAITV_KERNEL: Final = (5, 16)
_FILES_NEEDED: Final = 256
_FILES_ROOM: Final = 1024
_PROCESSES_BYTES: Final = 420 << 20
"""All processes of an engine together, most of it the compiler's (bench/footprint.py)."""

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?")
_CPU: Final = Path("/sys/devices/system/cpu")


def system() -> list[Line]:
    """Look at kernel, C library and Python."""
    found = f"{platform.system()} {platform.release()} on {platform.machine()}, {' '.join(platform.libc_ver())}".strip()
    try:
        check_machine(sys.platform, platform.machine())
    except UnsupportedPlatform as error:
        return [Line("system", BAD, found, str(error))]
    kernel = _version(platform.release())
    lines = [Line("system", OK, found)]
    if kernel < _PIDFD_KERNEL:
        lines = [Line("system", BAD, found, "the launcher watches its processes by pidfd: use Linux 5.3 or newer")]
    elif kernel < _WAITV_KERNEL:
        lines = [Line("system", WARN, found, "waiting for several workers polls once a millisecond before Linux 5.16")]
    python = ".".join(map(str, sys.version_info[:3]))
    least, beyond = (".".join(map(str, version)) for version in _PYTHON)
    fits = _PYTHON[0] <= sys.version_info[:2] < _PYTHON[1]
    advice = "" if fits else f"klshm was tested from {least} up to before {beyond}: use one of these"
    lines.append(Line("Python", OK if fits else BAD, python, advice))
    return lines


def packages() -> list[Line]:
    """Hold what is installed against the ranges that were tested."""
    try:
        wanted = [requirement(text) for text in metadata.requires("klshm") or ()]
    except metadata.PackageNotFoundError:
        return [
            Line("packages", WARN, "klshm is not installed as a package", "pip install -r requirements.txt -e .")
        ]
    fitting: list[str] = []
    outside: list[str] = []
    missing: list[str] = []
    for name, limits, extra in wanted:
        if extra not in ("", "engine"):
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
            continue
        target = fitting if _is_within(version, limits) else outside
        target.append(f"{name} {version}" + ("" if target is fitting else f" (tested: {limits})"))
    lines = [Line("packages", OK, ", ".join(fitting))]
    if outside:
        lines.append(Line("packages", WARN, ", ".join(outside), "pip install -r requirements.txt"))
    if missing:
        advice = "the engine cannot run, readers can: pip install -r requirements.txt"
        lines.append(Line("packages", BAD, f"not installed: {', '.join(missing)}", advice))
    return lines


def requirement(text: str) -> tuple[str, str, str]:
    """Take a requirement of the package's metadata apart: name, limits, extra that asks for it."""
    match = _REQUIREMENT.match(text)
    if match is None:
        return text, "", ""
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", match[3] or "")
    return match[1], match[2].replace(" ", ""), extra[1] if extra else ""


def cores(config: Config, sys_cpu: Path = _CPU) -> list[Line]:
    """Look at the cores that an engine may use.

    Args:
        config: How many workers are wanted.
        sys_cpu: Where the kernel describes its processors.
    """
    allowed = len(os.sched_getaffinity(0))
    workers = max(1, config.run.workers)
    isolated = _text(sys_cpu / "isolated")
    found = f"{allowed} of {os.cpu_count()} usable, {workers} workers" + (f", isolated: {isolated}" if isolated else "")
    lines = [Line("cores", OK, found)]
    if workers > allowed:
        lines = [Line("cores", WARN, found, "fewer workers (run.workers), or more cores: latency suffers")]
    elif config.run.busy_poll and workers >= allowed:
        advice = "busy polling takes a whole core per worker and leaves none: fewer workers, or run.busy_poll = false"
        lines = [Line("cores", WARN, found, advice)]
    governor = _text(sys_cpu / "cpu0/cpufreq/scaling_governor")
    if governor:
        slow = governor in ("powersave", "conservative")
        advice = "latency is better with: cpupower frequency-set -g performance" if slow else ""
        lines.append(Line("governor", WARN if slow else OK, governor, advice))
    quota = _text(Path("/sys/fs/cgroup/cpu.max")).split()
    if len(quota) == 2 and quota[0].isdigit() and int(quota[0]) < workers * int(quota[1]):
        share = int(quota[0]) / int(quota[1])
        lines.append(Line("quota", WARN, f"{share:.1f} cores by cgroup", "raise it (Docker: --cpus) to one per worker"))
    return lines


def files() -> list[Line]:
    """Look at how many files one process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files a process, at most {hard}"
    if soft < _FILES_NEEDED:
        return [Line("limits", BAD, found, f"at least {_FILES_NEEDED}: ulimit -n {_FILES_ROOM}, systemd: LimitNOFILE")]
    if soft < _FILES_ROOM:
        return [Line("limits", WARN, found, f"ulimit -n {_FILES_ROOM} leaves room")]
    return [Line("limits", OK, found)]


def memory(config: Config, meminfo: Path = Path("/proc/meminfo")) -> list[Line]:
    """Look at memory: the segment lives in it too.

    Args:
        config: Sizes of the segment.
        meminfo: The kernel's account.
    """
    match = re.search(r"MemAvailable:\s+(\d+) kB", _text(meminfo))
    if match is None:
        return []
    available = int(match[1]) << 10
    needed = layout_of(config).total_bytes + _PROCESSES_BYTES
    found = f"{available >> 20} MiB available, an engine takes up to {needed >> 20} MiB"
    if available < needed:
        return [Line("memory", WARN, found, "lower segment.max_symbols or segment.history, or add memory")]
    return [Line("memory", OK, found)]


def _is_within(version: str, limits: str) -> bool:
    found = _version(version)
    for limit in filter(None, limits.split(",")):
        operator, wanted = re.match(r"([<>=!~]+)(.*)", limit).groups()  # type: ignore[union-attr]
        bound = _version(wanted)
        if operator == ">=" and found < bound or operator == "<" and found >= bound:
            return False
    return True


def _version(text: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
