"""Discriminators of the official HiFi-GAN (jik876/hifi-gan 4769534), to go on training with.

A file ``do_02500000`` holds ``mpd`` and ``msd``, with weights under weight norm and, in the first scale, spectral norm,
as older versions of PyTorch name them; and two optimisers, whose memories are of no use to other networks' variables.
"""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from fastvoc.checkpoints._safe import load
from fastvoc.train.adversary import AdversaryConfig

_PLACES = {"period": ("mpd", "networks", 5), "scale": ("msd", "scales", 7)}
"""Kind of a discriminator: its name in the file, our name of its parts, the number of its last convolution."""

_WEIGHT_NORM = {"weight_g": "original0", "weight_v": "original1"}
_SPECTRAL_NORM = {"weight_orig": "original", "weight_u": "0._u", "weight_v": "0._v"}


def read_discriminators(path: Path, config: AdversaryConfig) -> dict[str, Tensor]:
    """Read the discriminators that belong to a ``g_`` file of the same step.

    Parameters
    ----------
    path : Path
        The ``do_`` file.
    config : AdversaryConfig
        Of period and scale discriminators.

    Returns
    -------
    dict of str to Tensor
        Names of `fastvoc.train.adversary.Discriminators`.

    Raises
    ------
    ValueError
        If the file is another one, or `config` has discriminators that it does not hold.
    """
    content = load(path)
    weights: dict[str, Tensor] = {}
    for number, discriminator in enumerate(config.discriminators):
        if discriminator.kind not in _PLACES:
            raise ValueError(f"{path}: holds no {discriminator.kind} discriminator; only {' and '.join(_PLACES)}")
        place, parts, last = _PLACES[discriminator.kind]
        tensors = content.get(place) if isinstance(content, dict) else None
        if not isinstance(tensors, dict):
            raise ValueError(f"{path}: holds no {place!r}; needs the do_ file of an official HiFi-GAN")
        for name, value in tensors.items():
            found = re.fullmatch(r"(?:module\.)?discriminators\.(\d+)\.(?:convs\.(\d+)|conv_post)\.(\w+)", name)
            if found is None:
                raise ValueError(
                    f"{path}: {place} has a tensor {name!r}; official discriminators have none of that name"
                )
            norm = _SPECTRAL_NORM if name.replace(found[3], "weight_orig") in tensors else _WEIGHT_NORM
            ours = f"parametrizations.weight.{norm[found[3]]}" if found[3] in norm else found[3]
            weights[f"networks.{number}.{parts}.{found[1]}.convs.{found[2] or last}.{ours}"] = value
    return weights
