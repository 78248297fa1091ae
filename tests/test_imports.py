"""What importing klshm loads, and which package may import which."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "klshm"


def test_importing_klshm_loads_numpy_only() -> None:
    heavy = (
        "numba",
        "llvmlite",
        "aiohttp",
        "picows",
        "uvloop",
        "lmdb",
        "sqlite3",
        "msgspec",
        "orjson",
        "psutil",
        "pandas",
    )
    code = f"import sys, klshm, klshm.cli; print(*set({heavy}) & set(sys.modules)); print(klshm.KLINE.itemsize)"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # it loads sqlite3
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=plain)
    assert result.stdout.splitlines() == ["", "128"]


def _owner(module: str) -> str:
    """Return the part of klshm that a module belongs to: a package, or a module of its own."""
    parts = module.split(".")
    is_module = len(parts) > 1 and ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file())
    return parts[1] if is_module else "klshm"  # `from klshm import __version__` names no module


def imported(path: Path) -> set[str]:
    """Return the parts of klshm that a file imports, at its top or inside a function."""
    package = ["klshm", *path.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"klshm.{alias.name}" for alias in node.names] if module == "klshm" else [module]
        found |= {_owner(name) for name in names if name.split(".")[0] == "klshm"}
    return found


def allowed_imports(text: str) -> dict[str, set[str]]:
    """Return the import table of ARCHITECTURE.md: the block fenced as `imports`."""
    block = re.search(r"^```imports\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert block, "ARCHITECTURE.md has no block fenced as ```imports"
    table = {}
    for line in block.group(1).splitlines():
        line = line.partition("#")[0]
        if line.strip():
            name, colon, allowed = line.partition(":")
            assert colon, f"import table: {line!r}, expected 'package: allowed, allowed'"
            table[name.strip()] = {word.strip() for word in allowed.split(",") if word.strip()}
    return table


def arrows() -> dict[str, set[str]]:
    """Return every arrow that exists: part of klshm to the parts it imports."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE).parts
        owner = inside[0].removesuffix(".py") if len(inside) == 1 else inside[0]
        owner = "klshm" if owner == "__init__" else owner
        found.setdefault(owner, set()).update(imported(path) - {owner, "klshm"})
    return found


def test_every_arrow_is_in_the_import_table() -> None:
    architecture = ROOT / "ARCHITECTURE.md"
    if not architecture.exists():
        pytest.skip("ARCHITECTURE.md is not written yet")
    table = allowed_imports(architecture.read_text(encoding="utf-8"))
    wrong = {
        f"{owner} -> {target}"
        for owner, targets in arrows().items()
        for target in targets
        if target not in table.get(owner, set())
    }
    assert not wrong, f"not in ARCHITECTURE.md's import table: {', '.join(sorted(wrong))}"


def test_the_walk_finds_what_it_should() -> None:
    found = arrows()
    assert {"shm", "intervals", "errors"} <= found["read"]
    assert "sim" not in {target for owner, targets in found.items() if owner != "run" for target in targets}
    assert not found["sim"] - {"sim"}, "the simulator is an independent oracle"
    table = allowed_imports("x\n```imports\na: b, c  # why\n\nd:\n```\n")
    assert table == {"a": {"b", "c"}, "d": set()}


def test_every_module_says_what_it_exports() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not tree.body or path.name == "__main__.py":
            continue
        assert ast.get_docstring(tree), f"{path} has no docstring"
        assigned = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
        has_code = path.name != "__init__.py" or len(tree.body) > 2
        assert not has_code or any(text.startswith("__all__") for text in assigned), f"{path} has no __all__"
