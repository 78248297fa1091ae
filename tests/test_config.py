"""The configuration: precedence, the shipped files, and a clear line for every mistake."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klshm.config import Config, layers
from klshm.config.keys import keys
from klshm.config.settings import from_json, load, render_default, resolve, to_json
from klshm.config.toml import parse_text, render_value
from klshm.errors import ConfigError
from klshm.run.sizes import layout_of
from klshm.shm.layout import CONFIG_BYTES


ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty directory, with nothing of klshm in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("KLSHM_") or name == "CONFIG_PATH":
            monkeypatch.delenv(name)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_are_in_force(elsewhere: Path) -> None:
    config = load(environ={})
    default = Config()
    assert config.data.directory == str(elsewhere / "data"), "the segment tells readers elsewhere where the files are"
    assert dataclasses.replace(config, data=default.data) == default
    assert not (elsewhere / "configs").exists()


def test_each_layer_is_stronger_than_the_one_before(elsewhere: Path) -> None:
    file = write(elsewhere / "configs/klshm.toml", "[run]\nworkers = 3\nbusy_poll = true\naffinity = '1,2'\n")
    environ = {"KLSHM_RUN__WORKERS": "5", "KLSHM_RUN__AFFINITY": "none", "OTHER__X": "1", "KLSHM_CACHE": "/x"}
    found = resolve(None, ["run.workers=7"], environ=environ)
    assert (found.config.run.workers, found.config.run.affinity, found.config.run.busy_poll) == (7, "none", True)
    assert found.sources == {
        "run.workers": "--set",
        "run.affinity": "KLSHM_RUN__AFFINITY",
        "run.busy_poll": str(file.relative_to(elsewhere)),
    }


def test_which_file_is_read(elsewhere: Path) -> None:
    write(elsewhere / "configs/klshm.toml", "[run]\nworkers = 1\n")
    by_variable = write(elsewhere / "b.toml", "[run]\nworkers = 2\n")
    by_option = write(elsewhere / "c.toml", "instance = 'three'\n[run]\nworkers = 3\n")
    assert load(environ={}).run.workers == 1
    assert load(environ={"CONFIG_PATH": str(by_variable)}).run.workers == 2
    config = load(by_option, environ={"CONFIG_PATH": str(by_variable)})
    assert (config.run.workers, config.instance) == (3, "three")
    with pytest.raises(ConfigError, match="none.toml: cannot be read: No such file"):
        load("none.toml", environ={})


def test_a_table_changes_only_the_names_it_gives() -> None:
    config = load(overrides=["segment.history=1m=640", "segment.history={ 5m = 320 }"], environ={})
    assert config.segment.history == {"1m": 640, "5m": 320, "30m": 500, "4h": 500, "1d": 500, "1w": 200}


def test_every_kept_interval_has_a_history() -> None:
    config = load(overrides=["klines.intervals=1m,15m,1h"], environ={})
    assert config.segment.history == {"1m": 1000, "15m": 500, "1h": 500}


def test_the_data_directory_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert load(overrides=["data.directory=~/k"], environ={}).data.directory == "/home/of-somebody/k"


def test_variables_set_every_kind_of_key() -> None:
    environ = {
        "KLSHM_INSTANCE": "two",
        "KLSHM_RUN__BUSY_POLL": "on",
        "KLSHM_EXCHANGE__SYMBOLS": "BTCUSDT, 币安人生USDT",
        "KLSHM_EXCHANGE__EXCLUDE": '["ETHUSDT"]',
        "KLSHM_EXCHANGE__WEIGHT_SHARE": "1",
        "KLSHM_STORE__RETENTION_DAYS": "1m=30",
        "KLSHM_SIM__START_AT": "2026-11-20T10:00:00Z",
    }
    config = load(environ=environ)
    assert config.instance == "two" and config.run.busy_poll is True
    assert config.exchange.symbols == ["BTCUSDT", "币安人生USDT"] and config.exchange.exclude == ["ETHUSDT"]
    assert config.exchange.weight_share == 1.0 and isinstance(config.exchange.weight_share, float)
    assert config.store.retention_days == {"1m": 30}


MISTAKES = [
    ("run.workres=3", "--set: unknown key run.workres, expected workers, affinity, busy_poll; nearest is run.workers"),
    ("segmnt.mode=1", "--set: unknown key segmnt.mode, expected section.key; nearest is segment.mode"),
    ("workers=3", "--set: unknown key workers, expected section.key; nearest is run.workers"),
    ("run.workers", "--set run.workers: expected section.key=value"),
    ("run.workers=99", "--set: run.workers = 99, expected 0 to 64"),
    ("run.workers=two", '--set: run.workers = "two", expected a whole number, 0 to 64'),
    ("run.busy_poll=maybe", '--set: run.busy_poll = "maybe", expected true or false'),
    ("run.affinity=all", '--set: run.affinity = "all", expected "auto", "none" or a list of cores such as "2,3,6"'),
    (
        "log.level=inf",
        '--set: log.level = "inf", expected one of debug, info, warning, error; nearest to inf is info',
    ),
    ("segment.log_rows=1000", "--set: segment.log_rows = 1000, expected a power of two from 64 to 67108864"),
    (
        "segment.log_rows=1024",
        "--set: segment.log_rows = 1024, expected at least 32768 for 1024 symbols, 6 intervals and 2 workers; raise",
    ),
    ("segment.mode=888", '--set: segment.mode = "888", expected octal digits such as "0600" that let the owner'),
    ("segment.mode=0444", "that let the owner read and write"),
    ("segment.max_symbols=0", "segment.max_symbols = 0, expected 1 to 65535"),
    ("segment.history=3d=100", "expected a table from 1m, 3m, 5m"),
    ("segment.history=1m=2.5", "expected a table of whole numbers"),
    ("segment.history=1m=4", "each 32 to 1000000"),
    ("klines.intervals=1m,3d", "expected intervals out of 1m, 3m, 5m, 15m, 30m, 1h, 2h, 4h, 6h, 8h, 12h, 1d, 1w"),
    ("klines.intervals=1m,1M", "shortest first, beginning with 1m"),
    ("klines.intervals=5m,1h", "beginning with 1m"),
    ("klines.intervals=1m,1h,5m", "shortest first"),
    ("klines.intervals=1m,1m", "shortest first"),
    ("klines.intervals=", "beginning with 1m"),
    ("exchange.rest_url=ftp://x", "expected an address such as https://host (schemes: https, http)"),
    ("exchange.ws_url=https://x", "(schemes: wss, ws)"),
    ("exchange.ws_url=wss://", "(schemes: wss, ws)"),
    ("exchange.rest_url=http://x:99999", "expected an address"),
    ("exchange.proxy=localhost:1080", "expected empty or an address such as http://host"),
    ("exchange.symbols=btcusdt", "each a name in upper case such as BTCUSDT"),
    ("exchange.symbols=BTCUSDT,BTCUSDT", "a list without repeats"),
    ("exchange.contract_types=PERPETUL", "each one of PERPETUAL, TRADIFI_PERPETUAL"),
    ("exchange.contract_types=", "a list of at least 1"),
    ("exchange.weight_share=nan", "expected 0.01 to 1"),
    ("exchange.official_stream=klines", "nearest to klines is kline"),
    ("chaos.crash_at=worker.history_writen", "; nearest to worker.history_writen is worker.history_written"),
    ("chaos.crash_after_n=0", "expected 1 to 2147483647"),
    ("web.port=65536", "web.port = 65536, expected 0 to 65535"),
    ("web.host=", "expected an address or host name"),
    ("instance=Main", "instance = \"Main\", expected 1 to 32 characters of a-z, 0-9 and '-'"),
    ("store.flush_interval_s=0", "expected 0.05 to 3600"),
    ("sim.start_at=tomorrow", "expected empty, ISO 8601 UTC or milliseconds since 1970"),
]


@pytest.mark.parametrize(("option", "words"), MISTAKES)
def test_a_mistake_is_one_clear_line(option: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(overrides=[option], environ={})
    text = str(raised.value)
    assert words in text and "\n" not in text
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\nworkers = '3'\n", 'run.workers = "3", expected a whole number, 0 to 64'),
        ("[run]\nworkers = true\n", "run.workers = true, expected a whole number, 0 to 64"),
        ("[run]\nworkers = 1.5\n", "run.workers = 1.5, expected a whole number, 0 to 64"),
        ("[run]\nbusy_poll = 1\n", "run.busy_poll = 1, expected true or false"),
        ("[exchange]\nsymbols = 'BTCUSDT'\n", 'exchange.symbols = "BTCUSDT", expected a list of texts'),
        ("[exchange]\nsymbols = [1]\n", "exchange.symbols = [1], expected a list of texts"),
        ("[log]\nlevel = 3\n", "log.level = 3, expected text"),
        ("[rum]\nworkers = 3\n", "unknown key rum, expected"),
        ("run = 3\n", "unknown key run, expected"),
        ("[run\n", "is not valid TOML"),
        ("[run]\nworkers = 2\nworkers = 3\n", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(elsewhere: Path, text: str, words: str) -> None:
    file = write(elsewhere / "my.toml", text)
    with pytest.raises(ConfigError) as raised:
        load(file, environ={})
    assert str(raised.value).startswith(f"{file}: ") and words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mistake_in_a_variable_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^KLSHM_RUN__WORKERS: run\.workers = \"x\", expected a whole number"):
        load(environ={"KLSHM_RUN__WORKERS": "x"})
    with pytest.raises(ConfigError, match=r"^KLSHM_RUM__WORKERS: unknown key rum\.workers.*nearest is run\.workers"):
        load(environ={"KLSHM_RUM__WORKERS": "1"})


def test_a_renamed_key_names_its_successor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.RENAMED, "run.processes", "run.workers")
    with pytest.raises(ConfigError, match=r"--set: run\.processes is now called run\.workers; rename it"):
        load(overrides=["run.processes=3"], environ={})


def test_a_missing_default_file_is_written_all_commented_out(elsewhere: Path) -> None:
    config = load(environ={}, write_default=True)
    file = elsewhere / "configs/klshm.toml"
    assert file.read_text(encoding="utf-8") == render_default()
    assert load(environ={}) == config, "a frozen copy of old defaults would break upgrades"
    file.write_text("[run]\nworkers = 9\n", encoding="utf-8")
    assert load(environ={}, write_default=True).run.workers == 9, "an existing file is left alone"


def test_a_place_that_cannot_be_written_is_one_warning(elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    (elsewhere / "configs").write_text("a file is in the way")
    with caplog.at_level(logging.WARNING):
        load(environ={}, write_default=True)
    assert len(caplog.records) == 1 and "configuration file not written" in caplog.text


def test_the_shipped_file_is_the_rendered_one() -> None:
    assert (ROOT / "configs/klshm.toml").read_text(encoding="utf-8") == render_default()


def test_every_shown_default_reads_back_as_itself() -> None:
    lines = [line.removeprefix("# ") for line in render_default().splitlines()]
    names = {key.name for key in keys().values()}
    kept = [line for line in lines if line.startswith("[") or line.partition(" = ")[0] in names]
    document = tomllib.loads("\n".join(kept))
    for key in keys().values():
        holder = document[key.section] if key.section else document
        assert holder[key.name] == key.default, key.path


def test_every_key_has_a_meaning_and_a_default_that_passes() -> None:
    for key in keys().values():
        assert key.meaning, key.path
        assert key.limit.accepts(key.default), key.path


def test_the_demo_stays_below_64_mib() -> None:
    for workers in (1, 2, 4, 8):
        config = load(ROOT / "configs/demo.toml", [f"run.workers={workers}"], environ={})
        assert config.instance == "demo" and config.segment.max_symbols == 64
        layout = layout_of(config)
        assert config.segment.log_rows >= 8 * layout.slots * layout.intervals
        assert layout.total_bytes < 64 << 20


@pytest.mark.parametrize("workers", [0, 1, 2, 3, 16])
def test_an_accepted_log_holds_eight_waves(workers: int) -> None:
    config = load(overrides=[f"run.workers={workers}"], environ={})
    layout = layout_of(config)
    assert config.segment.log_rows >= 8 * layout.slots * layout.intervals
    needed = 8 * layout.slots * layout.intervals
    smallest = 1 << (needed - 1).bit_length()
    assert load(overrides=[f"run.workers={workers}", f"segment.log_rows={smallest}"], environ={})
    with pytest.raises(ConfigError, match=f"expected at least {smallest} for"):
        load(overrides=[f"run.workers={workers}", f"segment.log_rows={smallest // 2}"], environ={})


def test_json_carries_every_value() -> None:
    config = load(overrides=["segment.history=1m=640", "exchange.symbols=币安人生USDT", "run.workers=0"], environ={})
    data = to_json(config)
    assert from_json(data) == config
    assert len(data) < CONFIG_BYTES
    document = json.loads(data)
    assert document["segment"]["history"]["1m"] == 640
    document["run"]["of_a_newer_version"] = 1
    del document["web"]
    assert from_json(json.dumps(document).encode()) == config


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b'{"run": 3}'])
def test_json_that_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match="no readable configuration"):
        from_json(data)


values = st.one_of(
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.lists(st.text()),
    st.dictionaries(st.sampled_from(["1m", "1w", "default"]), st.integers(0, 10**9)),
)


@given(values)
def test_rendered_values_are_toml(value: Any) -> None:
    assert tomllib.loads(f"x = {render_value(value)}")["x"] == value


@given(st.dictionaries(st.sampled_from(["1m", "5m", "1w"]), st.integers(0, 10**9)))
def test_tables_are_read_in_both_spellings(table: dict[str, int]) -> None:
    bare = ",".join(f"{name}={number}" for name, number in table.items())
    assert parse_text(bare, dict[str, int]) == parse_text(render_value(table), dict[str, int]) == table


def test_an_unreadable_file_is_said_to_be_so(elsewhere: Path) -> None:
    file = write(elsewhere / "c.toml", "")
    file.chmod(0)
    if os.access(file, os.R_OK):
        file.chmod(stat.S_IRUSR)
        file.write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError, match="is not valid TOML"):
            load(file, environ={})
    else:
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            load(file, environ={})
