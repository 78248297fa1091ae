"""`layout`: every offset of the segment, for readers in other languages. Needs no running engine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from klshm.commands.c_header import render
from klshm.commands.output import print_json, print_line, print_table
from klshm.errors import InstanceError
from klshm.intervals import CODES, INTERVALS, anchor_ms, length_ms
from klshm.read.attach import resolve_instance
from klshm.shm import counters
from klshm.shm import layout as lay
from klshm.shm.segment import open_segment


__all__ = ["add", "describe"]

_SIZES: Final = ("PAGE_BYTES", "HEADER_BYTES", "CONFIG_BYTES", "BLOCK_BYTES", "ROW_BYTES", "SYMBOL_BYTES")
_WORDS: Final = {"header_words": "H_", "block_words": "B_", "cut_words": "CUT_", "row_words": "W_"}


def add(nouns: Any) -> None:
    """Declare the command."""
    layout = nouns.add_parser("layout", help="every offset and type in the segment, for other languages")
    layout.add_argument("--c-header", action="store_true", help="as a C header")
    layout.set_defaults(run=_layout)


def _layout(options: argparse.Namespace) -> int:
    document = describe(_segment_layout(options.instance))
    if options.c_header:
        sys.stdout.write(render(document))
    elif options.json:
        print_json(document)
    else:
        _print_for_people(document)
    return 0


def describe(layout: lay.Layout | None) -> dict[str, Any]:
    """Return the layout as a document.

    Args:
        layout: Sizes of one segment; None: only what all segments share.
    """
    return {
        "magic": lay.MAGIC,
        "version": lay.VERSION,
        "layout_hash": lay.LAYOUT_HASH,
        "byte_order": "little",
        "bytes": {name.removesuffix("_BYTES").lower(): getattr(lay, name) for name in _SIZES},
        "records": {name: _record(getattr(lay, name)) for name in ("KLINE", "SYMBOL", "NEED")},
        **{group: _constants(prefix) for group, prefix in _WORDS.items()},
        "segment_states": _codes(lay.SEGMENT_STATE_NAMES),
        "role_states": _codes(lay.ROLE_STATE_NAMES),
        "symbol_states": _codes(lay.SYMBOL_STATUS_NAMES),
        "states": _codes(lay.STATE_NAMES),
        "flags": {name: 1 << bit for bit, name in enumerate(lay.FLAG_NAMES)},
        "needs": _constants("NEED_"),
        "commands": {"interval": lay.INTERVAL_COMMAND, **_constants("COMMAND_")},
        "contract_types": _codes(lay.CONTRACT_NAMES),
        "intervals": [
            {"code": CODES[name], "name": name, "length_ms": length_ms(name), "anchor_ms": anchor_ms(name)}
            for name in INTERVALS
        ],
        "counters": {
            role: _codes(getattr(counters, role.upper()))
            for role in ("worker", "historian", "persister", "launcher", "web")
        },
        "offsets": {
            "header": 0,
            "config": lay.Layout.config_offset,
            "launcher": lay.Layout.launcher_offset,
            "historian": lay.Layout.historian_offset,
            "persister": lay.Layout.persister_offset,
            "web": lay.Layout.web_offset,
            "symbols": lay.Layout.symbols_offset,
        },
        "segment": None if layout is None else _regions(layout),
    }


def _segment_layout(instance: str | None) -> lay.Layout | None:
    try:
        name = resolve_instance(instance)
    except InstanceError:
        return None  # none or several run: what all segments share is still an answer
    segment = open_segment(name)
    layout = segment.layout
    segment.close()
    return layout


def _regions(layout: lay.Layout) -> dict[str, Any]:
    return {
        "total_bytes": layout.total_bytes,
        "max_symbols": layout.max_symbols,
        "slots": layout.slots,
        "intervals": [INTERVALS[code] for code in layout.interval_codes],
        "history_rows": list(layout.history_rows),
        "log_rows": layout.log_rows,
        "inbox_rows": layout.inbox_rows,
        "historian_log_rows": layout.historian_log_rows,
        "historian_log": layout.historian_log_offset,
        "partition_bytes": layout.partition_bytes,
        "partitions": [
            {
                "block": layout.partition_offset(worker),
                "live": layout.live_offset(worker),
                "half_0": layout.half_offset(worker, 0),
                "half_1": layout.half_offset(worker, 1),
                "needs": layout.needs_offset(worker),
                "inbox": layout.inbox_offset(worker),
                "log": layout.log_offset(worker),
                "history": layout.history_offset(worker),
                "history_first_row": [layout.history_row(0, interval) for interval in range(layout.intervals)],
            }
            for worker in range(layout.workers)
        ],
    }


def _constants(prefix: str) -> dict[str, int]:
    """Return the integers of the layout whose names begin with a prefix, in lower case without it."""
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in vars(lay).items()
        if name.startswith(prefix) and isinstance(value, int)
    }


def _codes(names: Sequence[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(names)}


def _record(dtype: np.dtype[Any]) -> dict[str, Any]:
    assert dtype.names is not None and dtype.fields is not None
    fields = []
    for name in dtype.names:
        kind, offset = dtype.fields[name][:2]
        fields.append({"name": name, "offset": offset, "type": kind.base.str, "count": int(np.prod(kind.shape))})
    return {"bytes": dtype.itemsize, "fields": fields}


def _print_for_people(document: dict[str, Any]) -> None:
    for name, record in document["records"].items():
        print_line(f"{name}, {record['bytes']} bytes")
        print_table(["offset", "type", "field"], [[f["offset"], f["type"], f["name"]] for f in record["fields"]])
        print_line()
    print_table(["offset", "region"], [[offset, name] for name, offset in document["offsets"].items()])
    for worker, partition in enumerate((document["segment"] or {"partitions": []})["partitions"]):
        print_line(f"\npartition of worker {worker}")
        regions = [(name, offset) for name, offset in partition.items() if isinstance(offset, int)]
        print_table(["offset", "region"], [[offset, name] for name, offset in regions])
    print_line("\nEverything, with all constants: --json. For C and C++: --c-header.")
