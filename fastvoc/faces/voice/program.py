"""Programs in ONNX, read by the package `onnx` and looked at as graphs: who makes a tensor, and what is constant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LARGEST = 2**31 - 1
"""Bytes of a file; a protobuf message has no more."""


def read_program(path: Path) -> ModelProto:
    """Read and check a file, without running anything of it.

    Parameters
    ----------
    path : Path
        With its weights, or beside the files that it keeps them in.

    Raises
    ------
    ModuleNotFoundError
        Without the package ``onnx`` (``pip install 'fastvoc[voice]'``).
    ValueError
        One sentence, if it is no ONNX program, damaged, or cut short.
    """
    onnx = required("onnx")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: is no file; expected an ONNX program")
    if not 0 < path.stat().st_size <= LARGEST:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes; an ONNX program has 1 to {LARGEST}")
    try:
        model: ModelProto = onnx.load(path)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        onnx.checker.check_model(model)
    except Exception as error:  # of protobuf, of the checker and of files beside it, all of which mean the same
        raise ValueError(
            f"{path}: is not an ONNX program, or is damaged or cut short ({first_line(error)}); fetch it again"
        ) from None
    return model


def first_line(error: Exception) -> str:
    """Return what an error of another library says, as a part of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else "?" for c in lines[0]) if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} …"


def required(name: str) -> Any:
    """Import a package that only voices need, or say how it is installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"fastvoc: a voice in ONNX needs the package {error.name}; run `pip install 'fastvoc[voice]'`"
        ) from None


class Program:
    """A graph with its makers.

    Parameters
    ----------
    model : ModelProto
        Whose nodes stand in an order in which they can be run, as the checker demands.
    where : str
        What error messages begin with.
    """

    def __init__(self, model: ModelProto, where: str) -> None:
        self.model = model
        self.graph: GraphProto = model.graph
        self.where = where
        self.makers: dict[str, NodeProto] = {name: node for node in self.graph.node for name in node.output if name}
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        # a default that a caller may replace is an input all the same
        self.inputs = [value.name for value in self.graph.input if value.name not in self.initializers]

    def maker(self, name: str) -> NodeProto | None:
        """Return the node that makes a tensor, or None for inputs and stored tensors; copies are looked through."""
        node = self.makers.get(name)
        while node is not None and node.op_type in ("Identity", "Cast") and not node.domain:
            name = node.input[0]
            node = self.makers.get(name)
        return node

    def origin(self, name: str) -> str:
        """Return the tensor of which one of this name is a copy."""
        while (node := self.makers.get(name)) is not None and node.op_type in ("Identity", "Cast") and not node.domain:
            name = node.input[0]
        return name

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return the value of a stored tensor, or None where it depends on what is computed."""
        from onnx import numpy_helper

        name = self.origin(name)
        stored = self.initializers.get(name)
        if stored is None:
            node = self.makers.get(name)
            if node is None or node.op_type != "Constant":
                return None
            kinds = {attribute.name: attribute for attribute in node.attribute}
            if "value_float" in kinds:
                return np.asarray(kinds["value_float"].f, dtype=np.float32)
            if "value" not in kinds:
                return None
            stored = kinds["value"].t
        try:
            return numpy_helper.to_array(stored)
        except Exception as error:
            raise ValueError(f"{self.where}: its tensor {name!r} cannot be read ({first_line(error)})") from None

    def number(self, name: str) -> float | None:
        """Return a stored tensor of one value."""
        value = self.constant(name)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None

    def weight(self, name: str, dimensions: int) -> Tensor:
        """Return a stored weight in float32, or raise one sentence.

        Parameters
        ----------
        name : str
        dimensions : int
        """
        value = self.constant(name)
        if value is None:
            raise ValueError(
                f"{self.where}: its weight {name!r} is computed, not stored; export the voice with its weight norm "
                "removed"
            )
        if value.dtype not in (np.float32, np.float16, np.float64) or value.ndim != dimensions or not value.size:
            raise ValueError(
                f"{self.where}: its weight {name!r} is of type {value.dtype} and shape {value.shape}; it must hold "
                f"floating-point numbers in {dimensions} dimensions, as the decoder of a voice has them"
            )
        tensor = torch.from_numpy(np.array(value, dtype=np.float32))
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{self.where}: its weight {name!r} holds values that are NaN or infinite")
        return tensor


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def reads(node: NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that its branches and loops read from outside included."""
    yield from (name for name in node.input if name)
    for graph in _inner(node):
        made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        made |= {name for inner in graph.node for name in inner.output}
        for inner in graph.node:
            yield from (name for name in reads(inner) if name not in made)
        yield from (value.name for value in graph.output if value.name not in made)


def all_of(node: NodeProto) -> Iterator[NodeProto]:
    """Yield a node and those inside of its branches and loops."""
    yield node
    for graph in _inner(node):
        for inner in graph.node:
            yield from all_of(inner)


def _inner(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
