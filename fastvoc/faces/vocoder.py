"""What the user holds: a generator's weights and the mel convention that they were trained on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig, mel_spectrogram, resample
from fastvoc.audio.chunks import ChunkReader, Reading, read_mels
from fastvoc.audio.inputs import Lengths, Signal, as_given, as_tensor, as_wave, read_conditions, too_loud
from fastvoc.audio.mels.convention import as_mel_config
from fastvoc.audio.mels.inputs import check_mel
from fastvoc.audio.mels.spectrogram import loud_mel
from fastvoc.audio.subtraction import first_magnitude, subtract_magnitude
from fastvoc.checkpoints import (
    Checkpoint,
    InferenceFrames,
    VocoderConfig,
    chosen_layers,
    int8_layers,
    open_checkpoint,
    open_module,
    open_state,
)
from fastvoc.engine import Choice, Plan, Runner, Stream, Streamer, Synthesizer, calibrate
from fastvoc.engine.cuda_graphs import UNRECORDED
from fastvoc.engine.opaque import OpaqueStream, is_opaque
from fastvoc.engine.sampling import Sampling, read_sampling
from fastvoc.engine.streamer import read_batch
from fastvoc.engine.surroundings import own_arithmetic, uncompiled
from fastvoc.faces.face import DEFAULT, Face, register
from fastvoc.models import GENERATORS, Generator
from fastvoc.noise import Draws, Seed
from fastvoc.recurrence import is_narrowable

NOTHING = 88
"""Frames of zeros, of which a generator makes what `denoising` takes away: as many as in the original of WaveGlow."""


@register
class Vocoder(Face[Generator]):
    """Turn mel spectrograms into waves.

    A vocoder holds no state between calls, so threads may share one.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `from_pretrained`.
    device : str or torch.device
    dtype : torch.dtype or str, optional
        Of weights, arithmetic and waves, or its name. By default torch.float32, of which a GPU multiplies the operands
        in float16 where their values stay far from its end, or else in bfloat16; `explain` says which.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Run every operator on this one, and raise with its reason where it refuses; by default the fastest that can.
    """

    config: VocoderConfig

    CONFIG = VocoderConfig
    GENERATORS = GENERATORS

    def _take(self, generator: Generator) -> None:
        int8 = chosen_layers(self.config.int8)
        if is_narrowable(generator) and not hasattr(self, "_generator"):  # it remembers for which weights they are
            generator.take_int8(int8)
        choice = Choice(
            generator,
            backend=self.backend,
            precision=self._asked,
            int8=int8,
            loud=partial(loud_mel, self.config.mel),
        )
        self._generator = generator
        self._runner = Runner(choice, self._version)
        self._synthesizer = Synthesizer(self._runner, edge_frames=self._edge_frames)
        self._kept_bias: tuple[object, Tensor] | None = None

    def _check_fits(self, generator: Any) -> None:
        if not isinstance(generator, Generator):
            raise TypeError(
                f"Vocoder: generator is a {type(generator).__name__}; it must be a fastvoc.models.Generator"
            )
        given, fits = (generator.mel_bands, generator.hop), (self._generator.mel_bands, self._generator.hop)
        if given != fits:
            raise ValueError(
                f"Vocoder: generator takes {given[0]} bands and makes {given[1]} samples per frame; in this vocoder it "
                f"must be {fits[0]} and {fits[1]}"
            )

    @property
    def _changed(self) -> bool:
        return self._runner.changed

    def _facts(self) -> list[str]:
        return [f"{self.config.mel.bands} bands", f"{self.sample_rate} Hz", f"hop {self.hop}"]

    def _runs(self) -> str | None:
        if is_opaque(self._generator):
            return None
        return next((name for name, reason in self.explain().items() if reason is None), "nothing")

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = DEFAULT,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Open a vocoder in any known format, recognised by content.

        Parameters
        ----------
        path : str or Path
            A folder or file; ``"default"`` is the vocoder that comes with the package, where nothing of this name is
            in the working directory.
        config : str or Path, optional
            The configuration that belongs to a checkpoint file, where it does not lie beside it: a file, or the name
            of a published one, such as "hifigan-v1".
        device, dtype, backend
            As in `Vocoder`.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ValueError
            If it is not a vocoder that fastvoc opens; the message says what it seems to be.
        """
        return super().from_pretrained(path, config=config, device=device, dtype=dtype, backend=backend)

    @classmethod
    def from_module(
        cls,
        module: torch.nn.Module,
        *,
        mel: MelConfig | str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Make a vocoder of a live generator of another project, whose weights are copied.

        Parameters
        ----------
        module : torch.nn.Module
            The generator, or a model that has one inside, of the projects that `fastvoc.accelerate` knows.
        mel : MelConfig or str, optional
            How its mels were made, or the name in `fastvoc.audio.CONVENTIONS`; needed where the module does not say.
        device, dtype
            As in `Vocoder`; by default those of the module's weights.
        backend
            As in `Vocoder`.

        Raises
        ------
        TypeError
            If it is no module.
        ValueError
            If there is no generator in it that is known, or several; if it makes other samples than the network of
            fastvoc that it seems to be; if nothing says the convention of its mels, or the generator does not fit it.
        """
        checkpoint, weight = open_module(module, mel, f"{cls.__name__}.from_module")
        return cls(checkpoint, device=device or weight.device, dtype=dtype or weight.dtype, backend=backend)

    @classmethod
    def from_state_dict(
        cls,
        state: Mapping[str, Tensor],
        config: VocoderConfig | Mapping[str, Any] | str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Make a vocoder of tensors in memory, which are read as a file of them is.

        Parameters
        ----------
        state : dict of str to Tensor
            Of any known format, with whatever its files have around the tensors; they are copied.
        config : VocoderConfig, dict, str or Path
            The settings: those of the original project as plain values, such as ``json.load`` returns, or as a file;
            the name of published ones, such as "hifigan-v1"; or with tensors under fastvoc's own names a
            `VocoderConfig`.
        device, dtype, backend
            As in `Vocoder`.

        Raises
        ------
        FileNotFoundError, TypeError, ValueError
            As `from_pretrained`; if `state` is no dictionary, or `config` nothing that settings can be.
        """
        checkpoint = open_state(state, config, f"{cls.__name__}.from_state_dict")
        return cls(checkpoint, device=device, dtype=dtype, backend=backend)

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> Checkpoint:
        return open_checkpoint(path, config=config)

    def _saved_config(self) -> VocoderConfig:
        # layers that multiply in 8 bits were chosen for other weights
        return replace(self.config, int8=()) if self._changed else self.config

    def quantise(self, mels: Sequence[Tensor | NDArray[np.floating]], *, smallest_snr: float = 35.0) -> Self:
        """Return an equal vocoder that multiplies in 8 bits where its waves stay near these.

        Its other layers multiply in bfloat16, and its waves keep the dtype of this vocoder. Where the processor does
        not multiply 8-bit integers, it runs as this one does; `explain` says so. `save_pretrained` keeps the choice.

        Parameters
        ----------
        mels : sequence of Tensor or ndarray, shape (bands, T) or (B, bands, T)
            What it will be given, in this vocoder's convention: a few seconds of different speakers.
        smallest_snr : float
            Of the wave of each of them against the one in float32, in dB. Others may come out a little below. Where
            samples are drawn, of the parameters of their distributions, given the same samples before each.

        Raises
        ------
        ValueError
            If there are no mels, a mel does not fit, or no layer can multiply in 8 bits at this ratio.
        NotImplementedError
            If this processor does not multiply 8-bit integers, or the generator has no plan.

        Notes
        -----
        The generator runs on the mels about twice for each of its layers: seconds for HiFi-GAN V2, a minute or more
        for V1.
        """
        self._check_described("Vocoder.quantise")
        generator: Any = self._generator
        if is_narrowable(generator):
            reason = generator.refuses_int8()
        else:
            reason = self._runner.choice.why_no_plan() or Plan.refuses_int8(generator)
        if reason:
            raise NotImplementedError(f"Vocoder.quantise: {reason}")
        examples = [example.float() for mel in mels if (example := self._read(mel)).numel()]
        if not examples:
            raise ValueError(
                "Vocoder.quantise: there are no mels; it needs a few seconds of what it is likely to be given"
            )
        examples = [self.config.inference.extend(mel if mel.ndim == 3 else mel[None]) for mel in examples]
        with own_arithmetic(self.device):
            if is_narrowable(generator):
                int8 = generator.choose_int8(examples, smallest_snr=smallest_snr)
            else:
                int8 = calibrate(generator, examples, smallest_snr=smallest_snr)
        quantised = Checkpoint(
            replace(self.config, int8=int8_layers(int8)), self._generator.state_dict(), self.source, notes=self.notes
        )
        return type(self)(quantised, device=self.device, dtype=self._asked, backend=self.backend)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self._generator.hop

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames before and behind a frame that its samples depend on."""
        return self._generator.receptive_field

    @property
    def draws(self) -> Draws | None:
        """Random numbers that its waves depend on beside the mel, or None; only then there are seeds."""
        return self._generator.draws

    @overload
    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: None = None,
        seed: Seed | None = None,
        temperature: float | None = None,
        denoising: float = 0.0,
        check: bool = True,
    ) -> Signal: ...

    @overload
    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: Lengths,
        seed: Seed | None = None,
        temperature: float | None = None,
        denoising: float = 0.0,
        check: bool = True,
    ) -> list[Signal]: ...

    @uncompiled
    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: Lengths | None = None,
        seed: Seed | None = None,
        temperature: float | None = None,
        denoising: float = 0.0,
        check: bool = True,
    ) -> Signal | list[Signal]:
        """Make waves from mel spectrograms.

        Parameters
        ----------
        mel : Tensor or ndarray, shape (bands, T) or (B, bands, T), floating point
            Log-mel in this vocoder's convention, `config.mel`.
        condition : Tensor or ndarray, shape (C,) or (B, C), optional
            Speaker embedding, for a vocoder that is conditioned.
        convention : MelConfig or str, optional
            What `mel` is instead, or its name in `fastvoc.audio.CONVENTIONS`; it is converted where that is exact
            (`fastvoc.audio.convert_mel`).
        lengths : sequence of int, Tensor or ndarray of integers, shape (B,), optional
            Frames of each mel of a padded batch. What stands behind them is not looked at.
        seed : int, or sequence of B ints, optional
            Of the random numbers of a generator that `draws` any; from 0. An int is that of the first item of a batch,
            and the others have those that follow it. By default a fresh one, which `fastvoc.noise.last_seeds` returns.
        temperature : float, optional
            How much is left to chance by a generator that `draws`, from 0; by default what is usual for it.
        denoising : float
            How much of the spectrum that the generator makes of a mel of zeros is taken from the waves, from 0, where
            nothing is; the original's denoiser of WaveGlow took 0.1 or less. Not in streams.
        check : bool
            Whether the values are looked at: that all are finite, and like those of the convention. For a GPU the host
            waits with it until all is launched. Type and shape are looked at in any case.

        Returns
        -------
        Tensor or ndarray, as given, shape (T·hop,) or (B, T·hop)
            Waves in about [−1, 1] at `sample_rate` Hz, on the device of `mel`, in the vocoder's dtype (arrays are
            float32 where NumPy has no such type). With `lengths`, a list of B waves, shape (lengths[i]·hop,) each:
            those that the mels give one by one, to the bit. Where `config.inference` adds frames that the original
            did not trim, waves are longer by them.

        Raises
        ------
        TypeError
            If `mel` is neither a tensor nor an array, or not of a floating-point type, or `lengths` are no integers.
        ValueError
            If `mel` has another shape, no frames, or values that are not finite; if it cannot be converted exactly,
            or the convention is unknown; if `lengths` or seeds do not fit it, or a seed or temperature is given to a
            generator that draws nothing; if `denoising` is negative or not finite, the generator is conditioned, or a
            wave is too short for it.

        Warns
        -----
        UserWarning
            If the values look like another convention's, such as decibels.

        Notes
        -----
        A mel of more than `fastvoc.engine.synthesizer.WINDOW` frames runs in pieces with the `receptive_field`
        around them, or tile by tile, so memory does not grow with it but for the mel and the wave. On a GPU, mels of
        different `lengths` run as batches of so many frames.
        """
        tensor = as_tensor(mel, "mel")
        with own_arithmetic(tensor.device, self.device):
            later = self._looks_later
            reading: Reading = read_mels(tensor, self.config.mel, convention, lengths, check=check, later=later)
            mels: list[Tensor] = reading.mels
            if not later:
                reading.judge()
            conditions: Sequence[Tensor | None] | Tensor = read_conditions(
                condition, self._generator.condition_channels, None if lengths is None else len(mels)
            )
            sampling = read_sampling(self._generator, seed, temperature, len(tensor) if tensor.ndim == 3 else 1)
            bias = self._bias_spectrum(denoising)
            if lengths is not None:
                waves = self._synthesizer.voices([*zip(mels, conditions, strict=True)], sampling)
            else:
                waves = [self._synthesizer.voice(mels[0], conditions[0], sampling)]
            if bias is not None:
                waves = [subtract_magnitude(wave, bias, denoising) for wave in waves]
            if later:
                reading.judge()
            made = [as_given(wave, mel) for wave in waves]
            return made[0] if lengths is None else made

    def _bias_spectrum(self, denoising: float) -> Tensor | None:
        """Return the magnitudes of what the generator makes of nothing, which are kept until it changes."""
        if not (isinstance(denoising, Real) and 0 <= denoising < math.inf):
            raise ValueError(f"Vocoder: denoising is {denoising!r}; it must be a finite number that is not negative")
        if not denoising:
            return None
        if self._generator.condition_channels:
            raise ValueError(
                f"Vocoder: denoising is {denoising}; what {type(self._generator).__name__} makes of nothing depends on "
                "the condition, so that there is no one spectrum to take away"
            )
        revision = self._version.revision()
        if self._kept_bias is None or self._kept_bias[0] is not revision:
            nothing = self._weight.new_zeros(self._generator.mel_bands, NOTHING)
            wave = self._synthesizer.voice(nothing, None, read_sampling(self._generator, *self._silent(), 1))
            self._kept_bias = revision, first_magnitude(wave)
        return self._kept_bias[1]

    def _silent(self) -> tuple[int | None, float | None]:
        """Return a seed and a temperature at which nothing is left to chance."""
        return (None, None) if self.draws is None else (0, 0.0)

    @property
    def _looks_later(self) -> bool:
        """Whether values are looked at when the network has been launched, for which a GPU then does not wait.

        Not where values decide what is read from memory, as those of classes do.
        """
        return self.device.type == "cuda" and not is_opaque(self._generator)

    def warm_up(self, frames: int | Iterable[int] = 256, *, batch: int = 1) -> Self:
        """Do now what else the first calls would wait for.

        Weights are packed for plans, kernels compiled or loaded, and on a GPU graphs recorded for these lengths.

        Parameters
        ----------
        frames : int or iterable of int
            Lengths of mels that will come.
        batch : int
            Mels in each of them.

        Returns
        -------
        Vocoder
            This one.

        Raises
        ------
        ValueError
            If a length or the batch is not a positive whole number.
        """
        lengths = list(frames) if isinstance(frames, Iterable) else [frames]
        for name, values in (("frames", lengths), ("batch", [batch])):
            if wrong := [
                value for value in values if isinstance(value, bool) or not isinstance(value, int) or value < 1
            ]:
                raise ValueError(f"Vocoder.warm_up: {name} is {wrong[0]!r}; it must be a positive whole number")
        channels, uses = self._generator.condition_channels, 1 + (UNRECORDED if self.device.type == "cuda" else 0)
        for count in lengths:
            mel = torch.zeros(batch, self._generator.mel_bands, count, dtype=self.dtype, device=self.device)
            condition = mel.new_zeros(batch, channels) if channels else None
            for _ in range(uses):
                seed = None if self.draws is None else 0
                self(mel, condition=condition, seed=seed, check=False)
        return self

    @uncompiled
    def mel(self, wave: Signal, sample_rate: int | None = None) -> Signal:
        """Compute mel spectrograms in this vocoder's own convention.

        Parameters
        ----------
        wave : Tensor or ndarray, shape (samples,) or (B, samples), floating point
            Samples in [−1, 1].
        sample_rate : int, optional
            Of the wave, in Hz; another rate than the convention's is resampled. By default the vocoder's.

        Returns
        -------
        Tensor or ndarray, as given, shape (bands, T) or (B, bands, T)

        Raises
        ------
        TypeError
            If the wave is neither a tensor nor an array, or not floating point.
        ValueError
            If it has another shape or too few samples, or the rate is no whole number; if the vocoder takes features
            that are no mel (`fastvoc.audio.FeatureConfig`).

        Warns
        -----
        UserWarning
            If samples lie far beyond [−1, 1], as integers do that became floating point undivided.
        """
        convention = as_mel_config(self.config.mel, "Vocoder.mel")
        tensor = as_wave(wave, "Vocoder.mel")
        if loud := too_loud(tensor):
            warnings.warn(f"Vocoder.mel: {loud}", stacklevel=3)
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        rate = self.sample_rate if sample_rate is None else sample_rate
        if sample_rate is not None or rate != convention.sample_rate:
            tensor = resample(tensor, rate, convention.sample_rate)
        with own_arithmetic(tensor.device):
            return as_given(mel_spectrogram(tensor, convention), wave)

    def explain(self) -> dict[str, str | None]:
        """Say how this vocoder can run, and why not otherwise.

        Returns
        -------
        dict of str to (str or None)
            In order of preference: ``"plan"`` is the whole generator as one native call on the CPU
            (`fastvoc.engine.Plan`), ``"cuda plan in …"`` is that on a GPU (`fastvoc.engine.CudaPlan`), ``"graphs"`` are
            CUDA graphs of Triton's kernels (`fastvoc.engine.CudaGraphs`), the others are backends that run it operator
            by operator. Each comes with the reason why it cannot; the first with None is what runs. Of a vocoder from
            `quantise`, the first says how many layers multiply in 8 bits. ``"plan in parts"`` is native calls for the
            runs of convolutions of a generator that is no single one, for the reason that ``"plan"`` comes with.
            Of a WaveNet, ``"native steps"`` is a loop over its samples in native code, ``"steps in PyTorch"`` one in
            Python. Of a WaveGlow, ``"native layers"`` are native code for the layers of its flows.
        """
        return self._runner.explain()

    def stream(
        self,
        chunks: Iterable[Signal],
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        denoising: float = 0.0,
    ) -> Iterator[Signal]:
        """Make a wave from a mel that arrives in chunks of any length.

        Together, the pieces are the wave of the whole mel, to its rounding; how the mel is cut changes no bit of them.
        Each chunk's last `receptive_field[1]` frames wait for what follows them.

        Parameters
        ----------
        chunks : iterable of Tensor or ndarray, shape (bands, T)
        condition : Tensor or ndarray, shape (C,), optional
            Speaker embedding, for a vocoder that is conditioned.
        convention : MelConfig or str, optional
            What the mel is instead of `config.mel`, as in `__call__`.
        seed, temperature
            As in `__call__`.
        denoising : float
            As in `streamer`.

        Yields
        ------
        Tensor or ndarray, as given, shape (samples,)
            Never empty; the last one holds the frames that waited.

        Warns
        -----
        UserWarning
            If the values look like another convention's, as soon as they do.
        """
        streamer = self.streamer(
            condition=condition, convention=convention, seed=seed, temperature=temperature, denoising=denoising
        )
        for chunk in chunks:
            tensor = as_tensor(chunk, "mel")
            check_mel(tensor, self.config.mel, finite=False, empty=True)
            if tensor.ndim == 3:
                raise ValueError(f"Vocoder.stream: chunk has shape {tuple(tensor.shape)}; it must be (bands, frames)")
            piece = streamer.push(chunk)
            if len(piece):
                yield piece
        piece = streamer.flush()
        if len(piece):
            yield piece

    @uncompiled
    def streamer(
        self,
        batch: int = 1,
        condition: Tensor | NDArray[np.floating] | None = None,
        *,
        convention: MelConfig | str | None = None,
        seed: Seed | None = None,
        temperature: float | None = None,
        denoising: float = 0.0,
    ) -> Streamer:
        """Begin a stream, or a batch of streams that advance together.

        Parameters
        ----------
        batch : int
            Streams side by side.
        condition : Tensor or ndarray, shape (C,) for all streams or (batch, C), optional
            Speaker embedding, for a vocoder that is conditioned.
        convention : MelConfig or str, optional
            What is pushed instead of `config.mel`, as in `__call__`.
        seed, temperature
            As in `__call__`; `Streamer.seeds` are the seeds.
        denoising : float
            0, since it is done to whole waves.

        Returns
        -------
        Streamer
            With `push`, `flush`, `reset`, `state` and `restore`.

        Raises
        ------
        ValueError
            If the batch is not positive, the condition is missing, unwanted or of another shape, or the convention
            cannot be converted exactly, chunk by chunk; if `denoising` is not 0.
        """
        if denoising:
            raise ValueError(
                f"Vocoder.streamer: denoising is {denoising!r}; it is done to whole waves, by "
                "vocoder(mel, denoising=...), and a stream has none"
            )
        batch = read_batch(batch)
        embedding = None if condition is None else as_tensor(condition, "condition").to(self.device, self.dtype)
        sampling = read_sampling(self._generator, seed, temperature, batch)
        return Streamer(
            partial(self._stream, sampling),
            self._version,
            batch=batch,
            condition=embedding,
            sample_rate=self.sample_rate,
            backend=self.backend,
            read=ChunkReader(self.config.mel, convention),
            give=as_given,
        )

    def _stream(self, sampling: Sampling | None) -> Stream | OpaqueStream:
        if is_opaque(self._generator):
            return OpaqueStream(self._generator, self._edge_frames, sampling)
        return self._runner.stream(self._edge_frames)

    @property
    def _edge_frames(self) -> InferenceFrames | None:
        return self.config.inference if self.config.inference != InferenceFrames() else None

    def _read(self, mel: Tensor | NDArray[np.floating]) -> Tensor:
        tensor = as_tensor(mel, "mel")
        check_mel(tensor, self.config.mel)
        return tensor


__all__ = ["DEFAULT", "Vocoder", "VocoderConfig"]
