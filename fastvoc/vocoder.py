"""What the user holds: a generator's weights and the mel convention that they were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import MelConfig, convert_mel, find_convention, mel_spectrogram, resample, why_not
from fastvoc.audio.given import Lengths, Signal, as_given, as_tensor, check_mel, read_lengths
from fastvoc.checkpoints import Checkpoint, InferenceHabit, Int8Layer, VocoderConfig, open_checkpoint, save_native
from fastvoc.engine import Line, Plan, Speaker, Steps, Streamer, Ways, calibrate
from fastvoc.models import Generator

DEFAULT = "default"
"""The name of the vocoder that comes with the package."""


class Vocoder:
    """Turn mel spectrograms into waves.

    A vocoder holds no state between calls, so threads may share one.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `from_pretrained`.
    device : str or torch.device
    dtype : torch.dtype, optional
        Of weights, arithmetic and waves. By default torch.float32, of which a GPU multiplies the operands in float16
        where their values stay far from its end, or else in bfloat16; `explain` says which.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Run every operator on this one, and raise with its reason where it refuses; by default the fastest that can.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> None:
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"Vocoder: dtype {dtype} cannot hold weights; it must be a floating-point type")
        self.config = checkpoint.config
        self.source = checkpoint.source
        self.notes = checkpoint.notes
        self.backend = backend
        self.device = torch.device(device)
        self.dtype = dtype or torch.float32
        self.generator: Generator = checkpoint.config.generator.build()
        # the dtype comes first, so that no weight passes through a narrower one
        self.generator.to(self.device, self.dtype).load_state_dict(checkpoint.weights)
        self.generator.requires_grad_(False).eval()
        self._asked = dtype
        self._ways = Ways(
            self.generator,
            backend=backend,
            precision=dtype,
            int8={layer.layer: Steps(layer.scale, layer.zero_point) for layer in self.config.int8},
            loud=self._loud,
        )
        self._speaker = Speaker(self._ways, habit=self._habit, device=self.device, dtype=self.dtype)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = DEFAULT,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        backend: str | None = None,
    ) -> Self:
        """Open a vocoder in any known format, recognised by content.

        Parameters
        ----------
        path : str or Path
            A folder or file; ``"default"`` is the vocoder that comes with the package.
        config : str or Path, optional
            The configuration that belongs to a checkpoint file, where it does not lie beside it.
        device, dtype, backend
            As in `Vocoder`.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ValueError
            If it is not a vocoder that fastvoc opens; the message says what it seems to be.
        """
        where = Path(str(files("fastvoc") / "assets")) if str(path) == DEFAULT else Path(path)
        checkpoint = open_checkpoint(where, config=None if config is None else Path(config))
        return cls(checkpoint, device=device, dtype=dtype, backend=backend)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, from which `from_pretrained` makes an equal vocoder.

        Each file is written under a temporary name and renamed when complete.
        """
        weights = {name: value.cpu() for name, value in self.generator.state_dict().items()}
        save_native(Path(folder), self.config, weights)

    def quantise(self, mels: Sequence[Tensor | NDArray[np.floating]], *, smallest_snr: float = 35.0) -> Self:
        """Return an equal vocoder that multiplies in 8 bits where its waves stay near these.

        Its other layers multiply in bfloat16, and its waves keep the dtype of this vocoder. Where the processor does
        not multiply 8-bit integers, it runs as this one does; `explain` says so. `save_pretrained` keeps the choice.

        Parameters
        ----------
        mels : sequence of Tensor or ndarray, shape (bands, T) or (B, bands, T)
            What it is likely to hear, in this vocoder's convention: a few seconds of different speakers.
        smallest_snr : float
            Of the wave of each of them against the one in float32, in dB. Others may come out a little below.

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
        if reason := self._ways.why_no_plan() or Plan.refuses_int8(self.generator):
            raise NotImplementedError(f"Vocoder.quantise: {reason}")
        heard = [self._read(mel).float() for mel in mels]
        if not heard:
            raise ValueError("Vocoder.quantise: there are no mels; it needs a few seconds of what it is likely to hear")
        heard = [self.config.inference.extend(mel if mel.ndim == 3 else mel[None]) for mel in heard]
        int8 = calibrate(self.generator, heard, smallest_snr=smallest_snr)  # type: ignore[arg-type]
        chosen = tuple(Int8Layer(layer=n, scale=step.scale, zero_point=step.zero_point) for n, step in int8.items())
        quantised = Checkpoint(
            replace(self.config, int8=chosen), self.generator.state_dict(), self.source, notes=self.notes
        )
        return type(self)(quantised, device=self.device, dtype=self._asked, backend=self.backend)

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.mel.sample_rate

    @property
    def hop(self) -> int:
        """Samples per mel frame."""
        return self.generator.hop

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Mel frames before and behind a frame that its samples depend on."""
        return self.generator.receptive_field

    @overload
    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: None = None,
    ) -> Signal: ...

    @overload
    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: Lengths,
    ) -> list[Signal]: ...

    def __call__(
        self,
        mel: Signal,
        *,
        condition: Signal | None = None,
        convention: MelConfig | str | None = None,
        lengths: Lengths | None = None,
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
            or the convention is unknown; if `lengths` do not fit it.

        Warns
        -----
        UserWarning
            If the values look like another convention's, such as decibels.

        Notes
        -----
        A mel of more than `fastvoc.engine.speaker.WINDOW` frames runs in pieces with the `receptive_field` around them,
        or tile by tile, so memory does not grow with it but for the mel and the wave. On a GPU, mels of different
        `lengths` run as batches of so many frames.
        """
        tensor = as_tensor(mel, "mel")
        source = self.config.mel if convention is None else find_convention(convention)
        if reason := why_not(source, self.config.mel):
            raise ValueError(f"Vocoder: a mel of this convention cannot be converted exactly: {reason}")
        embedding = None if condition is None else as_tensor(condition, "condition")
        if lengths is None:
            items = [(tensor, embedding)]
        else:
            check_mel(tensor, self.config.mel, finite=False)
            counts = read_lengths(lengths, tensor.shape)
            if embedding is not None and embedding.ndim == 2 and len(embedding) not in (1, len(tensor)):
                raise ValueError(f"Vocoder: condition has {len(embedding)} rows; the batch needs 1 or {len(tensor)}")
            own = [None] * len(tensor) if embedding is None else embedding.expand(len(tensor), -1)
            items = [(row[:, :count], its) for row, count, its in zip(tensor, counts, own, strict=True)]
        for item, _ in items:
            check_mel(item, self.config.mel)
        suspicions = (source.suspicion(item) for item, _ in items if item.numel())
        if suspicion := next(filter(None, suspicions), None):
            warnings.warn(f"Vocoder: {suspicion}", stacklevel=2)
        items = [(convert_mel(item, source, self.config.mel), its) for item, its in items]
        if lengths is None:
            return as_given(self._speaker.voice(*items[0]), mel)
        return [as_given(wave, mel) for wave in self._speaker.voices(items)]

    def mel(self, wave: Signal, sample_rate: int | None = None) -> Signal:
        """Compute mel spectrograms in this vocoder's own convention.

        Parameters
        ----------
        wave : Tensor or ndarray, shape (samples,) or (B, samples), floating point
            Samples in [−1, 1].
        sample_rate : int, optional
            Of the wave, in Hz; another rate than the vocoder's is resampled. By default the vocoder's.

        Returns
        -------
        Tensor or ndarray, as given, shape (bands, T) or (B, bands, T)
        """
        tensor = as_tensor(wave, "wave")
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        if sample_rate is not None:
            tensor = resample(tensor, sample_rate, self.sample_rate)
        return as_given(mel_spectrogram(tensor, self.config.mel), wave)

    def explain(self) -> dict[str, str | None]:
        """Say how this vocoder can run, and why not otherwise.

        Returns
        -------
        dict of str to (str or None)
            In order of preference: ``"plan"`` is the whole generator as one native call on the CPU
            (`fastvoc.engine.Plan`), ``"cuda plan in …"`` is that on a GPU (`fastvoc.engine.CudaPlan`), ``"graphs"`` are
            CUDA graphs of Triton's kernels (`fastvoc.engine.Graphs`), the others are backends that run it operator by
            operator. Each comes with the reason why it cannot; the first with None is what runs. Of a vocoder from
            `quantise`, the first says how many layers multiply in 8 bits.
        """
        return self._ways.explain()

    def stream(self, chunks: Iterable[Signal], *, condition: Signal | None = None) -> Iterator[Signal]:
        """Make a wave from a mel that arrives in chunks of any length.

        Together, the pieces are the wave of the whole mel, to its rounding; how the mel is cut changes no bit of them.
        Each chunk's last `receptive_field[1]` frames wait for what follows them.

        Parameters
        ----------
        chunks : iterable of Tensor or ndarray, shape (bands, T)
        condition : Tensor or ndarray, shape (C,), optional
            Speaker embedding, for a vocoder that is conditioned.

        Yields
        ------
        Tensor or ndarray, as given, shape (samples,)
            Never empty; the last one holds the frames that waited.
        """
        streamer = self.streamer(condition=condition)
        for chunk in chunks:
            shape = tuple(self._read(chunk).shape)
            if len(shape) != 2:
                raise ValueError(f"Vocoder.stream: chunk has shape {shape}; it must be (bands, frames)")
            piece = streamer.push(chunk)
            if len(piece):
                yield piece
        piece = streamer.flush()
        if len(piece):
            yield piece

    def streamer(self, batch: int = 1, condition: Tensor | NDArray[np.floating] | None = None) -> Streamer:
        """Begin a stream, or a batch of streams that advance together.

        Parameters
        ----------
        batch : int
            Streams side by side.
        condition : Tensor or ndarray, shape (C,) for all streams or (batch, C), optional
            Speaker embedding, for a vocoder that is conditioned.

        Returns
        -------
        Streamer
            With `push`, `flush`, `reset`, `state` and `restore`.

        Raises
        ------
        ValueError
            If the batch is not positive, or the condition is missing, unwanted or of another shape.
        """
        embedding = None if condition is None else as_tensor(condition, "condition").to(self.device, self.dtype)
        return Streamer(
            Line(self.generator, self._habit, self._ways.plan(in_order=True)),
            batch=batch,
            condition=embedding,
            sample_rate=self.sample_rate,
            backend=self.backend,
            read=self._read,
            give=as_given,
        )

    @property
    def _habit(self) -> InferenceHabit | None:
        return self.config.inference if self.config.inference != InferenceHabit() else None

    def _read(self, mel: Tensor | NDArray[np.floating]) -> Tensor:
        tensor = as_tensor(mel, "mel")
        check_mel(tensor, self.config.mel)
        return tensor

    def _loud(self) -> Tensor:
        """Return a mel, (1, bands, T), of noise as loud as it can be, of silence, and of a voice's pulses."""
        second = self.sample_rate
        noise = 2 * torch.rand(second, generator=torch.Generator().manual_seed(0)) - 1
        pulses = torch.zeros(second)
        pulses[:: max(1, second // 100)] = 1
        return mel_spectrogram(torch.cat([noise, torch.zeros(second // 2), pulses]), self.config.mel)[None]


__all__ = ["DEFAULT", "Vocoder", "VocoderConfig"]
