"""Asking the processor for memory before it is needed: a hint without effect on any result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klshm.shm.compile import COMPILED


__all__ = ["prefetch"]

if TYPE_CHECKING:
    prefetch: Any

elif COMPILED:  # pragma: no cover - machine code
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
        """Fetch the cache line of a word that will soon be written."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory = context.make_array(signature.args[0])(context, builder, arguments[0])
            at = context.cast(builder, arguments[1], signature.args[1], types.intp)
            address = cgutils.get_item_pointer(context, builder, signature.args[0], memory, [at], wraparound=False)
            pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
            kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            for_writing, nearest_cache, data = number(1), number(3), number(1)
            builder.call(function, [builder.bitcast(address, pointer), for_writing, nearest_cache, data])
            return context.get_dummy_value()

        return types.void(array, index), generate

else:

    def prefetch(array: Any, index: Any) -> None:
        """Fetch the cache line of a word that will soon be written."""
