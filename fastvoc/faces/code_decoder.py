"""What the user holds of a network that makes sound of the codes of a codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from fastvoc.audio.inputs import as_given, as_tensor
from fastvoc.audio.mels.convention import FeatureConfig
from fastvoc.checkpoints import Checkpoint, CodeDecoderConfig, VocoderConfig, open_checkpoint
from fastvoc.engine.surroundings import uncompiled
from fastvoc.faces.face import Face, face_of, register
from fastvoc.faces.vocoder import Vocoder
from fastvoc.models import CODE_DECODERS, CodeVocos

Codes = Tensor | NDArray[Any]
"""Of integers."""


@register
class CodeDecoder(Face[CodeVocos]):
    """Turn the codes of a codec, such as EnCodec, into waves.

    Codes have a row for each codebook that the codec used, and their number says the bandwidth, for which the network
    has norms of its own.

    Parameters
    ----------
    checkpoint : Checkpoint
        What `fastvoc.checkpoints.open_checkpoint` returns; most users call `fastvoc.open`.
    device : str or torch.device
    dtype : torch.dtype or str, optional
        As in `Vocoder`, by which the sums of the codebooks' vectors become waves.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Likewise.
    """

    config: CodeDecoderConfig

    CONFIG = CodeDecoderConfig
    GENERATORS = CODE_DECODERS

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> Checkpoint:
        return open_checkpoint(path, config=config) if face_of(path, config) is None else super()._open(path, config)

    def _take(self, generator: CodeVocos) -> None:
        self._generator = generator
        self._vocoders: dict[int, tuple[object, Vocoder]] = {}

    def _check_fits(self, generator: Any) -> None:
        if not isinstance(generator, CodeVocos):
            raise TypeError(
                f"CodeDecoder: generator is a {type(generator).__name__}; it must be a fastvoc.models.CodeVocos"
            )
        given, fits = generator.config, self._generator.config
        if (given.codebooks, given.codewords, given.hop) != (fits.codebooks, fits.codewords, fits.hop):
            raise ValueError(
                f"CodeDecoder: generator has codebooks {given.codebooks} of {given.codewords} and hop {given.hop}; in "
                f"this decoder it must have {fits.codebooks} of {fits.codewords} and {fits.hop}"
            )

    def _facts(self) -> list[str]:
        return [f"codebooks {self.codebooks} of {self.config.generator.codewords}", f"{self.sample_rate} Hz"]

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples per frame of codes."""
        return self.config.generator.hop

    @property
    def codebooks(self) -> tuple[int, ...]:
        """How many rows codes may have, of one bandwidth each."""
        return self.config.generator.codebooks

    @uncompiled
    def __call__(self, codes: Codes) -> Any:
        """Make waves from codes.

        Parameters
        ----------
        codes : Tensor or ndarray, shape (K, T) or (B, K, T), integers
            The number of a vector in each of the first K codebooks, for each frame; K is one of `codebooks`. EnCodec
            returns them so.

        Returns
        -------
        Tensor or ndarray, as given, shape (T·hop,) or (B, T·hop)
            Waves in about [-1, 1] at `sample_rate` Hz, on the device of `codes`, in the decoder's dtype.

        Raises
        ------
        TypeError
            If `codes` is neither a tensor nor an array of integers.
        ValueError
            If it has another shape, no frames, another number of rows, or a number that is no vector's.
        """
        tensor = self._read(codes)
        wave = self.vocoder(tensor.shape[-2])(self._features(tensor))
        given: Any = codes
        return as_given(wave.to(tensor.device), given)

    @uncompiled
    def features(self, codes: Codes) -> Any:
        """Sum the vectors of codes, which is what `vocoder` takes.

        Parameters
        ----------
        codes : Tensor or ndarray, shape (K, T) or (B, K, T), integers
            As in `__call__`.

        Returns
        -------
        Tensor or ndarray, as given, shape (width, T) or (B, width, T)
            In the decoder's dtype.
        """
        tensor = self._read(codes)
        given: Any = codes
        return as_given(self._features(tensor).to(tensor.device), given)

    @uncompiled
    def vocoder(self, codebooks: int) -> Vocoder:
        """Return the network of one bandwidth, which streams, explains and exports as any vocoder does.

        It keeps the weights that the decoder has now.

        Parameters
        ----------
        codebooks : int
            Rows of the codes; one of `codebooks`.

        Raises
        ------
        ValueError
            If it is none of them.
        """
        if codebooks not in self.codebooks:
            known = ", ".join(map(str, self.codebooks))
            raise ValueError(f"CodeDecoder: codes of {codebooks} codebooks; of this network they have {known}")
        number = self.codebooks.index(codebooks)
        revision, made = self._vocoders.get(number, (None, None))
        if made is None or revision is not self._version.revision():
            network = self._generator.config.decoder
            config = VocoderConfig(
                generator=replace(network, bandwidth=number),
                mel=FeatureConfig(
                    sample_rate=self.sample_rate,
                    hop=self.hop,
                    bands=network.mel_bands,
                    meaning=f"sums of the vectors of {codebooks} codebooks",
                ),
            )
            checkpoint = Checkpoint(config, self._generator.decoder.state_dict(), self.source, self.notes)
            made = Vocoder(checkpoint, device=self.device, dtype=self._asked or self.dtype, backend=self.backend)
            self._vocoders[number] = self._version.revision(), made
        return made

    def _features(self, codes: Tensor) -> Tensor:
        """Sum vectors on the decoder's device."""
        batch = codes if codes.ndim == 3 else codes[None]
        with torch.inference_mode():
            made = self._generator.features(batch.to(self.device, torch.int64))
        made = made.clone()  # outside of inference mode, so that callers may differentiate what they do next
        return made if codes.ndim == 3 else made[0]

    def _read(self, value: Codes) -> Tensor:
        codes, generator = as_tensor(value, "codes", "CodeDecoder"), self.config.generator
        if codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool:
            raise TypeError(f"CodeDecoder: codes are {codes.dtype}; they must be integers")
        if codes.ndim not in (2, 3) or codes.shape[-2] not in self.codebooks:
            known = ", ".join(map(str, self.codebooks))
            raise ValueError(
                f"CodeDecoder: codes have shape {tuple(codes.shape)}; they must be (codebooks, frames) or "
                f"(B, codebooks, frames) with {known} codebooks"
            )
        if not codes.shape[-1]:
            raise ValueError(f"CodeDecoder: codes of shape {tuple(codes.shape)} have no frames; it needs at least one")
        codes = codes.to(torch.int64)  # PyTorch compares no wide unsigned ones
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < generator.codewords:
            wrong = int(codes.min()) if int(codes.min()) < 0 else int(codes.max())
            raise ValueError(f"CodeDecoder: codes hold {wrong}; they count from 0 to {generator.codewords - 1}")
        return codes
