"""Strict values: frozen, keyword-only, unknown keys refused; read from and written to JSON and YAML."""

from __future__ import annotations

import codecs
import difflib
import json
import re
from collections import ChainMap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import core_schema
from typing_extensions import dataclass_transform

from fastvoc.writing import complete_file

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a strict value.

    Instances are frozen and take keyword arguments only; a wrong type, a value out of bounds, a number that is not
    finite (which JSON cannot hold) or an unknown field raises when the value is made, not when it is used.
    """
    settings = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
    return cast("type[T]", dataclass(cls, frozen=True, kw_only=True, config=settings))


class Kinds:
    """Classes of values that are told apart by their field `kind`; more can be added from anywhere, at any time.

    ``Annotated[Base, KINDS]`` is the type of a field that holds one of them, read from a dictionary by its `kind`.

    Parameters
    ----------
    what : str
        What one of them is, for error messages, such as ``"generator"``.
    *others : Kinds
        Whose classes are of these kinds too, now or later.
    """

    def __init__(self, what: str, *others: Kinds) -> None:
        self.what = what
        # others are looked into and never written to
        self._classes: ChainMap[str, type] = ChainMap({}, *(kinds._classes for kinds in reversed(others)))

    def add(self, cls: type[T]) -> type[T]:
        """Add a class made by `config`, whose field `kind` has its name as the default, and return it.

        Raises
        ------
        ValueError
            If another class has this name.
        """
        name = str(next(field.default for field in fields(cast("Any", cls)) if field.name == "kind"))
        if self._classes.setdefault(name, cls) is not cls:
            raise ValueError(f"{cls.__name__}: {self._classes[name].__name__} is the {self.what} {name!r} already")
        return cls

    def __iter__(self) -> Iterator[type]:
        return iter(self._classes.values())

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __getitem__(self, name: str) -> type:
        if name in self._classes:
            return self._classes[name]
        raise ValueError(
            f"{name!r} is no kind of {self.what}; {nearest(name, list(self._classes))}; one of another "
            "module is known once that is imported"
        )

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(to_dict)
        )

    def _read(self, value: Any) -> Any:
        if isinstance(value, tuple(self._classes.values())):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected a {self.what} as a table with its `kind`, but it is {value!r}")
        if "kind" not in value:
            raise ValueError(f"expected `kind`, which {self.what} this is; known: {', '.join(sorted(self._classes))}")
        return TypeAdapter(self[str(value["kind"])]).validate_python(value)


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
        text = decode(path.read_bytes())
        return json.loads(text) if path.suffix == ".json" else parse_yaml(text)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable {path.suffix.lstrip('.').upper()} file: {reason}") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply to be a file of settings") from None


class _Loader(yaml.SafeLoader):
    """Reads ``1e6`` as the number that JSON and YAML 1.2 take it for; YAML 1.1 wants ``1.0e+6``."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), [*"-+0123456789"]
)


def parse_yaml(text: str) -> Any:
    """Read plain objects from YAML."""
    return yaml.load(text, Loader=_Loader)


def decode(content: bytes) -> str:
    """Return the text of a file: UTF-8, with a mark at its begin or without, or UTF-16 with one, as on Windows."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig").replace("\r\n", "\n")


def write_json(value: Any, path: Path) -> None:
    """Write a value as JSON that `read` reads back, under a temporary name that is renamed when complete."""
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(to_dict(value), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
        pending.extend(getattr(current, "__metadata__", ()))
        if isinstance(current, Kinds):
            pending.extend(current)
        for name, field in getattr(current, "__pydantic_fields__", {}).items():
            names.append(name)
            pending.extend([field.annotation, *field.metadata])
    return sorted(set(names))
