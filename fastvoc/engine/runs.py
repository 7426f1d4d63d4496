"""Which parts of a graph native plans can run: runs of convolutions, as the layers that they are compiled of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter

import torch
from torch import Tensor
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.graph import (
    CONDITION,
    INPUT,
    Convolution,
    Graph,
    Native,
    Network,
    Node,
    Opaque,
    Pointwise,
    SmoothSnake,
    Window,
    foreign,
)
from fastvoc.ops.network import NOTHING, Layer

FEWEST = 2
"""Convolutions of a run: a single one is as fast by its operator."""

KNOWN = (Convolution, SmoothSnake)
"""What plans can run."""


def runs_of(graph: Graph, fewest: int = FEWEST) -> dict[int, int]:
    """Return the last node of each run by its first: layers of one signal, of which one result is read outside.

    Parameters
    ----------
    graph : Graph
        From `Graph.fused`.
    fewest : int
        Layers of a run, at least.
    """
    latest = [max(graph.readers(number), default=number) for number in range(len(graph.nodes))]
    runs, first = {}, 0
    while first < len(graph.nodes):
        last, read, sources = first - 1, first, set[int]()
        for number in range(first, len(graph.nodes)):
            sources |= {source for source in graph.inputs[number] if source < first}
            if not isinstance(graph.nodes[number], KNOWN) or len(sources) > 1 or any(map(graph.constant, sources)):
                break
            # it may end where nothing before is read later
            if read <= number:
                last = number
            read = max(read, latest[number])
        if last - first + 1 >= fewest:
            runs[first] = last
        first = max(first, last) + 1
    return runs


def has_packed(graph: Graph) -> bool:
    """Tell whether some node has weights that can be packed for a kernel of its own."""
    return any(type(node).packed is not Node.packed for node in graph.nodes)


def split(graph: Graph, make: Callable[[Graph], Native], dtype: torch.dtype | None = None) -> Graph:
    """Return a graph in which each run is one node, made of a graph of its own, and others are packed that can be.

    Where some can be, single layers are runs too: their weights are then packed once as all others are.

    Parameters
    ----------
    graph : Graph
        From `Graph.fused`.
    make : callable
    dtype : torch.dtype, optional
        What packed weights are multiplied in; without it none are packed.
    """
    ends = runs_of(graph, FEWEST if dtype is None or not has_packed(graph) else 1)
    whole, place = Graph(), {INPUT: INPUT, CONDITION: CONDITION}
    number = 0
    while number < len(graph.nodes):
        last = ends.get(number, number)
        if number in ends:
            part, inside = Graph(), range(number, last + 1)
            source = next(s for n in inside for s in graph.inputs[n] if s not in inside)
            for n in inside:
                part.add(graph.nodes[n], *(s - number if s in inside else INPUT for s in graph.inputs[n]))
            place[last] = whole.add(make(part), place[source])
        else:
            node = graph.nodes[number]
            node = node if dtype is None else node.packed(dtype) or node
            place[number] = whole.add(node, *(place[source] for source in graph.inputs[number]))
        number = last + 1
    return whole


def outside(network: Network) -> str | None:
    """Return what keeps a network from being one run, or None.

    Functions of rows may stand before it, and behind it what has a single convolution, such as a transform.

    Raises
    ------
    TypeError
        If a module does not say which rows it reads.
    """
    graph = network.graph().fused()
    if reason := altered(network, graph):
        return reason
    if any(CONDITION in inputs for inputs in graph.inputs):
        return "it is conditioned on a vector per utterance"
    ends = runs_of(graph)
    first = next(iter(ends), 0)
    for node, block in zip(graph.nodes, graph.blocks, strict=True):
        if node.amplifies:
            return f"its {block} amplifies every rounding, so that all is summed in the operators' order"
    last = ends.get(first, -1)
    alone = sum(isinstance(node, Convolution) for node in graph.nodes[last + 1 :]) <= 1
    beyond = [
        (isinstance(node, Convolution), block)  # convolutions stand apart because of what is none
        for number, (node, block) in enumerate(zip(graph.nodes, graph.blocks, strict=True))
        if (number < first and not isinstance(node, Pointwise)) or (number > last and not alone)
    ]
    if beyond:
        return f"its {min(beyond, key=itemgetter(0))[1]} is made of more than the layers that a plan knows"
    return None


def altered(network: Network, graph: Graph) -> str | None:
    """Return which module runs only where it is called, and why, or None."""
    for node in graph.nodes:
        if isinstance(node, Opaque):
            name = next((name for name, module in network.named_modules() if module is node.module), "")
            return f"{f'its module {name!r}' if name else 'it'} {foreign(node.module)}"
    return None


def outside_operators(network: Network) -> str | None:
    """Return why a padded mel would not give the samples of the mel alone, or None."""
    if network.extra_samples:
        extra = network.extra_samples
        count = f"{abs(extra)} samples {'more' if extra > 0 else 'less'}"
        return f"its waves have {count} than their mels, where a padded mel goes on"
    try:
        graph = network.graph()
    except TypeError as error:
        return str(error)
    if reason := altered(network, graph):
        return reason
    for node, block in zip(graph.nodes, graph.blocks, strict=True):
        if not isinstance(node, (Convolution, SmoothSnake, Pointwise)):
            return f"{block} computes outside the operators, which alone know where a mel ends"
    return None


def layers_of(network: Network) -> list[Layer]:
    """List the layers of the first run of a network."""
    graph = network.graph().fused()
    first, last = next(iter(runs_of(graph).items()))
    part = Graph()
    for number in range(first, last + 1):
        part.add(graph.nodes[number], *(max(source - first, INPUT) for source in graph.inputs[number]))
    return as_layers(part)


def as_layers(run: Graph) -> list[Layer]:
    """List the layers of a graph of nothing else."""
    layers = []
    for node, (source, *added) in zip(run.nodes, run.inputs, strict=True):
        if isinstance(node, SmoothSnake):
            layers.append(Layer(kind="smooth_snake", input=source, weight=node.weight, bias=None, padding=(0, 0)))
            continue
        assert isinstance(node, Convolution)
        left, right = node.padding
        if node.stride and node.padding_mode == "replicate":
            left -= node.stride  # the row that it repeats in front, and crops again
        layers.append(
            Layer(
                kind="upsample" if node.stride else "conv1d",
                input=source,
                weight=node.weight,
                bias=node.bias,
                padding=(left, right),
                padding_mode=node.padding_mode,
                dilation=node.dilation,
                stride=node.stride or 1,
                slope=node.slope,
                residual=added[0] if node.residual else NOTHING,
                partial=added[-1] if node.partial else NOTHING,
                divisor=node.divisor,
                slope_after=node.slope_after,
                tanh=node.tanh,
            )
        )
    return layers


def input_of(network: Network, mel: Tensor) -> Tensor:
    """Return what the first run of a network reads, where only functions of rows stand before it."""
    graph = network.graph().fused()
    for node in graph.nodes[: next(iter(runs_of(graph)))]:
        mel = node.valid(Window((mel,), 0, mel.shape[-1], True), 0, mel.shape[-1] - 1)
    return mel


def operands(layers: list[Layer], x: Tensor) -> Iterator[Tensor]:
    """Run layers one by one: (B, bands, T) → for each, what it multiplies, its input behind the leaky ReLU."""
    results = {INPUT: x}
    for number, layer in enumerate(layers):
        operand = F.leaky_relu(results[layer.input], layer.slope)
        yield operand
        y = _convolved(layer, operand)
        if layer.residual != NOTHING:
            y = y + results[layer.residual]
        if layer.partial != NOTHING:
            y = results[layer.partial] + y
        y = F.leaky_relu(y / layer.divisor, layer.slope_after)
        results[number] = y.tanh() if layer.tanh else y
        needed = {n for after in layers[number + 1 :] for n in (after.input, after.residual, after.partial)}
        results = {n: result for n, result in results.items() if n in needed}


def _convolved(layer: Layer, x: Tensor) -> Tensor:
    if layer.kind == "smooth_snake":
        frequency, amount = layer.weight[:, 0].to(x.dtype).unbind(-1)
        return ops.smooth_snake(x, frequency, 1 / amount, logarithmic=False)
    if layer.kind == "conv1d":
        return ops.conv1d(
            x,
            layer.weight,
            layer.bias,
            dilation=layer.dilation,
            padding=layer.padding,
            padding_mode=layer.padding_mode,
        )
    left, right = layer.padding
    if layer.padding_mode == "replicate":
        x, left = F.pad(x, (1, 0), "replicate"), left + layer.stride
    return ops.upsample(x, layer.weight, layer.bias, stride=layer.stride, crop=(left, right))
