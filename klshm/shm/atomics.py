"""Loads, stores and fences that the machine and the compiler may not reorder.

Kernels use these on int64 arrays that other processes map. Without the compiler
(`NUMBA_DISABLE_JIT=1`) their twins are plain accesses: a single CPython bytecode store is one
machine store, and x86-64 keeps the order of stores and of loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from klshm.shm.compile import COMPILED


__all__ = [
    "bits_of_float",
    "fence_acquire",
    "fence_release",
    "float_of_bits",
    "load_acquire",
    "load_relaxed",
    "store_relaxed",
    "store_release",
]


if TYPE_CHECKING:
    bits_of_float: Any
    fence_acquire: Any
    fence_release: Any
    float_of_bits: Any
    load_acquire: Any
    load_relaxed: Any
    store_relaxed: Any
    store_release: Any

elif COMPILED:  # pragma: no cover - machine code
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        array = context.make_array(array_type)(context, builder, arguments[0])
        index = context.cast(builder, arguments[1], signature.args[1], types.intp)
        return cgutils.get_item_pointer(context, builder, array_type, array, [index], wraparound=False)

    def _make_load(ordering: str) -> Any:
        def typer(typing_context: Any, array: Any, index: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                address = _address(context, builder, signature, arguments)
                return builder.load_atomic(address, ordering, 8, typ=ir.IntType(64))

            return types.int64(array, index), generate

        return intrinsic(typer)

    def _make_store(ordering: str) -> Any:
        def typer(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                number = context.cast(builder, arguments[2], signature.args[2], types.int64)
                builder.store_atomic(number, _address(context, builder, signature, arguments), ordering, 8)
                return context.get_dummy_value()

            return types.void(array, index, value), generate

        return intrinsic(typer)

    def _make_fence(ordering: str) -> Any:
        def typer(typing_context: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                builder.fence(ordering)
                return context.get_dummy_value()

            return types.void(), generate

        return intrinsic(typer)

    @intrinsic
    def bits_of_float(typing_context: Any, value: Any) -> Any:
        """Return the word that holds a float64."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], ir.IntType(64))

        return types.int64(types.float64), generate

    @intrinsic
    def float_of_bits(typing_context: Any, word: Any) -> Any:
        """Return the float64 that a word holds."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], ir.DoubleType())

        return types.float64(types.int64), generate

    load_relaxed = _make_load("monotonic")
    load_acquire = _make_load("acquire")
    store_relaxed = _make_store("monotonic")
    store_release = _make_store("release")
    fence_acquire = _make_fence("acquire")
    fence_release = _make_fence("release")

else:

    def bits_of_float(value: Any) -> Any:
        """Return the word that holds a float64."""
        return np.float64(value).view(np.int64)

    def float_of_bits(word: Any) -> Any:
        """Return the float64 that a word holds."""
        return np.int64(word).view(np.float64)

    def load_relaxed(array: Any, index: Any) -> Any:
        """Load one word."""
        return array[index]

    def load_acquire(array: Any, index: Any) -> Any:
        """Load one word; no later access passes it."""
        return array[index]

    def store_relaxed(array: Any, index: Any, value: Any) -> None:
        """Store one word."""
        array[index] = value

    def store_release(array: Any, index: Any, value: Any) -> None:
        """Store one word; no earlier access passes it."""
        array[index] = value

    def fence_acquire() -> None:
        """Let no later load pass an earlier one."""

    def fence_release() -> None:
        """Let no later store pass an earlier one."""
