"""Resolving the configuration: defaults < file < environment < `--set`, with one-line errors.

The file is `--config FILE`, else `CONFIG_PATH`, else `./configs/klshm.toml`. Variables are named
`KLSHM_<SECTION>__<KEY>` (and `KLSHM_INSTANCE`). Every mistake ends in one `ConfigError` line that
says where it stands, what was found and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from klshm.config import Config
from klshm.errors import ConfigError
from klshm.intervals import INTERVALS
from klshm.toml import parse_text, render_value, type_words


__all__ = [
    "DEFAULT_PATH",
    "RENAMED",
    "Key",
    "Settings",
    "check",
    "from_json",
    "keys",
    "load",
    "render_default",
    "resolve",
    "to_json",
]

logger = logging.getLogger(__name__)

DEFAULT_PATH: Final = Path("configs/klshm.toml")
RENAMED: Final[dict[str, str]] = {}
"""Former names of keys and the names they have now."""

_HISTORY_OF_OTHERS: Final = 500
_LOG_MARGIN: Final = 8
"""A closed-bar log holds at least so many closing waves of everything (SHM section 3)."""


@dataclass(frozen=True)
class Key:
    """One setting: where it belongs and what it may be."""

    section: str
    name: str
    kind: Any
    default: Any
    meaning: str
    limit: Any

    @property
    def path(self) -> str:
        """Name as written in messages and after `--set`."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "KLSHM_" + self.path.replace(".", "__").upper()


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


@dataclass(frozen=True)
class _Given:
    path: str
    value: Any
    source: str


def keys() -> dict[str, Key]:
    """Return all settings by path, in the order of the shipped file."""
    found: dict[str, Key] = {}
    for section, owner in [("", Config), *_sections().items()]:
        hints = get_type_hints(owner)
        for item in dataclasses.fields(owner):
            if "meaning" in item.metadata:
                default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
                meta = item.metadata
                key = Key(section, item.name, hints[item.name], default, meta["meaning"], meta["limit"])
                found[key.path] = key
    return found


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
        _from_file(file, known) if file else (),
        _from_environment(environ, known),
        _from_options(overrides, known),
    )
    for layer in layers:
        for given in layer:
            key = known[given.path]
            value = _checked(key, given)
            # A table in a later layer changes the names it gives and keeps the others.
            values[given.path] = {**values[given.path], **value} if key.kind == dict[str, int] else value
            sources[given.path] = given.source
    config = check(_build(values), sources)
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
    slots = -(-config.segment.max_symbols * 5 // (4 * workers))
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
    return _build(values)


def render_default() -> str:
    """Return the text of the shipped configuration file: every key commented out, with its meaning."""
    lines = [
        "# Configuration of klshm. Every key stands here with its default, commented out: remove the",
        "# '#' of those you change. Stronger than this file: KLSHM_<SECTION>__<KEY> in the environment,",
        "# and --set section.key=value. `python -m klshm config explain` says what is in force and why.",
    ]
    section = None
    for key in keys().values():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"] if section else [""]
        limit = f" ({key.limit.expected})" if key.limit.expected and key.kind in (int, float) else ""
        lines += [f"# {key.meaning}{limit}", f"# {key.name} = {render_value(key.default)}"]
    return "\n".join(lines) + "\n"


# -- layers -----------------------------------------------------------------------------------


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


def _from_file(file: Path, known: Mapping[str, Key]) -> Iterator[_Given]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; check --config and CONFIG_PATH") from None
    except ValueError as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from None
    source = str(file)
    for name, value in document.items():
        if name in _sections() and isinstance(value, dict):
            for key, inner in value.items():
                yield _Given(_known(f"{name}.{key}", known, source), inner, source)
        else:
            yield _Given(_known(name, known, source), value, source)


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Key]) -> Iterator[_Given]:
    for variable in sorted(environ):
        if variable == "KLSHM_INSTANCE" or (variable.startswith("KLSHM_") and "__" in variable):
            path = _known(variable.removeprefix("KLSHM_").lower().replace("__", "."), known, variable)
            yield _Given(path, _parsed(known[path], environ[variable], variable), variable)


def _from_options(overrides: Iterable[str], known: Mapping[str, Key]) -> Iterator[_Given]:
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected section.key=value")
        path = _known(path.strip(), known, "--set")
        yield _Given(path, _parsed(known[path], value.strip(), "--set"), "--set")


def _known(path: str, known: Mapping[str, Key], source: str) -> str:
    if path in known:
        return path
    if path in RENAMED:
        raise ConfigError(f"{source}: {path} is now called {RENAMED[path]}; rename it")
    section, _, name = path.rpartition(".")
    same_section = [key.path for key in known.values() if key.section == section]
    same_name = [key.path for key in known.values() if key.name == name]
    near = same_name or difflib.get_close_matches(path, same_section or list(known), n=1, cutoff=0.0)
    choices = ", ".join(k.rpartition(".")[2] for k in same_section) if section and same_section else "section.key"
    raise ConfigError(f"{source}: unknown key {path}, expected {choices}; nearest is {near[0]}")


def _parsed(key: Key, text: str, source: str) -> Any:
    try:
        return parse_text(text, key.kind)
    except ValueError:
        raise _mistake(key, text, source) from None


def _checked(key: Key, given: _Given) -> Any:
    value = given.value
    if key.kind is float and type(value) is int:
        value = float(value)
    if not _has_type(value, key.kind) or not key.limit.accepts(value):
        raise _mistake(key, value, given.source)
    return value


def _has_type(value: Any, kind: Any) -> bool:
    if kind == list[str]:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if kind == dict[str, int]:
        return isinstance(value, dict) and all(type(item) is int for item in value.values())
    return type(value) is kind


def _mistake(key: Key, value: Any, source: str) -> ConfigError:
    fits = _has_type(value, key.kind)
    expected = key.limit.expected if fits else type_words(key.kind)
    if not fits and key.kind in (int, float) and key.limit.expected:
        expected += f", {key.limit.expected}"
    near = _nearest_word(key, value)
    return ConfigError(f"{source}: {key.path} = {render_value(value)}, expected {expected}{near}")


def _nearest_word(key: Key, value: Any) -> str:
    words = getattr(key.limit, "words", None) or getattr(key.limit, "names", None)
    given = list(value) if isinstance(value, dict) else [value]
    for item in given:
        if words and isinstance(item, str) and item not in words:
            near = difflib.get_close_matches(item, words, n=1)
            return f"; nearest to {item} is {near[0]}" if near else ""
    return ""


def _sections() -> dict[str, Any]:
    hints = get_type_hints(Config)
    return {item.name: hints[item.name] for item in dataclasses.fields(Config) if "meaning" not in item.metadata}


def _build(values: Mapping[str, Any]) -> Config:
    sections = {
        name: owner(**{item.name: values[f"{name}.{item.name}"] for item in dataclasses.fields(owner)})
        for name, owner in _sections().items()
    }
    return Config(instance=values["instance"], **sections)
