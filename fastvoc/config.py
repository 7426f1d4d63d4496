"""Strict values: frozen, keyword-only, unknown keys refused; read from and written to JSON and YAML."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a strict value.

    Instances are frozen and take keyword arguments only; a wrong type, a value out of bounds or an unknown
    field raises when the value is made, not when it is used.
    """
    settings = ConfigDict(extra="forbid", strict=False, use_attribute_docstrings=True)
    return cast("type[T]", dataclass(cls, frozen=True, kw_only=True, config=settings))


def from_dict(kind: Any, values: Any, where: str) -> Any:
    """Build a value of a type from plain dictionaries, lists and scalars.

    Parameters
    ----------
    kind : type
        A class made by `config`, or a union of such classes that is told apart by a field.
    values : object
        What a JSON or YAML reader returns.
    where : str
        What the error message calls the source, such as a file name.

    Raises
    ------
    ValueError
        One sentence: the source, the path of each wrong field, what is wrong, and the nearest known name for
        an unknown field.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(f"{where}: " + "; ".join(_sentence(kind, detail) for detail in error.errors())) from None


def to_dict(value: Any) -> Any:
    """Return plain dictionaries, lists and scalars from which `from_dict` makes an equal value."""
    return TypeAdapter(type(value)).dump_python(value, mode="json")


def read(kind: Any, path: Path) -> Any:
    """Read a value of a type from a `.json`, `.yaml` or `.yml` file."""
    return from_dict(kind, read_plain(path), str(path))


def read_plain(path: Path) -> Any:
    """Read a `.json`, `.yaml` or `.yml` file into plain objects, with one clear error if it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable {path.suffix.lstrip('.').upper()} file: {reason}") from None


def write_json(value: Any, path: Path) -> None:
    """Write a value as JSON that `read` reads back, under a temporary name that is renamed when complete."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(to_dict(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def nearest(name: str, known: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or list the known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def _sentence(kind: Any, detail: Any) -> str:
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{path} is not a known field; {nearest(str(detail['loc'][-1]), _known_fields(kind, detail['loc']))}"
    if detail["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{path} is missing"
    if detail["type"] == "value_error":  # raised by a class about several of its fields
        return f"{path}: {detail['ctx']['error']}".removeprefix(": ")
    return f"{path} is {detail['input']!r}; {detail['msg']}"


def _known_fields(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """Names of every field reachable in the type: enough to suggest the one that was meant."""
    names: list[str] = []
    pending, seen = [kind], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        pending.extend(getattr(current, "__args__", ()))
        if hasattr(current, "__dataclass_fields__"):
            for field in fields(current):
                names.append(field.name)
                pending.append(current.__pydantic_fields__[field.name].annotation)
    return names
