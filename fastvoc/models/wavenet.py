"""WaveNet: dilated causal convolutions with gates make one sample after the other (van den Oord and others 2016).

The network is that of r9y9/wavenet_vocoder a35fff7 and of NVIDIA's nv-wavenet 03f6957, which differ in scales,
conditioning and numbering of samples. `WaveNet.forward` is the whole network over a given wave, which training needs;
`WaveNet.advance` makes samples: in native code on a CPU (`fastvoc.ops.recurrent`), or step by step in PyTorch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc import ops
from fastvoc.blocks import Conv1d
from fastvoc.blocks.conditioning import RowsConfig, StretchedConfig, TransposedConfig
from fastvoc.blocks.distributions import DistributionConfig, GaussianConfig, LogisticsConfig, MuLawConfig
from fastvoc.config import config
from fastvoc.models import eight_bits
from fastvoc.models.generator import Generator, Positive
from fastvoc.noise import Draws
from fastvoc.ops.kept import Kept, unreadable
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.network import Quantization
from fastvoc.ops.op import Slower
from fastvoc.ops.recurrent import CudaWaveNet, NativeWaveNet, Steps, WaveNetWeights, unasked
from fastvoc.recurrence import State

FRAMES = 32
"""Frames whose samples are made at once, between which Python handles signals: a third of a second at 22050 Hz."""

_EXAMPLE = 16
"""Frames that a choice of 8 bits looks at, of each mel."""

_DISTRIBUTIONS: dict[str, Literal["CLASSES", "LOGISTICS", "GAUSSIAN"]] = {
    "mu-law": "CLASSES",
    "logistics": "LOGISTICS",
    "gaussian": "GAUSSIAN",
}


FLOAT16_REACH = 6e4
"""The largest value that float16, which ends at 65504, is trusted with."""

_ON_GPU = (torch.float16, torch.bfloat16)
"""In which precisions GPUs make samples."""


@config
class WaveNetConfig:
    """A stack of gated layers, of which each looks twice as far back as the one before, cycle after cycle."""

    kind: Literal["wavenet"] = "wavenet"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram, or channels of whatever else it is conditioned on, such as linguistic features."""
    conditioning: RowsConfig = StretchedConfig()
    """How frames become one row for each sample."""
    distribution: DistributionConfig = MuLawConfig()
    """Of the next sample."""
    channels: Positive = 128
    """Of the residual path."""
    gates: Positive = 256
    """In front of tanh and sigmoid, half for each."""
    skip_channels: Positive = 128
    """Of what all layers hand to the head."""
    head_channels: Positive = 128
    """Between the two matrices of the head."""
    layers: Annotated[int, Field(ge=1, le=256)] = 30
    """Gated layers."""
    cycle: Annotated[int, Field(ge=1, le=16)] = 10
    """Layers until dilations begin again at 1."""
    kernel_size: Annotated[int, Field(ge=1, le=8)] = 3
    """Taps of each dilated convolution."""
    residual_scale: float = math.sqrt(0.5)
    """Factor of a layer's input and result, once they are added."""
    skip_scale: float | None = None
    """Factor of the sum of all skips; None is one over the root of their number."""
    condition_channels: Annotated[int, Field(ge=0, le=4096)] = 0
    """Width of the vector per utterance, such as a speaker embedding, which is added to all gates; 0 is none."""
    speakers: Annotated[int, Field(ge=0, le=65536)] = 0
    """Speakers that it knows by number, 0 for none. The condition is then that number, of shape (1,), and
    `condition_channels` the width of the embedding that the network has for each."""
    preemphasis: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The network makes ``gain (x[t] − preemphasis x[t−1])``, which is undone behind it; 0.85 in r9y9's recipes."""
    gain: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Of the wave that the network makes; 0.55 in r9y9's recipes, so that what is emphasised stays in [−1, 1]."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.gates % 2:
            raise ValueError(f"gates {self.gates} is odd; half of them are tanh's and half the sigmoid's")
        if self.speakers and not self.condition_channels:
            raise ValueError(
                f"there are {self.speakers} speakers but condition_channels is 0; give their embedding a width"
            )
        return self

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.conditioning.hop

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of each layer, in samples."""
        return tuple(2 ** (layer % self.cycle) for layer in range(self.layers))

    @property
    def receptive_samples(self) -> int:
        """Samples that the distribution of one depends on."""
        return (self.kernel_size - 1) * sum(self.dilations) + 1

    def build(self) -> WaveNet:
        """Build the generator with fresh weights."""
        return WaveNet(self)


MU_LAW = WaveNetConfig(preemphasis=0.85, gain=0.55)
LOGISTICS = WaveNetConfig(layers=24, cycle=6, distribution=LogisticsConfig(), preemphasis=0.85, gain=0.55)
GAUSSIAN = WaveNetConfig(layers=24, cycle=6, distribution=GaussianConfig(), preemphasis=0.85, gain=0.55)
"""The sizes that r9y9 published for LJ Speech."""

NV_WAVENET = WaveNetConfig(
    conditioning=TransposedConfig(),
    distribution=MuLawConfig(numbering="rounded"),
    channels=64,
    gates=128,
    skip_channels=256,
    head_channels=256,
    layers=16,
    cycle=8,
    kernel_size=2,
    residual_scale=1.0,
    skip_scale=1.0,
)
"""The size of nv-wavenet's trainer, at 16 kHz."""


class Layer(nn.Module):
    """Dilated causal convolution and condition, tanh times sigmoid, then a residual and a skip.

    The last layer of a network has no residual, since nothing reads it.
    """

    def __init__(self, config: WaveNetConfig, dilation: int, *, last: bool) -> None:
        super().__init__()
        gated = config.gates // 2
        self.dilated = Conv1d(config.channels, config.gates, config.kernel_size, dilation=dilation, causal=True)
        self.condition = Conv1d(config.mel_bands, config.gates, 1)
        self.utterance = Conv1d(config.condition_channels, config.gates, 1) if config.condition_channels else None
        self.residual = None if last else Conv1d(gated, config.channels, 1)
        self.skip = Conv1d(gated, config.skip_channels, 1)
        self.scale = config.residual_scale

    def forward(self, x: Tensor, rows: Tensor, embedding: Tensor | None, skip: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, T), (B, bands, T), (B, E, 1), (B, skips, T) → the next layer's input and the sum of skips."""
        condition = self.condition(rows)
        if self.utterance is not None and embedding is not None:
            condition = condition + self.utterance(embedding)
        out = [self.skip] if self.residual is None else [self.residual, self.skip]
        return ops.gated(
            x,
            self.dilated.weight,
            torch.cat([one.weight for one in out]),
            bias=self.dilated.bias,
            out_bias=torch.cat([one.bias for one in out]),
            condition=condition,
            skip=skip,
            skip_channels=len(self.skip.weight),
            dilation=self.dilated.dilation,
            causal=True,
            scale=self.scale,
        )


class WaveNet(Generator):
    """Draws each sample from a distribution that depends on all before it and on the mel.

    Parameters
    ----------
    config : WaveNetConfig
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.rows = config.conditioning.build(config.mel_bands)
        self.speakers = nn.Embedding(config.speakers, config.condition_channels) if config.speakers else None
        self.input = Conv1d(config.distribution.classes or 1, config.channels, 1)
        last = config.layers - 1
        self.layers = nn.ModuleList(
            Layer(config, dilation, last=number == last) for number, dilation in enumerate(config.dilations)
        )
        self.hidden = Conv1d(config.skip_channels, config.head_channels, 1)
        self.output = Conv1d(config.head_channels, config.distribution.outputs, 1)
        self._begin_weights()
        self._native: Kept[NativeWaveNet] = Kept()
        self._for_gpu: Kept[CudaWaveNet] = Kept()
        self._reach: Kept[float] = Kept()
        self._int8 = eight_bits.EightBits(self, config.layers, "WaveNet")

    def _begin_weights(self) -> None:
        """Begin with normal weights of variance 2 / fan-in and no biases (r9y9/wavenet_vocoder a35fff7, modules.py).

        Those of `Conv1d` have a sixth of that variance: a layer then adds next to nothing to the residual path, which
        is halved in power behind it, so that deep layers hear nothing. Classes begin as vectors of variance 1, as
        nv-wavenet's, and the last matrix as `Conv1d` does, so that probabilities are near equal.
        """
        for part in (self.input, self.layers, self.hidden):
            for convolution in part.modules():
                if isinstance(convolution, Conv1d):
                    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                    nn.init.zeros_(convolution.bias)
        if self.config.distribution.classes:
            nn.init.normal_(self.input.weight)

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.config.hop

    @property
    def condition_channels(self) -> int:
        """Width of what it is given per utterance: of a vector, 1 for the number of a speaker, or 0 for nothing."""
        return 1 if self.config.speakers else self.config.condition_channels

    @property
    def draws(self) -> Draws:
        """Random numbers for each sample: see `fastvoc.blocks.distributions`."""
        distribution = self.config.distribution
        return Draws(
            channels=distribution.numbers,
            rows_per_frame=self.hop,
            distribution=distribution.randomness,
            exact=True,
        )

    @property
    def skip_scale(self) -> float:
        """Factor of the sum of all skips."""
        given = self.config.skip_scale
        return 1 / math.sqrt(self.config.layers) if given is None else given

    @property
    def multiply_accumulates(self) -> float:
        """How many it takes for a sample: each weight once, but those of classes, a row of which is looked up."""
        each: list[nn.Module] = [*self.layers, self.hidden, self.output]
        each += [] if self.config.distribution.classes else [self.input]
        used = sum(
            weight.numel()
            for part in each
            for name, weight in part.named_parameters()
            if name.endswith("weight") and not name.startswith("utterance.")
        )
        return self.rows.multiply_accumulates + used

    def _each(self) -> Iterator[Layer]:
        return (cast(Layer, layer) for layer in self.layers)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples read beside the state."""
        return first // self.hop - self.rows.past, last // self.hop + self.rows.future

    def forward(  # type: ignore[override]
        self, mel: Tensor, wave: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Say how each sample of a wave is distributed, given those before it.

        Parameters
        ----------
        mel : Tensor, shape (B, bands, T)
        wave : Tensor, shape (B, T·hop)
            In [−1, 1], before pre-emphasis and gain.
        condition : Tensor, shape (B, condition_channels), optional

        Returns
        -------
        Tensor, shape (B, outputs, T·hop)
            The parameters of its distribution.
        """
        inputs = self.config.distribution.encode(self.emphasised(wave))
        first = torch.full_like(inputs[:, :1], self.config.distribution.silence)
        return self.parameters_of(torch.cat([first, inputs[:, :-1]], dim=1), self.rows(mel), condition)

    def parameters_of(self, inputs: Tensor, rows: Tensor, condition: Tensor | None = None) -> Tensor:
        """Say how the sample behind each input is distributed.

        Parameters
        ----------
        inputs : Tensor, shape (B, T)
            Classes, or samples as the network makes them.
        rows : Tensor, shape (B, bands, T)
            What `rows` makes of mels.
        condition : Tensor, shape (B, condition_channels), optional

        Returns
        -------
        Tensor, shape (B, outputs, T)
        """
        self._check_condition(condition)
        x = self.embedded(inputs)
        rows = in_layout_of(x, rows)  # so that kernels add what layers make of them as it lies
        embedding = None if condition is None else self._embedding(condition)[..., None]
        skips: Tensor | None = None
        for layer in self._each():
            x, skips = layer(x, rows, embedding, skips)
        assert skips is not None
        hidden: Tensor = self.hidden((skips * self.skip_scale).relu())
        outputs: Tensor = self.output(hidden.relu())
        return outputs

    def embedded(self, inputs: Tensor) -> Tensor:
        """Return what the first layer reads of inputs: (B, T) → (B, channels, T)."""
        if self.config.distribution.classes:
            return F.embedding(inputs.long(), self.input.weight[..., 0].T).mT + self.input.bias[:, None]
        x: Tensor = self.input(inputs.to(self.input.weight)[:, None])
        return x

    def negative_log_likelihood(self, wave: Tensor, mel: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
        """Say how improbable recordings are.

        Parameters
        ----------
        wave : Tensor, shape (B, T·hop)
            In [−1, 1].
        mel : Tensor, shape (B, bands, T)
        condition : Tensor, shape (B, condition_channels), optional

        Returns
        -------
        dict of str to Tensor
            The mean over all samples, in nats, under the name of the distribution.
        """
        distribution = self.config.distribution
        parameters = self(mel, wave, condition)
        inputs = distribution.encode(self.emphasised(wave))
        with torch.autocast(wave.device.type, enabled=False):
            return {distribution.kind: distribution.negative_log_likelihood(parameters.float(), inputs).mean()}

    def emphasised(self, wave: Tensor) -> Tensor:
        """Return a wave as the network makes it: (B, T) → (B, T), the sample before the first being 0."""
        before = F.pad(wave, (1, 0))[..., :-1]
        return self.config.gain * (wave - self.config.preemphasis * before)

    def begin(self, batch: int, condition: Tensor | None = None) -> State:
        """Return the state of streams that have been given nothing.

        Parameters
        ----------
        batch : int
        condition : Tensor, shape (batch, condition_channels), optional

        Raises
        ------
        ValueError
            If the condition is missing or unwanted, or is no speaker's number where that is wanted.
        """
        self._check_condition(condition)
        weight, memory = self.input.weight, self._memory_dtype
        none = weight.new_empty(batch, self.mel_bands, 0)
        ring = (self.config.kernel_size - 1) * sum(self.config.dilations)
        return (
            torch.zeros(batch, 1, dtype=torch.int64, device=weight.device),
            weight.new_full((batch, 1), self.config.distribution.silence, dtype=memory),
            weight.new_zeros(batch, self.config.channels, ring, dtype=memory).mT.contiguous(),
            none,
            weight.new_empty(batch, self.config.distribution.numbers, 0, dtype=memory),
            torch.zeros(batch, 1, dtype=torch.float64, device="cpu").to(weight.device),
            *([] if condition is None else [condition]),
        )

    def advance(
        self, state: State, mel: Tensor, *, last: bool, noise: Tensor | None = None, temperature: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Take the next frames, and return the new state and the samples that are now certain.

        Parameters
        ----------
        state : tuple of Tensor
        mel : Tensor, shape (B, bands, T)
        last : bool
            Whether no others follow.
        noise : Tensor, shape (B, numbers, T·hop)
            The numbers that belong to these frames.
        temperature : Tensor, shape (B,)
            Divides logits and multiplies scales; 0 takes what is likeliest.

        Returns
        -------
        state : tuple of Tensor
        wave : Tensor, shape (B, 1, samples)

        Raises
        ------
        NotImplementedError
            If native code was asked for, and cannot run the network.
        """
        assert noise is not None and temperature is not None
        time, history, rings, frames, numbers, level, *others = state
        time, history, rings, level = time.clone(), history.clone(), rings.clone(), level.clone()
        frames = torch.cat([frames, mel], dim=-1)
        numbers = torch.cat([numbers, noise.to(numbers)], dim=-1)
        past = min(int(time[0, 0]) // self.hop, self.rows.past) if len(time) else 0
        engine, gates = self._engine(), self._gates(others[0] if others else None)
        pieces = []
        ready = self.rows.ready(frames.shape[-1], past, ended=last)
        for begin in range(0, ready, FRAMES):
            count = min(FRAMES, ready - begin)
            before = min(past + begin, self.rows.past)
            first, final = past + begin - before, last and begin + count == ready
            stop = frames.shape[-1] if final else past + begin + count + self.rows.future
            rows = self.rows.between(frames[..., first:stop], before, ended=final)[..., : count * self.hop]
            span = slice(begin * self.hop, (begin + count) * self.hop)
            drawn = engine(_Block(time, history, rings, rows.mT, gates, numbers[..., span], temperature))
            time += count * self.hop
            pieces.append(self._deemphasised(self.config.distribution.decode(drawn), level))
        kept = max(0, past + ready - self.rows.past)
        if len(time) and past + ready < self.rows.past:
            kept = 0
        wave = torch.cat(pieces, dim=-1) if pieces else mel.new_empty(len(mel), 0)
        rest = frames[..., kept:].clone(), numbers[..., ready * self.hop :].clone()
        return (time, history, rings, *rest, level, *others), wave[:, None].to(mel)

    def explain_steps(self) -> dict[str, str | None]:
        """Say what makes samples, best first, each with the reason why it cannot."""
        native_steps = unasked("cpu") or NativeWaveNet.refuses(self.input.weight) or unreadable(self)
        return {
            **({self._int8.way: native_steps or self._int8.outdated or self.refuses_int8()} if self._int8 else {}),
            "native steps": native_steps,
            **self._explain_gpu(),
            "steps in PyTorch": unasked("reference"),
        }

    def _explain_gpu(self) -> dict[str, str | None]:
        """Say in which precision a GPU can make samples: that of the weights; or float16, if no value leaves it."""
        weight = self.input.weight
        first = weight.dtype if weight.dtype in _ON_GPU else torch.float16
        reason = self._why_not_on_gpu(first)
        if reason is not None:
            return {_on_gpu(first): reason}
        by = " by clusters" if CudaWaveNet.clusters(weight.device, self._sizes, 1) else ""
        if weight.dtype in _ON_GPU:
            return {_on_gpu(first) + by: None}
        reach = self._reach.of(self, lambda: self._as_matrices().reach)
        if reach <= FLOAT16_REACH:
            return {_on_gpu(first) + by: None}
        return {
            _on_gpu(first) + by: f"values may reach {reach:.3g} in it, and float16 ends at 65504",
            _on_gpu(torch.bfloat16) + by: self._why_not_on_gpu(torch.bfloat16),
        }

    def _why_not_on_gpu(self, precision: torch.dtype) -> str | None:
        reason = unasked("cuda") or CudaWaveNet.refuses(self.input.weight, precision, self._sizes)
        return None if isinstance(reason, Slower) and ops.forced_backend() == "cuda" else reason

    @property
    def _sizes(self) -> dict[str, int]:
        config = self.config
        return {
            "channels": config.channels,
            "gated": config.gates // 2,
            "skips": config.skip_channels,
            "hidden": config.head_channels,
            "outputs": config.distribution.outputs,
            "layers": config.layers,
            "taps": config.kernel_size,
            "condition": config.mel_bands,
            "input_taps": 1,
        }

    def refuses_int8(self) -> str | None:
        """Return why no convolution can multiply in 8 bits here, or None."""
        if self.condition_channels:
            return "it is conditioned on speakers, for which nothing chooses convolutions yet"
        return NativeWaveNet.refuses(self.input.weight) or unreadable(self) or eight_bits.refuses()

    def choose_int8(self, mels: Sequence[Tensor], *, smallest_snr: float) -> dict[int, Quantization]:
        """Choose the convolutions that multiply in 8 bits, as `fastvoc.models.eight_bits.choose` says."""
        network = copy.deepcopy(self).float()
        with torch.inference_mode():
            examples = [network._example(mel) for mel in mels]
            return eight_bits.choose(network._as_matrices(), examples, smallest_snr=smallest_snr)

    def _example(self, mel: Tensor) -> eight_bits.Example:
        """Take the middle frames of a mel: enough values for a range, and little time."""
        frames = min(_EXAMPLE, mel.shape[-1])
        first = (mel.shape[-1] - frames) // 2
        rows = self.rows(mel)[..., first * self.hop : (first + frames) * self.hop].mT.float().contiguous()
        noise = self.draws(torch.arange(len(mel), device="cpu"), 0, frames).float().contiguous()
        return eight_bits.Example(rows, noise, float(self.config.distribution.silence))

    def take_int8(self, chosen: Mapping[int, Quantization]) -> None:
        """Multiply these convolutions in 8 bits, as `fastvoc.models.eight_bits.EightBits.take` says."""
        self._int8.take(chosen)

    @property
    def is_exact_in_batches(self) -> bool:
        """Whether a stream has the same bits alone and beside others: products in PyTorch round otherwise."""
        return next((way for way, reason in self.explain_steps().items() if reason is None), "") != "steps in PyTorch"

    def _engine(self) -> Callable[[_Block], Tensor]:
        """Return what makes the samples of a block."""
        ways = self.explain_steps()
        for way, reason in ways.items():
            if reason is not None:
                continue
            if way == "steps in PyTorch":
                return self._run_in_pytorch
            kernel = next((kernel for kernel in _ON_GPU if way.startswith(_on_gpu(kernel))), None)
            packed = self._packed() if kernel is None else self._packed_for_gpu(kernel)
            return lambda block: self._run_native(block, packed)
        asked_for_gpu = ops.forced_backend() == "cuda"
        why = next(reason for way, reason in ways.items() if way.startswith("cuda") == asked_for_gpu)
        raise NotImplementedError(f"WaveNet: {why}")

    @property
    def _memory_dtype(self) -> torch.dtype:
        return torch.promote_types(self.input.weight.dtype, torch.float32)

    def _check_condition(self, condition: Tensor | None) -> None:
        channels = self.condition_channels
        if (condition is None) != (not channels):
            given, fits = ("no", "needs one") if condition is None else ("a", "takes none")
            raise ValueError(f"WaveNet: {given} condition was given; this generator {fits}")
        if condition is not None and condition.shape[-1] != channels:
            raise ValueError(f"WaveNet: condition has shape {tuple(condition.shape)}; it must be (B, {channels})")
        if condition is not None and self.config.speakers:
            known = (condition == condition.round()) & (condition >= 0) & (condition < self.config.speakers)
            if not bool(known.all()):
                raise ValueError(
                    f"WaveNet: condition {condition.flatten().tolist()} holds no number of a speaker; they are whole, "
                    f"from 0 to {self.config.speakers - 1}"
                )

    def _embedding(self, condition: Tensor) -> Tensor:
        """(B, condition_channels) → (B, E)."""
        if self.speakers is None:
            return condition.to(self.input.weight)
        embedding: Tensor = self.speakers(condition[:, 0].long())
        return embedding

    def _gates(self, condition: Tensor | None) -> Tensor | None:
        """Return what utterances add to all gates, each by itself: (B, condition_channels) → (B, layers, gates)."""
        if condition is None:
            return None
        embedding = self._embedding(condition)
        parts = [layer.utterance for layer in self._each() if layer.utterance is not None]
        weight = torch.cat([part.weight[..., 0] for part in parts])
        bias = torch.cat([part.bias for part in parts])
        each = [torch.addmv(bias, weight, row.clone()) for row in embedding]
        return torch.stack(each).view(len(each), self.config.layers, -1) if each else None

    def _deemphasised(self, samples: Tensor, level: Tensor) -> Tensor:
        """Undo pre-emphasis and gain: (B, T), and the latest result of each stream, (B, 1), which is overwritten."""
        factor, gain = self.config.preemphasis, self.config.gain
        if not factor:
            return samples if gain == 1 else samples / gain
        from scipy.signal import lfilter  # which takes a while to import, and adds in the order of the samples

        waves, _ = lfilter(
            [1.0], [1.0, -factor], samples.double().numpy(force=True), zi=factor * level.numpy(force=True)
        )
        made = torch.from_numpy(waves)
        level.copy_(made[:, -1:])
        return made.div_(gain).to(samples)

    def _run_native(self, block: _Block, packed: NativeWaveNet | CudaWaveNet) -> Tensor:
        drawn = torch.empty(block.rows.shape[:2], dtype=torch.float32, device=block.rings.device)
        packed.run(
            Steps(
                time=block.time[:, 0].contiguous(),
                rings=block.rings,
                history=block.history,
                condition=block.rows.float().contiguous(),
                gates=None if block.gates is None else block.gates.float().contiguous(),
                noise=block.noise.contiguous(),
                temperature=block.temperature.to(drawn).contiguous(),
                drawn=drawn,
            )
        )
        return drawn

    def _packed(self) -> NativeWaveNet:
        """Return the weights as native code reads them, packed again whenever they have changed."""
        dtype, scales = self.input.weight.dtype, None
        if self._int8 and next(iter(self.explain_steps().values())) is None:
            dtype, scales = torch.bfloat16, self._int8.scales
        return self._native.of(self, lambda: NativeWaveNet(self._as_matrices(), dtype, scales), form=scales)

    def _packed_for_gpu(self, precision: torch.dtype) -> CudaWaveNet:
        """Return the weights as the kernel of a GPU reads them, packed again whenever they have changed."""
        return self._for_gpu.of(self, lambda: CudaWaveNet(self._as_matrices(), precision), form=precision)

    def forget(self) -> None:
        """Drop the packed weights, so that the next block of samples is made with weights as they are then."""
        self._native.forget()
        self._for_gpu.forget()
        self._reach.forget()

    def _as_matrices(self) -> WaveNetWeights:
        config, layers = self.config, [*self._each()]
        distribution: Any = config.distribution
        single = self._memory_dtype
        residual = [layer.residual for layer in layers if layer.residual is not None]
        nothing = layers[-1].skip.weight.new_zeros(config.channels, config.gates // 2)
        return WaveNetWeights(
            distribution=_DISTRIBUTIONS[distribution.kind],
            dilations=config.dilations,
            residual_scale=config.residual_scale,
            skip_scale=self.skip_scale,
            smallest_log_scale=getattr(distribution, "smallest_log_scale", 0.0),
            input=self.input.weight[..., 0].T[None] if distribution.classes else self.input.weight[:, 0],
            input_bias=self.input.bias,
            dilated=torch.stack([layer.dilated.weight for layer in layers]),
            # sums of rounded weights are rounded once, as native code adds in single precision
            dilated_bias=torch.stack([layer.dilated.bias.to(single) + layer.condition.bias for layer in layers]),
            conditions=torch.stack([layer.condition.weight[..., 0] for layer in layers]),
            residual=torch.stack([*(one.weight[..., 0] for one in residual), nothing]),
            residual_bias=torch.stack([*(one.bias for one in residual), nothing[:, 0]]),
            skip=torch.stack([layer.skip.weight[..., 0] for layer in layers]),
            skip_bias=torch.stack([layer.skip.bias.to(single) for layer in layers]).sum(dim=0),
            first_skip=None,
            hidden_weight=self.hidden.weight[..., 0],
            hidden_bias=self.hidden.bias,
            hidden_condition=None,
            output=self.output.weight[..., 0],
            output_bias=self.output.bias,
        )

    def _run_in_pytorch(self, block: _Block) -> Tensor:
        """Make the samples of a block, one by one; each operation has the shape of one sample, whatever the block."""
        drawn = []
        step = _Step(self)
        for t in range(block.rows.shape[1]):
            parameters = step(block, t)
            sample = self.config.distribution.draw(parameters, block.noise[..., t], block.temperature.to(parameters))
            block.history.copy_(sample[:, None])
            drawn.append(sample)
        return torch.stack(drawn, dim=-1)


def _on_gpu(precision: torch.dtype) -> str:
    """Name the way to make samples on a GPU."""
    return f"cuda steps in {str(precision).removeprefix('torch.')}"


class _Block(NamedTuple):
    """Samples that are made at once; time, history and rings are the state, of which the latter two are overwritten."""

    time: Tensor
    history: Tensor
    rings: Tensor
    rows: Tensor
    """(B, T, bands)."""
    gates: Tensor | None
    noise: Tensor
    temperature: Tensor


class _Step:
    """The network for one sample of each stream, with its weights as matrices."""

    def __init__(self, network: WaveNet) -> None:
        dtype = network._memory_dtype
        matrices = network._as_matrices()
        tensors = {name: value for name, value in vars(matrices).items() if isinstance(value, Tensor)}
        self.m = replace(matrices, **{name: value.detach().to(dtype) for name, value in tensors.items()})  # type: ignore[arg-type]
        self.taps = self.m.dilated.permute(0, 1, 3, 2).flatten(2)  # (layers, gates, taps·channels)
        assert self.m.conditions is not None
        self.conditions = self.m.conditions.flatten(0, 1)
        self.classes = network.config.distribution.classes

    def __call__(self, block: _Block, t: int) -> Tensor:
        """Return the parameters of the next sample, (B, outputs)."""
        m, rings, streams = self.m, block.rings, torch.arange(len(block.rings), device=block.rings.device)
        history = block.history[:, 0]
        x = m.input[0, history.long()] if self.classes else history[:, None] * m.input[:, 0]
        x = x + m.input_bias
        condition = F.linear(block.rows[:, t].to(rings), self.conditions).view(-1, *m.dilated_bias.shape)
        condition = condition + m.dilated_bias
        if block.gates is not None:
            condition = condition + block.gates
        skips = m.skip_bias
        begin, taps, time = 0, m.dilated.shape[-1], block.time[:, 0] + t
        for layer, dilation in enumerate(m.dilations):
            ring = (taps - 1) * dilation
            before = [rings[streams, begin + (time - (taps - 1 - tap) * dilation) % ring] for tap in range(taps - 1)]
            g = condition[:, layer] + F.linear(torch.cat([*before, x], dim=-1), self.taps[layer])
            if ring:
                rings[streams, begin + time % ring] = x
            tanh, sigmoid = g.chunk(2, dim=-1)
            z = tanh.tanh() * sigmoid.sigmoid()
            skips = skips + F.linear(z, m.skip[layer])
            x = (x + F.linear(z, m.residual[layer], m.residual_bias[layer])) * m.residual_scale
            begin += ring
        hidden = F.linear((skips * m.skip_scale).relu(), m.hidden_weight, m.hidden_bias).relu()
        return F.linear(hidden, m.output, m.output_bias)
