"""Resolving the configuration: defaults < file < environment < `--set`, with one-line errors.

The file is `--config FILE`, else `CONFIG_PATH`, else `./configs/klshm.toml`. Variables are named
`KLSHM_<SECTION>__<KEY>` (and `KLSHM_INSTANCE`). Every mistake ends in one `ConfigError` line that
says where it stands, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from klshm.config.keys import build, keys, render_default
from klshm.config.layers import checked, from_environment, from_file, from_options
from klshm.config.schema import Config
from klshm.errors import ConfigError
from klshm.intervals import INTERVALS


__all__ = [
    "DEFAULT_PATH",
    "Settings",
    "check",
    "from_json",
    "load",
    "render_default",
    "resolve",
    "to_json",
]

logger = logging.getLogger(__name__)

DEFAULT_PATH: Final = Path("configs/klshm.toml")
_HISTORY_OF_OTHERS: Final = 500
_LOG_MARGIN: Final = 8
"""A closed-bar log holds at least so many closing waves of everything (SHM section 3)."""


@dataclass(frozen=True)
class Settings:
    """A resolved configuration and where each value came from.

    Attributes:
        config: The configuration.
        sources: Path of a key to its source, for keys that differ from "default".
        file: The file that was read, None if there was none.
    """

    config: Config
    sources: Mapping[str, str]
    file: Path | None


def load(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    write_default: bool = False,
) -> Config:
    """Resolve the configuration.

    Args:
        path: Configuration file; None: `CONFIG_PATH`, else `configs/klshm.toml` if it exists.
        overrides: `section.key=value`, the strongest.
        environ: Environment; None: this process's own.
        write_default: Write the default file, all keys commented out, where it is missing.

    Raises:
        ConfigError: One line: where, which key, what was found, what was expected.
    """
    return resolve(path, overrides, environ=environ, write_default=write_default).config


def resolve(
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    write_default: bool = False,
) -> Settings:
    """Resolve the configuration and say where each value came from; arguments as for `load`."""
    environ = os.environ if environ is None else environ
    file = _file(path, environ, write_default)
    known = keys()
    values: dict[str, Any] = {key.path: key.default for key in known.values()}
    sources: dict[str, str] = {}
    layers = (
        from_file(file, known) if file else (),
        from_environment(environ, known),
        from_options(overrides, known),
    )
    for layer in layers:
        for given in layer:
            key = known[given.path]
            value = checked(key, given)
            # A table in a later layer changes the names it gives and keeps the others.
            values[given.path] = {**values[given.path], **value} if key.kind == dict[str, int] else value
            sources[given.path] = given.source
    config = check(build(values), sources)
    return Settings(config, sources, file)


def check(config: Config, sources: Mapping[str, str] | None = None) -> Config:
    """Return the configuration with what follows from other keys filled in.

    Args:
        config: The configuration.
        sources: Where values came from, for messages.

    Raises:
        ConfigError: If keys contradict each other.
    """
    segment, intervals = config.segment, config.klines.intervals
    workers = max(1, config.run.workers)
    slots = -(-segment.max_symbols * 9 // (8 * workers)) if workers > 1 else segment.max_symbols
    needed = _LOG_MARGIN * slots * len(intervals)
    if segment.log_rows < needed:
        source = (sources or {}).get("segment.log_rows", "defaults")
        raise ConfigError(
            f"{source}: segment.log_rows = {segment.log_rows}, expected at least {1 << (needed - 1).bit_length()} for "
            f"{segment.max_symbols} symbols, {len(intervals)} intervals and {workers} workers; "
            "raise it or lower segment.max_symbols"
        )
    history = {name: segment.history.get(name, _HISTORY_OF_OTHERS) for name in INTERVALS if name in intervals}
    directory = os.path.abspath(os.path.expanduser(config.data.directory))
    return dataclasses.replace(
        config,
        segment=dataclasses.replace(segment, history=history),
        data=dataclasses.replace(config.data, directory=directory),
    )


def to_json(config: Config) -> bytes:
    """Return the configuration as JSON, as the segment carries it."""
    return json.dumps(dataclasses.asdict(config), ensure_ascii=False, separators=(",", ":")).encode()


def from_json(data: bytes) -> Config:
    """Return the configuration that `to_json` wrote; keys of a newer klshm are left out.

    Raises:
        ConfigError: If it is no such document.
    """
    try:
        document = json.loads(data)
        values = {key.path: key.default for key in keys().values()}
        for path in values:
            section, _, name = path.rpartition(".")
            holder = document.get(section, {}) if section else document
            values[path] = holder.get(name, values[path])
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"the segment carries no readable configuration ({error}); restart the engine") from None
    return build(values)


def _file(path: str | Path | None, environ: Mapping[str, str], write_default: bool) -> Path | None:
    named = path or environ.get("CONFIG_PATH")
    if named:
        return Path(named)
    if not DEFAULT_PATH.exists():
        if write_default:
            _write_default()
        return None
    return DEFAULT_PATH


def _write_default() -> None:
    try:
        DEFAULT_PATH.parent.mkdir(parents=True, exist_ok=True)
        with open(DEFAULT_PATH, "x", encoding="utf-8") as file:
            file.write(render_default())
    except OSError as error:
        logger.warning("configuration file not written path=%s reason=%s", DEFAULT_PATH, error.strerror)
