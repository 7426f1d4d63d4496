"""What the user holds: a generator's weights and the mel convention that they were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc import ops
from fastvoc.audio import MelConfig, convert_mel, find_convention, mel_spectrogram, resample, why_not
from fastvoc.audio.given import Lengths, Signal, as_given, as_tensor, check_mel, read_lengths
from fastvoc.checkpoints import Checkpoint, InferenceHabit, Int8Layer, VocoderConfig, open_checkpoint, save_native
from fastvoc.engine import Graphs, Line, Plan, Steps, Streamer, calibrate
from fastvoc.models import Generator

DEFAULT = "default"
"""The name of the vocoder that comes with the package."""

WINDOW = 4096
"""Frames that run at once: 48 s at 22050 Hz and a hop of 256, for which each layer of HiFi-GAN V1 makes 0.13 GB of
features."""


class Vocoder:
    """Turn mel spectrograms into waves.

    A vocoder holds no state between calls, so threads may share one.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `from_pretrained`.
    device : str or torch.device
    dtype : torch.dtype
        Of weights and arithmetic.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Run every operator on this one, and raise with its reason where it refuses; by default the fastest that can.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> None:
        if not dtype.is_floating_point:
            raise TypeError(f"Vocoder: dtype {dtype} cannot hold weights; it must be a floating-point type")
        self.config = checkpoint.config
        self.source = checkpoint.source
        self.notes = checkpoint.notes
        self.backend = backend
        self.device = torch.device(device)
        self.dtype = dtype
        self.generator: Generator = checkpoint.config.generator.build()
        # the dtype comes first, so that no weight passes through a narrower one
        self.generator.to(self.device, dtype).load_state_dict(checkpoint.weights)
        self.generator.requires_grad_(False).eval()
        self._plans: dict[bool, Plan] = {}
        self._graphs: Graphs | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = DEFAULT,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
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
        if reason := self._why_no_plan() or Plan.refuses_int8(self.generator):
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
        return type(self)(quantised, device=self.device, dtype=self.dtype, backend=self.backend)

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
        A mel of more than `WINDOW` frames runs in pieces with the `receptive_field` around them, or tile by tile, so
        memory does not grow with it but for the mel and the wave.
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
        waves = [as_given(self._voice(convert_mel(item, source, self.config.mel), its), mel) for item, its in items]
        return waves[0] if lengths is None else waves

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
            In order of preference: ``"plan"`` is the whole generator as one native call (`fastvoc.engine.Plan`),
            ``"graphs"`` are CUDA graphs of it (`fastvoc.engine.Graphs`), the others are backends that run it operator
            by operator. Each comes with the reason why it cannot; the first with None is what runs. Of a vocoder from
            `quantise`, the first says how many layers multiply in 8 bits.
        """
        stem = next((weight for weight in self.generator.parameters() if weight.ndim == 3), None)
        operators: dict[str, str | None] = ops.backends()
        if stem is not None:
            operators = ops.explain("conv1d", stem.new_zeros(1, stem.shape[1], 64), stem)
        forced = self.backend or ops.forced_backend()
        if forced is not None:
            operators = {
                name: reason if name == forced else reason or f"backend {forced!r} was asked for"
                for name, reason in operators.items()
            }
        reason, int8 = self._why_no_plan(), self.config.int8
        narrow = {f"plan with {len(int8)} layers in int8": reason or Plan.refuses_int8(self.generator)} if int8 else {}
        return {**narrow, "plan": reason, "graphs": self._why_no_graphs(), **operators}

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
            Line(
                self.generator,
                self.config.inference if self.config.inference != InferenceHabit() else None,
                self._plan(in_order=True),
            ),
            batch=batch,
            condition=embedding,
            sample_rate=self.sample_rate,
            backend=self.backend,
            read=self._read,
            give=as_given,
        )

    def _read(self, mel: Tensor | NDArray[np.floating]) -> Tensor:
        tensor = as_tensor(mel, "mel")
        check_mel(tensor, self.config.mel)
        return tensor

    def _voice(self, mel: Tensor, condition: Tensor | None) -> Tensor:
        """(bands, T) or (B, bands, T) and (C,) or (B, C) → (T·hop,) or (B, T·hop), on the device of the mel."""
        embedding = condition[None] if condition is not None and condition.ndim == 1 else condition
        wave = self._run(mel if mel.ndim == 3 else mel[None], embedding).to(mel.device)
        return wave if mel.ndim == 3 else wave[0]

    def _run(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) on any device → (B, T·hop) on the vocoder's."""
        habit = self.config.inference
        mel = mel if habit == InferenceHabit() else habit.extend(mel)
        frames, hop = mel.shape[-1], self.hop
        # outside inference mode, so that callers may differentiate what they do next
        wave = torch.empty(mel.shape[0], frames * hop, device=self.device, dtype=self.dtype)
        # a plan holds no more of the features than a tile, however long the mel
        plan = self._plan()
        window = WINDOW if plan is None else max(frames, 1)
        past, future = self.receptive_field if frames > window else (0, 0)
        for start in range(0, frames if mel.shape[0] else 0, window):
            stop = min(start + window, frames)
            first, last = max(0, start - past), min(frames, stop + future)
            piece = self._pass(plan or self._recorded() or self.generator, mel[..., first:last], condition)
            wave[:, start * hop : stop * hop] = piece[:, (start - first) * hop : (stop - first) * hop]
        return habit.cut(wave, hop) if habit.trimmed else wave

    def _pass(self, run: Callable[..., Tensor], mel: Tensor, condition: Tensor | None) -> Tensor:
        """Run the network once: (B, bands, T) on any device → (B, T·hop) on the vocoder's."""
        chosen = nullcontext() if self.backend is None else ops.use_backend(self.backend)
        with torch.inference_mode(), chosen:
            # in one memory order, so that equal mels give equal samples
            arguments = [
                value.to(self.device, self.dtype).contiguous() for value in (mel, condition) if value is not None
            ]
            return run(*arguments)[:, 0]

    def _recorded(self) -> Graphs | None:
        """Return the generator as CUDA graphs, where it can run so."""
        if self._why_no_graphs() is not None:
            return None
        if self._graphs is None:
            self._graphs = Graphs(self.generator)
        return self._graphs

    def _why_no_graphs(self) -> str | None:
        forced = self.backend or ops.forced_backend()
        return Graphs.refuses(self.generator) if forced in (None, "triton") else f"backend {forced!r} was asked for"

    def _plan(self, *, in_order: bool = False) -> Plan | None:
        """Return the generator as one native call, compiled at the first use and again if its weights have changed."""
        if self._why_no_plan() is not None:
            return None
        plan = self._plans.get(in_order)
        if plan is None or plan.stale:
            steps = {layer.layer: Steps(layer.scale, layer.zero_point) for layer in self.config.int8}
            int8 = steps if steps and Plan.refuses_int8(self.generator) is None else None
            plan = self._plans[in_order] = Plan(self.generator, in_order=in_order, int8=int8)  # type: ignore[arg-type]
        return plan

    def _why_no_plan(self) -> str | None:
        forced = self.backend or ops.forced_backend()
        if forced not in (None, "cpu"):
            return f"backend {forced!r} was asked for"
        return Plan.refuses(self.generator)


__all__ = ["DEFAULT", "Vocoder", "VocoderConfig"]
