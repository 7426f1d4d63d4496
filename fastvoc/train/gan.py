"""One step of a GAN vocoder: the discriminators learn to tell waves apart, the generator to be taken for recordings.

Kumar 2019, arXiv:1910.06711, § 2; Kong 2020, arXiv:2010.05646, eqs. 1 to 6; Yang 2020, arXiv:2005.05106, § 3.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastvoc import ops
from fastvoc.audio import FULL_BAND, SUB_BAND, PqmfConfig, mel_l1, mel_spectrogram, pqmf_analysis
from fastvoc.blocks import PqmfHead
from fastvoc.models.discriminators import Maps
from fastvoc.models.generator import TrunkGenerator
from fastvoc.models.griffinlimnet import GriffinLimNet
from fastvoc.train import losses
from fastvoc.train.adversary import Adversary, Turn, frozen
from fastvoc.train.networks import Networks
from fastvoc.train.weight_norm import folded

Batch = Tensor | tuple[Tensor, Tensor]
Numbers = dict[str, Tensor]


@dataclass(eq=False)
class _Part:
    """A batch, or as much of one as is heard at once."""

    wave: Tensor  # (B, T)
    mel: Tensor  # (B, bands, T / hop)
    fake: Tensor | None = None  # (B, 1, T), once it is made
    subbands: Tensor | None = None  # (B, bands, T / bands), before a filter bank joins them
    real_maps: list[Maps] | None = None  # of the recordings, from the discriminators' turn


class GanTask(Networks):
    """A generator and its adversary, in the turns that a recipe lets them take."""

    def step(self, batch: Batch, *, step: int, epoch: int = 0) -> Numbers:
        """Let both networks make an update.

        Parameters
        ----------
        batch : Tensor, shape (B, T); or (wave, mel)
            Waves in [-1, 1], on any device. The mel, of shape (B, bands, T / hop), is computed where it is not given.
        step : int
            Number of this step, from 1.
        epoch : int
            From 0.

        Returns
        -------
        dict of str to Tensor
            The loss terms without their weights and the norms of the gradients: scalars on the device.
        """
        turn = self.turn(step)
        self.schedule(turn, epoch)
        numbers = self.take_turns(batch, turn)
        self.follow(step)
        return numbers

    def turn(self, step: int) -> Turn:
        """Say what the adversary does in a step, counted from 1."""
        return self.adversary.config.turn(step) if self.adversary else Turn(learns=False, judges=False)

    def schedule(self, turn: Turn, epoch: int) -> None:
        """Set the learning rates of the updates of a step."""
        self.learner.schedule(epoch)
        if self.adversary is not None and turn.learns:
            self.adversary.learner.schedule(epoch)

    def follow(self, step: int) -> None:
        """Let the average follow the generator, once a step is made."""
        if self.average is not None:
            self.average.update(step - 1)

    def take_turns(self, batch: Batch, turn: Turn) -> Numbers:
        """Make the updates of a step: all that happens on the device, the same at every step of such a turn."""
        parts = self._parts(batch)
        adversary = self.adversary
        judge = adversary if turn.judges else None
        if adversary is None or not turn.learns:
            return self._imitate(parts, judge) | self._update()
        if adversary.config.order == "discriminators-first":
            return (
                self._listen(parts, adversary)
                | self._update_adversary(adversary)
                | self._imitate(parts, judge)
                | self._update()
            )
        if adversary.config.order == "generator-first":
            return (
                self._imitate(parts, judge)
                | self._update()
                | self._listen(_unheard(parts), adversary)
                | self._update_adversary(adversary)
            )
        return (
            self._listen(parts, adversary)
            | self._imitate(parts, judge)
            | self._update_adversary(adversary)
            | self._update()
        )

    def _listen(self, parts: list[_Part], adversary: Adversary) -> Numbers:
        """Find the gradient of the discriminators."""
        # a single fake that the generator learns from afterwards is made once, with its graph
        again = len(parts) > 1 or adversary.config.order == "generator-first"
        numbers: Numbers = {}
        for part in parts:
            with torch.set_grad_enabled(not again):
                fake = self._make(part)
            with folded(adversary.network), self._autocast():
                loss, real_maps = adversary.loss(part.wave[:, None], fake)
            if adversary.config.reuse:
                part.real_maps = real_maps
            _count(numbers, {"discriminators": loss}, len(parts))
            adversary.learner.backward(loss / len(parts))
        return numbers

    def _imitate(self, parts: list[_Part], judge: Adversary | None) -> Numbers:
        """Find the gradient of the generator."""
        numbers: Numbers = {}
        weights = self.config.losses
        for part in parts:
            terms = self._magnitude(part) if weights.magnitude else {}
            if weights.of_waves:
                terms |= self._spectra(part, self._make(part))
            if judge is not None:
                fake = self._make(part)
                with frozen(judge.network), folded(judge.network), self._autocast():
                    wave, features = part.wave[:, None], weights.features > 0
                    terms |= judge.judge(wave, fake, part.real_maps, features=features)
            loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
            _count(numbers, terms, len(parts))
            self.learner.backward(loss / len(parts))
        return numbers

    def _magnitude(self, part: _Part) -> Numbers:
        generator: GriffinLimNet = self.generator  # type: ignore[assignment]
        return {"magnitude": losses.magnitude(generator.magnitude(part.mel), part.wave, self.config.mel)}

    def _spectra(self, part: _Part, fake: Tensor) -> Numbers:
        weights, mel, wave = self.config.losses, self.config.mel, part.wave
        made = fake[:, 0].to(wave.dtype)
        terms: Numbers = {}
        if weights.mel:
            terms["mel"] = mel_l1(made, wave, self.config.loss_mel or mel)
        if weights.multi_scale_mel:
            terms["multi_scale_mel"] = losses.multi_scale_mel(made, wave, sample_rate=mel.sample_rate)
        if weights.stft:
            terms["stft"] = losses.stft(made, wave, FULL_BAND)
        if weights.subband_stft and part.subbands is not None:
            pqmf: PqmfConfig = self.config.generator.pqmf  # type: ignore[union-attr, assignment]
            terms["subband_stft"] = losses.stft(part.subbands, pqmf_analysis(wave, pqmf), SUB_BAND)
        return terms

    def _make(self, part: _Part) -> Tensor:
        """Make the generator's wave of a part, unless it is there and has the graph that is needed."""
        if part.fake is None or (torch.is_grad_enabled() and not part.fake.requires_grad):
            generator = self.generator
            if not isinstance(generator, TrunkGenerator):
                with self._autocast():
                    part.fake = generator(part.mel)
                return part.fake
            head = generator.head
            with self._autocast():
                x = generator.trunk(_standardised(generator, part.mel))
            # The head is exact: the eight bits of a bfloat16 wave are noise 50 dB under it, which the losses hear.
            x = x.to(part.wave.dtype)
            if isinstance(head, PqmfHead):
                part.subbands = head.subbands(x)
                part.fake = ops.upsample(part.subbands, head.filters, stride=head.rate, crop=head.crop)
            else:
                part.fake = head(x)
        return part.fake

    def _parts(self, batch: Batch) -> list[_Part]:
        wave, mel = batch if isinstance(batch, (tuple, list)) else (batch, None)
        wave = wave.to(self.device, non_blocking=True)
        if mel is None:
            # a centred convention has one frame more than hops
            mel = mel_spectrogram(wave, self.config.mel)[..., : wave.shape[-1] // self.config.mel.hop]
        mel = mel.to(self.device, non_blocking=True)
        count = self.config.accumulate
        return [_Part(*pair) for pair in zip(wave.chunk(count), mel.chunk(count), strict=True)]

    def _update(self) -> Numbers:
        return {"generator_gradient": self.learner.update()}

    def _update_adversary(self, adversary: Adversary) -> Numbers:
        return {"discriminators_gradient": adversary.learner.update()}

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)


def _standardised(generator: TrunkGenerator, mel: Tensor) -> Tensor:
    return (mel - generator.mean[:, None]) / generator.scale[:, None] if generator.standardised else mel


def _unheard(parts: list[_Part]) -> list[_Part]:
    """Return the same parts before anything is made of them."""
    return [_Part(part.wave, part.mel) for part in parts]


def _count(numbers: Numbers, terms: Numbers, parts: int) -> None:
    """Add the terms of one of several parts to the means."""
    for name, term in terms.items():
        share = term.detach() / parts
        numbers[name] = numbers[name] + share if name in numbers else share
