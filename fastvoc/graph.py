"""What a network is when it only runs: a list of nodes, each of which reads the results of earlier ones.

A node is the call of an operator without its input: settings, weights, and which rows it reads. Blocks lower themselves
into nodes, ``block.lower(graph, x) -> x``, beside their `forward`. Everything else is a walk over the list: the
receptive field (`Graph.needs`), streams (`fastvoc.engine.stream`), and native plans, which run what they know of it.
"""

from __future__ import annotations

import functools
import inspect
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module
from torch.nn.utils.parametrize import is_parametrized

from fastvoc import ops
from fastvoc.ops.kept import PLAIN
from fastvoc.ops.smooth_snake.call import REACH
from fastvoc.ops.smooth_snake.call import SmoothSnake as Call
from fastvoc.ops.smooth_snake.cpu import packed

INPUT, CONDITION = -1, -2
"""Instead of the number of a node: the mel, (B, bands, T); the vector per utterance, (B, C, 1)."""


class Network(Protocol):
    """What runs: an `nn.Module` that says what it is made of, as `fastvoc.models.Generator` does."""

    @property
    def mel_bands(self) -> int:
        """Channels of the input."""

    @property
    def hop(self) -> int:
        """Samples per frame."""

    @property
    def condition_channels(self) -> int:
        """Width of the condition; 0 is none."""

    @property
    def extra_samples(self) -> int:
        """Samples at the end beyond `hop` for each frame."""

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Frames before and behind a frame that its samples depend on."""

    def samples(self, frames: int) -> int:
        """Count the samples of so many frames."""

    def graph(self) -> Graph:
        """Return the nodes."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules and their names."""

    def __call__(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) and, where it is conditioned, (B, C) → (B, 1, samples)."""


class Window(NamedTuple):
    """The rows that a node reads for some rows of its result."""

    rows: tuple[Tensor, ...]
    """Of each input, (B, C, n): of the first those that `Node.needs` names, of the others one for each row of the
    result. What depends on the condition alone has a single row."""
    first: int
    """The number of the first row of the first input."""
    known: int
    """Rows of the first input that have come so far; a count beyond the receptive field stands for any."""
    ended: bool
    """Whether no others follow."""


class Node:
    """What every row is the same for: results have as many rows as the input, each of one row.

    A node with reach overrides `needs`, and `length` if its result has another rate.
    """

    edges: str = "none"
    """What is laid around the first input where `needs` reaches beyond its ends: "zero", "reflect", "replicate", or
    "none": the window is then shorter."""
    amplifies: bool = False
    """Whether it makes so much of a rounding that everything in a network with it sums in the operators' order."""
    waits: int = 0
    """Rows of the first input that have to come, or the input to end, before the first row of the result is certain."""

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the first input that rows `first … last` of the result read."""
        return first, last

    def length(self, count: int) -> int:
        """Rows of the result of so many rows of the first input."""
        return count

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last` of the result from the rows that they read: (B, C, last - first + 1)."""
        raise NotImplementedError

    def packed(self, dtype: torch.dtype) -> Node | None:
        """Return a node that does the same with weights packed once for a kernel of the CPU, or None if there is none.

        What it multiplies is in `dtype`, its rows in float32.
        """
        return None

    def ready(self, known: int, ended: bool) -> int:
        """Count the rows of the result that are certain once so many rows of the first input are known."""
        if ended:
            if self.edges == "reflect" and known < self.waits:
                raise ValueError(
                    f"conv1d: x has {known} frames; needs at least {self.waits} to reflect {self.waits - 1} of them"
                )
            return self.length(known)
        if known < self.waits or not known:
            return 0
        return min(self.certain(known), self.length(known))

    def certain(self, known: int) -> int:
        """Count the rows of the result that read none beyond so many rows of the first input."""
        if type(self).needs is Node.needs:
            return known
        return bisect_left(range(self.length(known)), known, key=lambda row: self.needs(row, row)[1])


class Pointwise(Node):
    """A function of rows, one by one: of one input, or of several with equally many rows.

    Parameters
    ----------
    function : callable
        Tensors (B, C, n) to a tensor (B, C', n); it writes into none of them.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`."""
        return self.function(*window.rows)


class LeakyReLU(Pointwise):
    """A leaky ReLU, which plans fuse into the convolutions that read it or the one that it reads."""

    def __init__(self, slope: float) -> None:
        super().__init__(lambda x: F.leaky_relu(x, slope))
        self.slope = slope


class Delayed(Node):
    """The input itself, from the first row on that has `count - 1` others behind it."""

    def __init__(self, count: int) -> None:
        self.waits = count

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Return rows `first … last`."""
        return window.rows[0]


class Mirrored(Node):
    """The input behind one row, the mirror image of its second."""

    edges = "reflect"
    waits = 2

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` are."""
        return first - 1, last - 1

    def length(self, count: int) -> int:
        """One row more."""
        return count + 1 if count else 0

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Return rows `first … last`."""
        return window.rows[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(Node):
    """A call of `conv1d` or, with a stride, of `upsample`, with what native plans fuse behind it.

    ``tanh?(leaky_relu_after((partial? + (convolution of leaky_relu(input) + bias? + residual?)) / divisor))``; inputs
    are the signal, then what is added to it: `residual` and `partial`, those that are there.

    Parameters
    ----------
    weight : Tensor, shape (C_out, C_in, K), or with a stride (C_in, C_out, K)
    bias : Tensor, shape (C_out,), optional
    padding : (int, int)
        Or, with a stride, the crop; if `padding_mode` is then "replicate", of the signal behind its first row again.
    stride : int
        0 for `conv1d`.
    """

    weight: Tensor
    bias: Tensor | None = None
    padding: tuple[int, int] = (0, 0)
    padding_mode: str = "zero"
    dilation: int = 1
    stride: int = 0
    slope: float = 1.0
    residual: bool = False
    partial: bool = False
    divisor: float = 1.0
    slope_after: float = 1.0
    tanh: bool = False

    @property
    def out_channels(self) -> int:
        """Channels of the result."""
        return self.weight.shape[1 if self.stride else 0]

    @property
    def edges(self) -> str:  # type: ignore[override]
        """What stands beyond the ends."""
        return "none" if self.stride and self.padding_mode == "zero" else self.padding_mode

    @property
    def waits(self) -> int:  # type: ignore[override]
        """Rows that a reflection at the start needs."""
        return max(self.padding) + 1 if self.padding_mode == "reflect" else 0

    @property
    def _front(self) -> int:
        return int(self.stride > 0 and self.padding_mode == "replicate")

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` read."""
        left = self.padding[0]
        if not self.stride:
            return first - left, last - left + (self.weight.shape[-1] - 1) * self.dilation
        # row `i` begins at row i · stride of the result, before the crop
        taps, front = self.weight.shape[-1], self._front
        return -((taps - 1 - first - left) // self.stride) - front, (last + left) // self.stride - front

    def certain(self, known: int) -> int:
        """Count the rows of the result that read none beyond so many."""
        if not self.stride:
            return max(0, known + self.padding[0] - (self.weight.shape[-1] - 1) * self.dilation)
        return max(0, (known + self._front) * self.stride - self.padding[0])

    def length(self, count: int) -> int:
        """Rows of the result of so many rows."""
        if not count:
            return 0
        if not self.stride:
            return count + sum(self.padding) - (self.weight.shape[-1] - 1) * self.dilation
        return (count + self._front - 1) * self.stride + self.weight.shape[-1] - sum(self.padding)

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`."""
        x, *added = window.rows
        residual = added.pop(0) if self.residual else None
        bare = not self.partial and self.divisor == self.slope_after == 1.0
        y = (
            self._upsampled(x, window.first, first, last)
            if self.stride
            else self._convolved(x, residual, window, first, tanh=self.tanh and bare)
        )
        if bare:
            return y
        y = added[0] + y if added else y
        y = y if self.divisor == 1.0 else y / self.divisor
        y = y if self.slope_after == 1.0 else F.leaky_relu(y, self.slope_after)
        return y.tanh() if self.tanh else y

    def _convolved(self, x: Tensor, residual: Tensor | None, window: Window, first: int, *, tanh: bool) -> Tensor:
        span = (self.weight.shape[-1] - 1) * self.dilation
        # Kernels leave single rows to plain PyTorch, which rounds differently; a signal of one row is what they make of
        # it. What reflects all that it reads at the start has always had a row too many behind it.
        single = x.shape[-1] == span + 1 and not (window.ended and window.known == 1)
        alone = int(single or (self.padding_mode == "reflect" and max(self.padding) == span > 0 < first))
        if alone:
            x, residual = F.pad(x, (1, 0)), None if residual is None else F.pad(residual, (1, 0))
        y = ops.conv1d(
            x, self.weight, self.bias, dilation=self.dilation, slope=self.slope, residual=residual, tanh=tanh
        )
        return y[..., alone:]

    def _upsampled(self, x: Tensor, begin: int, first: int, last: int) -> Tensor:
        if x.shape[-1] == 1:  # as above
            x, begin = F.pad(x, (1, 0)), begin - 1
        start = first + self.padding[0] - (begin + self._front) * self.stride
        end = (x.shape[-1] - 1) * self.stride + self.weight.shape[-1] - start - (last - first + 1)
        return ops.upsample(x, self.weight, self.bias, stride=self.stride, crop=(start, end), slope=self.slope)


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothSnake(Node):
    """A call of `smooth_snake`.

    Parameters
    ----------
    alpha : Tensor, shape (C,)
    beta : Tensor, shape (C,), optional
    logarithmic : bool
    """

    alpha: Tensor
    beta: Tensor | None
    logarithmic: bool

    @property
    def weight(self) -> Tensor:
        """What native plans take: the frequency and what multiplies the sine, (C, 1, 2)."""
        return packed(Call(self.alpha[None, :, None], self.alpha, self.beta, self.logarithmic))

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` read."""
        return first - REACH, last + REACH

    def certain(self, known: int) -> int:
        """Count the rows of the result that read none beyond so many."""
        return max(0, known - REACH)

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`; where the window ends inside the signal, what is beside them is dropped."""
        y = ops.smooth_snake(window.rows[0], self.alpha, self.beta, logarithmic=self.logarithmic)
        start = first - window.first
        return y[..., start : start + last - first + 1]


class Composed(Node):
    """What is made of nodes, for which a kernel may stand in as a whole: see `packed`."""

    graph: Graph
    """The nodes, from its input to its result."""

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` read."""
        return self.graph.needs(first, last)

    def length(self, count: int) -> int:
        """Rows of the result of so many rows of the input."""
        return self.graph.ready(count, True)[-1]

    def ready(self, known: int, ended: bool) -> int:
        """Count the rows that are certain."""
        return self.graph.ready(known, ended)[-1]


class Native(Composed):
    """Nodes as one native call, whose streams remember a state of their own instead of rows."""

    def whole(self, rows: Tensor) -> Tensor:
        """Run on a whole signal: (B, C, n) → (B, C', m)."""
        raise NotImplementedError

    def start(self, batch: int) -> Tensor:
        """Return the state of streams of which nothing has come, (batch, size)."""
        raise NotImplementedError

    def advance(self, state: Tensor, rows: Tensor, *, ended: bool, known: int) -> tuple[Tensor, Tensor]:
        """Return the state behind further rows, (B, C, n), and the rows of the result that are certain with them."""
        raise NotImplementedError


class Opaque(Node):
    """A module that does not say what it is made of: it is called with all rows that reach into those it makes.

    Parameters
    ----------
    module : nn.Module
        Called with its inputs, (B, C, n), it returns (B, C', n · rate + extra); `rate`, 1 if it has no such attribute,
        and `extra`, 0 if it has none, are `hop` and `extra_samples` of a generator.
    settings
        Keywords of the call.

    Raises
    ------
    TypeError
        If nothing says which rows it reads.
    """

    def __init__(self, module: nn.Module, **settings: Any) -> None:
        self.module = module
        self.settings = settings
        says = _who_says(module)
        self.rate: int = getattr(says, "hop", getattr(says, "rate", 1))
        self.extra: int = getattr(says, "extra_samples", getattr(says, "extra", 0))
        self.reach: Callable[[int, int], tuple[int, int]]
        if _definer(type(says), "needs") < _definer(type(says), "lower"):
            self.reach = says.needs
        else:
            graph = Graph()
            says.lower(graph, INPUT)
            self.reach = graph.needs

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the input that rows `first … last` read, as the module says."""
        return self.reach(first, last)

    def length(self, count: int) -> int:
        """Rows of the result of so many rows."""
        return count * self.rate + self.extra if count else 0

    def valid(self, window: Window, first: int, last: int) -> Tensor:
        """Compute rows `first … last`."""
        # modules may write into what they are called with, of which a stream keeps rows
        y: Tensor = self.module(*(rows.clone() for rows in window.rows), **self.settings)
        count = window.rows[0].shape[-1]
        if y.shape[-1] != self.length(count):
            raise ValueError(
                f"{type(self.module).__name__} made {y.shape[-1]} rows of {count}; it must make {self.length(count)}, "
                f"since its rate is {self.rate}"
            )
        start = first - window.first * self.rate
        return y[..., start : start + last - first + 1]


class Graph:
    """Nodes in an order in which they can run; the last one's result is the network's."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.inputs: list[tuple[int, ...]] = []
        self.blocks: list[str] = []
        """The class of the module that each node comes from."""
        self.constants: list[bool] = []
        """Whether a result depends on the condition alone."""
        self._within: list[str] = []

    def add(self, node: Node, *inputs: int) -> int:
        """Add a node that reads the results of others, and return its number."""
        self.nodes.append(node)
        self.constants.append(all(map(self.constant, inputs)))
        self.inputs.append(inputs)
        self.blocks.append(self._within[-1] if self._within else type(node).__name__)
        return len(self.nodes) - 1

    def lower(self, module: nn.Module, x: int, *others: int, **settings: Any) -> int:
        """Add what a module is made of, or the module itself where it does not say that.

        Parameters
        ----------
        module : nn.Module
            With ``lower(graph, x, …) -> int`` beside its `forward`, or with ``needs(first, last)``.
        x, others : int
            Numbers of the nodes that it reads.
        **settings
            Keywords of its `forward`.

        Returns
        -------
        int
            The number of its result.
        """
        if foreign(module) is not None:
            return self.add(Opaque(module, **settings), x, *others)
        self._within.append(type(module).__name__)
        result: int = module.lower(self, x, *others, **settings)  # type: ignore[operator]
        self._within.pop()
        if not isinstance(result, int) or not CONDITION <= result < len(self.nodes):
            raise TypeError(
                f"{type(module).__name__}.lower returned {result!r}; it must return the number of the node that makes "
                "its result"
            )
        return result

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the network's input that rows `first … last` of its result read: the receptive field."""
        wanted = {len(self.nodes) - 1: (first, last)}
        for number in reversed(range(len(self.nodes))):
            if number not in wanted:
                continue
            own = wanted[number]
            reads = [self.nodes[number].needs(*own), *[own] * (len(self.inputs[number]) - 1)]
            for source, (a, b) in zip(self.inputs[number], reads, strict=True):
                before = wanted.get(source, (a, b))
                wanted[source] = min(before[0], a), max(before[1], b)
        return wanted[INPUT]

    def ready(self, known: int, ended: bool) -> list[int]:
        """Count the rows of each node's result that are certain once so many rows of the input are known."""
        counts: list[int] = []
        for node, (first, *others) in zip(self.nodes, self.inputs, strict=True):
            own = known if first == INPUT else 1 if first == CONDITION else counts[first]
            count = node.ready(own, ended)
            # what depends on the condition alone has one row, which is always there
            for n in others:
                if not self.constant(n):
                    count = min(count, counts[n] if n >= 0 else known)
            counts.append(count)
        return counts

    def fused(self) -> Graph:
        """Return the same network with its leaky ReLUs inside the convolutions that read them, or that they read."""
        graph, place, nodes = Graph(), {INPUT: INPUT, CONDITION: CONDITION}, list(self.nodes)
        for number, node in enumerate(self.nodes):
            if not isinstance(node, LeakyReLU):
                continue
            (source,), readers = self.inputs[number], self.readers(number)
            if readers and all(self._reads_bare(reader, number) for reader in readers):
                for reader in readers:
                    nodes[reader] = replace(nodes[reader], slope=node.slope)  # type: ignore[type-var]
                nodes[number] = _Same()
            elif source >= 0 and self.readers(source) == [number] and _ends_bare(nodes[source]):
                nodes[source] = replace(nodes[source], slope_after=node.slope)  # type: ignore[type-var]
                nodes[number] = _Same()
        for number, (node, inputs) in enumerate(zip(nodes, self.inputs, strict=True)):
            sources = [place[source] for source in inputs]
            if isinstance(node, _Same):
                place[number] = sources[0]
            else:
                place[number] = graph.add(node, *sources)
                graph.blocks[-1] = self.blocks[number]
        return graph

    def expanded(self) -> Graph:
        """Return the same network with what is composed as its nodes, where no native call stands for them."""
        graph, place = Graph(), {INPUT: INPUT, CONDITION: CONDITION}
        for number, (node, inputs) in enumerate(zip(self.nodes, self.inputs, strict=True)):
            sources = [place[source] for source in inputs]
            if not isinstance(node, Composed) or isinstance(node, Native):
                place[number] = graph.add(node, *sources)
                graph.blocks[-1] = self.blocks[number]
                continue
            inside = {INPUT: sources[0]}
            for n, (part, reads) in enumerate(zip(node.graph.nodes, node.graph.inputs, strict=True)):
                place[number] = inside[n] = graph.add(part, *(inside[source] for source in reads))
                graph.blocks[-1] = self.blocks[number]
        return graph

    def _reads_bare(self, reader: int, number: int) -> bool:
        """Tell whether a node is a convolution of a result that it does not add, and activates nothing itself."""
        node, (first, *added) = self.nodes[reader], self.inputs[reader]
        return isinstance(node, Convolution) and node.slope == 1.0 and first == number and number not in added

    def constant(self, number: int) -> bool:
        """Tell whether a result depends on the condition alone."""
        return number == CONDITION or (number >= 0 and self.constants[number])

    def readers(self, number: int) -> list[int]:
        """Return the numbers of the nodes that read a result."""
        return [reader for reader, inputs in enumerate(self.inputs) if number in inputs]


class _Same(Node):
    """Stands for its input."""


def _ends_bare(node: Node) -> bool:
    return isinstance(node, Convolution) and node.slope_after == 1.0 and not node.tanh


def foreign(module: nn.Module) -> str | None:
    """Return why a module has to be called, as a sentence without its subject, or None if it can be lowered."""
    if any(hooks_of(module)):
        return "has forward hooks, which only a module that is called runs"
    if any(hooks_of_all_modules()):
        return "may be seen by hooks that are registered for all modules, which only modules that are called run"
    kind = type(module)
    if not hasattr(kind, "lower") or is_parametrized(module):
        return f"is a {kind.__name__}, which is none of fastvoc's blocks"
    # whoever overrides what a call alone reaches does something else than the `lower` that it inherits
    called = {"forward", *_reached(kind, "forward")} - _reached(kind, "lower")  # type: ignore[arg-type]
    for name in sorted(called):
        if name in vars(module):
            return f"has another {name} than its class {kind.__name__}"
    if kind.__call__ is not nn.Module.__call__ or any(_overrides(kind, name) for name in called):
        return f"is a {kind.__name__}, which is none of fastvoc's blocks"
    for key, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and type(tensor) not in PLAIN:
            return f"has a {key} that is a {type(tensor).__name__}, whose values only PyTorch can read"
    return None


def hooks_of_all_modules() -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the hooks that every module runs."""
    return torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks


def hooks_of(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the hooks that a call of a module runs."""
    return module._forward_hooks, module._forward_pre_hooks


def _definer(kind: type, name: str) -> int:
    """Return how far up the class is that defines a method, or beyond all if none does."""
    return next((n for n, each in enumerate(kind.__mro__) if name in vars(each)), len(kind.__mro__))


@functools.lru_cache(maxsize=256)
def _reached(kind: type, name: str) -> frozenset[str]:
    """Return the methods and properties that a method of a class may call of its own object, by their names."""
    kinds = [each for each in kind.__mro__ if issubclass(each, nn.Module) and each is not nn.Module]
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        for attribute in (vars(each)[name] for each in kinds if name in vars(each)):
            function = inspect.unwrap(getattr(attribute, "fget", None) or getattr(attribute, "__func__", attribute))
            names = set(function.__code__.co_names) if inspect.isfunction(function) else set()
            found = {called for called in names - reached if any(called in vars(each) for each in kinds)}
            reached |= found
            waiting += found
    return frozenset(reached)


def _overrides(kind: type, name: str) -> bool:
    """Tell whether a method is of a class below the one that defines `lower`, or has been put into that one."""
    place = _definer(kind, name)
    if place != _definer(kind, "lower"):
        return place < _definer(kind, "lower")
    definer = kind.__mro__[place]
    function = vars(definer)[name]
    return inspect.isfunction(function) and function.__qualname__ != f"{definer.__qualname__}.{name}"


def _who_says(module: nn.Module) -> Any:
    """Return what says which rows a module reads: itself, or the only module inside that does."""
    says = [part for part in module.modules() if hasattr(part, "needs") or hasattr(part, "lower")]
    if says and (says[0] is module or len(says) == 1):
        return says[0]
    raise TypeError(
        f"{type(module).__name__} does not say which samples its results read, which streams and long mels need; "
        "give it a method needs(first, last), as fastvoc.blocks.Conv1d has"
    )
