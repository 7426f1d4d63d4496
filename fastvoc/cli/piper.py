"""`fastvoc piper`: text, or the numbers of its symbols, to sound, by a voice of Piper or for sherpa-onnx."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from fastvoc.cli.command import Command, UsageError, choose_device, describe_limited
from fastvoc.cli.terminal import complain, show

if TYPE_CHECKING:
    from fastvoc.faces.voice import Voice


@dataclass(frozen=True, kw_only=True)
class Piper(Command):
    """Speak a text with a voice of Piper, or with a VITS voice for sherpa-onnx.

    Without --text and --ids, the text is read from standard input.

    Example: fastvoc piper en_US-joe-medium.onnx --text "It is raining again." -o rain.wav
    """

    voice: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VOICE.onnx", help_behavior_hint="(required)")]
    """File of the voice; the settings of one of Piper's lie beside it, in VOICE.onnx.json."""
    text: str | None = None
    """What is said; the package piper-tts makes symbols of it, sentence by sentence."""
    ids: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="NUMBER...")] = None
    """Numbers of the symbols of one sentence instead, for which nothing else is needed."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE", aliases=["-o"])] = Path("speech.wav")
    """The sound file, .wav, .flac, .ogg or .mp3; its folder is made if absent."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Piper's settings, where they do not lie beside the voice."""
    speaker: str | None = None
    """Number or name of one of several speakers; by default the first."""
    noise_scale: float | None = None
    """How much the sound varies; by default what the voice says, or else 0.667."""
    length_scale: float | None = None
    """How slow it is: 2 is half as fast; by default what the voice says, or else 1."""
    noise_w: float | None = None
    """How much durations vary; by default what the voice says, or else 0.8."""
    seed: int | None = None
    """Of the random numbers: equal seeds make equal sounds; by default a fresh one, which is printed."""
    normalise: bool = True
    """Make the loudest sample of each sentence full scale, as Piper does."""
    device: str = "auto"
    """Of the decoder: cpu, cuda or cuda:N; "auto" is a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "float64"] = "auto"
    """Of the decoder; "auto" is float32."""

    def run(self) -> int:
        """Speak, write, print."""
        if self.text is not None and self.ids is not None:
            raise UsageError("--ids: the text is given too; leave out one of them")
        if self.ids is not None and not self.ids:
            raise UsageError("--ids: there are no numbers; give those of the symbols, such as --ids 1 0 20 0 2")

        import torch

        from fastvoc.audio import write_audio
        from fastvoc.faces.voice import Voice
        from fastvoc.noise import LARGEST_SEED, fresh_seed

        seed = fresh_seed() if self.seed is None else self.seed
        if not 0 <= seed <= LARGEST_SEED:
            raise UsageError(f"--seed {seed}: must be between 0 and {LARGEST_SEED}")
        voice = Voice.from_pretrained(
            self.voice,
            config=self.config,
            device=choose_device(self.device),
            dtype=None if self.dtype == "auto" else self.dtype,
        )
        sentences = self._sentences(voice)
        if self.seed is None:
            print(f"seed {seed}")
        speaker = int(self.speaker) if self.speaker is not None and self.speaker.isdigit() else self.speaker
        waves, first = [], 0.0
        begin = time.perf_counter()
        for number, ids in enumerate(sentences):
            pieces = []
            for piece in voice.stream(
                ids,
                speaker=speaker,
                noise_scale=self.noise_scale,
                length_scale=self.length_scale,
                noise_w=self.noise_w,
                seed=(seed + number) % (LARGEST_SEED + 1),
            ):
                first = first or time.perf_counter() - begin
                pieces.append(piece.float().cpu())
            wave = torch.cat(pieces)
            peak = float(wave.abs().max())
            waves.append(wave / peak if self.normalise and peak > 1e-8 else wave)
        took = time.perf_counter() - begin
        wave = torch.cat(waves)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        if limited := write_audio(self.out, wave, voice.sample_rate):
            complain(f"{self.out}: warning: {describe_limited(limited, len(wave))}")
        seconds = len(wave) / voice.sample_rate
        facts = [
            ("sound", f"{seconds:.2f} s at {voice.sample_rate} Hz; sentences: {len(sentences)}"),
            ("speed", f"{seconds / took:.1f} times real time"),
            ("first sound", f"after {1000 * first:.0f} ms"),
            ("written", str(self.out)),
        ]
        show(self.voice.name, ("", ""), facts)
        return 0

    def _sentences(self, voice: Voice) -> list[list[int]]:
        if self.ids is not None:
            return [[*self.ids]]
        text = sys.stdin.read() if self.text is None else self.text
        if not text.strip():
            raise UsageError("--text: there is no text, and none came from standard input")
        sentences = voice.ids(text)
        if not sentences:
            raise ValueError(f"{self.voice}: Piper makes no symbols of this text, so that there is nothing to say")
        return sentences
