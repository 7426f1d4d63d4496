"""iSTFTNet as rishikksh20/iSTFTNet-pytorch d10fe7d saves it: the files of HiFi-GAN with another head.

Files
    As `fastvoc.checkpoints.formats.hifigan`; ``config.json`` adds ``gen_istft_n_fft`` and ``gen_istft_hop_size``, and
    ``conv_post`` has two channels more than the former.
Mel
    HiFi-GAN's; its hop is the product of the up-sampling rates and of the hop of the transform.
"""

from __future__ import annotations

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints.checkpoint import Checkpoint
from fastvoc.checkpoints.format import Format
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.checkpoints.tensor_names import Table, to_native
from fastvoc.config import from_dict
from fastvoc.models import ISTFTNetConfig
from fastvoc.models.istftnet import C8C8I

ISTFT = {"gen_istft_n_fft": "fft_size", "gen_istft_hop_size": "istft_hop"}
"""The original's names of settings, and those of `ISTFTNetConfig`."""


def recognises(source: Source) -> bool:
    """Whether the tensors have HiFi-GAN's names, and the settings ask for an inverse transform."""
    return hifigan.is_layout(source.state()) and "gen_istft_n_fft" in source.settings(*hifigan.names(source))


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, notes = hifigan.checked_settings(source, frozenset(ISTFT))
    values = {ours: settings[theirs] for theirs, ours in ISTFT.items()}
    where = str(source.settings_path(*hifigan.names(source)))
    trunk = hifigan.network(hifigan.generator_settings(settings), where)
    generator: ISTFTNetConfig = from_dict(ISTFTNetConfig, {"trunk": trunk, **values}, where)
    config = hifigan.vocoder_config(generator, settings, where)
    weights = to_native(source.state(), table(generator), generator, str(source.file))
    notes = (*notes, *hifigan.longer(generator))
    return Checkpoint(config, weights, "iSTFTNet (rishikksh20) generator", notes)


def table(config: ISTFTNetConfig) -> Table:
    """List the pairs (original layer, native layer)."""
    return hifigan.table(config.trunk)


FORMAT = Format(
    name="istftnet",
    title="iSTFTNet (rishikksh20)",
    files=hifigan.FORMAT.files,
    places=hifigan.PLACES,
    recognises=recognises,
    read=read,
    presets={
        "istftnet": hifigan.settings_of(C8C8I.trunk, CONVENTIONS["hifigan"])
        | {theirs: getattr(C8C8I, ours) for theirs, ours in ISTFT.items()}
    },
)
