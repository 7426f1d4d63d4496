"""What the user holds of an autoencoder: waves become codes, which are small, can be mixed, and become waves again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc import ops
from fastvoc.audio import resample
from fastvoc.audio.files.codes import read_code, write_code
from fastvoc.audio.inputs import Lengths, Signal, as_given, as_tensor, as_wave, read_lengths, too_loud
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint, chosen_layers, int8_layers, open_checkpoint
from fastvoc.engine.opaque import OpaqueStream
from fastvoc.engine.sampling import Sampling, read_sampling
from fastvoc.engine.surroundings import own_arithmetic, uncompiled
from fastvoc.faces.face import Face, register
from fastvoc.models import AUTOENCODERS, NSynth
from fastvoc.noise import Seed

WINDOW = 256
"""Codes that are encoded at once: 8 s at 16 kHz, for which each layer of NSynth's encoder makes 67 MB of features."""


class _Begun(NamedTuple):
    """A stream that has been given something."""

    stream: OpaqueStream
    memory: Any
    batch: torch.Size
    """What stands before the rows of a chunk."""


@register
class Autoencoder(Face[NSynth]):
    """Turn waves into codes, and codes into waves.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `fastvoc.open`.
    device : str or torch.device
    dtype : torch.dtype or str, optional
        Of weights, arithmetic, codes and waves, or its name; by default torch.float32.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        On which the encoder's operators run, and the decoder's steps are made; by default the fastest that can. The
        decoder makes native steps on a CPU ("cpu") and elsewhere steps in PyTorch ("reference"); it refuses others.
    """

    config: AutoencoderConfig

    CONFIG = AutoencoderConfig
    GENERATORS = AUTOENCODERS

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> Checkpoint:
        return open_checkpoint(path, config=config)

    def _take(self, generator: NSynth) -> None:
        if not hasattr(self, "_generator"):  # it remembers for which weights they are
            generator.take_int8(chosen_layers(self.config.int8))
        super()._take(generator)

    def _saved_config(self) -> AutoencoderConfig:
        # convolutions that multiply in 8 bits were chosen for other weights
        return self.config if self._generator.keeps_int8 else replace(self.config, int8=())

    def quantise(self, codes: Sequence[Tensor | NDArray[np.floating]], *, smallest_snr: float = 35.0) -> Self:
        """Return an equal autoencoder whose decoder multiplies in 8 bits where its distributions stay near these.

        Its other convolutions multiply in bfloat16, and its waves keep the dtype of this autoencoder. Where the
        processor does not multiply so, or the weights have changed, it decodes like this one; `explain` says which.

        Parameters
        ----------
        codes : sequence of Tensor or ndarray, shape (T, channels) or (B, T, channels)
            What it will be given; the two rows in the middle of each are decoded, again and again.
        smallest_snr : float
            Of the parameters of the samples' distributions, logits without their mean, against those in float32, given
            the same samples before each, in dB.

        Raises
        ------
        ValueError
            If there are no codes, a code does not fit, or no convolution can multiply in 8 bits at this ratio.
        NotImplementedError
            If this processor does not multiply 8-bit integers, or native steps cannot run the decoder.
        """
        where = "Autoencoder.quantise"
        self._check_described(where)
        if reason := self._generator.refuses_int8():
            raise NotImplementedError(f"{where}: {reason}")
        examples = [tensor.float() for code in codes if (tensor := self._read_code(code, where)).numel()]
        if not examples:
            raise ValueError(f"{where}: there are no codes; it needs what it is likely to be given")
        for example in examples:
            _refuse_not_finite(example, where)
        with own_arithmetic(self.device):
            batches = [(code if code.ndim == 3 else code[None]).mT.to(self.device) for code in examples]
            int8 = self._generator.choose_int8(batches, smallest_snr=smallest_snr)
        quantised = Checkpoint(
            replace(self.config, int8=int8_layers(int8)), self._generator.state_dict(), self.source, notes=self.notes
        )
        return type(self)(quantised, device=self.device, dtype=self._asked, backend=self.backend)

    def _check_fits(self, generator: Any) -> None:
        if not isinstance(generator, NSynth):
            raise TypeError(
                f"Autoencoder: generator is a {type(generator).__name__}; it must be a fastvoc.models.NSynth"
            )
        given, fits = (generator.mel_bands, generator.hop), (self._generator.mel_bands, self._generator.hop)
        if given != fits:
            raise ValueError(
                f"Autoencoder: generator makes codes of {given[0]} numbers for {given[1]} samples; in this autoencoder "
                f"it must be {fits[0]} and {fits[1]}"
            )

    def _facts(self) -> list[str]:
        return [f"{self.sample_rate} Hz", f"{self.channels} numbers for {self.hop} samples"]

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples that share a code."""
        return self._generator.hop

    @property
    def channels(self) -> int:
        """Numbers of a code."""
        return self._generator.mel_bands

    @overload
    def encode(self, wave: Signal, sample_rate: int | None = None, *, lengths: None = None) -> Signal: ...

    @overload
    def encode(self, wave: Signal, sample_rate: int | None = None, *, lengths: Lengths) -> list[Signal]: ...

    @uncompiled
    def encode(
        self, wave: Signal, sample_rate: int | None = None, *, lengths: Lengths | None = None
    ) -> Signal | list[Signal]:
        """Make the code of a wave.

        Parameters
        ----------
        wave : Tensor or ndarray, shape (samples,) or (B, samples), floating point
            In [-1, 1]. Samples behind the last whole hop are left out, as the original does.
        sample_rate : int, optional
            Of the wave, in Hz; another rate than the autoencoder's is resampled. By default the autoencoder's.
        lengths : sequence of int, Tensor or ndarray of integers, shape (B,), optional
            Samples of each wave of a padded batch. What stands behind them is not read.

        Returns
        -------
        Tensor or ndarray, as given, shape (samples // hop, channels) or (B, samples // hop, channels)
            On the device of the wave, in the autoencoder's dtype. With `lengths`, a list of B codes.

        Raises
        ------
        TypeError
            If the wave is neither a tensor nor an array, or not floating point.
        ValueError
            If it has another shape, fewer samples than a hop, or values that are not finite; if `lengths` do not fit.

        Warns
        -----
        UserWarning
            If samples lie far beyond [-1, 1], as integers do that became floating point undivided.
        """
        tensor = as_wave(wave, "Autoencoder.encode").detach()
        if tensor.ndim not in (1, 2):
            raise ValueError(
                f"Autoencoder.encode: wave has shape {tuple(tensor.shape)}; it must be (samples,) or (batch, samples)"
            )
        if loud := too_loud(tensor):
            warnings.warn(f"Autoencoder.encode: {loud}", stacklevel=3)
        # a mu-law of half precision would be none
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        rows = [tensor]
        if lengths is not None:
            counts = read_lengths(lengths, tensor.shape, "Autoencoder.encode", ("batch", "samples"), "wave")
            rows = [row[:count] for row, count in zip(tensor, counts, strict=True)]
        with self._own(tensor.device):
            codes = [as_given(self._encode(row, sample_rate).to(tensor.device), wave) for row in rows]
        return codes[0] if lengths is None else codes

    def _encode(self, wave: Tensor, sample_rate: int | None) -> Tensor:
        if not bool(wave.isfinite().all()):
            raise ValueError("Autoencoder.encode: wave holds values that are not finite")
        if sample_rate is not None:
            wave = resample(wave, sample_rate, self.sample_rate)
        frames, hop = wave.shape[-1] // self.hop, self.hop
        if not frames:
            raise ValueError(
                f"Autoencoder.encode: wave has {wave.shape[-1]} samples at {self.sample_rate} Hz; needs at least {hop}"
            )
        around = -(-self._generator.encoder.reach // hop)
        levels = self._generator.levels(wave[..., : frames * hop].reshape(-1, 1, frames * hop).to(self.device))
        pieces = []
        for start in range(0, frames, WINDOW):
            stop = min(start + WINDOW, frames)
            first, last = max(0, start - around), min(frames, stop + around)
            piece = self._generator.encoder(levels[..., first * hop : last * hop].to(self.dtype))
            pieces.append(piece[..., start - first : stop - first])
        code = torch.cat(pieces, dim=-1).mT
        return (code if wave.ndim == 2 else code[0]).clone()

    @overload
    def decode(
        self, code: Signal, *, lengths: None = None, seed: Seed | None = None, temperature: float | None = None
    ) -> Signal: ...

    @overload
    def decode(
        self, code: Signal, *, lengths: Lengths, seed: Seed | None = None, temperature: float | None = None
    ) -> list[Signal]: ...

    @uncompiled
    def decode(
        self,
        code: Signal,
        *,
        lengths: Lengths | None = None,
        seed: Seed | None = None,
        temperature: float | None = None,
    ) -> Signal | list[Signal]:
        """Make a wave of a code, sample by sample: slowly, but many codes in hardly more time than one.

        Parameters
        ----------
        code : Tensor or ndarray, shape (T, channels) or (B, T, channels), floating point
        lengths : sequence of int, Tensor or ndarray of integers, shape (B,), optional
            Rows of each code of a padded batch. What stands behind them is not looked at.
        seed : int, or sequence of B ints, optional
            Of the random numbers that choose samples; from 0. An int is that of the first item of a batch, and the
            others have those that follow it. By default a fresh one, which `fastvoc.noise.last_seeds` returns.
        temperature : float, optional
            How much is left to chance, from 0, where each sample is the likeliest; by default 1, as in training.

        Returns
        -------
        Tensor or ndarray, as given, shape (T·hop,) or (B, T·hop)
            Waves in [-1, 1] at `sample_rate` Hz. With `lengths`, a list of B waves. The same seed draws the same
            samples, however the code is cut into chunks, and by native steps in any batch; in PyTorch, processors
            round otherwise in a batch of another size, so that waves may come to differ.

        Raises
        ------
        TypeError
            If `code` is neither a tensor nor an array, or not of a floating-point type.
        ValueError
            If it has another shape, no rows, or values that are not finite; if `lengths` or seeds do not fit, or the
            temperature is negative.
        NotImplementedError
            If the autoencoder's backend cannot run the decoder.
        """
        tensor = self._read_code(code, "Autoencoder.decode")
        batch = tensor if tensor.ndim == 3 else tensor[None]
        if not tensor.numel():
            raise ValueError(f"Autoencoder.decode: code has shape {tuple(tensor.shape)}; it must have at least one row")
        counts = [batch.shape[1]] * len(batch)
        if lengths is not None:
            counts = read_lengths(
                lengths,
                tensor.mT.shape if tensor.ndim == 3 else tensor.shape,
                "Autoencoder.decode",
                ("batch", "channels", "rows"),
                "code",
            )
        for row, count in zip(batch, counts, strict=True):
            _refuse_not_finite(row[:count], "Autoencoder.decode")
        sampling = self._sampling(seed, temperature, len(batch), "Autoencoder.decode")
        with self._own(tensor.device):
            waves = [wave.to(tensor.device) for wave in self._decode(batch.mT, counts, sampling)]
        if lengths is not None:
            return [as_given(wave, code) for wave in waves]
        return as_given(torch.stack(waves) if tensor.ndim == 3 else waves[0], code)

    def _decode(self, code: Tensor, counts: list[int], sampling: Sampling | None) -> list[Tensor]:
        """(B, channels, T) → the wave of each, of as many rows as it has, computed side by side until it ends."""
        order = sorted(range(len(counts)), key=lambda item: -counts[item])  # those that end first come last
        chosen = torch.tensor(order, device=code.device)
        code = code[chosen].to(self.device, self.dtype)
        assert sampling is not None
        sampling = Sampling(*(value[chosen.to(value.device)] for value in sampling))
        stream = OpaqueStream(self._generator, sampling=sampling)
        memory = stream.start(len(order))
        pieces: list[list[Tensor]] = [[] for _ in order]
        done, left = 0, len(order)
        while left:
            end = counts[order[left - 1]]
            wave = stream.advance(memory, code[:left, :, done:end], ended=True)
            for place, piece in enumerate(wave):
                pieces[place].append(piece)
            done = end
            left = sum(counts[item] > done for item in order)
            memory = [part[:left] for part in memory]
        waves = dict(zip(order, (torch.cat(parts).clone() for parts in pieces), strict=True))
        return [waves[item] for item in range(len(order))]

    def stream(
        self, chunks: Iterable[Signal], *, seed: Seed | None = None, temperature: float | None = None
    ) -> Iterator[Signal]:
        """Make a wave of a code that arrives in chunks: each row becomes sound as soon as it is there.

        Together, the pieces are the wave of the whole code, to the bit.

        Parameters
        ----------
        chunks : iterable of Tensor or ndarray, shape (T, channels) or (B, T, channels)
            All of one code, or of one batch.
        seed, temperature
            As in `decode`.

        Yields
        ------
        Tensor or ndarray, as given, shape (T·hop,) or (B, T·hop)
            None of a chunk without rows.
        """
        begun: _Begun | None = None
        for chunk in chunks:
            begun, wave = self._advance(begun, chunk, seed, temperature)
            if wave is not None:
                yield wave

    @uncompiled
    def _advance(
        self, begun: _Begun | None, chunk: Signal, seed: Seed | None, temperature: float | None
    ) -> tuple[_Begun, Signal | None]:
        """Return where a stream is behind a chunk, and the wave of it, or None of one without rows."""
        where = "Autoencoder.stream"
        tensor = self._read_code(chunk, where)
        _refuse_not_finite(tensor, where)
        batch = tensor if tensor.ndim == 3 else tensor[None]
        if begun is None:
            stream = OpaqueStream(self._generator, sampling=self._sampling(seed, temperature, len(batch), where))
            with self._own(tensor.device):
                begun = _Begun(stream, stream.start(len(batch)), tensor.shape[:-2])
        if tensor.shape[:-2] != begun.batch:
            raise ValueError(f"{where}: chunk has shape {tuple(tensor.shape)}; the first one was of another batch")
        if not tensor.numel():
            return begun, None
        with self._own(tensor.device):
            rows = batch.mT.to(self.device, self.dtype)
            wave = begun.stream.advance(begun.memory, rows, ended=False).clone().to(tensor.device)
        return begun, as_given(wave if tensor.ndim == 3 else wave[0], chunk)

    def interpolate(self, first: Signal, second: Signal, fraction: float = 0.5) -> Signal:
        """Mix two codes: at 0 it is the first, at 1 the second, and between them sounds that have something of both.

        Parameters
        ----------
        first, second : Tensor or ndarray, shape (T, channels) or (B, T, channels), floating point
            As many rows in each.
        fraction : float
            From 0 to 1.

        Returns
        -------
        Tensor or ndarray, as `first` is given
        """
        where = "Autoencoder.interpolate"
        pair = [self._read_code(code, where) for code in (first, second)]
        if pair[0].shape != pair[1].shape:
            raise ValueError(
                f"{where}: the codes have shapes {tuple(pair[0].shape)} and {tuple(pair[1].shape)}; they must be "
                "alike: cut the longer one"
            )
        number: Any = fraction.item() if isinstance(fraction, Tensor) and fraction.numel() == 1 else fraction
        real = isinstance(number, Real)
        if not (real and 0 <= number <= 1):
            raise ValueError(f"{where}: fraction is {fraction!r}; it must be between 0 and 1")
        return as_given(torch.lerp(pair[0], pair[1].to(pair[0]), float(number)), first)

    def save(self, code: Signal, path: str | Path) -> None:
        """Write a code, (T, channels), as a `.npy` of float32, which appears when it is complete."""
        tensor = self._read_code(code, "Autoencoder.save")
        if tensor.ndim != 2:
            raise ValueError(f"Autoencoder.save: code has shape {tuple(tensor.shape)}; it must be (rows, channels)")
        write_code(path, tensor)

    def load(self, path: str | Path) -> Tensor:
        """Read a code from a `.npy`: shape (T, channels), float32.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, holds something else, or codes of another width.
        """
        code = read_code(path)
        if code.shape[1] != self.channels:
            raise ValueError(f"{path}: holds codes of {code.shape[1]} numbers; this autoencoder's have {self.channels}")
        return code

    def explain(self) -> dict[str, str | None]:
        """Say how both networks run, and why not otherwise.

        Returns
        -------
        dict of str to (str or None)
            The backends of the encoder's operators and then what makes the decoder's samples, each in order of
            preference, with the reason why it cannot; the first with None is what runs.
        """
        conv = self._generator.encoder.dilated[0]
        x = conv.weight.new_zeros(1, conv.weight.shape[1], self.hop)
        with nullcontext() if self.backend is None else ops.use_backend(self.backend):
            ways = ops.explain(ops.conv1d, x, conv.weight, conv.bias, padding=conv.padding, slope=0.0)
            steps = self._generator.explain_steps()
        return {f"encoder on {name}": reason for name, reason in ways.items()} | {
            f"decoder by {name}": reason for name, reason in steps.items()
        }

    def _read_code(self, code: Any, where: str) -> Tensor:
        tensor = as_tensor(code, "code", where).detach()
        if not tensor.is_floating_point():
            raise TypeError(f"{where}: code is of type {tensor.dtype}; it must be floating point")
        if tensor.ndim not in (2, 3) or tensor.shape[-1] != self.channels:
            turned = tensor.ndim in (2, 3) and tensor.shape[-2] == self.channels
            raise ValueError(
                f"{where}: code has shape {tuple(tensor.shape)}; it must be (rows, {self.channels}) or "
                f"(batch, rows, {self.channels}){'; it seems to be transposed' if turned else ''}"
            )
        return tensor

    def _sampling(self, seed: Seed | None, temperature: float | None, batch: int, where: str) -> Sampling | None:
        return read_sampling(self._generator, seed, temperature, batch, where)

    @contextmanager
    def _own(self, device: torch.device) -> Iterator[None]:
        """Compute in the autoencoder's own dtype and on its backend, without gradients."""
        backend = nullcontext() if self.backend is None else ops.use_backend(self.backend)
        with own_arithmetic(device, self.device), torch.no_grad(), backend:
            yield


def _refuse_not_finite(code: Tensor, where: str) -> None:
    if not bool(code.isfinite().all()):
        raise ValueError(f"{where}: code holds values that are not finite")
