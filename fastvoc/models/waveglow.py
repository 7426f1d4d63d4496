"""WaveGlow.   Prenger, Valle and Catanzaro 2018, arXiv:1811.00002; original: NVIDIA/waveglow 8afb643, glow.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Annotated, Literal, NamedTuple, NoReturn, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Self

from fastvoc import ops
from fastvoc.blocks import GatedStack, Upsample
from fastvoc.blocks.gated_stack import product
from fastvoc.config import config
from fastvoc.device import memory_size
from fastvoc.graph import hooks_of
from fastvoc.models.generator import Generator, Positive
from fastvoc.noise import Draws
from fastvoc.ops.cuda import device
from fastvoc.ops.gated import cuda
from fastvoc.ops.gated.packed import ByPhases, Packed, refuses
from fastvoc.ops.kept import Kept, unreadable
from fastvoc.ops.layout import in_layout_of
from fastvoc.ops.op import Slower
from fastvoc.recurrence import State

Layers = list[list[Packed]] | list[list[cuda.Packed]]
"""Those of each flow, as native code reads them."""


class Prepared(NamedTuple):
    """What is made of the weights before waves are."""

    unmix: list[Tensor]
    """The inverse of the 1×1 convolution of each flow."""
    packed: Layers | None
    """None where operators run the layers."""
    by_phases: bool = False
    """Whether these read mel frames, which are upsampled in their weights."""


@config
class WaveGlowConfig:
    """The published networks, and smaller ones."""

    kind: Literal["waveglow"] = "waveglow"
    mel_bands: Positive = 80
    """Bands of the mel spectrogram."""
    hop: Positive = 256
    """Samples per mel frame, by which one transposed convolution multiplies the length of the mel."""
    upsample_kernel_size: Positive = 1024
    """Its taps; a multiple of the hop avoids patterns."""
    group: Annotated[int, Field(gt=0, le=64)] = 8
    """Samples that are the channels of a row: flows run at so much less than the sample rate."""
    flows: Annotated[int, Field(gt=0, le=64)] = 12
    """Steps between the wave and noise, each an invertible 1×1 convolution and an affine coupling."""
    early_every: Positive = 4
    """Flows after which some channels are noise already, and leave (§2.3)."""
    early_size: Annotated[int, Field(gt=0, le=64)] = 2
    """How many."""
    channels: Annotated[int, Field(gt=0, le=4096)] = 256
    """Width of the network of each coupling."""
    layers: Annotated[int, Field(gt=0, le=12)] = 8
    """Its gated layers, with dilations of 1, 2, 4, … rows."""
    kernel_size: Annotated[int, Field(gt=0, le=31)] = 3
    """Their taps."""
    deviation: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation that noise has in training: 1 in the original's settings, √½ in the paper."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hop % self.group:
            raise ValueError(f"hop {self.hop} must be a multiple of group {self.group}")
        if self.upsample_kernel_size < self.hop:
            raise ValueError(f"upsample_kernel_size {self.upsample_kernel_size} must be the hop {self.hop} at least")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {self.kernel_size} must be odd, so that layers keep the length")
        if self.group % 2 or self.early_size % 2 or self.widths()[-1] < 2:
            raise ValueError(
                f"group {self.group} and early_size {self.early_size} must be even and leave two channels at least in "
                f"the last flow, which has {self.widths()[-1]}"
            )
        return self

    def widths(self) -> list[int]:
        """Return the channels of each flow, from the wave on."""
        return [self.group - self.early_size * (number // self.early_every) for number in range(self.flows)]

    def leaves(self, number: int) -> bool:
        """Whether channels leave before a flow, counted from 0 from the wave on."""
        return number > 0 and number % self.early_every == 0

    def build(self) -> WaveGlow:
        """Build the generator with fresh weights."""
        return WaveGlow(self)


PUBLISHED = WaveGlowConfig()
"""The original's config.json, 256 channels, of which the two published models for 22050 Hz are."""
WIDE = WaveGlowConfig(channels=512)
"""The paper's 512 channels (§3.4)."""
SMALL = WaveGlowConfig(channels=64, layers=7, flows=8)
"""A twentieth of the work."""


class Likelihood(NamedTuple):
    """What `WaveGlow.transform` makes of waves."""

    z: Tensor
    """(B, group, T / group): noise, if the network has learnt; channels that left early come first."""
    log_scales: Tensor
    """(B,): the logarithms of all scales of couplings, summed."""
    log_determinants: Tensor
    """(flows,): log |det W| of each 1×1 convolution, as often as there are rows."""


class FollowingUpsample(Upsample):
    """A transposed convolution whose taps lie behind a frame: no sample depends on a later frame."""

    def __init__(self, channels: int, kernel_size: int, rate: int) -> None:
        super().__init__(channels, channels, kernel_size, rate)
        self.crop = (0, kernel_size - rate)
        self.extra = 0
        self.past = -(-kernel_size // rate) - 1
        self.without_weight_norm = True

    def following(self, frames: Tensor) -> Tensor:
        """Make the samples of frames that have `past` others before them: (B, C, past + n) → (B, C, n·rate)."""
        weight, bias = self.weight.to(frames), self.bias.to(frames)
        return ops.upsample(frames, weight, bias, stride=self.rate, crop=(self.past * self.rate, self.crop[1]))


class Flow(nn.Module):
    """An invertible 1×1 convolution, and a coupling that scales and shifts one half of its channels by the other.

    Parameters
    ----------
    channels : int
        Of the signal.
    settings : WaveGlowConfig
    """

    def __init__(self, channels: int, settings: WaveGlowConfig) -> None:
        super().__init__()
        self.width = channels // 2
        # in single precision at least, since none below it is decomposed
        orthogonal = torch.linalg.qr(_at_least_single(torch.randn(channels, channels)))[0]
        orthogonal[:, 0] *= torch.linalg.det(orthogonal).sign()
        self.mix = nn.Parameter(orthogonal.to(torch.get_default_dtype()))
        self.network = GatedStack(
            self.width,
            2 * self.width,
            settings.mel_bands * settings.group,
            channels=settings.channels,
            layers=settings.layers,
            kernel_size=settings.kernel_size,
        )
        # a coupling begins as the identity; a weight of zeros has no direction
        nn.init.zeros_(self.network.end.weight)
        nn.init.zeros_(self.network.end.bias)
        self.network.end.without_weight_norm = True  # type: ignore[assignment]

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Go towards noise: (B, channels, T), (B, C, T) → (B, channels, T) and log-scales (B, channels / 2, T)."""
        with torch.autocast(x.device.type, enabled=False):
            x = ops.conv1d(_at_least_single(x), _at_least_single(self.mix)[..., None])
        made = self.network(x[:, : self.width].to(condition.dtype), condition)
        shift, log_scale = _at_least_single(made).chunk(2, dim=1)
        return torch.cat([x[:, : self.width], x[:, self.width :] * log_scale.exp() + shift], dim=1), log_scale

    def backward(self, x: Tensor, made: Tensor, unmix: Tensor) -> Tensor:
        """Go back, of what the network makes of the first half and the inverse of `mix`."""
        shift, log_scale = _at_least_single(made).chunk(2, dim=1)
        x = torch.cat([x[:, : self.width], (x[:, self.width :] - shift) / log_scale.exp()], dim=1)
        return product(x, unmix[..., None], None)

    def log_determinant(self) -> Tensor:
        """Return log |det mix|."""
        logarithm: Tensor = torch.linalg.slogdet(_at_least_single(self.mix))[1]
        return logarithm


class WaveGlow(Generator):
    """Flows between waves and noise, each conditioned on the mel; it is trained one way and runs the other.

    It keeps what later rows read, and so computes every row once, however long the mel is: see
    `fastvoc.recurrence.Recurrent`.
    """

    def __init__(self, config: WaveGlowConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.upsample = FollowingUpsample(config.mel_bands, config.upsample_kernel_size, config.hop)
        self.flows = nn.ModuleList(Flow(channels, config) for channels in config.widths())
        self._kept: Kept[Prepared] = Kept()

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.config.hop

    @property
    def draws(self) -> Draws:
        """A number for each sample; the original's temperature is 0.6."""
        return Draws(channels=self.config.group, rows_per_frame=self._rows_per_frame, temperature=0.6)

    @property
    def _rows_per_frame(self) -> int:
        return self.config.hop // self.config.group

    @property
    def reach(self) -> int:
        """Rows on both sides of one that a wave depends on, through all flows."""
        return sum(flow.network.reach for flow in self._each())

    def _each(self) -> Iterator[Flow]:
        return (cast(Flow, flow) for flow in self.flows)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Mel frames that samples `first … last` read."""
        group, reach, rows = self.config.group, self.reach, self._rows_per_frame
        return (first // group - reach) // rows - self.upsample.past, (last // group + reach) // rows

    def forward(
        self,
        mel: Tensor,
        condition: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        temperature: Tensor | None = None,
    ) -> Tensor:
        """Make waves: (B, bands, T), noise (B, group, T·hop / group), temperature (B,) → (B, 1, T·hop)."""
        return self.advance(self.begin(len(mel)), mel, last=True, noise=noise, temperature=temperature)[1]

    def inverse(self, z: Tensor, mel: Tensor) -> Tensor:
        """Make the waves of which `transform` makes `z`.

        Parameters
        ----------
        z : Tensor, shape (B, group, T·hop / group)
        mel : Tensor, shape (B, bands, T)

        Returns
        -------
        Tensor, shape (B, T·hop)
        """
        # summed in order: Toom and Cook's method rounds a little more, and this is held to be exact
        prepared = self._prepared(mel, z, in_order=True)
        _, wave = self._make(self.begin(len(mel)), mel, z, prepared, last=True)
        return wave[:, 0]

    def transform(self, wave: Tensor, mel: Tensor) -> Likelihood:
        """Make noise of waves.

        Parameters
        ----------
        wave : Tensor, shape (B, T)
            In [−1, 1]; T is a multiple of the group.
        mel : Tensor, shape (B, bands, frames)
            Of as many frames at least.

        Raises
        ------
        ValueError
            If the wave has another shape or the mel is too short.
        """
        group = self.config.group
        if wave.ndim != 2 or wave.shape[-1] % group or wave.shape[-1] > mel.shape[-1] * self.hop:
            raise ValueError(
                f"WaveGlow: wave has shape {tuple(wave.shape)} and mel {tuple(mel.shape)}; the wave must be "
                f"(batch, samples), with a multiple of {group} samples and a mel frame for each {self.hop}"
            )
        x = wave.reshape(len(wave), -1, group).mT
        # in the memory order of x, so that kernels add and multiply rows as they lie
        rows = in_layout_of(x, self._grouped(self.upsample(mel))[..., : x.shape[-1]])
        left, scales = [], []
        for number, flow in enumerate(self._each()):
            if self.config.leaves(number):
                left.append(x[:, : self.config.early_size])
                x = x[:, self.config.early_size :]
            x, log_scale = flow(x, rows)
            scales.append(log_scale.sum(dim=(1, 2)))
        determinants = torch.stack([flow.log_determinant() for flow in self._each()])
        return Likelihood(torch.cat([*left, x], dim=1), torch.stack(scales).sum(dim=0), rows.shape[-1] * determinants)

    def negative_log_likelihood(self, wave: Tensor, mel: Tensor, condition: Tensor | None = None) -> dict[str, Tensor]:
        """Say how improbable waves are: the original's loss, in nats for each sample, but for a constant.

        Parameters
        ----------
        wave : Tensor, shape (B, T)
        mel : Tensor, shape (B, bands, T / hop)
        condition : None

        Returns
        -------
        dict of str to Tensor
            The three parts of the sum: of z, Σz² / 2σ², and of the couplings and the 1×1 convolutions, what they
            add to the volume.
        """
        made = self.transform(wave, mel)
        count = made.z.numel()
        return {
            "noise": made.z.square().sum() / (2 * self.config.deviation**2 * count),
            "scales": -made.log_scales.sum() / count,
            "determinants": -len(wave) * made.log_determinants.sum() / count,
        }

    def outputs(self, mel: Tensor, names: Collection[str]) -> NoReturn:
        """Refuse to be compared with recordings: noise makes other waves than theirs."""
        raise ValueError("WaveGlow learns from the likelihood of recordings, not from losses; task: {kind: likelihood}")

    def diagnosis(self) -> str:
        """Name the first 1×1 convolution that has no inverse; empty where all have one."""
        for number, flow in enumerate(self._each()):
            if not bool(flow.log_determinant().isfinite()):
                return (
                    f"the 1x1 convolution of flow {number} is singular (flows.{number}.mix), so that it has no inverse"
                )
        return ""

    def begin(self, batch: int, condition: Tensor | None = None) -> State:
        """Return the state of streams that have been given nothing."""
        none = self.upsample.bias.new_zeros(batch, 1, 0)
        wide = none.expand(-1, self.mel_bands * self.config.group + self.config.group, -1)
        exact = _at_least_single(none)
        state = [
            none.new_zeros(batch, self.mel_bands, self.upsample.past),
            wide,
            exact.expand(-1, self.config.group, -1),
        ]
        for flow in reversed([*self._each()]):
            state += [exact.expand(-1, 2 * flow.width, -1), *flow.network.begin(batch)]
        return tuple(state)

    def advance(
        self, state: State, mel: Tensor, *, last: bool, noise: Tensor | None = None, temperature: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Take the next frames, and return the new state and the samples that are now certain."""
        if noise is None or temperature is None:
            raise ValueError("WaveGlow makes waves of noise; it needs noise and temperature")
        # the blocks of Toom and Cook's method would have to wait in a stream
        prepared = self._prepared(mel, noise, in_order=not last or state[1].shape[-1] > 0)
        single = mel if prepared.packed is None else mel.to(prepared.packed[0][0].dtype)
        state, wave = self._make(
            state, mel, noise.to(single) * temperature.to(single)[:, None, None], prepared, last=last
        )
        if not wave.is_meta and not bool(wave.isfinite().all()):
            raise ValueError(
                f"WaveGlow: at temperature {float(temperature.max()):g} samples are no finite numbers, as flows "
                "multiply by too much; take a lower temperature (the original's is 0.6), or weights of an earlier step"
            )
        return state, wave

    def _make(self, state: State, mel: Tensor, z: Tensor, prepared: Prepared, *, last: bool) -> tuple[State, Tensor]:
        """Run the flows backwards, some frames at a time; nothing in here waits for a GPU."""
        waves, rows, given, packed, frames = [], self._rows_per_frame, mel, prepared.packed, None
        mel = mel if packed is None else mel.to(packed[0][0].dtype)
        if prepared.by_phases:
            frames = ByPhases(torch.cat([state[0].to(mel), mel], dim=-1).mT.contiguous(), rows, 0)
        window = WINDOW if mel.device.type == "cpu" else GPU_WINDOW
        for start in range(0, max(1, mel.shape[-1]), window):
            stop = start + window
            ended = last and stop >= mel.shape[-1]
            state, wave = self._advance(
                state,
                mel[..., start:stop],
                z[..., start * rows : stop * rows],
                prepared,
                None if frames is None else frames.following(start * rows - state[1].shape[-1]),
                ended=ended,
            )
            waves.append(wave)
        return state, torch.cat(waves, dim=-1).to(given.dtype)

    def _advance(
        self,
        state: State,
        mel: Tensor,
        z: Tensor,
        prepared: Prepared,
        by_phases: ByPhases | None,
        *,
        ended: bool,
    ) -> tuple[State, Tensor]:
        """Take as many frames as are computed at once."""
        group, wide, packed = self.config.group, self.mel_bands * self.config.group, prepared.packed
        frames, pending, earlier, later = torch.cat([state[0].to(mel), mel], dim=-1), state[2], state[1].to(mel), z
        if by_phases is not None:  # rows of the upsampled mel are not made
            wide, earlier = 0, earlier[:, -group:]
        else:
            none = mel.new_zeros(len(mel), wide, 0)
            fresh = self._grouped(self.upsample.following(frames)) if mel.shape[-1] else none
            later = torch.cat([fresh, z], dim=1)
        before = earlier.shape[-1]
        # what flows are given, in rows
        given = _joined(earlier, later, by_rows=packed is not None)
        rest, noise = given[:, :wide] if by_phases is None else by_phases, _at_least_single(given[:, wide:])
        place, left = 3, group - 2 * cast(Flow, self.flows[-1]).width
        x, kept = (
            noise[:, left:, before:],
            [frames[..., mel.shape[-1] :].clone(), given[..., max(0, given.shape[-1] - self.reach) :].clone()],
        )
        memories: list[Tensor] = []
        for number, flow in reversed([*enumerate(self._each())]):
            stack, size = flow.network, 1 + 2 * self.config.layers
            waiting, *memory = state[place : place + size]
            memory, made = stack.advance(
                memory,
                x[:, : flow.width].to(mel.dtype),
                rest,
                before=before,
                ended=ended,
                packed=None if packed is None else packed[number],
            )
            x, count = torch.cat([waiting, x], dim=-1), made.shape[-1]
            memories += [x[..., count:].clone(), *memory]
            x, before, place = (
                flow.backward(x[..., :count], made, prepared.unmix[number]),
                max(0, before - stack.reach),
                place + size,
            )
            if self.config.leaves(number):
                left -= self.config.early_size
                x = torch.cat([noise[:, left : left + self.config.early_size, before : before + count], x], dim=1)
        x = torch.cat([pending, x], dim=-1)
        # whole frames, as all generators make
        count = x.shape[-1] // self._rows_per_frame * self._rows_per_frame
        return (*kept, x[..., count:].clone(), *memories), x[..., :count].mT.flatten(1)[:, None]

    def explain_steps(self) -> dict[str, str | None]:
        """Say what runs the layers, best first, each with the reason why it cannot."""
        x = self.upsample.weight.new_zeros(1, self.mel_bands, 64)
        operators: dict[str, str | None] = ops.explain("conv1d", x, x.new_zeros(1, self.mel_bands, 1))
        native = self._why_not_native()
        of_frames = native or self._why_not_by_phases()
        return {"native layers of mel frames": of_frames, "native layers": native, **operators}

    def _why_not_native(self) -> str | None:
        """Return why native code cannot run the layers, as a sentence, or None."""
        asked, own = ops.forced_backend(), "cuda" if self._is_on_gpu() else "cpu"
        if asked not in (None, own):
            return f"backend {asked!r} was asked for"
        if any(any(hooks_of(module)) for module in self.modules()):
            return "a module inside has forward hooks, which only modules that are called run"
        weight = self.upsample.weight
        if own == "cpu":
            return refuses(weight) or unreadable(self)
        reason = unreadable(self) or device.refuses(weight.device, weight.dtype, what="its weights are")
        if reason is not None and not (isinstance(reason, Slower) and asked == own):
            return reason
        return next(self._each()).network.refused_on_gpu()  # all flows have such layers

    def _is_on_gpu(self) -> bool:
        """Whether a GPU runs the layers; in tests the CPU does so in its place, if that is asked for."""
        return self.upsample.weight.device.type == "cuda" or ops.forced_backend() == "cuda"

    @property
    def is_exact_in_batches(self) -> bool:
        """Whether to run mels of several lengths as streams side by side; each alone is multiplied less."""
        return False

    @property
    def multiply_accumulates(self) -> float:
        """For each sample."""
        weights = sum(weight.numel() for flow in self._each() for weight in flow.parameters() if weight.ndim > 1)
        return weights / self.config.group + self.upsample.weight.numel() / self.hop

    def forget(self) -> None:
        """Drop what is kept of the weights, so that the next samples are made with weights as they are then."""
        self._kept.forget()

    def _prepared(self, mel: Tensor, z: Tensor, *, in_order: bool) -> Prepared:
        """Return what is made of the weights, once where no gradient is asked for.

        Sums of native code are `in_order`, or else as few products as there are ways to.
        """
        wanted = mel.requires_grad or z.requires_grad or any(weight.requires_grad for weight in self.parameters())
        if torch.is_grad_enabled() and wanted:
            return Prepared(self._inverses(), None)
        if self._why_not_native() is not None:
            if unreadable(self):
                return Prepared(self._inverses(), None)
            return self._kept.of(self, lambda: Prepared(self._inverses(), None))
        on_gpu, by_phases = self._is_on_gpu(), not in_order and self._why_not_by_phases() is None
        in_order = in_order or not (by_phases or self.upsample.weight.dtype == torch.float32)

        def make() -> Prepared:
            layers: Layers
            if on_gpu:
                layers = [flow.network.packed(cuda.Packed) for flow in self._each()]
            else:
                upsampled = partial(_upsampled, *self._upsampling(), self.mel_bands) if by_phases else None
                layers = [flow.network.packed(partial(Packed, in_order=in_order), upsampled) for flow in self._each()]
            return Prepared(self._inverses(), layers, by_phases)

        return self._kept.of(self, make, form=(in_order, on_gpu))

    def _why_not_by_phases(self) -> str | None:
        """Return why layers do not read mel frames, instead of rows of the upsampled mel, or None."""
        if self._is_on_gpu():
            return "kernels of a GPU read rows of the upsampled mel"
        settings, taps = self.config, self.upsample.past + 1
        if settings.channels < FEWEST_BY_PHASES:
            return f"layers have {settings.channels} channels; it is worth its weights from {FEWEST_BY_PHASES} on"
        if taps >= settings.group:
            return f"a row has {settings.group} samples, no more than the {taps} frames of which they are upsampled"
        gates = 2 * settings.channels * settings.layers * settings.flows
        size = gates * self._rows_per_frame * self.mel_bands * taps * self.upsample.weight.element_size()
        if size > memory_size() // MEMORY_SHARE:
            return f"their weights would take {size / 1e9:.1f} GB, more than 1/{MEMORY_SHARE} of this machine's memory"
        return None

    def _upsampling(self) -> tuple[Tensor, Tensor]:
        """Return what upsamples the mel as a product for each row of a frame, and what it adds to all.

        (rows per frame, bands · group, bands · frames of the mel), (bands · group,).
        """
        group, up = self.config.group, self.upsample
        frames = up.past + 1
        taps = F.pad(up.weight.detach().float(), (0, frames * self.hop - up.weight.shape[-1]))
        # the latest of the frames meets the first taps
        by_row = taps.reshape(*taps.shape[:2], frames, -1, group).flip(2).permute(3, 1, 4, 0, 2)
        return by_row.flatten(1, 2).flatten(2), up.bias.detach().float().repeat_interleave(group)

    def _inverses(self) -> list[Tensor]:
        """Invert the 1×1 convolutions, in double precision where there is any."""
        inverses = []
        for number, flow in enumerate(self._each()):
            mix = flow.mix.double() if flow.mix.device.type != "mps" else flow.mix.float()
            inverse, wrong = torch.linalg.inv_ex(mix)
            if not mix.is_meta and (bool(wrong) or not bool(inverse.isfinite().all())):
                raise ValueError(
                    f"WaveGlow: the 1x1 convolution of flow {number} (flows.{number}.mix) is singular, so that no wave "
                    "leads to its noise; take weights of an earlier step"
                )
            inverses.append(inverse.to(_at_least_single(flow.mix).dtype))
        return inverses

    def _grouped(self, x: Tensor) -> Tensor:
        """Make samples of a row its channels, those of a band side by side: (B, C, n·group) → (B, C·group, n)."""
        return x.reshape(*x.shape[:2], -1, self.config.group).transpose(2, 3).flatten(1, 2)


FEWEST_BY_PHASES = 32
"""Channels of layers that read mel frames; narrower ones take little time, and sum as streams do."""

MEMORY_SHARE = 5
"""Weights for mel frames may take so much of a machine's memory: those of the published network are 2 GB in float32,
products of 320 numbers for each of the 32 rows of a frame, instead of one of 640 for all of them."""

WINDOW = 96
"""Frames that run through all flows before the next. With 256 channels their features, 20 MB, stay in a third-level
cache, and their rows are whole blocks of Toom and Cook's method for each dilation: 768 rows for the last."""

GPU_WINDOW = 512
"""The same where a GPU computes, which they are to fill; 32 of them then take 2 GB."""


def _upsampled(by_row: Tensor, bias: Tensor, bands: int, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply what upsamples the mel, as `WaveGlow._upsampling` gives it, into the weight of a layer's condition.

    Returns that of mel frames, (rows per frame, 2 C, bands, frames), and what it adds to the layer's bias.
    """
    weight = weight.detach().float()
    with torch.autocast("cpu", enabled=False):
        made = product(by_row, weight[..., None], None)
        return made.reshape(*made.shape[:2], bands, -1), weight @ bias


def _joined(earlier: Tensor, later: Tensor, *, by_rows: bool) -> Tensor:
    """Put rows behind others: (B, C, m), (B, C, n) → (B, C, m + n); `by_rows`, channels are neighbours in memory."""
    if not by_rows:
        return torch.cat([earlier, later], dim=-1)
    return torch.cat([earlier.mT, later.mT], dim=1).mT


def _at_least_single(x: Tensor) -> Tensor:
    """Waves and their flows in 8 bits would be noise 50 dB under them."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
