"""Finds the HiFi-GAN in the graph of a VITS voice, by what its nodes compute and never by their names.

The decoder of VITS (Kim, Kong and Son 2021, arXiv:2106.06103, §2.5.1) is the generator of HiFi-GAN behind latents
instead of mels, with a last convolution that has no bias and, for several speakers, an embedding that a 1×1
convolution adds behind the first one. From the wave back to the latents, its graph is read as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastvoc.config import from_dict
from fastvoc.faces.voice.program import Program, attributes, first_line
from fastvoc.models import HiFiGANConfig

if TYPE_CHECKING:
    from onnx import NodeProto

_MOST = 16
"""Stages, residual blocks of one, and convolutions of a block, which no decoder exceeds."""

_SAME_SAMPLES = {"Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten"}
"""Operators behind the decoder that change no sample."""


@dataclass(frozen=True)
class Decoder:
    """What was found.

    Attributes
    ----------
    config : HiFiGANConfig
        Whose `mel_bands` is the width of the latents.
    weights : dict of str to Tensor
        As the `state_dict` of the built generator names them, in float32.
    latents : str
        The tensor of the graph that it reads, (1, channels, T).
    condition : str or None
        The tensor of the speaker's embedding, (1, channels, 1).
    """

    config: HiFiGANConfig
    weights: dict[str, Tensor]
    latents: str
    condition: str | None


class NoDecoder(ValueError):
    """Why the graph holds no decoder, as the end of a sentence."""


@dataclass(frozen=True)
class _Convolution:
    """A convolution that keeps its length: its input, and where it reads."""

    input: str
    weight: Tensor
    bias: Tensor | None
    dilation: int

    @property
    def taps(self) -> int:
        return self.weight.shape[-1]


@dataclass(frozen=True)
class _Stage:
    """A transposed convolution and the residual blocks behind it."""

    input: str
    weight: Tensor
    bias: Tensor | None
    rate: int
    blocks: list[list[list[_Convolution]]]  # of each block, its units of one or two convolutions
    slopes: set[float]


def find_decoder(program: Program) -> Decoder:
    """Find the decoder that makes the first output that any makes.

    Raises
    ------
    ValueError
        One sentence: what stands in the place of what a decoder has.
    """
    reasons = []
    for output in program.graph.output:
        try:
            return _Reader(program).read(output.name)
        except NoDecoder as reason:
            reasons.append(first_line(reason))
    first = reasons[0] if reasons else "it has no output"
    raise ValueError(f"{program.where}: holds no HiFi-GAN behind latents that fastvoc finds: {first}")


class _Reader:
    """Reads one decoder, from its wave to its latents."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def read(self, wave: str) -> Decoder:
        """Read the decoder that makes a wave."""
        head = self._head(wave)
        features, last_slope = self._activated(head.input)
        stages = list[_Stage]()
        while not self._is_stem(features):
            if len(stages) == _MOST:
                raise NoDecoder(f"it has more than {_MOST} stages")
            stages.insert(0, self._stage(features))
            features, slope = self._activated(stages[0].input)
            stages[0].slopes.add(slope)
        if not stages:
            raise NoDecoder("nothing raises the rate of its frames")
        stem, condition, embedding = self._stem(features)
        config = self._config(stem, stages, head, last_slope, condition)
        return Decoder(config, self._weights(config, stem, stages, head, condition), stem.input, embedding)

    def _made_by(self, name: str, *kinds: str) -> NodeProto:
        """Return the node that makes a tensor, which has to be of one of these kinds."""
        node = self.program.maker(name)
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in kinds:
            found = "nothing" if node is None else f"{node.domain}.{node.op_type}".lstrip(".")
            raise NoDecoder(f"tensor {name!r} is made by {found}, where a decoder has {' or '.join(kinds)}")
        return node

    def _head(self, wave: str) -> _Convolution:
        """Return the last convolution."""
        node = self.program.makers.get(wave)
        while node is not None and (node.op_type in _SAME_SAMPLES or self._takes_only(node)):
            wave = node.input[0]
            node = self.program.makers.get(wave)
        head = self._convolution(self._made_by(wave, "Tanh").input[0])
        if head.weight.shape[0] != 1 or head.dilation != 1:
            raise NoDecoder(f"its last convolution makes {head.weight.shape[0]} channels, not the samples of a wave")
        return head

    def _takes_only(self, node: NodeProto) -> bool:
        """Whether a node takes the only item of a batch, or the only channel of a wave."""
        place = self.program.number(node.input[1]) if node.op_type == "Gather" else None
        return place == 0 and attributes(node).get("axis", 0) in (0, 1)

    def _activated(self, name: str) -> tuple[str, float]:
        """Return what a leaky ReLU reads, and its slope."""
        node = self._made_by(name, "LeakyRelu")
        return self.program.origin(node.input[0]), _decimal(attributes(node).get("alpha", 0.01))

    def _convolution(self, name: str) -> _Convolution:
        node = self._made_by(name, "Conv")
        about = attributes(node)
        weight, bias = self._parameters(node)
        taps, (dilation,) = weight.shape[-1], _ints(about, "dilations", 1)
        (stride,), groups = _ints(about, "strides", 1), about.get("group", 1)
        reach = (taps - 1) * dilation
        if stride != 1 or groups != 1 or reach % 2:
            raise NoDecoder(f"convolution {node.name!r} has stride {stride}, {groups} groups and {taps} taps")
        automatic = about.get("auto_pad", b"NOTSET")
        padded = tuple(_ints(about, "pads", 0, 2)) == (reach // 2, reach // 2)
        if not padded if automatic in (b"NOTSET", b"") else automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
            raise NoDecoder(f"convolution {node.name!r} does not keep the length")
        return _Convolution(self.program.origin(node.input[0]), weight, bias, dilation)

    def _parameters(self, node: NodeProto) -> tuple[Tensor, Tensor | None]:
        if len(node.input) < 2:
            raise NoDecoder(f"{node.op_type} {node.name!r} has no weight")
        weight = self.program.weight(node.input[1], 3)
        has_bias = len(node.input) > 2 and node.input[2]
        return weight, self.program.weight(node.input[2], 1) if has_bias else None

    def _stage(self, name: str) -> _Stage:
        """Read a stage from its result."""
        name, divisor = self._unscaled(name)
        blocks, begins, slopes = list[list[list[_Convolution]]](), set[str](), set[float]()
        for block in self._summands(name):
            units, begin = self._block(block, slopes)
            blocks.append(units)
            begins.add(begin)
        if len(begins) != 1:
            raise NoDecoder("the residual blocks of a stage do not begin at one tensor")
        if not np.isclose(divisor, len(blocks), rtol=1e-6):
            raise NoDecoder(f"the sum of {len(blocks)} residual blocks is divided by {divisor:g}")
        node = self._made_by(begins.pop(), "ConvTranspose")
        about = attributes(node)
        weight, bias = self._parameters(node)
        (rate,), (dilation,), taps = _ints(about, "strides", 1), _ints(about, "dilations", 1), weight.shape[-1]
        (extra,), groups = _ints(about, "output_padding", 0), about.get("group", 1)
        cut = (taps - rate) // 2
        if (
            (dilation, groups, extra) != (1, 1, 0)
            or taps < rate
            or (taps - rate) % 2
            or tuple(_ints(about, "pads", 0, 2)) != (cut, cut)
            or about.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"")
            or "output_shape" in about
        ):
            raise NoDecoder(f"transposed convolution {node.name!r} does not multiply the length by its stride alone")
        return _Stage(self.program.origin(node.input[0]), weight, bias, rate, blocks, slopes)

    def _unscaled(self, name: str) -> tuple[str, float]:
        """Return what is divided by the number of blocks, and that number."""
        node = self.program.maker(name)
        if node is not None and node.op_type in ("Div", "Mul"):
            for at, number in ((1, self.program.number(node.input[1])), (0, self.program.number(node.input[0]))):
                if number and (at == 1 or node.op_type == "Mul"):
                    return node.input[1 - at], number if node.op_type == "Div" else 1 / number
        return name, 1.0

    def _summands(self, name: str) -> list[str]:
        """Return the results of the blocks that are added up, in order."""
        found, waiting = list[str](), [name]
        while waiting:
            node = self._made_by(name := waiting.pop(), "Add")
            if len(found) + len(waiting) > _MOST:
                raise NoDecoder(f"a stage has more than {_MOST} residual blocks")
            if any(self._is(part, "Conv") for part in node.input):
                found.append(name)
            else:
                waiting += [node.input[1], node.input[0]]
        return found

    def _is(self, name: str, kind: str) -> bool:
        node = self.program.maker(name)
        return node is not None and node.op_type == kind

    def _block(self, name: str, slopes: set[float]) -> tuple[list[list[_Convolution]], str]:
        """Read a residual block from its result: its units, and the tensor that it begins at."""
        units: list[list[_Convolution]] = []
        while self._is(name, "Add"):
            if len(units) == _MOST:
                raise NoDecoder(f"a residual block has more than {_MOST} units")
            node = self._made_by(name, "Add")
            residual, trunk = node.input if self._is(node.input[0], "Conv") else reversed(node.input)
            trunk = self.program.origin(trunk)
            unit = [self._convolution(residual)]
            before, slope = self._activated(unit[0].input)
            slopes.add(slope)
            if before != trunk:
                unit.insert(0, self._convolution(before))
                before, slope = self._activated(unit[0].input)
                slopes.add(slope)
            if before != trunk or len({convolution.taps for convolution in unit}) != 1:
                raise NoDecoder(f"the residual block that makes {name!r} has other units than HiFi-GAN's")
            units.insert(0, unit)
            name = trunk
        return units, name

    def _is_stem(self, name: str) -> bool:
        """Whether a tensor is made by the first convolution, perhaps with an embedding added to it."""
        node = self.program.maker(name)
        if node is not None and node.op_type == "Add":
            return all(self._is(part, "Conv") for part in node.input)
        return self._is(name, "Conv")

    def _stem(self, name: str) -> tuple[_Convolution, _Convolution | None, str | None]:
        node = self._made_by(name, "Conv", "Add")
        if node.op_type == "Conv":
            return self._convolution(name), None, None
        stem, condition = (self._convolution(part) for part in node.input)
        if stem.taps == 1 < condition.taps:
            stem, condition = condition, stem
        if condition.taps != 1 or stem.taps == 1:
            raise NoDecoder("what is added behind its first convolution is no embedding of a speaker")
        return stem, condition, condition.input

    def _config(
        self,
        stem: _Convolution,
        stages: Sequence[_Stage],
        head: _Convolution,
        last_slope: float,
        condition: _Convolution | None,
    ) -> HiFiGANConfig:
        """Return the settings, in which all stages have blocks alike, each half as wide as the one before."""
        forms = {
            tuple((unit[0].taps, tuple(c.dilation for c in unit)) for block in stage.blocks for unit in block)
            for stage in stages
        }
        blocks = stages[0].blocks
        kinds = {len(unit) for stage in stages for block in stage.blocks for unit in block}
        slopes = set[float]().union(*(stage.slopes for stage in stages))
        if len(forms) != 1 or len(kinds) != 1 or len({len(stage.blocks) for stage in stages}) != 1:
            raise NoDecoder("its stages have different residual blocks")
        if any(
            len({unit[0].taps for unit in block}) != 1 or any(u[1:] and u[1].dilation != 1 for u in block)
            for block in blocks
        ):
            raise NoDecoder("its residual blocks have other taps and dilations than HiFi-GAN's")
        if len(slopes) != 1:
            raise NoDecoder(f"its leaky ReLUs have the slopes {sorted(slopes)}; HiFi-GAN has one but for the last")
        if stem.dilation != 1 or stem.taps != 7 or head.taps != 7:
            raise NoDecoder(f"its first and last convolutions have {stem.taps} and {head.taps} taps; HiFi-GAN has 7")
        values = {
            "mel_bands": stem.weight.shape[1],
            "channels": stem.weight.shape[0],
            "rates": tuple(stage.rate for stage in stages),
            "rate_kernel_sizes": tuple(stage.weight.shape[-1] for stage in stages),
            "block": "2" if kinds == {1} else "1",
            "kernel_sizes": tuple(block[0][0].taps for block in blocks),
            "dilations": tuple(tuple(unit[0].dilation for unit in block) for block in blocks),
            "slope": slopes.pop(),
            "last_slope": last_slope,
            "condition_channels": 0 if condition is None else condition.weight.shape[1],
        }
        try:
            config: HiFiGANConfig = from_dict(HiFiGANConfig, values, "its sizes are none of HiFi-GAN's")
        except ValueError as error:
            raise NoDecoder(str(error)) from None
        return config

    def _weights(
        self,
        config: HiFiGANConfig,
        stem: _Convolution,
        stages: Sequence[_Stage],
        head: _Convolution,
        condition: _Convolution | None,
    ) -> dict[str, Tensor]:
        layers: dict[str, tuple[Tensor, Tensor | None]] = {
            "trunk.stem": (stem.weight, stem.bias),
            "head.conv": (head.weight, head.bias),
        }
        if condition is not None:
            layers["trunk.condition.0"] = (condition.weight, condition.bias)
        for i, stage in enumerate(stages):
            layers[f"trunk.up.{i}"] = (stage.weight, stage.bias)
            for j, block in enumerate(stage.blocks):
                for k, unit in enumerate(block):
                    for m, convolution in enumerate(unit):
                        layers[f"trunk.residual.{i}.branches.{j}.{k}.{m}"] = (convolution.weight, convolution.bias)
        with torch.device("meta"):
            needed = config.build().state_dict()
        weights: dict[str, Tensor] = {}
        for name, shaped in needed.items():
            layer, _, part = name.rpartition(".")
            weight, bias = layers.pop(layer) if part == "bias" else layers[layer]
            value = weight if part == "weight" else weight.new_zeros(shaped.shape) if bias is None else bias
            if value.shape != shaped.shape:
                raise NoDecoder(f"its layer {layer} has the shape {tuple(value.shape)}, not {tuple(shaped.shape)}")
            weights[name] = value
        return weights


def _ints(about: dict[str, Any], name: str, default: int, count: int = 1) -> list[int]:
    """Return whole numbers of an attribute, or raise if there are others than so many."""
    values = list(about.get(name, [default] * count))
    if len(values) != count:
        raise NoDecoder(f"its convolutions have {len(values)} {name}; those of sound have {count}")
    return values


def _decimal(value: float) -> float:
    """Return the shortest decimal that is this number in float32: 0.1 for 0.10000000149."""
    return float(str(np.float32(value)))
