"""Reads the settings of other projects, JSON or YAML, as plain data: no tag of YAML makes an object."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fastvoc.config import from_dict

T = TypeVar("T")

_LARGEST = 1 << 20
"""Bytes of a file of settings; those of real projects have up to some hundred thousand, where they list tokens."""

_MOST = 200_000
"""Values that settings hold: an alias of YAML repeats its content at no cost in bytes."""

_DEEPEST = 32
"""Levels of settings; those of real projects have at most six."""

_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)


class _Loader(yaml.SafeLoader):
    """Takes what stands behind an unknown tag, such as ``!new:`` or ``!!python/object:``, for plain data.

    It is the loader in Python: the one in C ends the process where brackets are nested too deeply.
    """


def _untagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_Loader.add_multi_constructor(None, _untagged)


def parse(text: str, where: str) -> dict[str, Any]:
    """Read JSON, with or without comments, or YAML.

    Parameters
    ----------
    text : str
    where : str
        What error messages call the source.

    Raises
    ------
    ValueError
        If it is neither, does not hold names with values, or holds absurdly many.
    """
    if len(text) > _LARGEST:
        raise ValueError(f"{where}: has {len(text)} characters, too many for settings; it is another kind of file")
    # the parsers know their own errors, and raise KeyError, RecursionError and others for what nobody expected
    try:
        values = json.loads(text)
    except Exception:
        try:
            bare = _COMMENT.sub(lambda match: match[1] or "", text) if text.lstrip()[:1] in ("{", "/") else text
            values = yaml.load(bare, Loader=_Loader)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{where}: is neither readable JSON nor YAML: {reason}") from None
    if not isinstance(values, dict):
        raise ValueError(
            f"{where}: holds {type(values).__name__}; expected the settings of a vocoder, names and values"
        )
    check_size(values, where)
    return {str(name): value for name, value in values.items()}


def read(path: Path) -> dict[str, Any]:
    """Read a file of settings as `parse` does."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, too many for settings; it is another kind of file")
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text, but settings are") from None


def pick(kind: type[T], values: Any, where: str) -> T:
    """Build a class of settings from those values that it has fields for.

    Raises
    ------
    ValueError
        If the values are no names with values, or one is missing or of a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: is {type(values).__name__}; expected names and values")
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    picked: T = from_dict(kind, {name: value for name, value in values.items() if name in known}, where)
    return picked


def check_size(values: Any, where: str) -> None:
    """Raise one sentence if values are nested too deeply or repeat themselves too often to be settings."""
    pending, count = [(values, 1)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST:
            raise ValueError(
                f"{where}: is nested too deeply, or repeats itself too often, for the settings of a vocoder"
            )
        if isinstance(value, dict):
            pending += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list | tuple | set):
            pending += [(inner, depth + 1) for inner in value]
