"""A small VITS in PyTorch, with everything that decides how a voice's graph looks, and as ONNX."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SYMBOLS, WIDTH, RATE = 12, 6, 8000


class ResBlock2(nn.Module):
    """One convolution for each dilation, as in HiFi-GAN V3."""

    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, channels, taps, dilation=d, padding=(taps - 1) * d // 2) for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.leaky_relu(x, 0.1)) + x
        return x


class ResBlock1(nn.Module):
    """Two convolutions for each dilation, as in HiFi-GAN V1."""

    def __init__(self, channels: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convs(dilations: tuple[int, ...]) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv1d(channels, channels, taps, dilation=d, padding=(taps - 1) * d // 2) for d in dilations
            )

        self.convs1, self.convs2 = convs(dilations), convs((1,) * len(dilations))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.convs1, self.convs2, strict=True):
            x = second(F.leaky_relu(first(F.leaky_relu(x, 0.1)), 0.1)) + x
        return x


class Decoder(nn.Module):
    """HiFi-GAN behind latents."""

    def __init__(self, block: str, condition: int, taps: tuple[int, ...] = (3, 5)) -> None:
        super().__init__()
        channels, rates, kernels = 8, (4, 2), (8, 4)
        dilations = ((1, 2), (2, 6), (3, 12))[: len(taps)]
        self.conv_pre = nn.Conv1d(WIDTH, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (rate, kernel) in enumerate(zip(rates, kernels, strict=True)):
            width = channels // 2 ** (i + 1)
            self.ups.append(nn.ConvTranspose1d(2 * width, width, kernel, rate, padding=(kernel - rate) // 2))
            for size, steps in zip(taps, dilations, strict=True):
                self.resblocks.append((ResBlock2 if block == "2" else ResBlock1)(width, size, steps))
        self.branches = len(taps)
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3, bias=False)
        self.cond = nn.Conv1d(condition, channels, 1) if condition else None

    def forward(self, x: Tensor, g: Tensor | None) -> Tensor:
        x = self.conv_pre(x)
        if self.cond is not None:
            x = x + self.cond(g)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            blocks = self.resblocks[i * self.branches : (i + 1) * self.branches]
            x = sum((block(x) for block in blocks[1:]), blocks[0](x)) / self.branches
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


class TinyVits(nn.Module):
    """Text encoder, noisy durations, noisy latents and a flow's last step, in the order in which VITS has them.

    With `noise`, the numbers of both draws are inputs; durations are made of them, so that how many latents there are
    is only known when they are.
    """

    def __init__(self, *, block: str = "2", speakers: int = 1, names: str = "piper") -> None:
        super().__init__()
        self.names, self.speakers = names, speakers
        self.emb = nn.Embedding(SYMBOLS, WIDTH)
        self.emb_g = nn.Embedding(speakers, 5) if speakers > 1 else None
        self.cond = nn.Conv1d(5, WIDTH, 1)
        self.dp = nn.Conv1d(WIDTH, 2, 3, padding=1)
        self.proj = nn.Conv1d(WIDTH, 2 * WIDTH, 1)
        self.flow = nn.Conv1d(WIDTH, WIDTH, 5, padding=2)
        self.dec = Decoder(block, 5 if speakers > 1 else 0)

    def forward(
        self, ids: Tensor, lengths: Tensor, scales: Tensor, sid: Tensor | None = None, noise: Any = None
    ) -> Tensor:
        draw = torch.randn_like if noise is None else iter(noise).__next__
        g = None if self.emb_g is None else self.emb_g(sid).unsqueeze(-1)
        x = self.emb(ids).transpose(1, 2)
        if g is not None:
            x = x + self.cond(g)
        w = self.dp(x)
        z = (draw(w) if noise is None else draw()) * scales[2]
        durations = torch.ceil(torch.exp((w + z).sum(1, keepdim=True).clamp(-2, 2)) * scales[1] * 2)
        ends = torch.cumsum(durations[0, 0], 0)
        frames = torch.arange(int(ends[-1]) if noise is not None else ends[-1].long(), device=ids.device)
        path = (frames[:, None] < ends[None]).to(x.dtype)
        path = path - F.pad(path, (1, 0))[:, :-1]
        m, log_s = self.proj(x).split(WIDTH, 1)
        m, log_s = (path @ m.transpose(1, 2)).transpose(1, 2), (path @ log_s.transpose(1, 2)).transpose(1, 2)
        z_p = m + (draw(m) if noise is None else draw()) * torch.exp(log_s) * scales[0]
        return self.dec(z_p + torch.tanh(self.flow(z_p)), g).unsqueeze(1)


def tiny_vits(**options: Any) -> TinyVits:
    """Make one whose weights are filled by a rule."""
    torch.manual_seed(0)
    network = TinyVits(**options)
    with torch.no_grad():
        for parameter in network.parameters():
            size = parameter[0].numel() if parameter.ndim > 1 else 4
            values = torch.arange(parameter.numel(), dtype=torch.float64).mul(0.7).add(parameter.numel()).sin()
            parameter.copy_((1.1 * values / math.sqrt(size)).reshape(parameter.shape))
    return network.eval()


class _Separate(nn.Module):
    """With one input for each scale, as files for sherpa-onnx have."""

    def __init__(self, network: TinyVits) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, lengths: Tensor, noise: Tensor, length: Tensor, noise_w: Tensor, sid: Tensor | None = None
    ) -> Tensor:
        return self.network(x, lengths, torch.cat([noise, length, noise_w]), sid)


def write_voice(path: Path, network: TinyVits) -> None:
    """Write a voice as Piper does, or with the names and metadata of sherpa-onnx."""
    ids, lengths = torch.ones(1, 9, dtype=torch.int64), torch.tensor([9])
    sid = {"sid": torch.tensor([0])} if network.speakers > 1 else {}
    if network.names == "piper":
        module: nn.Module = network
        inputs = {"input": ids, "input_lengths": lengths, "scales": torch.tensor([0.5, 1.0, 0.7])} | sid
    else:
        one = torch.ones(1)
        inputs = {"x": ids, "x_length": lengths, "noise_scale": one, "length_scale": one, "noise_scale_w": one} | sid
        module = _Separate(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=[*inputs],
            output_names=["output"],
            dynamic_axes={next(iter(inputs)): {1: "phonemes"}, "output": {3: "time"}},
            opset_version=15,
            dynamo=False,
        )
    if network.names == "piper":
        settings = {
            "audio": {"sample_rate": RATE, "quality": "tiny"},
            "espeak": {"voice": "en-us"},
            "inference": {"noise_scale": 0.5, "length_scale": 1.2, "noise_w": 0.7},
            "phoneme_type": "text",
            "phoneme_id_map": {symbol: [i] for i, symbol in enumerate("_^$ abcdefgh")},
            "num_symbols": SYMBOLS,
            "num_speakers": network.speakers,
            "speaker_id_map": {f"s{i}": i for i in range(network.speakers)} if sid else {},
        }
        path.with_name(f"{path.name}.json").write_text(json.dumps(settings))
        return
    import onnx

    model = onnx.load(path)
    for key, value in {"model_type": "vits", "sample_rate": RATE, "n_speakers": network.speakers}.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.save(model, path)
