"""Names what a file seems to be that no format opens, so that its owner knows what to do."""

from __future__ import annotations

from collections.abc import Mapping

from fastvoc.checkpoints.format import Clue, Seen, names_begin, top_has
from fastvoc.checkpoints.formats import FORMATS
from fastvoc.checkpoints.networks import HOLDERS, dictionaries, tensors_of
from fastvoc.checkpoints.reading.source import Source


def _contains(text: str) -> Clue:
    return lambda seen: any(text in name for name in seen.names)


_NOT_GENERATORS: tuple[tuple[Clue, str], ...] = (
    (
        top_has("mpd", "mrd"),
        "holds the discriminators and optimizers of a BigVGAN run; open bigvgan_generator.pt beside it, or the g_ file "
        "of the same step",
    ),
    (
        top_has("mpd", "msd", "mpd_ema"),
        "holds the discriminators of a run of NVIDIA DeepLearningExamples; open its hifigan_gen_checkpoint_ file",
    ),
    (
        top_has("mpd", "msd"),
        "holds the discriminators and optimizers of a HiFi-GAN run (a do_ file); open the g_ file of the same step",
    ),
    (names_begin("model.disc_0."), "is the discriminator of MelGAN (netD.pt); open netG.pt or best_netG.pt beside it"),
    (
        names_begin("mpd.discriminators.", "msd.discriminators.", "discriminators.", "model_d.", "mpd.", "msd."),
        "holds discriminators, which training needs; open the file of the generator",
    ),
    (top_has("state", "param_groups"), "holds the state of an optimizer; open the file of the generator"),
    (
        lambda seen: bool(seen.top) and all(name.startswith(("optim", "scheduler", "scaler")) for name in seen.top),
        "holds the state of optimizers; open the file of the generator",
    ),
)
"""What lies beside generators."""

UNOPENED: dict[str, tuple[str, Clue]] = {
    "bigvgan-of-latents": (
        "IndexTTS's BigVGAN, which takes no mel but what a language model says, and a speaker",
        lambda seen: (
            any(".act.alpha" in name for name in seen.names)
            and any(name.startswith(("cond_layer.", "conds.", "speaker_encoder.")) for name in seen.names)
        ),
    ),
    "hiftnet": ("HiFTNet or NSF-HiFi-GAN", names_begin("m_source.", "noise_convs.")),
    "univnet": ("UnivNet", _contains("kernel_predictor.")),
    "style-melgan": ("StyleMelGAN", names_begin("noise_upsample.", "generator.noise_upsample.")),
    "parallel-wavegan-wavenet": (
        "Parallel WaveGAN, the WaveNet of that name",
        names_begin("first_conv.", "generator.first_conv."),
    ),
    "jets": ("ESPnet JETS, whose vocoder takes no mel", names_begin("tts.generator.generator.")),
    "espnet-vits": ("ESPnet VITS, whose vocoder takes no mel", names_begin("tts.generator.decoder.")),
    "espnet-mel": (
        "ESPnet text-to-mel",
        lambda seen: names_begin("tts.")(seen) and not names_begin("tts.generator.vocoder.")(seen),
    ),
    "fish": (
        "a fish vocoder",
        names_begin("backbone.downsample_layers.", "backbone.channel_layers.", "head.resblocks.0.blocks."),
    ),
    "fish-blocks": ("a fish vocoder", _contains("resblocks.0.blocks.0.")),
    "vits": ("VITS, whose decoder takes no mel", names_begin("dec.conv_pre", "dec.ups.")),
    "xtts": ("XTTS, whose decoder takes no mel", names_begin("hifigan_decoder.", "waveform_decoder.")),
    "wavernn": ("WaveRNN", names_begin("rnn1.", "I.weight")),
    "diffwave": ("DiffWave", _contains("diffusion_embedding.")),
    "parallel-wavegan-symbols": (
        "a ParallelWaveGAN vocoder of discrete symbols or of several speakers",
        names_begin("emb.", "global_conv."),
    ),
}
"""Vocoders that are told apart but not opened, the particular before the general; a `Format` of the same name takes the
place of one."""

_ASIDE = (
    *("mpd", "msd", "mrd", "discriminator", "model_d", "model.disc_", "net_d", "netd"),
    *("optim", "scheduler", "scaler"),
)
"""Beginnings of the names of what is no generator, in lower case."""


def describe(source: Source) -> str:
    """Say what a file seems to be, and what to do about it."""
    content = source.content
    if not isinstance(content, Mapping):
        return f"holds a {type(content).__name__}; expected a dictionary of tensors"
    # names of tensors, behind those of the dictionaries that hold them
    flat = [
        f"{place.replace('/', '.')}{name}"
        for place, inner in dictionaries(content)
        for name in tensors_of(inner, str(source.file))
    ]
    settings = source.settings("config.json")
    seen = Seen(source.top, {name for full in flat for name in _shortened(full)}, settings)
    opened = {one.name for one in FORMATS}
    for name, (title, clue) in UNOPENED.items():
        if name not in opened and clue(seen):
            return f"is a checkpoint of {title}; fastvoc does not open those yet"
    others = [name for name in flat if not name.lower().startswith(_ASIDE)]
    for clue, sentence in _NOT_GENERATORS:
        if clue(seen._replace(names=set(flat))) and all(name.startswith("state.") for name in others):
            return sentence
    for one in FORMATS:
        if one.clue is not None and one.clue(seen) and (absent := one.absent(source)):
            return f"seems to be a part of a checkpoint of {one.title}; it lacks {', '.join(absent)}"
    if "state_dict" in source.top:
        return "is a checkpoint of PyTorch Lightning, of no vocoder that fastvoc knows; save its generator alone"
    if not flat:
        return f"holds no tensors, but {', '.join(sorted(source.top)[:5]) or 'nothing'}; it is not a vocoder"
    some = ", ".join(sorted(others or flat)[:3])
    ours = "" if settings else "; if these are weights of fastvoc, config.json is not beside them: name it as config="
    return f"holds tensors such as {some}, which are of no format that fastvoc knows{ours}"


def _shortened(name: str) -> list[str]:
    """Return a name, and what is left of it without the names of holders in front, one after the other."""
    names = [name]
    while "." in name and name.partition(".")[0].lower() in {*HOLDERS, "gen_ema"}:
        name = name.partition(".")[2]
        names.append(name)
    return names
