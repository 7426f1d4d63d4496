"""One generator's weights in the form that each engine starts from."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.plain import PlainGenerator
from fastvoc import Vocoder
from fastvoc.checkpoints.formats import transformers
from fastvoc.checkpoints.tensor_names import from_native
from fastvoc.models import HiFiGANConfig


def write_files(folder: Path, vocoder: Vocoder, names: Collection[str]) -> None:
    """Write one generator's weights in the form that each engine starts from.

    Parameters
    ----------
    folder : Path
        Made if absent. Gets ``fastvoc/``, ``plain.pt`` and ``planar.pt``.
    vocoder : Vocoder
        In single precision, on the CPU.
    names : collection of str
        What else is wanted, and takes long: ``"plain.onnx"``; ``"transformers"``, which there is for HiFi-GANs with the
        first kind of block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocoder.save_pretrained(folder / "fastvoc")
    plain = PlainGenerator(vocoder.generator)
    torch.save(plain, folder / "plain.pt")
    torch.save(PlainGenerator(vocoder.generator, planar=True), folder / "planar.pt")
    if "plain.onnx" in names:
        write_onnx(folder / "plain.onnx", plain, vocoder.generator.mel_bands)
    config = vocoder.config.generator
    if isinstance(config, HiFiGANConfig) and config.block == "1" and "transformers" in names:
        _write_transformers(folder / "transformers", vocoder)


def write_onnx(path: Path, plain: Any, bands: int) -> None:
    """Write a plain generator as ONNX, of mels of any number and length."""
    mel = torch.zeros(2, bands, 32)
    frames, batch = torch.export.Dim("frames", min=8, max=1 << 20), torch.export.Dim("batch", max=4096)
    torch.onnx.export(
        plain,
        (mel,),
        str(path),
        input_names=["mel"],
        output_names=["wave"],
        dynamic_shapes=({0: batch, 2: frames},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _write_transformers(folder: Path, vocoder: Vocoder) -> None:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    ours: Any = vocoder.config.generator
    config = SpeechT5HifiGanConfig(
        model_in_dim=ours.mel_bands,
        sampling_rate=vocoder.sample_rate,
        upsample_initial_channel=ours.channels,
        upsample_rates=list(ours.rates),
        upsample_kernel_sizes=list(ours.rate_kernel_sizes),
        resblock_kernel_sizes=list(ours.kernel_sizes),
        resblock_dilation_sizes=[list(dilations) for dilations in ours.dilations],
        leaky_relu_slope=ours.slope,
        normalize_before=False,
    )
    network = SpeechT5HifiGan(config)
    state = from_native(vocoder.generator.state_dict(), transformers.table(ours), weight_norm=False)
    network.load_state_dict(state, strict=False)  # its mean and scale are not used
    network.save_pretrained(folder)
