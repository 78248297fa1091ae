"""The points inside kernels at which a worker may be told to die: one load and one branch never taken.

Dead by SIGKILL between two machine instructions: the kernel calls `raise` of the C library itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klshm.shm.compile import COMPILED
from klshm.shm.crash import die


__all__ = ["crash_here"]

_LOW = 0xFFFFFFFF

if TYPE_CHECKING:
    crash_here: Any

elif COMPILED:  # pragma: no cover - machine code
    import signal

    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    @intrinsic
    def crash_here(typing_context: Any, array: Any, index: Any, point: Any) -> Any:
        """Die here if the crash word names this point and its passes are used up."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word, number = ir.IntType(64), ir.IntType(32)
            memory = context.make_array(signature.args[0])(context, builder, arguments[0])
            at = context.cast(builder, arguments[1], signature.args[1], types.intp)
            address = cgutils.get_item_pointer(context, builder, signature.args[0], memory, [at], wraparound=False)
            wanted = context.cast(builder, arguments[2], signature.args[2], types.int64)
            value = builder.load(address)
            hit = builder.icmp_unsigned("==", builder.lshr(value, word(32)), wanted)
            with builder.if_then(hit, likely=False):
                left = builder.sub(value, word(1))
                builder.store(left, address)
                with builder.if_then(builder.icmp_unsigned("==", builder.and_(left, word(_LOW)), word(0))):
                    kill = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [number]), "raise")
                    builder.call(kill, [number(int(signal.SIGKILL))])
            return context.get_dummy_value()

        return types.void(array, index, point), generate

else:

    def crash_here(array: Any, index: Any, point: Any) -> None:
        """Die here if the crash word names this point and its passes are used up."""
        if array[index] >> 32 == point:
            array[index] -= 1
            if array[index] & _LOW == 0:  # pragma: no cover - nobody is left to count
                die()
