"""Reads the settings of other projects, JSON or YAML, as plain data: no tag of YAML makes an object."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fastvoc.config import decode, from_dict

T = TypeVar("T")

_LARGEST = 1 << 20
"""Bytes of a file of settings; those of real projects have up to some hundred thousand, where they list tokens."""

_MOST = 200_000
"""Values that settings hold: an alias of YAML repeats its content at no cost in bytes."""

_DEEPEST = 32
"""Levels of settings; those of real projects have at most six."""

_DEEPEST_BRACKETS = 256
"""Brackets that are open at once in the text, where words may have some."""

_BRACKET = re.compile(r"[\[\]{}]")
_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\\n])*")|,(?=\s*[}\]])')


class _Ambiguous(ValueError):
    """Settings that say one thing twice."""


def _once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Make a dictionary of pairs, or raise if two of one name differ: parsers of others take one of them, or none."""
    values: dict[Any, Any] = {}
    for name, value in pairs:
        if name in values and values[name] != value:
            raise _Ambiguous(f"holds {name} twice, with different values; leave one of them")
        values[name] = value
    return values


class _Loader(yaml.SafeLoader):
    """Takes what stands behind an unknown tag, such as ``!new:`` or ``!!python/object:``, for plain data.

    It is the loader in Python: the one in C ends the process where brackets are nested too deeply.
    """


def _refuse_ambiguous(node: yaml.MappingNode) -> None:
    _once((key.value, value.value) for key, value in node.value if isinstance(key, yaml.ScalarNode))


def _mapping(loader: Any, node: yaml.MappingNode) -> Iterator[dict[Any, Any]]:
    _refuse_ambiguous(node)
    yield from loader.construct_yaml_map(node)


def _untagged(loader: Any, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        _refuse_ambiguous(node)
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return node.value


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
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
    if _depth(text) > _DEEPEST_BRACKETS:
        raise ValueError(f"{where}: is nested too deeply for the settings of a vocoder")
    # the parsers know their own errors, and raise KeyError, RecursionError and others for what nobody expected
    bare = _without_comments(text) if text.lstrip()[:1] in ("{", "/") else text
    readers: tuple[tuple[Callable[[str], Any], str], ...] = ((_read_json, text), (_read_json, bare), (_read_yaml, bare))
    for reader, content in readers:
        try:
            values = reader(content)
            break
        except _Ambiguous as error:
            raise ValueError(f"{where}: {error}") from None
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
    else:
        raise ValueError(f"{where}: is neither readable JSON nor YAML: {reason}")
    if not isinstance(values, dict):
        raise ValueError(
            f"{where}: holds {type(values).__name__}; expected the settings of a vocoder, names and values"
        )
    check_size(values, where)
    return {str(name): value for name, value in values.items()}


def _depth(text: str) -> int:
    """Return the most brackets that are open at once, those in quotes included: parsers take long over many."""
    return max(itertools.accumulate((1 if found in "[{" else -1 for found in _BRACKET.findall(text)), initial=0))


def _read_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _without_comments(text: str) -> str:
    """Make plain JSON of what editors with comments write, which also leave a comma behind the last value."""
    bare = _COMMENT.sub(lambda match: match[1] or "", text)
    return _LAST_COMMA.sub(lambda match: match[1] or "", bare)


def read(path: Path) -> dict[str, Any]:
    """Read a file of settings as `parse` does."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, too many for settings; it is another kind of file")
    try:
        return parse(decode(path.read_bytes()), str(path))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not text, but settings are") from None


def refuse_other(path: Path, is_ours: Callable[[Path, Mapping[str, Any]], bool], what: str) -> None:
    """Raise where settings would be replaced without which weights that lie beside them cannot be opened.

    Parameters
    ----------
    path : Path
        Of the settings that are about to be written; where there are none, nothing is refused.
    is_ours : callable
        Whether settings, of which it is given path and content, may be replaced.
    what : str
        To whom they belong then, for the sentence.
    """
    if not path.exists():
        return
    try:
        ours = is_ours(path, read(path))
    except (ValueError, OSError):
        ours = False
    if not ours:
        raise ValueError(
            f"{path}: is not that of {what}, and without it the weights beside it cannot be opened; name another folder"
        )


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
