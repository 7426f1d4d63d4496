"""What WaveNet and WaveGlow minimise, in plain PyTorch as their originals compute it, over the weights of ours.

r9y9/wavenet_vocoder a35fff7, wavenet.py and modules.py; NVIDIA/waveglow 8afb643, glow.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Parts = dict[str, Tensor]


def wavenet(network: Any, wave: Tensor, mel: Tensor) -> Parts:
    """Return the parts of the loss of a WaveNet of classes: (B, T·hop), (B, bands, T) → scalars."""
    config, rows = network.config, network.rows(mel)
    inputs = config.distribution.encode(network.emphasised(wave))
    before = torch.cat([torch.full_like(inputs[:, :1], config.distribution.silence), inputs[:, :-1]], dim=1)
    x = F.embedding(before.long(), network.input.weight[..., 0].T).mT.contiguous() + network.input.bias[:, None]
    skips: Tensor | None = None
    for layer in network.layers:
        dilated = layer.dilated
        padded = F.pad(x, (dilated.dilation * (config.kernel_size - 1), 0))
        a = F.conv1d(padded, dilated.weight, dilated.bias, dilation=dilated.dilation) + _product(layer.condition, rows)
        first, second = a.chunk(2, dim=1)
        g = torch.tanh(first) * torch.sigmoid(second)
        skip = _product(layer.skip, g)
        skips = skip if skips is None else skips + skip
        if layer.residual is not None:
            x = (_product(layer.residual, g) + x) * layer.scale
    assert skips is not None
    logits = _product(network.output, _product(network.hidden, (skips * network.skip_scale).relu()).relu())
    return {config.distribution.kind: F.cross_entropy(logits, inputs.long())}


def waveglow(network: Any, wave: Tensor, mel: Tensor) -> Parts:
    """Return the parts of the loss of a WaveGlow: (B, T·hop), (B, bands, T) → scalars."""
    config, up = network.config, network.upsample
    rows = F.conv_transpose1d(mel, up.weight, up.bias, stride=config.hop)[..., : wave.shape[-1]]
    rows = rows.unfold(2, config.group, config.group).permute(0, 2, 1, 3).flatten(2).mT.contiguous()
    x = wave.unfold(1, config.group, config.group).mT.contiguous()
    left, scales, determinants = [], [], []
    for number, flow in enumerate(network.flows):
        if config.leaves(number):
            left.append(x[:, : config.early_size])
            x = x[:, config.early_size :]
        x = F.conv1d(x, flow.mix[..., None])
        determinants.append(torch.linalg.slogdet(flow.mix)[1])
        shift, log_scale = _coupled(flow.network, x[:, : flow.width], rows).chunk(2, dim=1)
        scales.append(log_scale.sum())
        x = torch.cat([x[:, : flow.width], x[:, flow.width :] * torch.exp(log_scale) + shift], dim=1)
    z = torch.cat([*left, x], dim=1)
    return {
        "noise": z.square().sum() / (2 * config.deviation**2 * z.numel()),
        "scales": -torch.stack(scales).sum() / z.numel(),
        "determinants": -len(wave) * rows.shape[-1] * torch.stack(determinants).sum() / z.numel(),
    }


def _coupled(stack: Any, x: Tensor, rows: Tensor) -> Tensor:
    x, conditions, skips = _product(stack.start, x), _product(stack.condition, rows), None
    for layer, condition in zip(stack.layers, conditions.chunk(len(stack.layers), dim=1), strict=True):
        conv, width = layer.conv, layer.channels
        side = conv.dilation * (conv.weight.shape[2] - 1) // 2
        a = F.conv1d(x, conv.weight, conv.bias, dilation=conv.dilation, padding=side) + condition
        made = _product(layer.out, torch.tanh(a[:, :width]) * torch.sigmoid(a[:, width:]))
        if made.shape[1] > width:
            x = x + made[:, :width]
            made = made[:, width:]
        skips = made if skips is None else skips + made
    return _product(stack.end, skips)


def _product(convolution: Any, x: Any) -> Tensor:
    return F.conv1d(x, convolution.weight, convolution.bias)


PARTS: dict[str, Callable[[Any, Tensor, Tensor], Parts]] = {"wavenet": wavenet, "waveglow": waveglow}
"""By the kind of the generator."""
