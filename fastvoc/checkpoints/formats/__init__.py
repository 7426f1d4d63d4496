"""One module for each project whose files are opened, and the list of them."""

from __future__ import annotations

from fastvoc.checkpoints.format import Formats
from fastvoc.checkpoints.formats import (
    bigvgan,
    bshall,
    coqui,
    deep_learning_examples,
    espnet,
    gansynth,
    gpt_sovits,
    hifigan,
    istftnet,
    melgan,
    native,
    nemo,
    nsynth,
    nv_wavenet,
    parallel_wavegan,
    seungwonpark,
    speechbrain,
    transformers,
    vocos,
    waveglow,
    wavenet_vocoder,
)

FORMATS = Formats(
    native.FORMAT,
    deep_learning_examples.FORMAT,
    nemo.FORMAT,
    nsynth.FORMAT,
    gansynth.FORMAT,
    seungwonpark.FORMAT,
    wavenet_vocoder.FORMAT,
    nv_wavenet.FORMAT,
    waveglow.FORMAT,
    espnet.FORMAT,
    parallel_wavegan.FORMAT,
    coqui.FORMAT,
    speechbrain.FORMAT,
    transformers.FORMAT,
    vocos.FORMAT,
    gpt_sovits.FORMAT,
    bshall.FORMAT,
    bigvgan.FORMAT,
    istftnet.FORMAT,
    hifigan.FORMAT,
    melgan.FORMAT,
)
"""The particular before the general: several have the names of HiFi-GAN's tensors, and something more."""
