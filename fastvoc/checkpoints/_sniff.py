"""Names what a file seems to be that no format opens, so that its owner knows what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fastvoc.checkpoints._source import Source

Clue = Callable[[set[str], set[str], Mapping[str, Any]], bool]


def _prefix(*starts: str) -> Clue:
    return lambda top, names, settings: any(name.startswith(starts) for name in names)


def _part(text: str) -> Clue:
    return lambda top, names, settings: any(text in name for name in names)


def _top(*wanted: str) -> Clue:
    return lambda top, names, settings: set(wanted) <= top


_NOT_GENERATORS: tuple[tuple[Clue, str], ...] = (
    (
        _top("mpd", "msd", "optim_g"),
        "holds the discriminators and optimizers of a HiFi-GAN run (a do_ file); open the g_ file of the same step",
    ),
    (
        _top("mpd", "mrd"),
        "holds the discriminators and optimizers of a BigVGAN run; its generator is in another file, and fastvoc does "
        "not open those yet",
    ),
    (_prefix("model.disc_0."), "is the discriminator of MelGAN (netD.pt); open netG.pt or best_netG.pt beside it"),
    (_top("state", "param_groups"), "holds the state of an optimizer; open the file of the generator"),
)
"""Files of formats that are opened, but that hold no generator."""

_FORMATS: tuple[tuple[Clue, str], ...] = (
    (lambda top, names, settings: any(".act.alpha" in n for n in names) or "snake_logscale" in settings, "BigVGAN"),
    (_prefix("m_source.", "noise_convs."), "HiFTNet or NSF-HiFi-GAN"),
    (_part("kernel_predictor."), "UnivNet"),
    (_top("model_g", "hp_str", "githash"), "MelGAN (seungwonpark)"),
    (_prefix("model_g.", "model_disc."), "Coqui"),
    (_top("model", "model_disc"), "Coqui"),
    (_prefix("generator.melgan.", "generator.input_conv.", "generator.first_conv."), "ParallelWaveGAN"),
    (_prefix("melgan.", "input_conv.", "first_conv."), "ParallelWaveGAN"),
    (_prefix("tts.generator.vocoder."), "ESPnet text2wav"),
    (_prefix("tts."), "ESPnet"),
    (_prefix("backbone.convnext.", "backbone.embed."), "Vocos"),
    (_prefix("dec.conv_pre"), "VITS"),
    (_top("generator", "train_setup"), "NVIDIA DeepLearningExamples HiFi-GAN"),
    (_prefix("resblocks.0.0.", "generator.resblocks.0.0."), "NeMo HiFi-GAN"),
    (_prefix("conv_pre.conv."), "SpeechBrain HiFi-GAN"),
    (_prefix("upsampler.0."), "Hugging Face transformers HiFi-GAN"),
    (_prefix("vocoder.upsampler.0."), "Hugging Face transformers text-to-speech with a HiFi-GAN"),
    (_top("state_dict"), "PyTorch Lightning"),
)
"""Formats that are told apart but not opened, the particular before the general."""


def describe(source: Source) -> str:
    """Say what a file seems to be, and what to do about it."""
    content = source.content
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}; expected a dictionary of tensors"
    top, names = {str(name) for name in content}, set(_names(content))
    settings = source.settings()
    for clue, sentence in _NOT_GENERATORS:
        if clue(top, names, settings):
            return sentence
    for clue, name in _FORMATS:
        if clue(top, names, settings):
            return f"this is a {name} checkpoint; fastvoc does not open those yet"
    if not names:
        return f"holds no tensors, but {', '.join(sorted(top)[:5]) or 'nothing'}; it is not a vocoder"
    return f"holds tensors such as {', '.join(sorted(names)[:3])}, which are of no format that fastvoc knows"


def _names(content: Mapping[Any, Any]) -> list[str]:
    """Names of tensors, those of ``model``, ``generator`` and ``state_dict`` without these in front."""
    names = []
    for key, value in content.items():
        if isinstance(value, Tensor):
            names.append(str(key).removeprefix("module."))
        elif isinstance(value, Mapping):
            inner = _names(value)
            outside = "" if key in ("model", "generator", "state_dict", "model_g", "discriminator") else f"{key}."
            names += [outside + name for name in inner]
    return names
