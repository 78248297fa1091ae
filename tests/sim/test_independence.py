"""The oracle must not share a line with what it judges."""

from __future__ import annotations

import ast
import sys

from tests.support.processes import PROJECT


ALLOWED = {"aiohttp", "numpy", "orjson", "uvloop"}


def test_imports_nothing_of_the_engine() -> None:
    for path in sorted((PROJECT / "klshm" / "sim").glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2, f"{path.name} reaches above klshm.sim"
                names = [node.module or ""] if node.level == 0 else []
            else:
                continue
            for name in names:
                top = name.partition(".")[0]
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_modules_are_small() -> None:
    for path in (PROJECT / "klshm" / "sim").glob("**/*.py"):
        assert len(path.read_text().splitlines()) <= 300, path.name
