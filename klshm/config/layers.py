"""What the file, the environment and the options say, one given value at a time.

Each value is checked where it is given, so that a mistake names its place: file, key, what was
found, what was expected, and the nearest name. All functions raise `ConfigError`.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from klshm.config.keys import Key, sections
from klshm.config.toml import parse_text, render_value, type_words
from klshm.errors import ConfigError


__all__ = ["RENAMED", "Given", "checked", "from_environment", "from_file", "from_options"]

RENAMED: Final[dict[str, str]] = {}
"""Former names of keys and the names they have now."""


@dataclass(frozen=True)
class Given:
    """One value that a layer gives.

    Attributes:
        path: Path of the key.
        value: What was given, of whatever type.
        source: Where, for messages.
    """

    path: str
    value: Any
    source: str


def from_file(file: Path, known: Mapping[str, Key]) -> Iterator[Given]:
    """Yield what a TOML file gives."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}; check --config and CONFIG_PATH") from None
    except ValueError as error:
        raise ConfigError(f"{file}: is not valid TOML: {error}") from None
    source = str(file)
    for name, value in document.items():
        if name in sections() and isinstance(value, dict):
            for key, inner in value.items():
                yield Given(_known(f"{name}.{key}", known, source), inner, source)
        else:
            yield Given(_known(name, known, source), value, source)


def from_environment(environ: Mapping[str, str], known: Mapping[str, Key]) -> Iterator[Given]:
    """Yield what variables named `KLSHM_<SECTION>__<KEY>` give."""
    for variable in sorted(environ):
        if variable == "KLSHM_INSTANCE" or (variable.startswith("KLSHM_") and "__" in variable):
            path = _known(variable.removeprefix("KLSHM_").lower().replace("__", "."), known, variable)
            yield Given(path, _parsed(known[path], environ[variable], variable), variable)


def from_options(overrides: Iterable[str], known: Mapping[str, Key]) -> Iterator[Given]:
    """Yield what options `section.key=value` give."""
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected section.key=value")
        path = _known(path.strip(), known, "--set")
        yield Given(path, _parsed(known[path], value.strip(), "--set"), "--set")


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


def checked(key: Key, given: Given) -> Any:
    """Return the value if it has the key's type and keeps its limit."""
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
    given = list(value) if isinstance(value, dict | list) else [value]
    for item in given:
        if words and isinstance(item, str) and item not in words:
            near = difflib.get_close_matches(item, words, n=1)
            return f"; nearest to {item} is {near[0]}" if near else ""
    return ""
