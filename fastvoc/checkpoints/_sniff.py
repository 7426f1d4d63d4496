"""Names what a file seems to be that no format opens, so that its owner knows what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fastvoc.checkpoints._source import Source

Clue = Callable[[set[str], set[str], Mapping[str, Any]], bool]
"""Takes the names at the top, the names of tensors, and the settings."""


def _prefix(*starts: str) -> Clue:
    return lambda top, names, settings: any(name.startswith(starts) for name in names)


def _part(text: str) -> Clue:
    return lambda top, names, settings: any(text in name for name in names)


def _top(*wanted: str) -> Clue:
    return lambda top, names, settings: set(wanted) <= top


_NOT_GENERATORS: tuple[tuple[Clue, str], ...] = (
    (
        _top("mpd", "mrd"),
        "holds the discriminators and optimizers of a BigVGAN run; its generator is in another file, and fastvoc does "
        "not open those yet",
    ),
    (
        _top("mpd", "msd", "mpd_ema"),
        "holds the discriminators of a run of NVIDIA DeepLearningExamples; open its hifigan_gen_checkpoint_ file",
    ),
    (
        _top("mpd", "msd"),
        "holds the discriminators and optimizers of a HiFi-GAN run (a do_ file); open the g_ file of the same step",
    ),
    (_prefix("model.disc_0."), "is the discriminator of MelGAN (netD.pt); open netG.pt or best_netG.pt beside it"),
    (
        _prefix("mpd.discriminators.", "msd.discriminators.", "discriminators.", "model_d.", "mpd.", "msd."),
        "holds discriminators, which training needs; open the file of the generator",
    ),
    (_top("state", "param_groups"), "holds the state of an optimizer; open the file of the generator"),
    (
        lambda top, names, settings: (
            bool(top) and all(name.startswith(("optim", "scheduler", "scaler")) for name in top)
        ),
        "holds the state of optimizers; open the file of the generator",
    ),
)
"""What lies beside generators."""

_UNOPENED: tuple[tuple[Clue, str], ...] = (
    (lambda top, names, settings: any(".act.alpha" in n for n in names) or "snake_logscale" in settings, "BigVGAN"),
    (_prefix("m_source.", "noise_convs."), "HiFTNet or NSF-HiFi-GAN"),
    (_part("kernel_predictor."), "UnivNet"),
    (_prefix("noise_upsample.", "generator.noise_upsample."), "StyleMelGAN"),
    (_prefix("first_conv.", "generator.first_conv."), "Parallel WaveGAN, the WaveNet of that name"),
    (_prefix("convinv.0.", "WN.0.", "waveglow."), "WaveGlow"),
    (_prefix("tts.generator.generator."), "ESPnet JETS, whose vocoder takes no mel"),
    (_prefix("tts.generator.decoder."), "ESPnet VITS, whose vocoder takes no mel"),
    (
        lambda top, names, settings: (
            any(n.startswith("tts.") for n in names) and not any(n.startswith("tts.generator.vocoder.") for n in names)
        ),
        "ESPnet text-to-mel",
    ),
    (_prefix("backbone.convnext.", "backbone.embed."), "Vocos"),
    (_prefix("backbone.downsample_layers.", "backbone.channel_layers.", "head.resblocks.0.blocks."), "a fish vocoder"),
    (_part("resblocks.0.blocks.0."), "a fish vocoder"),
    (_prefix("dec.conv_pre", "dec.ups."), "VITS, whose decoder takes no mel"),
    (_prefix("hifigan_decoder.", "waveform_decoder."), "XTTS, whose decoder takes no mel"),
    (_prefix("rnn1.", "I.weight"), "WaveRNN"),
    (_part("diffusion_embedding."), "DiffWave"),
    (_prefix("emb.", "global_conv."), "a ParallelWaveGAN vocoder of discrete symbols or of several speakers"),
)
"""Vocoders that are told apart but not opened, the particular before the general."""

_INCOMPLETE: tuple[tuple[Clue, str], ...] = (
    (_top("model_g", "hp_str"), "MelGAN (seungwonpark)"),
    (_prefix("model_g.", "model_disc."), "Coqui"),
    (_top("model", "model_disc"), "Coqui"),
    (_prefix("tts.generator.vocoder."), "ESPnet text2wav"),
    (_prefix("melgan.", "input_conv."), "ParallelWaveGAN"),
    (_prefix("resblocks.0.0."), "NeMo HiFi-GAN"),
    (_prefix("conv_pre.conv."), "SpeechBrain HiFi-GAN"),
    (_prefix("upsampler.0.", "vocoder.upsampler.0."), "Hugging Face transformers HiFi-GAN"),
    (_prefix("conv_pre.", "conv_post.", "resblocks."), "HiFi-GAN"),
)
"""Formats that are opened, of which a part was found."""


def describe(source: Source) -> str:
    """Say what a file seems to be, and what to do about it."""
    content = source.content
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}; expected a dictionary of tensors"
    top, names = source.top, set(_names(content))
    settings = source.settings("config.json")
    for clue, name in _UNOPENED:
        if clue(top, names, settings):
            return f"is a checkpoint of {name}; fastvoc does not open those yet"
    for clue, sentence in _NOT_GENERATORS:
        if clue(top, names, settings):
            return sentence
    for clue, name in _INCOMPLETE:
        if clue(top, names, settings):
            return f"seems to be a part of a checkpoint of {name}; it lacks layers that every one has"
    if "state_dict" in top:
        return "is a checkpoint of PyTorch Lightning, of no vocoder that fastvoc knows; save its generator alone"
    if not names:
        return f"holds no tensors, but {', '.join(sorted(top)[:5]) or 'nothing'}; it is not a vocoder"
    return f"holds tensors such as {', '.join(sorted(names)[:3])}, which are of no format that fastvoc knows"


def _names(content: Mapping[Any, Any], depth: int = 0) -> list[str]:
    """Names of tensors, those of ``model``, ``generator`` and ``state_dict`` without these in front."""
    names = []
    for key, value in content.items():
        if isinstance(value, Tensor):
            names.append(str(key).removeprefix("module."))
        elif isinstance(value, Mapping) and depth < 4:
            inner = _names(value, depth + 1)
            outside = "" if key in ("model", "generator", "state_dict", "model_g", "gen_ema") else f"{key}."
            names += [(outside + name).removeprefix("generator.") for name in inner]
    return names
