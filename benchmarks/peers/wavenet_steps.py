"""A WaveNet's step as engines take it: a pure function of the sample before, a row of the condition, and what is kept.

The rows that layers look back on lie in rings, of which the caller hands over those of a step and puts back the new
ones: less work for each sample than `CachedWaveNet`, which moves whole buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.models import WaveNet


class WaveNetStep(nn.Module):
    """One step of a network with classes, with its weights.

    Parameters
    ----------
    network : WaveNet
    """

    def __init__(self, network: WaveNet) -> None:
        super().__init__()
        self.config, matrices = network.config, network._as_matrices()
        self.residual_scale, self.skip_scale = matrices.residual_scale, matrices.skip_scale
        self.layers = len(matrices.dilations)
        tensors = {name: value for name, value in vars(matrices).items() if isinstance(value, Tensor)}
        for name, value in tensors.items():
            self.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
        self.register_buffer("taps", matrices.dilated.detach().permute(0, 1, 3, 2).flatten(2).contiguous())

    def forward(self, x: Tensor, row: Tensor, number: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """(B,), (B, bands), (B, 1), (B, layers, taps − 1, C) → classes (B,), and what layers keep (B, layers, C)."""
        w: Any = self
        h = w.input[0, x] + w.input_bias
        conditions = torch.einsum("lgc,bc->blg", w.conditions, row) + w.dilated_bias
        skips, kept = w.skip_bias, []
        for layer in range(self.layers):
            kept.append(h)
            g = F.linear(torch.cat([past[:, layer].flatten(1), h], dim=1), w.taps[layer]) + conditions[:, layer]
            tanh, sigmoid = g.chunk(2, dim=-1)
            z = tanh.tanh() * sigmoid.sigmoid()
            skips = skips + F.linear(z, w.skip[layer])
            if layer + 1 < self.layers:
                h = (h + F.linear(z, w.residual[layer], w.residual_bias[layer])) * self.residual_scale
        y = F.linear((skips * self.skip_scale).relu(), w.hidden_weight, w.hidden_bias)
        logits = F.linear(y.relu(), w.output, w.output_bias)
        sums = logits.softmax(-1).cumsum(-1)
        return (sums <= number).sum(-1).clamp(max=sums.shape[-1] - 1), torch.stack(kept, dim=1)


class SteppedWaveNet:
    """Samples made by calls of a step.

    Parameters
    ----------
    network : WaveNet
    call : callable
        The step, on arrays or tensors.
    arrays : bool
        Whether it takes arrays of NumPy.
    """

    def __init__(self, network: WaveNet, call: Callable[..., tuple[Any, Any]], *, arrays: bool) -> None:
        self.network, self.config, self.call, self.arrays = network, network.config, call, arrays

    def __call__(self, mel: Tensor, numbers: Tensor) -> Tensor:
        """Make samples: (B, bands, T), uniform numbers (B, T·hop) → classes (B, T·hop)."""
        taps, dilations = self.config.kernel_size - 1, np.array(self.config.dilations)
        lengths = taps * dilations
        begins = np.cumsum(lengths) - lengths
        rows = self.network.rows(mel).mT.contiguous()
        rings = torch.zeros(len(mel), int(lengths.sum()), self.config.channels)
        x: Any = torch.full((len(mel),), int(self.config.distribution.silence))
        if self.arrays:
            rows, rings, numbers, x = rows.numpy(), rings.numpy(), numbers.numpy(), x.numpy()  # type: ignore[assignment]
        classes = []
        for t in range(numbers.shape[1]):
            back = t - dilations[:, None] * np.arange(taps, 0, -1)
            places, new = begins[:, None] + back % lengths[:, None], begins + t % lengths
            if not self.arrays:
                places, new = torch.from_numpy(places), torch.from_numpy(new)  # type: ignore[assignment]
            x, kept = self.call(x, rows[:, t], numbers[:, t : t + 1], rings[:, places])
            rings[:, new] = kept
            classes.append(x)
        return torch.from_numpy(np.stack(classes, -1)) if self.arrays else torch.stack(classes, dim=-1)


def compiled(network: WaveNet) -> SteppedWaveNet:
    """Return the samples of a step that torch.compile has made its own of."""
    return SteppedWaveNet(network, torch.compile(WaveNetStep(network).eval()), arrays=False)


def exported(network: WaveNet, batch: int, path: Path) -> SteppedWaveNet:
    """Return the samples of a step that ONNX Runtime runs, on one thread."""
    import onnxruntime

    config = network.config
    past = torch.zeros(batch, config.layers, config.kernel_size - 1, config.channels)
    given = (torch.zeros(batch, dtype=torch.int64), torch.zeros(batch, config.mel_bands), torch.zeros(batch, 1), past)
    names = ["x", "row", "number", "past"]
    step = WaveNetStep(network).eval()
    torch.onnx.export(step, given, str(path), input_names=names, dynamo=True, external_data=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(*values: Any) -> tuple[Any, Any]:
        x, kept = session.run(None, dict(zip(names, map(np.ascontiguousarray, values), strict=True)))
        return x, kept

    return SteppedWaveNet(network, call, arrays=True)
