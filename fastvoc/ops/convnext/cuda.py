"""The CUDA kernels of `convnext`: one that convolves and normalises, and a network of the two products behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops.convnext.call import Convnext
from fastvoc.ops.cuda.device import PRECISIONS, Template, gpu, kernels, refuses, stream
from fastvoc.ops.cuda.network import Network, Packing, Run
from fastvoc.ops.cuda.operator import network_for
from fastvoc.ops.network import INPUT, OTHER_INPUT, Layer
from fastvoc.ops.op import Prepared, Repeatable, Slower, prepared
from fastvoc.ops.packing import packed
from fastvoc.ops.ragged import ragged_lengths

FARTHEST = 2**29 - 1
"""Elements from neighbour to neighbour, whose bytes are counted in 32 bits."""

MOST_ITEMS = 65535
"""Of a batch: the second extent of a grid."""


def prepare(call: Convnext) -> Prepared:
    """Return what runs the kernels, or why they cannot run this call."""
    x, (batch, channels, frames) = call.x, call.shape
    if x.dtype == torch.float32:
        return "x is torch.float32; these kernels take torch.float16 and torch.bfloat16"
    reason = refuses(x.device, x.dtype)
    if reason is not None and not isinstance(reason, Slower):
        return reason
    most = native.library()[1].fastvoc_cuda_normalise_channels()
    if channels > most:
        return f"x has {channels} channels; a warp normalises {most} at most"
    if batch > MOST_ITEMS:
        return f"the batch has {batch} items, and a grid {MOST_ITEMS} at most"
    if any(abs(stride) > FARTHEST for stride in x.stride()[1:]):
        return f"neighbouring elements are more than {FARTHEST} apart in memory"
    if ragged_lengths(x.shape[2]) is not None and frames != x.shape[2]:
        return f"{x.shape[2]} frames become {frames}; where items end before the tensor does, a block has to keep them"
    network = network_for(layers(call), x.new_empty(1).expand(batch, channels, frames))
    return network if isinstance(network, str) else prepared(Repeatable(_Way(network)), reason)


def layers(call: Convnext) -> list[Layer]:
    """List the products: before the GELU, and behind it, without the scale."""
    before = _product(INPUT, call.expand, call.expand_bias, gelu=True)
    return [before, _product(0, call.contract, call.contract_bias, residual=OTHER_INPUT)]


def _scaled(call: Convnext) -> list[Layer]:
    """List the products with the scale in the weight and the bias of the second, which are float32 then."""
    before, behind = layers(call)
    scale = call.scale.float()
    weight, bias = behind.weight.float() * scale[:, None, None], call.contract_bias.float() * scale
    return [before, replace(behind, weight=weight, bias=bias)]


def described(call: Convnext) -> Template:
    """Describe the convolution and the norm of calls like this one to the native library."""
    _, library = native.library()
    return Template(
        "fastvoc_cuda_normalise *",
        precision=getattr(library, f"FASTVOC_{PRECISIONS[call.x.dtype]}"),
        batch=call.x.shape[0],
        channels=call.x.shape[1],
        frames=call.x.shape[2],
        taps=call.taps,
        left=call.left,
        right=call.right,
        x_strides=call.x.stride(),
        eps=call.eps,
    )


def _product(source: int, weight: Tensor, bias: Tensor, **ends: Any) -> Layer:
    return Layer(kind="conv1d", input=source, weight=weight[..., None], bias=bias, padding=(0, 0), **ends)


class _Way:
    """What runs the calls of a signature; weights are packed on every call, unless somebody keeps them."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._packing: Packing | None = None
        self._run: Run | None = None
        self._described: Template | None = None

    def __call__(self, call: Convnext) -> Tensor:
        if 0 in call.shape:
            return call.empty()
        x, (batch, channels, frames) = call.x, call.shape

        def pack(*_: Tensor) -> Tensor:
            made = _scaled(call)
            if self._packing is None:
                self._packing = Packing(self._network, made)
            return self._packing([(layer.weight, layer.bias) for layer in made])

        def turn(depthwise: Tensor) -> Tensor:
            return depthwise[:, 0].T.contiguous()

        products = call.expand, call.expand_bias, call.contract, call.contract_bias, call.scale
        own = packed(("cuda", self._network), pack, *products)
        if self._described is None:
            self._described = described(call)
        lengths = ragged_lengths(x.shape[2])
        normal = torch.empty((batch, frames, channels), dtype=x.dtype, device=x.device)
        ffi, library = native.library()
        device = ffi.new("fastvoc_gpu *", gpu(x.device)._asdict())
        tensors = {
            "x": x,
            "lengths": lengths,
            "weight": packed("cuda taps first", turn, call.depthwise),
            "bias": call.depthwise_bias.contiguous(),
            "norm": call.norm.contiguous(),
            "norm_bias": call.norm_bias.contiguous(),
            "y": normal,
        }
        with stream(x.device) as current:
            code = library.fastvoc_cuda_normalise_run(device, kernels(x.device), current, self._described(**tensors))
        native.check("cuda", code)
        normal, beside = normal.transpose(1, 2), call.own()
        if lengths is not None:
            return self._network.run(own, normal, dtype=x.dtype, other=beside, lengths=lengths)
        if self._run is None:
            self._run = Run(self._network, normal, x.dtype, beside)
        return self._run(own, normal, other=beside)
