"""What a voice computes before its decoder, by ONNX Runtime, with random numbers that are given to it.

The graph is cut behind the latents, and before each operator that draws random numbers, since how many it draws is
only known when what it stands behind has run. Each part is a session of ONNX Runtime, and every node runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastvoc.faces.voice.program import Program, all_of, attributes, first_line, reads, required
from fastvoc.noise import normal, uniform

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = NDArray[Any]

_NORMAL, _UNIFORM = ("RandomNormal", "RandomNormalLike"), ("RandomUniform", "RandomUniformLike")
_DRAWING = (*_NORMAL, *_UNIFORM)
_REFUSED = ("Multinomial", "Bernoulli")
_CONSTANT = -1
"""Level of what depends on no input: each part computes it for itself, as ONNX Runtime does when it loads it."""


@dataclass(frozen=True)
class Draw:
    """An operator that draws random numbers.

    Attributes
    ----------
    output : str
        The tensor that it makes.
    like : str or None
        The tensor whose shape it has.
    shape : tuple of int
        Its shape, where there is no such tensor.
    kind : {"normal", "uniform"}
    offset, factor : float
        What is made of numbers of the standard distribution: ``offset + factor * number``.
    dtype : int
        Of the result, as ONNX counts types.
    """

    output: str
    like: str | None
    shape: tuple[int, ...]
    kind: str
    offset: float
    factor: float
    dtype: int

    def make(self, shape: Sequence[int], seed: int, channel: int) -> tuple[Array, int]:
        """Return the numbers of a seed, from a channel of `fastvoc.noise` on, and the channel behind them.

        The last axis is that of the rows, so that a number depends on its place and not on how many there are.
        """
        rows, channels = (shape[-1], math.prod(shape[:-1])) if shape else (1, 1)
        draw = normal if self.kind == "normal" else uniform
        numbers = draw(torch.tensor([seed], device="cpu"), 0, channels=channel + channels, rows=rows)[0, channel:]
        values = self.offset + self.factor * numbers.reshape(tuple(shape)).numpy()
        return values, channel + channels


@dataclass(frozen=True)
class Part:
    """What is drawn, and then run."""

    draws: list[Draw]
    model: ModelProto | None
    """None where nothing is left to run."""


class Front:
    """The graph before the decoder.

    Parameters
    ----------
    program : Program
    results : sequence of str
        The tensors that are asked for: latents and, where there are several speakers, their embedding.
    threads : int
        Of ONNX Runtime.

    Raises
    ------
    ModuleNotFoundError
        Without ``onnxruntime``.
    ValueError
        If the graph draws random numbers where they cannot be given, or ONNX Runtime does not take it.
    """

    def __init__(self, program: Program, results: Sequence[str], *, threads: int) -> None:
        runtime = required("onnxruntime")
        self.where = program.where
        self.results = tuple(results)
        self.version: str = runtime.__version__
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # of what the exporter left behind; what fails is raised
        # threads that wait for work by turning around would take the processors from the decoder
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.parts: list[tuple[list[Draw], Any]] = []
        for part in cut(program, results):
            try:
                session = part.model and runtime.InferenceSession(
                    part.model.SerializeToString(), options, ["CPUExecutionProvider"]
                )
            except Exception as error:  # of many kinds, none of which it documents
                raise ValueError(
                    f"{self.where}: ONNX Runtime {self.version} does not load it ({first_line(error)})"
                ) from None
            self.parts.append((part.draws, session))
            del part  # whose weights are a copy

    def run(self, inputs: Mapping[str, Array], noise: Callable[[Draw, Sequence[int]], Array]) -> list[Array]:
        """Return the results for inputs, drawing by a function of an operator and the shape that it wants."""
        values: dict[str, Array] = dict(inputs)
        for draws, session in self.parts:
            for draw in draws:
                shape = draw.shape if draw.like is None else values[draw.like].shape
                values[draw.output] = _typed(noise(draw, shape), draw.dtype)
            if session is None:
                continue
            made = [value.name for value in session.get_outputs()]
            try:
                outputs = session.run(made, {value.name: values[value.name] for value in session.get_inputs()})
            except Exception as error:  # of many kinds, none of which it documents
                raise ValueError(
                    f"{self.where}: ONNX Runtime does not run it for these ids ({first_line(error)})"
                ) from None
            values |= zip(made, outputs, strict=True)
        return [values[name] for name in self.results]


def _typed(numbers: Array, dtype: int) -> Array:
    from onnx import helper

    return np.ascontiguousarray(numbers, dtype=helper.tensor_dtype_to_np_dtype(dtype))


def cut(program: Program, results: Sequence[str]) -> Iterator[Part]:
    """Cut a graph before each operator that draws random numbers.

    Parameters
    ----------
    program : Program
    results : sequence of str
        The tensors that are asked for.

    Yields
    ------
    Part
        To be run one after the other; each takes what those before it have made, and what was drawn. It has a copy of
        its weights, so that it should be dropped before the next one is asked for.
    """
    nodes = _needed(program, results)
    levels: dict[str, int] = dict.fromkeys(program.initializers, _CONSTANT) | dict.fromkeys(program.inputs, 0)
    draws: dict[int, list[Draw]] = {}
    members: dict[int, list[NodeProto]] = {}
    for node in nodes:
        inside = {inner.op_type for inner in all_of(node) if inner is not node}
        if node.op_type in _REFUSED or not inside.isdisjoint((*_REFUSED, *_DRAWING)):
            raise ValueError(f"{program.where}: its {node.op_type} {node.name!r} draws what nobody can give it")
        level = max((levels.get(name, _CONSTANT) for name in reads(node)), default=_CONSTANT)
        if node.op_type in _DRAWING:
            level = max(level + 1, 0)
            draws.setdefault(level, []).append(_draw(node, program))
        else:
            members.setdefault(level, []).append(node)
        levels |= dict.fromkeys(node.output, level)
    likes = {draw.like for some in draws.values() for draw in some if draw.like is not None}
    if fixed := [name for name in (*results, *likes) if levels.get(name, _CONSTANT) == _CONSTANT]:
        raise ValueError(f"{program.where}: its tensor {fixed[0]!r} does not depend on the text")
    types, constants = _types(program.model), members.pop(_CONSTANT, [])
    read_at = {level: {name for node in some for name in reads(node)} for level, some in members.items()}
    for level in range(max(levels[name] for name in results) + 1):
        own = members.get(level, [])
        later = {name for above, names in read_at.items() if above > level for name in names} | likes | set(results)
        outputs = [name for node in own for name in node.output if name in later]
        whole = [*_behind(read_at.get(level, set()), constants), *own]
        made = {name for node in whole for name in node.output}
        inputs = sorted({name for node in whole for name in reads(node)} - made - program.initializers.keys())
        yield Part(draws.get(level, []), _model(program, whole, inputs, outputs, types) if outputs else None)


def _needed(program: Program, results: Iterable[str]) -> list[NodeProto]:
    """Return the nodes that results depend on, in order."""
    return _behind(set(results), program.graph.node)


def _behind(names: set[str], nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """Return those nodes, of some in order, that tensors of these names depend on."""
    wanted, found = set(names), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(reads(node))
    return found[::-1]


def _draw(node: NodeProto, program: Program) -> Draw:
    from onnx import TensorProto

    about = attributes(node)
    kind = "normal" if node.op_type in _NORMAL else "uniform"
    first, second = (
        (about.get("mean", 0.0), about.get("scale", 1.0))
        if kind == "normal"
        else (about.get("low", 0.0), about.get("high", 1.0) - about.get("low", 0.0))
    )
    dtype = about.get("dtype", TensorProto.FLOAT)
    if dtype not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
        raise ValueError(f"{program.where}: its {node.op_type} {node.name!r} draws numbers of a type that has none")
    like = node.input[0] if node.input else None
    return Draw(node.output[0], like, tuple(about.get("shape", ())), kind, first, second, dtype)


def _types(model: ModelProto) -> dict[str, int]:
    """Return the types of the elements of all tensors, as ONNX counts them."""
    import onnx
    from onnx import helper

    # weights are copied to and fro; what they hold says nothing about types
    stored = [helper.make_tensor_value_info(one.name, one.data_type, list(one.dims)) for one in model.graph.initializer]
    names = {value.name for value in stored}
    given = [value for value in model.graph.input if value.name not in names]
    graph = helper.make_graph(model.graph.node, "types", [*given, *stored], model.graph.output)
    bare = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        graph = onnx.shape_inference.infer_shapes(bare).graph
    except Exception:  # what is not found out is missed only where a part needs it
        graph = bare.graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}


def _model(
    program: Program, nodes: Sequence[NodeProto], inputs: Sequence[str], outputs: Sequence[str], types: dict[str, int]
) -> ModelProto:
    """Make a program of some nodes, with the stored tensors that they read."""
    from onnx import helper

    read = {name for node in nodes for name in reads(node)}
    stored = [tensor for name, tensor in program.initializers.items() if name in read]
    if untyped := [name for name in (*inputs, *outputs) if not types.get(name)]:
        raise ValueError(f"{program.where}: nothing tells the type of its tensor {untyped[0]!r}")
    graph = helper.make_graph(
        nodes,
        "part",
        [helper.make_tensor_value_info(name, types[name], None) for name in inputs],
        [helper.make_tensor_value_info(name, types[name], None) for name in outputs],
        stored,
    )
    return helper.make_model(graph, opset_imports=program.model.opset_import, ir_version=program.model.ir_version)
