"""A WaveNet that makes samples as r9y9/wavenet_vocoder does, in plain PyTorch: what it is measured beside.

Each convolution keeps the inputs that its taps reach in a buffer that moves on by one sample, and is a product with all
taps at once; the condition of a sample is a product of its own in each layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models import WaveNet


class CachedWaveNet(nn.Module):
    """The steps of a network with classes, with its weights.

    Parameters
    ----------
    network : WaveNet
    """

    def __init__(self, network: WaveNet) -> None:
        super().__init__()
        self.network, self.config = network, network.config
        weights = {name: value.detach() for name, value in network.named_parameters()}
        self.table = weights["input.weight"][..., 0].T.contiguous()
        self.taps = [
            weights[f"layers.{n}.dilated.weight"].permute(0, 2, 1).flatten(1).contiguous()
            for n in range(self.config.layers)
        ]

    def buffers_of(self, batch: int) -> list[Tensor]:
        """Return the empty buffers of all layers."""
        reach = self.config.kernel_size - 1
        return [torch.zeros(batch, reach * d + 1, self.config.channels) for d in self.config.dilations]

    def step(self, x: Tensor, row: Tensor, buffers: list[Tensor]) -> Tensor:
        """Return the logits of the next sample: (B,) classes, (B, bands) → (B, classes)."""
        h = self.table[x] + self.network.input.bias
        skips: Tensor | float = 0.0
        for layer, taps, buffer, dilation in zip(
            self.network.layers, self.taps, buffers, self.config.dilations, strict=True
        ):
            buffer[:, :-1] = buffer[:, 1:].clone()
            buffer[:, -1] = h
            g = F.linear(buffer[:, ::dilation].flatten(1), taps, layer.dilated.bias)
            g = g + F.linear(row, layer.condition.weight[..., 0], layer.condition.bias)
            tanh, sigmoid = g.chunk(2, dim=-1)
            z = tanh.tanh() * sigmoid.sigmoid()
            skips = skips + F.linear(z, layer.skip.weight[..., 0], layer.skip.bias)
            if layer.residual is not None:
                h = (h + F.linear(z, layer.residual.weight[..., 0], layer.residual.bias)) * self.config.residual_scale
        y = F.linear((skips * self.network.skip_scale).relu(), *_matrix(self.network.hidden))  # type: ignore[union-attr]
        return F.linear(y.relu(), *_matrix(self.network.output))

    def forward(self, mel: Tensor, numbers: Tensor) -> Tensor:
        """Make samples: (B, bands, T), uniform numbers (B, T·hop) → classes (B, T·hop)."""
        rows = self.network.rows(mel)
        x = torch.full((len(mel),), int(self.config.distribution.silence))
        buffers, classes = self.buffers_of(len(mel)), []
        for t in range(numbers.shape[1]):
            sums = self.step(x, rows[..., t], buffers).softmax(-1).cumsum(-1)
            x = (sums <= numbers[:, t : t + 1]).sum(-1).clamp(max=sums.shape[-1] - 1)
            classes.append(x)
        return torch.stack(classes, dim=-1)


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    return weight[..., 0], bias
