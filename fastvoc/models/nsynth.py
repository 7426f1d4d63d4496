"""NSynth's WaveNet autoencoder: waves become codes, sixteen numbers every 32 ms, and codes waves, sample by sample.

Engel, Resnick, Roberts, Dieleman, Eck, Simonyan and Norouzi 2017, arXiv:1704.01279, § 2.1 and appendix A; reference:
magenta/magenta 526d3eb, magenta/models/nsynth/wavenet/h512_bo16.py. Its encoder reads what comes as well as what was,
its decoder only what was. The samples are quantised by a mu-law of its own, and its gates have the sigmoid first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import native, ops
from fastvoc.audio import MelConfig
from fastvoc.blocks import Conv1d, Taps, draw_class
from fastvoc.config import config
from fastvoc.models import eight_bits
from fastvoc.models.generator import Generator, Positive
from fastvoc.noise import Draws
from fastvoc.ops.kept import Kept, unreadable
from fastvoc.ops.network import Quantization
from fastvoc.ops.recurrent import NativeWaveNet, Steps, WaveNetWeights, unasked
from fastvoc.recurrence import State

CLASSES = 256
"""Values of a quantised sample."""

_MU, _HALF = 255, CLASSES // 2

_EXAMPLE = 1024
"""Samples that a choice of 8 bits looks at, of each code."""

_BLOCK = 64
"""Samples for which the taps on samples further back than that are multiplied at once."""

Layers = Annotated[int, Field(gt=0, le=256)]


def quantise(wave: Tensor) -> Tensor:
    """Return the classes of samples, by NSynth's own mu-law: ⌊128 sign(x) ln(1 + 255 |x|) / ln 256⌋ + 128.

    Parameters
    ----------
    wave : Tensor, any shape, floating point
        In [-1, 1]; what lies beyond is limited, and so is 1 itself, which would be a class more.

    Returns
    -------
    Tensor, int64
        0 to 255; silence is 128.
    """
    level = wave.sign() * torch.log1p(_MU * wave.abs().clamp(max=1)) / math.log1p(_MU)
    return (level * _HALF).floor().clamp(-_HALF, _HALF - 1).long() + _HALF


def expand(classes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the samples of classes: the middle of each step, but for silence, which is 0 exactly."""
    level = (classes - _HALF).to(dtype)
    middle = (level + 0.5) / _HALF
    sample = middle.sign() * torch.expm1(middle.abs() * math.log1p(_MU)) / _MU
    return torch.where(level == 0, level, sample)


def scaled(classes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return classes as the networks are fed with them: -1, in steps of 1/128, to 127/128."""
    return (classes - _HALF).to(dtype) / _HALF


@config
class NSynthConfig:
    """An encoder and a decoder of dilated convolutions; by default the published ones."""

    kind: Literal["nsynth"] = "nsynth"
    code_channels: Positive = 16
    """Numbers of a code, for each `hop` samples."""
    hop: Positive = 512
    """Samples that share a code."""
    encoder_channels: Positive = 128
    """Width of the encoder."""
    encoder_layers: Layers = 30
    """Residual layers of the encoder."""
    channels: Positive = 512
    """Width of the decoder; its gates are twice as wide."""
    skip_channels: Positive = 256
    """Width of the sum that the decoder's classes are read from."""
    layers: Layers = 30
    """Residual layers of the decoder."""
    cycle: Annotated[int, Field(gt=0, le=16)] = 10
    """Layers behind which the dilations 1, 2, 4, … begin again, in both networks."""
    kernel_size: Annotated[int, Field(gt=1, le=16)] = 3
    """Taps of each dilated convolution; the encoder's are centred, so that their number is odd there."""

    @property
    def mel_bands(self) -> int:
        """Rows of what the decoder is given; here those of a code."""
        return self.code_channels

    def build(self) -> NSynth:
        """Build both networks with fresh weights."""
        return NSynth(self)


class Encoder(nn.Module):
    """Residual layers, each a ReLU, a dilated convolution, a ReLU and a mixture of channels; then means over a hop."""

    def __init__(self, config: NSynthConfig) -> None:
        super().__init__()
        width, taps = config.encoder_channels, config.kernel_size
        self.hop = config.hop
        self.stem = Conv1d(1, width, taps)
        dilations = [2 ** (n % config.cycle) for n in range(config.encoder_layers)]
        self.dilated: Sequence[Conv1d] = nn.ModuleList(  # type: ignore[assignment]
            Conv1d(width, width, taps, dilation=d) for d in dilations
        )
        self.mixed: Sequence[Conv1d] = nn.ModuleList(  # type: ignore[assignment]
            Conv1d(width, width, 1) for _ in dilations
        )
        self.narrow = Conv1d(width, config.code_channels, 1)

    def forward(self, levels: Tensor) -> Tensor:
        """(B, 1, T·hop), as `scaled` makes them → (B, code_channels, T)."""
        x = self.stem(levels)
        for dilated, mixed in zip(self.dilated, self.mixed, strict=True):
            x = mixed(dilated(x, slope=0.0), slope=0.0, residual=x)
        code: Tensor = self.narrow(x)
        return code.reshape(*code.shape[:2], code.shape[-1] // self.hop, self.hop).mean(dim=-1)

    @property
    def reach(self) -> int:
        """Samples at each side that a code depends on beside its own."""
        return sum(conv.padding[0] for conv in [self.stem, *self.dilated])


class Layer(nn.Module):
    """A gated dilated convolution that is given a code, and what it adds to the residual and to the skip path."""

    def __init__(self, config: NSynthConfig, dilation: int) -> None:
        super().__init__()
        width = config.channels
        self.dilated = Taps(width, 2 * width, config.kernel_size, dilation)
        self.condition = Taps(config.code_channels, 2 * width)
        self.out = Taps(width, width + config.skip_channels)


class Decoder(nn.Module):
    """Gated layers over the samples before each sample, and their skip path to its class."""

    def __init__(self, config: NSynthConfig) -> None:
        super().__init__()
        self.hop = config.hop
        self.stem = Taps(1, config.channels, config.kernel_size)
        self.skip = Taps(config.channels, config.skip_channels)
        self.layers: Sequence[Layer] = nn.ModuleList(  # type: ignore[assignment]
            Layer(config, 2 ** (n % config.cycle)) for n in range(config.layers)
        )
        self.hidden = Taps(config.skip_channels, config.skip_channels)
        self.condition = Taps(config.code_channels, config.skip_channels)
        self.classes = Taps(config.skip_channels, CLASSES)

    def forward(self, levels: Tensor, code: Tensor) -> Tensor:
        """(B, 1, T·hop) and (B, code_channels, T) → logits of the class of each sample, (B, 256, T·hop)."""
        x = self.stem(F.pad(levels, (1, -1)))
        skip = self.skip(x)
        for layer in self.layers:
            x, skip = ops.gated(
                x,
                layer.dilated.convolution,
                layer.out.convolution,
                skip_channels=skip.shape[1],
                bias=layer.dilated.bias,
                out_bias=layer.out.bias,
                condition=layer.condition(code)[..., None].expand(-1, -1, -1, self.hop).flatten(-2),
                skip=skip,
                dilation=layer.dilated.dilation,
                causal=True,
                sigmoid_first=True,
            )
        skip = torch.relu(self._heard(self.hidden(torch.relu(skip)), self.condition(code)))
        logits: Tensor = self.classes(skip)
        return logits

    def _heard(self, x: Tensor, condition: Tensor) -> Tensor:
        """Add to each sample what its code is."""
        return (x.reshape(*x.shape[:2], -1, self.hop) + condition[..., None]).flatten(-2)


class NSynth(Generator):
    """Encoder and decoder. As a generator it is the decoder, and what others call a mel is a code."""

    def __init__(self, config: NSynthConfig) -> None:
        super().__init__(mel_bands=config.code_channels)
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self._native: Kept[NativeWaveNet] = Kept()
        self._int8 = eight_bits.EightBits(self.decoder, config.layers, "NSynth")
        for name, value in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(value)
                continue
            # uniform of the variance 1 / fan-in, as the original's
            fan_in = value[0].numel() if name.startswith("encoder.") else value[..., 0].numel()
            nn.init.uniform_(value, -math.sqrt(3 / fan_in), math.sqrt(3 / fan_in))

    @property
    def hop(self) -> int:
        """Samples that share a code."""
        return self.config.hop

    @property
    def draws(self) -> Draws:
        """A uniform number for each sample, which chooses its class."""
        return Draws(channels=1, rows_per_frame=self.hop, distribution="uniform")

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Codes that samples `first … last` wait for: their own."""
        return first // self.hop, last // self.hop

    @staticmethod
    def levels(wave: Tensor) -> Tensor:
        """Return a wave in [-1, 1] as both networks are fed with it: quantised, and scaled to [-1, 1)."""
        return scaled(quantise(wave), wave.dtype)

    def input_of(self, wave: Tensor, mel: MelConfig) -> Tensor:
        """Return the code of a wave, which the decoder is given: (B, T·hop) → (B, code_channels, T)."""
        return self.encode(wave[:, None].to(self.decoder.stem.weight))

    def encode(self, wave: Tensor) -> Tensor:
        """Make the codes of waves: (B, 1, T·hop) → (B, code_channels, T)."""
        code: Tensor = self.encoder(self.levels(wave))
        return code

    def negative_log_likelihood(
        self, wave: Tensor, mel: Tensor | None = None, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the mean cross-entropy of the samples' classes, in nats, given the codes and the samples before them.

        Parameters
        ----------
        wave : Tensor, shape (B, T·hop)
            In [-1, 1].
        mel, condition
            Are not looked at.
        """
        classes = quantise(wave)
        levels = scaled(classes, wave.dtype)[:, None]
        logits = self.decoder(levels, self.encoder(levels))
        return {"cross_entropy": F.cross_entropy(logits.float() if logits.dtype != wave.dtype else logits, classes)}

    def forward(
        self,
        mel: Tensor,
        condition: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        temperature: Tensor | None = None,
    ) -> Tensor:
        """Decode codes of which nothing comes before: (B, code_channels, T) → (B, 1, T·hop)."""
        return self.advance(self.begin(len(mel)), mel, last=True, noise=noise, temperature=temperature)[1]

    def begin(self, batch: int, condition: Tensor | None = None) -> State:
        """Return the state of streams before their first sample: what each tap of each layer looks back on, zeros."""
        weight = self.decoder.stem.weight
        taps = [self.decoder.stem, *(layer.dilated for layer in self.decoder.layers)]
        spans = [(part.weight.shape[0] - 1) * part.dilation for part in taps]
        # the stem's own rows are the samples before, of which the latest is its first tap
        return (
            weight.new_zeros(batch, spans[0] + 1, 1),
            *(weight.new_zeros(batch, span, self.config.channels) for span in spans[1:]),
        )

    def advance(
        self,
        state: State,
        mel: Tensor,
        *,
        last: bool,
        noise: Tensor | None = None,
        temperature: Tensor | None = None,
    ) -> tuple[State, Tensor]:
        """Take the next codes, (B, code_channels, T), and return the new state and their samples, (B, 1, T·hop).

        Raises
        ------
        NotImplementedError
            If a backend was asked for that cannot run the decoder.
        """
        if noise is None or temperature is None:
            raise ValueError("NSynth: noise and temperature are needed: each sample is drawn")
        ways = self.explain_steps()
        if ways["native steps"] is None:
            return self._advance_native(state, mel, noise, temperature)
        if ways["steps in PyTorch"] is not None:
            asked = "cuda steps" if ops.forced_backend() == "cuda" else "native steps"
            raise NotImplementedError(f"NSynth: {ways[asked]}; with backend 'reference' it makes steps in PyTorch")
        classes = torch.empty(mel.shape[0], mel.shape[-1] * self.hop, dtype=torch.int64, device=mel.device)
        for frame, code in enumerate(mel.unbind(dim=-1)):
            own = slice(frame * self.hop, (frame + 1) * self.hop)
            state = self._frame(state, code, noise[:, 0, own], temperature, classes[:, own])
        return state, expand(classes, mel.dtype)[:, None]

    @property
    def multiply_accumulates(self) -> float:
        """How many it takes for a sample: each weight of the decoder once."""
        return sum(weight.numel() for name, weight in self.decoder.named_parameters() if name.endswith("weight"))

    def explain_steps(self) -> dict[str, str | None]:
        """Say what makes samples, best first, each with the reason why it cannot."""
        native_steps = unasked("cpu") or self._why_not_native()
        return {
            **({self._int8.way: native_steps or self._int8.outdated or self.refuses_int8()} if self._int8 else {}),
            "native steps": native_steps,
            "cuda steps": "its input has a skip of its own, and its head reads the code; the kernel has neither",
            "steps in PyTorch": unasked("reference"),
        }

    def _why_not_native(self) -> str | None:
        return NativeWaveNet.refuses(self.decoder.stem.weight) or unreadable(self.decoder)

    def refuses_int8(self) -> str | None:
        """Return why no convolution of the decoder can multiply in 8 bits here, or None."""
        return self._why_not_native() or eight_bits.refuses()

    def choose_int8(self, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Quantization]:
        """Choose the decoder's convolutions that multiply in 8 bits for codes, (B, code_channels, T).

        As `fastvoc.models.eight_bits.choose` says.
        """
        network = copy.deepcopy(self).float()
        with torch.inference_mode():
            examples = [network._example(code) for code in mels]
            return eight_bits.choose(network._as_matrices(), examples, smallest_snr=smallest_snr, name="NSynth")

    def _example(self, code: Tensor) -> eight_bits.Example:
        """Take the middle of a code, as much as makes some thousand samples."""
        frames = min(max(1, _EXAMPLE // self.hop), code.shape[-1])
        first = (code.shape[-1] - frames) // 2
        rows = code[..., first : first + frames].float().repeat_interleave(self.hop, dim=-1).mT.contiguous()
        noise = self.draws(torch.arange(len(code), device="cpu"), 0, frames).float().contiguous()
        return eight_bits.Example(rows, noise, float(_HALF))

    def take_int8(self, chosen: Mapping[int, Quantization]) -> None:
        """Multiply these convolutions of the decoder in 8 bits, as `fastvoc.models.eight_bits.EightBits.take` says."""
        self._int8.take(chosen)

    @property
    def keeps_int8(self) -> bool:
        """Whether convolutions multiply in 8 bits, and the weights are still those they were chosen for."""
        return bool(self._int8) and self._int8.outdated is None

    @property
    def is_exact_in_batches(self) -> bool:
        """Whether a stream has the same bits alone and beside others: products in PyTorch round otherwise."""
        return self.explain_steps()["native steps"] is None

    def forget(self) -> None:
        """Drop the packed weights, so that the next samples are made with weights as they are then."""
        self._native.forget()

    def _advance_native(self, state: State, mel: Tensor, noise: Tensor, temperature: Tensor) -> tuple[State, Tensor]:
        """`advance` in native code, one call for each frame, between which Python handles signals."""
        stem, *layers = state
        packed = self._packed()
        # in a ring, row t modulo its length is of time t: rows in order are a ring at time 0
        rings = torch.cat([rows.float() for rows in layers], dim=1)
        history = (stem[..., 0].float() * _HALF + _HALF).round().contiguous()
        drawn = native.host_memory(len(mel), mel.shape[-1] * self.hop, dtype=torch.float32)
        for frame, code in enumerate(mel.float().unbind(dim=-1)):
            own = slice(frame * self.hop, (frame + 1) * self.hop)
            part = native.host_memory(len(mel), self.hop, dtype=torch.float32)
            packed.run(
                Steps(
                    time=torch.full((len(mel),), own.start, device="cpu"),
                    rings=rings,
                    history=history,
                    condition=code[:, None].expand(-1, self.hop, -1).contiguous(),
                    gates=None,
                    noise=noise[..., own].float().contiguous(),
                    temperature=temperature.float().contiguous(),
                    drawn=part,
                )
            )
            drawn[:, own] = part
        made, spans = drawn.shape[-1], [rows.shape[1] for rows in layers]
        parts = zip(torch.split(rings, spans, dim=1), spans, strict=True)
        rows = [ring.roll(-(made % span), dims=1) for ring, span in parts]
        levels = scaled(history, stem.dtype)[..., None]
        return (levels, *(one.to(stem.dtype) for one in rows)), expand(drawn, mel.dtype)[:, None]

    def _packed(self) -> NativeWaveNet:
        """Return the weights as native code reads them, packed again whenever they have changed."""
        dtype, scales = self.decoder.stem.weight.dtype, None
        if self._int8 and self.explain_steps()[self._int8.way] is None:
            dtype, scales = torch.bfloat16, self._int8.scales
        return self._native.of(self.decoder, lambda: NativeWaveNet(self._as_matrices(), dtype, scales), form=scales)

    def _as_matrices(self) -> WaveNetWeights:
        """Return the decoder as native code has it: tanh before the sigmoid, a table for each tap of the input."""
        decoder, width = self.decoder, self.config.channels
        single = torch.promote_types(decoder.stem.weight.dtype, torch.float32)
        layers = [*decoder.layers]
        levels = scaled(torch.arange(CLASSES, device=decoder.stem.weight.device), single)

        def swapped(rows: Tensor) -> Tensor:
            return rows.roll(width, dims=0)

        return WaveNetWeights(
            distribution="CLASSES",
            dilations=tuple(layer.dilated.dilation for layer in layers),
            residual_scale=1.0,
            skip_scale=1.0,
            smallest_log_scale=0.0,
            input=levels[:, None] * decoder.stem.weight.to(single),
            input_bias=decoder.stem.bias,
            dilated=torch.stack([swapped(layer.dilated.convolution) for layer in layers]),
            dilated_bias=torch.stack(
                [swapped(layer.dilated.bias.to(single) + layer.condition.bias) for layer in layers]
            ),
            conditions=torch.stack([swapped(layer.condition.weight[0].T) for layer in layers]),
            residual=torch.stack([layer.out.weight[0, :, :width].T for layer in layers]),
            residual_bias=torch.stack([layer.out.bias[:width] for layer in layers]),
            skip=torch.stack([layer.out.weight[0, :, width:].T for layer in layers]),
            skip_bias=torch.stack([part.bias[-self.config.skip_channels :].to(single) for part in self._skips()]).sum(
                dim=0
            ),
            first_skip=decoder.skip.weight[0].T,
            hidden_weight=decoder.hidden.weight[0].T,
            hidden_bias=decoder.hidden.bias.to(single) + decoder.condition.bias,
            hidden_condition=decoder.condition.weight[0].T,
            output=decoder.classes.weight[0].T,
            output_bias=decoder.classes.bias,
        )

    def _skips(self) -> list[Taps]:
        return [self.decoder.skip, *(layer.out for layer in self.decoder.layers)]

    def _frame(self, state: State, code: Tensor, noise: Tensor, temperature: Tensor, classes: Tensor) -> State:
        """Draw the samples of one code, (B, code_channels), into (B, hop).

        What a layer reads of rows that are finished, all taps but the last, is multiplied for many samples at once: as
        many as its dilation, up to `_BLOCK`. So their weights, two thirds of all, are read that much less often.
        """
        decoder, hop = self.decoder, self.hop
        stem, *layers = (F.pad(old, (0, 0, 0, hop)) for old in state)
        taps, spans = [layer.dilated for layer in decoder.layers], [old.shape[1] for old in state[1:]]
        conditioned = [
            torch.addmm(layer.dilated.bias + layer.condition.bias, code, layer.condition.weight[0])[:, None]
            for layer in decoder.layers
        ]
        conditioned_last = torch.addmm(decoder.hidden.bias + decoder.condition.bias, code, decoder.condition.weight[0])
        past: list[Tensor] = [code] * len(layers)
        sizes = [min(part.dilation, _BLOCK) for part in taps]
        for step in range(hop):
            x = torch.addmm(
                decoder.stem.bias, stem[:, step : step + len(decoder.stem.weight), 0], decoder.stem.weight[:, 0]
            )
            skip = torch.addmm(decoder.skip.bias, x, decoder.skip.weight[0])
            for n, layer in enumerate(decoder.layers):
                part, size, rows = taps[n], sizes[n], layers[n]
                rows[:, spans[n] + step] = x
                if step % size == 0:
                    end = min(step + size, hop)
                    past[n] = conditioned[n]
                    for tap in range(len(part.weight) - 1):
                        back = tap * part.dilation
                        past[n] = past[n] + rows[:, step + back : end + back] @ part.weight[tap]
                sigmoid, tanh = torch.addmm(past[n][:, step % size], x, part.weight[-1]).chunk(2, dim=1)
                added = torch.addmm(layer.out.bias, torch.sigmoid(sigmoid) * torch.tanh(tanh), layer.out.weight[0])
                x = x + added[:, : x.shape[1]]
                skip = skip + added[:, x.shape[1] :]
            skip = torch.relu(torch.addmm(conditioned_last, torch.relu(skip), decoder.hidden.weight[0]))
            logits = torch.addmm(decoder.classes.bias, skip, decoder.classes.weight[0])
            classes[:, step] = draw_class(logits, noise[:, step], temperature)
            stem[:, step + len(decoder.stem.weight), 0] = scaled(classes[:, step], stem.dtype)
        return tuple(rows[:, hop:].clone() for rows in (stem, *layers))


H512_BO16 = NSynthConfig()
"""61.8 M parameters: the published network."""
