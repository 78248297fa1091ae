"""`layout`: every offset, as a document and as a C header."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from klshm.shm import layout as lay
from tests.commands.support import Run
from tests.support.desk import START, Desk


def test_layout_tells_every_offset(desk: Desk, run: Run) -> None:
    document = run("layout", "--json").document
    fields = {field["name"]: field for field in document["records"]["KLINE"]["fields"]}
    assert document["records"]["KLINE"]["bytes"] == 128
    assert set(fields) == set(lay.KLINE.names or ())
    assert fields["volume"] == {"name": "volume", "offset": 48, "type": "<f8", "count": 1}
    assert document["magic"] == lay.MAGIC and document["layout_hash"] == lay.LAYOUT_HASH
    assert document["block_words"]["heartbeat_ns"] == lay.B_HEARTBEAT_NS
    assert document["flags"]["partial"] == lay.FLAG_PARTIAL and document["states"]["confirmed"] == 3
    segment = document["segment"]
    assert segment["total_bytes"] == desk.layout.total_bytes == os.stat(desk.segment.path).st_size
    assert segment["partitions"][0]["live"] == desk.layout.live_offset(0)
    assert "partition of worker 0" in run("layout").out
    desk.segment.unlink()
    assert run("layout", "--json").document["segment"] is None, "what all segments share needs no engine"
    assert run("layout").code == 0


C_READER = """
#include <stdio.h>
#include <stdlib.h>
#include "klshm.h"
int main(int argc, char **argv) {
    FILE *file = fopen(argv[1], "rb");
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = malloc(size);
    if (fread(data, 1, size, file) != (size_t)size) return 1;
    const int64_t *h = (const int64_t *)data;
    if (h[KLSHM_H_MAGIC] != KLSHM_MAGIC || h[KLSHM_H_LAYOUT_HASH] != KLSHM_LAYOUT_HASH) return 2;
    for (int worker = 0; worker < h[KLSHM_H_WORKERS]; worker++) {
        int64_t at = klshm_partition(h, worker);
        printf("%ld %ld %ld %ld %ld %ld\\n", (long)at, (long)(at + klshm_in_half(h, 1)), (long)(at + klshm_in_inbox(h)),
               (long)(at + klshm_in_log(h)), (long)(at + klshm_in_history(h)), (long)klshm_history_row(h, 3, 1));
    }
    const struct klshm_kline *live = (const struct klshm_kline *)(data + klshm_partition(h, 0) + klshm_in_live());
    printf("%.17g %d\\n", live->volume, (live->flags & KLSHM_FLAG_PARTIAL) != 0);
    return klshm_partition(h, (int)h[KLSHM_H_WORKERS]) == size ? 0 : 3;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_the_c_header_reads_a_real_segment(
    make_desk: Callable[..., Desk], run: Run, tmp_path: Path
) -> None:
    desk = make_desk(workers=3, intervals=("1m", "5m", "1h"))
    desk.list_symbol("BTCUSDT")
    desk.live("BTCUSDT", "1m", START, volume=0.1, flags=lay.FLAG_PARTIAL)
    (tmp_path / "klshm.h").write_text(run("layout", "--c-header").out)
    (tmp_path / "reader.c").write_text(C_READER)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Werror"]
    subprocess.run(["cc", *flags, "reader.c", "-o", "reader"], cwd=tmp_path, check=True)
    printed = subprocess.run(
        [tmp_path / "reader", desk.segment.path], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    layout = desk.layout
    expected = [
        f"{layout.partition_offset(w)} {layout.half_offset(w, 1)} {layout.inbox_offset(w)} {layout.log_offset(w)} "
        f"{layout.history_offset(w)} {layout.history_row(3, 1)}"
        for w in range(3)
    ]
    assert printed == [*expected, "0.10000000000000001 1"]
