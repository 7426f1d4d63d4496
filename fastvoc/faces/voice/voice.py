"""What the user holds of a VITS voice: what its file computes before the decoder, and the decoder by a plan."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fastvoc.checkpoints import Checkpoint
from fastvoc.config import Kinds, nearest
from fastvoc.engine.surroundings import uncompiled
from fastvoc.faces.face import Face, register
from fastvoc.faces.vocoder import Vocoder
from fastvoc.faces.voice.files import VoiceCheckpoint, file_of, open_voice
from fastvoc.faces.voice.front import Draw
from fastvoc.faces.voice.phonemes import sentences
from fastvoc.faces.voice.settings import ROLES, VoiceConfig, piper_settings, read_scale
from fastvoc.faces.voice.speaker import Speakers
from fastvoc.models import Generator
from fastvoc.noise import read_seeds

FIRST_FRAMES, MORE_FRAMES = 8, 64
"""Frames of the first piece of a stream, and of the largest; each is twice as long as the one before."""


@register
class Voice(Face[Generator]):
    """Turn text, as numbers of its symbols, into sound, with a voice of Piper or of sherpa-onnx (VITS).

    ONNX Runtime runs the file up to the latents, and fastvoc the decoder behind them, which is a HiFi-GAN and most of
    the work. A voice holds no state between calls, so that threads may share one.

    Parameters
    ----------
    checkpoint : VoiceCheckpoint
        What `from_pretrained` makes; most users call that, or `fastvoc.open`.
    device, dtype, backend
        Of the decoder, as in `Vocoder`.
    """

    config: VoiceConfig

    CONFIG: ClassVar[Any] = VoiceConfig
    GENERATORS: ClassVar[Kinds] = Kinds("voice")
    """None: a voice is known by its file."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> None:
        if not isinstance(checkpoint, VoiceCheckpoint):
            raise TypeError(f"Voice: checkpoint is a {type(checkpoint).__name__}; fastvoc.open makes a voice of a file")
        self.config = checkpoint.voice
        self.source = checkpoint.source
        self.notes = checkpoint.notes
        self.backend = backend
        self.path = checkpoint.path
        self._settings = checkpoint.settings
        self._front = checkpoint.front
        self._inputs = checkpoint.inputs
        self._decoder = Vocoder(checkpoint, device=device, dtype=dtype, backend=backend)
        self._speakers = Speakers()

    @classmethod
    def opens(cls, path: Path, config: Path | None = None) -> bool:
        """Whether a path is a file of ONNX, or a folder with one and without other networks."""
        return file_of(path) is not None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Open a voice.

        Parameters
        ----------
        path : str or Path
            An ONNX file of Piper or for sherpa-onnx, or a folder with one such file.
        config : str or Path, optional
            Piper's settings, where they are not called as the voice with ``.json`` behind it. A file for sherpa-onnx
            has its sample rate in its metadata.
        device, dtype, backend
            As in the class.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ModuleNotFoundError
            Without the packages ``onnx`` and ``onnxruntime`` (``pip install 'fastvoc[voice]'``).
        ValueError
            If it is no voice with a HiFi-GAN behind latents; the message says what stands in its place.
        """
        checkpoint = cls._open(Path(path), None if config is None else Path(config))
        return cls(checkpoint, device=device, dtype=dtype, backend=backend)

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> VoiceCheckpoint:
        return open_voice(path, config=config)

    @property
    def decoder(self) -> Vocoder:
        """What makes waves of latents: a vocoder that can be streamed, quantised, saved and written as ONNX alone.

        It takes what `latents` returns; another one of the same widths and hop may be put in its place.
        """
        return self._decoder

    @decoder.setter
    def decoder(self, decoder: Vocoder) -> None:
        if not isinstance(decoder, Vocoder) or decoder.config.mel != self._decoder.config.mel:
            raise ValueError(f"Voice: decoder must be a Vocoder of {self._decoder.config.mel.describe()}")
        self._decoder = decoder

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waves, in Hz."""
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        """Samples per frame of latents."""
        return self._decoder.hop

    @uncompiled
    def speak(
        self,
        ids: Sequence[int] | NDArray[np.integer] | Tensor,
        *,
        speaker: int | str | None = None,
        noise_scale: float | None = None,
        length_scale: float | None = None,
        noise_w: float | None = None,
        seed: int | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Make the sound of a sentence.

        Parameters
        ----------
        ids : sequence of int, Tensor or ndarray of integers, shape (N,) or (1, N)
            The numbers of its symbols, as the voice was trained on them: for a voice of Piper what `ids` makes.
        speaker : int or str, optional
            The number or name of one of several; by default the first.
        noise_scale, length_scale, noise_w : float, optional
            As in `VoiceConfig`, whose values they replace.
        seed : int, optional
            Of the random numbers of durations and latents, from 0; by default a fresh one, which
            `fastvoc.noise.last_seeds` returns. Equal seeds make equal sounds.
        others : mapping of str to array, optional
            Inputs of the file that only few voices have, such as ``tones``, by name.

        Returns
        -------
        Tensor, shape (samples,)
            At `sample_rate` Hz in about [−1, 1], on the device and in the dtype of the decoder.

        Raises
        ------
        TypeError
            If ids, speaker or seed are no integers.
        ValueError
            If there are no ids, or an option is out of range or unknown; if ONNX Runtime refuses the ids, since the
            voice has fewer symbols.
        """
        latents, condition = self.latents(
            ids,
            speaker=speaker,
            noise_scale=noise_scale,
            length_scale=length_scale,
            noise_w=noise_w,
            seed=seed,
            others=others,
        )
        decoder, condition = self._speakers.decoder(self._decoder, condition)
        return decoder(latents, condition=condition).to(self.device)

    def stream(
        self,
        ids: Sequence[int] | NDArray[np.integer] | Tensor,
        *,
        speaker: int | str | None = None,
        noise_scale: float | None = None,
        length_scale: float | None = None,
        noise_w: float | None = None,
        seed: int | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> Iterator[Tensor]:
        """Make the sound of a sentence piece by piece: the decoder begins to sound after its first few frames.

        Parameters
        ----------
        ids, speaker, noise_scale, length_scale, noise_w, seed, others
            As in `speak`.

        Yields
        ------
        Tensor, shape (samples,)
            One behind the other they are what `speak` returns, to the rounding of its dtype.
        """
        latents, condition = self.latents(
            ids,
            speaker=speaker,
            noise_scale=noise_scale,
            length_scale=length_scale,
            noise_w=noise_w,
            seed=seed,
            others=others,
        )
        yield from self._streamed(latents, condition)

    @uncompiled
    def _streamed(self, latents: Tensor, condition: Tensor | None) -> Iterator[Tensor]:
        """Begin to stream; compiled code then only asks for the pieces."""
        decoder, condition = self._speakers.decoder(self._decoder, condition)
        return decoder.stream([*self._pieces(latents.to(self.device))], condition=condition)

    def _pieces(self, latents: Tensor) -> Iterator[Tensor]:
        """Cut latents so that the first sound comes soon, and the others cost little more than all at once."""
        size, begin = FIRST_FRAMES, 0
        end = self._decoder.receptive_field[1] + size  # the frames that the first ones wait for
        while begin < latents.shape[-1]:
            yield latents[:, begin:end]
            size = min(2 * size, MORE_FRAMES)
            begin, end = end, end + size

    @uncompiled
    def latents(
        self,
        ids: Sequence[int] | NDArray[np.integer] | Tensor,
        *,
        speaker: int | str | None = None,
        noise_scale: float | None = None,
        length_scale: float | None = None,
        noise_w: float | None = None,
        seed: int | None = None,
        others: Mapping[str, Any] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Make what the decoder takes.

        Parameters
        ----------
        ids, speaker, noise_scale, length_scale, noise_w, seed, others
            As in `speak`.

        Returns
        -------
        latents : Tensor, shape (channels, T), float32
        condition : Tensor, shape (C,), float32, or None
            The embedding of the speaker, where the decoder takes one.
        """
        where = type(self).__name__
        values: dict[str, Any] = {"ids": self._read_ids(ids)}
        values["lengths"] = [values["ids"].shape[1]]
        for name, given in (("noise_scale", noise_scale), ("length_scale", length_scale), ("noise_w", noise_w)):
            values[name] = read_scale(given, getattr(self.config, name), name, where)
        values["scales"] = [values["noise_scale"], values["length_scale"], values["noise_w"]]
        values["speaker"] = self._read_speaker(speaker)
        further = dict(others or {})
        if unknown := further.keys() - self._inputs.keys() | further.keys() & values.keys():
            raise ValueError(f"{where}: the voice has no other input {sorted(unknown)[0]!r}; it has {self._others()}")
        if absent := self._inputs.keys() - values.keys() - further.keys():
            raise ValueError(f"{where}: the voice needs {', '.join(sorted(absent))}; give it in others=")
        values |= further
        feeds = {one.name: one.read(values[role], where) for role, one in self._inputs.items()}
        (number,) = read_seeds(seed, 1, where)
        channel = 0

        def noise(draw: Draw, shape: Sequence[int]) -> NDArray[Any]:
            nonlocal channel  # each operator has channels of its own, so that none repeats another's numbers
            numbers, channel = draw.make(shape, number, channel)
            return numbers

        latents, *embedding = self._front.run(feeds, noise)
        width = self.config.generator.mel_bands
        if latents.ndim != 3 or latents.shape[:2] != (1, width) or not latents.shape[2]:
            raise ValueError(
                f"{where}: these ids make latents of shape {latents.shape}, which the decoder does not take"
            )
        condition = torch.from_numpy(embedding[0].reshape(-1)).float() if embedding else None
        return torch.from_numpy(latents[0]).float(), condition

    def _others(self) -> str:
        return ", ".join(sorted(self._inputs.keys() - ROLES.keys())) or "none"

    def _read_ids(self, ids: Any) -> NDArray[Any]:
        array = np.asarray(ids.cpu() if isinstance(ids, Tensor) else ids)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"Voice: ids are of type {array.dtype}; they must be integers")
        if array.ndim == 2 and len(array) == 1:
            array = array[0]
        if array.ndim != 1 or not array.size:
            raise ValueError(f"Voice: ids have shape {array.shape}; they must be those of one sentence, (N,)")
        if int(array.min()) < 0:
            raise ValueError(f"Voice: ids hold {int(array.min())}; they must not be negative")
        return array[None]

    def _read_speaker(self, speaker: int | str | None) -> int:
        names, count = self.config.speaker_names, self.config.speakers
        if isinstance(speaker, str):
            if speaker not in names:
                known = nearest(speaker, list(names)) if names else "the speakers of this voice have numbers only"
                raise ValueError(f"Voice: speaker {speaker!r} is not known; {known}")
            speaker = names[speaker]
        if speaker is None:
            return 0
        if not isinstance(speaker, int | np.integer) or isinstance(speaker, bool):
            raise TypeError(f"Voice: speaker is {speaker!r}; it must be a number or a name")
        if not 0 <= speaker < count:
            raise ValueError(f"Voice: speaker is {speaker}; this voice has the speakers 0 to {count - 1}")
        return int(speaker)

    def ids(self, text: str) -> list[list[int]]:
        """Turn text into the numbers of its symbols, by Piper's own package.

        Parameters
        ----------
        text : str
            In the language of the voice.

        Returns
        -------
        list of list of int
            Those of each sentence.

        Raises
        ------
        ModuleNotFoundError
            Without the package ``piper-tts``.
        ValueError
            If the voice has no settings of Piper beside it.
        """
        return sentences(text, piper_settings(self.path, self._settings), self.path)

    def quantise(self, ids: Sequence[Sequence[int]], *, smallest_snr: float = 35.0) -> Self:
        """Return an equal voice whose decoder multiplies in 8 bits where its waves stay near these.

        Parameters
        ----------
        ids : sequence of sequence of int
            A few sentences that it will be given.
        smallest_snr : float
            As in `Vocoder.quantise`, which says what is raised and what it takes.
        """
        if self.config.generator.condition_channels:
            raise NotImplementedError(
                "Voice.quantise: the decoder is conditioned on speakers; no plan quantises that yet"
            )
        other = copy.copy(self)
        examples = [self.latents(sentence, seed=number)[0] for number, sentence in enumerate(ids)]
        other._decoder = self._decoder.quantise(examples, smallest_snr=smallest_snr)
        return other

    def explain(self) -> dict[str, str | None]:
        """Say what runs, and why nothing faster does.

        Returns
        -------
        dict of str to (str or None)
            ``"front"`` says what runs the file up to the latents; the others are those of the decoder, as in
            `Vocoder.explain`: the first with None is what runs it. On a CPU, a speaker's embedding becomes a part of a
            bias, so that a voice of several speakers runs as one of a single speaker does.
        """
        parts = sum(session is not None for _, session in self._front.parts)
        front = f"ONNX Runtime {self._front.version} on the CPU, in {parts} parts around its random numbers"
        width = self.config.generator.condition_channels
        decoder, _ = self._speakers.decoder(self._decoder, torch.zeros(width, device="cpu") if width else None)
        return {"front": front} | decoder.explain()

    @property
    def generator(self) -> Generator:
        """The network of the decoder, as in `Vocoder`."""
        return self._decoder.generator

    @generator.setter
    def generator(self, generator: Generator) -> None:
        self._decoder.generator = generator

    def refresh(self) -> None:
        """Take the weights as changed, as in `Vocoder`."""
        self._decoder.refresh()

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | str | None = None
    ) -> Self:
        """Move the decoder to another device or dtype, in place, as in `Vocoder`; the rest stays on the CPU."""
        self._decoder.to(device, dtype)
        return self

    def eval(self) -> Self:
        """Put the decoder into the mode in which it is run."""
        self._decoder.eval()
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Refuse, since a voice is its file; its decoder can be saved.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError(
            f"Voice.save_pretrained: a voice is its file, {self.path}; voice.decoder.save_pretrained writes its decoder"
        )

    @property
    def _weight(self) -> Tensor:
        return self._decoder._weight

    def __copy__(self) -> Self:
        """Return one of the same file whose decoder may be replaced."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._decoder, other._speakers = copy.copy(self._decoder), Speakers()
        return other

    def __getstate__(self) -> dict[str, Any]:
        # sessions of ONNX Runtime belong to a process, and are made again from the file
        return {name: value for name, value in vars(self).items() if name not in ("_front", "_inputs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        opened = self._open(self.path, self._settings)
        self._front, self._inputs = opened.front, opened.inputs

    def _facts(self) -> list[str]:
        speakers = "1 speaker" if self.config.speakers == 1 else f"{self.config.speakers} speakers"
        return [speakers, f"{self.sample_rate} Hz", f"hop {self.hop}"]
