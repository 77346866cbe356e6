"""Writes the questions of a watch as TOML, which the native half reads as it reads a file."""

from __future__ import annotations

import json
from typing import Any, Mapping


def text(settings: Mapping[str, Any]) -> str:
    """The settings, a line each, and the items of a list of tables as inline tables."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in settings.items())


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the names of settings are str, not {type(key).__name__}: {key!r}")
    return _string(key)


def _string(value: str) -> str:
    # A string of JSON is one of TOML, but for this character and for halves of surrogate pairs, which no text has.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    raise TypeError(f"a setting cannot be {type(value).__name__}: {value!r}")
