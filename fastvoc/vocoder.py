"""What the user holds: a generator's weights and the mel convention that they were trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc import ops
from fastvoc.audio import mel_spectrogram, resample
from fastvoc.checkpoints import Checkpoint, VocoderConfig, open_checkpoint, save_native
from fastvoc.models import Generator

Signal = TypeVar("Signal", Tensor, NDArray[np.floating])

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

    def __call__(self, mel: Signal, *, condition: Signal | None = None) -> Signal:
        """Make waves from mel spectrograms.

        Parameters
        ----------
        mel : Tensor or ndarray, shape (bands, T) or (B, bands, T), floating point
            Log-mel in this vocoder's convention, `config.mel`.
        condition : Tensor or ndarray, shape (C,) or (B, C), optional
            Speaker embedding, for a vocoder that is conditioned.

        Returns
        -------
        Tensor or ndarray, as given, shape (T·hop,) or (B, T·hop)
            Waves in about [−1, 1] at `sample_rate` Hz, on the device of `mel`, in the vocoder's dtype (arrays are
            float32 where NumPy has no such type).

        Raises
        ------
        TypeError
            If `mel` is neither a tensor nor an array, or not of a floating-point type.
        ValueError
            If it has another shape, no frames, or values that are not finite.

        Warns
        -----
        UserWarning
            If the values look like another convention's, such as decibels.
        """
        tensor = _tensor(mel, "mel")
        self._check(tensor)
        if suspicion := self.config.mel.suspicion(tensor) if tensor.numel() else None:
            warnings.warn(f"Vocoder: {suspicion}", stacklevel=2)
        batch = tensor if tensor.ndim == 3 else tensor[None]
        embedding = None if condition is None else _tensor(condition, "condition")
        if embedding is not None and embedding.ndim == 1:
            embedding = embedding[None]
        wave = self._run(batch, embedding).to(tensor.device)
        return _as_given(wave if tensor.ndim == 3 else wave[0], mel)

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
        tensor = _tensor(wave, "wave")
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        if sample_rate is not None:
            tensor = resample(tensor, sample_rate, self.sample_rate)
        return _as_given(mel_spectrogram(tensor, self.config.mel), wave)

    def stream(self, chunks: Iterable[Signal]) -> Iterator[Signal]:
        """Make a wave from a mel that arrives in chunks of any length.

        The samples are those of the whole mel at once, to the rounding of the arithmetic; each chunk's last
        `receptive_field[1]` frames wait for what follows them.

        Parameters
        ----------
        chunks : iterable of Tensor or ndarray, shape (bands, T)

        Yields
        ------
        Tensor or ndarray, as given, shape (samples,)
            Never empty; the last one holds the frames that waited.
        """
        past, future = self.receptive_field
        held: Tensor | None = None
        context = 0  # frames of `held` that have been turned into samples already
        given: Signal | None = None
        for chunk in chunks:
            given = chunk
            tensor = _tensor(chunk, "mel")
            self._check(tensor)
            if tensor.ndim != 2:
                raise ValueError(f"Vocoder.stream: chunk has shape {tuple(tensor.shape)}; it must be (bands, frames)")
            held = tensor if held is None else torch.cat([held, tensor], dim=-1)
            ready = held.shape[-1] - future
            if ready > context:
                yield _as_given(self._run(held[None])[0, context * self.hop : ready * self.hop], chunk)
                start = max(0, ready - past)
                held, context = held[:, start:], ready - start
        if held is not None and given is not None and held.shape[-1] > context:
            yield _as_given(self._run(held[None])[0, context * self.hop :], given)

    def _run(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, bands, T) on any device → (B, T·hop) on the vocoder's."""
        if mel.shape[0] == 0:
            return torch.empty(0, mel.shape[-1] * self.hop, device=self.device, dtype=self.dtype)
        chosen = nullcontext() if self.backend is None else ops.use_backend(self.backend)
        with torch.inference_mode(), chosen:
            arguments = [value.to(self.device, self.dtype) for value in (mel, condition) if value is not None]
            wave: Tensor = self.generator(*arguments)[:, 0]
        return wave.clone()  # outside inference mode, so that callers may differentiate what they do next

    def _check(self, mel: Tensor) -> None:
        expected = f"this vocoder was trained on {self.config.mel.describe()}"
        bands = self.config.mel.bands
        if not mel.is_floating_point():
            raise TypeError(f"Vocoder: mel is of type {mel.dtype}; it must be floating point, a log-mel")
        if mel.ndim not in (2, 3) or mel.shape[-2] != bands:
            turned = "; it seems to be transposed" if mel.ndim in (2, 3) and mel.shape[-1] == bands else ""
            raise ValueError(
                f"Vocoder: mel has shape {tuple(mel.shape)}; it must be ({bands}, frames) or "
                f"(batch, {bands}, frames){turned}: {expected}"
            )
        if mel.shape[-1] == 0:
            raise ValueError(f"Vocoder: mel of shape {tuple(mel.shape)} has no frames; it needs at least one")
        if not torch.isfinite(mel).all():
            wrong = int((~torch.isfinite(mel)).sum())
            raise ValueError(f"Vocoder: mel has {wrong} values that are NaN or infinite; all must be finite")


def _tensor(value: Tensor | NDArray[np.floating], name: str) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor):
        raise TypeError(f"Vocoder: {name} is a {type(value).__name__}; it must be a torch.Tensor or a numpy.ndarray")
    return value


def _as_given(result: Tensor, given: Signal) -> Signal:
    if isinstance(given, Tensor):
        return result
    exact = result if result.dtype in (torch.float32, torch.float64) else result.float()
    array: NDArray[np.floating] = exact.cpu().numpy()
    return array


__all__ = ["DEFAULT", "Vocoder", "VocoderConfig"]
