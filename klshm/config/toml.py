"""Settings as text: values in TOML's spelling, and values given on a command line or in a variable."""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final


__all__ = ["parse_text", "render_value", "type_words"]

_WORDS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list[str]: "a list of texts",
    dict[str, int]: "a table of whole numbers",
}
_TRUTH: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def type_words(kind: Any) -> str:
    """Return a type in words."""
    return _WORDS[kind]


def render_value(value: Any) -> str:
    """Return a value in TOML's spelling."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = ", ".join(f"{name} = {render_value(inner)}" for name, inner in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(render_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's spelling is TOML's, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def parse_text(text: str, kind: Any) -> Any:
    """Return what a text from a command line or a variable says.

    Lists may be written `a,b` or as TOML, tables `a=1,b=2` or as TOML, the rest as it is.

    Raises:
        ValueError: If it cannot be read as that type.
    """
    if kind is bool:
        try:
            return _TRUTH[text.lower()]
        except KeyError:
            raise ValueError(text) from None
    if kind is int:
        return int(text)
    if kind is float:
        return float(text)
    if kind == list[str]:
        if text.startswith("["):
            return _toml(text)
        return [item.strip() for item in text.split(",") if item.strip()]
    if kind == dict[str, int]:
        return _toml(text if text.startswith("{") else f"{{ {text} }}")
    return text


def _toml(text: str) -> Any:
    return tomllib.loads(f"value = {text}")["value"]
