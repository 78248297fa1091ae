"""How the engine's kernels are compiled: one version of each, with the types its arguments' names say.

Without given types the compiler would make a version of its own for every constant argument, and
a Python wrapper for each: four times the time. ``m`` is the memory, ``events``, ``words``,
``state`` and ``names`` are arrays of words, ``data`` and ``text`` are bytes that nobody may
write, everything else is one word.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

import numba

from klshm.core.state import Memory
from klshm.shm.compile import COMPILED, UNCOUNTED, kernel


__all__ = ["compiled", "entry", "merged"]


def _types() -> dict[str, Any]:  # pragma: no cover - machine code only
    words = numba.int64[::1]
    memory = numba.types.NamedUniTuple(words, 2, Memory)  # type: ignore[no-untyped-call]
    data = numba.types.Array(numba.uint8, 1, "C", readonly=True)
    return {"m": memory, "data": data, "text": data, **dict.fromkeys(("events", "words", "state", "names"), words)}


_TYPES: Final = _types() if COMPILED else {}  # pragma: no branch


def _compile(function: Any, **options: Any) -> Any:
    if not COMPILED:
        return function
    return _compile_typed(function, **options)  # pragma: no cover - machine code only


def _compile_typed(function: Any, **options: Any) -> Any:  # pragma: no cover - machine code only
    names = inspect.signature(function).parameters
    return kernel(tuple(_TYPES.get(name, numba.int64) for name in names), **options)(function)


def compiled(function: Any) -> Any:
    """Compile a kernel that only other kernels call."""
    return _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def merged(function: Any) -> Any:
    """Compile a kernel into the one other kernel that calls it.

    The compiler finishes every kernel with all that it calls: each that stands alone costs half a
    second of the first start. Those called once need not; those that begin a large part do, as one
    kernel of everything takes longer than all of its parts.
    """
    if not COMPILED:
        return function
    return numba.njit(inline="always", error_model="numpy", **UNCOUNTED)(function)  # pragma: no cover - machine code


def entry(function: Any) -> Any:
    """Compile a kernel that Python calls."""
    return _compile(function, no_cfunc_wrapper=True)
