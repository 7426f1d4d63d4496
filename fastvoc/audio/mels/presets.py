"""The mel conventions of public projects, each checked against the numbers that its own code computes."""

from __future__ import annotations

from dataclasses import replace

from fastvoc.audio.mels.convention import MelConfig, Normalization

_HIFIGAN = MelConfig(
    sample_rate=22050, fft_size=1024, hop=256, window_size=1024, bands=80, low=0, high=8000, root_epsilon=1e-9
)
_CENTRED = replace(_HIFIGAN, root_epsilon=0, padding="centre")
_PWG = replace(_CENTRED, low=80, high=7600, logarithm="decimal", floor=1e-10)
_NEMO = replace(_HIFIGAN, root_epsilon=0, padding_mode="zero", window="symmetric", last_frame=-11.52)

CONVENTIONS: dict[str, MelConfig] = {
    "hifigan": _HIFIGAN,
    "hifigan-loss": replace(_HIFIGAN, high=None),
    "bigvgan-24k": replace(_HIFIGAN, sample_rate=24000, bands=100, high=12000),
    "bigvgan-44k": replace(_HIFIGAN, sample_rate=44100, fft_size=2048, hop=512, window_size=2048, bands=128, high=None),
    "bigvgan-44k-256x": replace(_HIFIGAN, sample_rate=44100, bands=128, high=None),
    "melgan": replace(_HIFIGAN, high=None, root_epsilon=0, logarithm="decimal"),
    "melgan-16k": replace(
        _HIFIGAN, sample_rate=16000, hop=200, window_size=800, high=None, root_epsilon=0, logarithm="decimal"
    ),
    "tacotron2": _CENTRED,
    "waveglow": _CENTRED,
    "speechbrain-16k": replace(_CENTRED, sample_rate=16000),
    "parallel-wavegan": _PWG,
    "parallel-wavegan-24k": replace(_PWG, sample_rate=24000, fft_size=2048, hop=300, window_size=1200),
    "parallel-wavegan-16k": replace(_PWG, sample_rate=16000),
    "tensorflow-tts": _PWG,
    "speecht5": replace(_PWG, sample_rate=16000),
    "espnet": replace(_PWG, root_floor=1e-10),
    "wavenet": replace(_PWG, low=125),
    "coqui": replace(
        _CENTRED,
        high=None,
        logarithm="decimal",
        gain=20,
        floor=1e-8,
        # 8 (x - 20 + 100) / 100 - 4: the reference is at 20 dB, the minimum at -100 dB.
        normalization=Normalization(mean=-30, scale=12.5, clip=(-4, 4)),
    ),
    "nemo": _NEMO,
    "nemo-44k": replace(_NEMO, sample_rate=44100, fft_size=2048, hop=512, window_size=2048, high=None),
    "vocos": replace(
        _CENTRED, sample_rate=24000, bands=100, high=12000, scale="htk", area_normalized=False, floor=1e-7
    ),
    "vocos-same": replace(
        _HIFIGAN,
        sample_rate=24000,
        bands=100,
        high=None,
        root_epsilon=0,
        scale="htk",
        area_normalized=False,
        floor=1e-7,
    ),
    "bshall": replace(_HIFIGAN, sample_rate=16000, hop=160, bands=128, root_epsilon=0),
    "fish": replace(
        _HIFIGAN, sample_rate=44100, fft_size=2048, hop=512, window_size=2048, bands=128, high=None, root_epsilon=1e-6
    ),
    "style-tts": replace(
        _CENTRED,
        sample_rate=24000,
        fft_size=2048,
        hop=300,
        window_size=1200,
        high=12000,
        scale="htk",
        area_normalized=False,
        power=2,
        floor_mode="add",
        normalization=Normalization(mean=-4, scale=4),
    ),
    "keras": replace(
        _CENTRED,
        low=125,
        high=7600,
        scale="htk",
        area_normalized=False,
        straight_in="mel",
        padding="end",
        padding_mode="zero",
        power=2,
        logarithm="decimal",
        gain=20,
        floor=1e-30,  # upstream has none: this one lies far under the dynamic range and keeps silence finite
        dynamic_range=80,
    ),
}
"""The conventions of public projects, before any per-band statistics (`Normalization`) of one training run.

Projects whose mels are equal share a name: `tacotron2` is also that of seungwonpark's MelGAN and SpeechBrain's
LJ Speech models and of Coqui's with a natural logarithm, `hifigan` that of iSTFTNet, HiFTNet, VITS and Matcha,
`bigvgan-24k` that of UnivNet.
"""
