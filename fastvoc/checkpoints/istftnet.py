"""iSTFTNet as rishikksh20/iSTFTNet-pytorch d10fe7d saves it: the files of HiFi-GAN with another head.

Files
    As `fastvoc.checkpoints.hifigan`; ``config.json`` adds ``gen_istft_n_fft`` and ``gen_istft_hop_size``, and
    ``conv_post`` has two channels more than the former.
Mel
    HiFi-GAN's; its hop is the product of the up-sampling rates and of the hop of the transform.
"""

from __future__ import annotations

from fastvoc.checkpoints import hifigan
from fastvoc.checkpoints._keys import Table, to_native
from fastvoc.checkpoints._source import Source
from fastvoc.checkpoints.checkpoint import Checkpoint
from fastvoc.config import from_dict
from fastvoc.models import ISTFTNetConfig

FILES = hifigan.FILES

ISTFT = {"gen_istft_n_fft": "fft_size", "gen_istft_hop_size": "istft_hop"}
"""The original's names of settings, and those of `ISTFTNetConfig`."""


def recognises(source: Source) -> bool:
    """Whether the tensors have HiFi-GAN's names, and the settings ask for an inverse transform."""
    return hifigan.is_layout(source.state(*hifigan.PLACES)) and "gen_istft_n_fft" in source.settings(
        *hifigan.names(source)
    )


def read(source: Source) -> Checkpoint:
    """Read a generator and the settings beside it."""
    settings, notes = hifigan.checked_settings(source, frozenset(ISTFT))
    values = {ours: settings[theirs] for theirs, ours in ISTFT.items()}
    where = str(source.settings_path(*hifigan.names(source)))
    generator: ISTFTNetConfig = from_dict(
        ISTFTNetConfig, {"trunk": hifigan.generator_settings(settings), **values}, where
    )
    config = hifigan.vocoder_config(generator, settings, where)
    weights = to_native(source.state(*hifigan.PLACES), table(generator), generator, str(source.file))
    return Checkpoint(config, weights, "iSTFTNet (rishikksh20) generator", notes)


def table(config: ISTFTNetConfig) -> Table:
    """List the pairs (original layer, native layer)."""
    return hifigan.table(config.trunk)
