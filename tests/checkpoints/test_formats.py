"""Every foreign format: files in the original's layout are opened, and the network makes the original's samples."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import foreign
import numpy as np
import pytest
import torch
import yaml
from golden import MEL, draw, ends_and_middle, named_values
from safetensors.torch import save_file

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig, Normalization, PqmfConfig, synthesis_weight
from fastvoc.audio.mels.spectrogram import loud_mel
from fastvoc.checkpoints import (
    Checkpoint,
    InferenceFrames,
    VocoderConfig,
    foreign_settings,
    open_checkpoint,
    save_native,
)
from fastvoc.checkpoints.formats import bshall as bshall_format
from fastvoc.checkpoints.formats import (
    coqui,
    deep_learning_examples,
    espnet,
    gpt_sovits,
    nemo,
    parallel_wavegan,
    transformers,
)
from fastvoc.cli import main
from fastvoc.models import Generator, HiFiGANConfig, ISTFTNetConfig, MelGANConfig
from fastvoc.models.hifigan import V1
from fastvoc.models.melgan import DESCRIPT, MULTI_BAND

PWG = replace(V1, crop_rule="output-padded")
PWG_24K = replace(PWG, rates=(5, 5, 4, 3), rate_kernel_sizes=(10, 10, 8, 6))
SPEECHT5 = replace(V1, rates=(4, 4, 4, 4), rate_kernel_sizes=(8, 8, 8, 8), standardised=True)
CONFORMER = replace(V1, standardised=True)
SPEECHBRAIN = replace(V1, padding_mode="reflect")
NEMO_44K = replace(V1, rates=(8, 8, 4, 2), rate_kernel_sizes=(16, 16, 4, 4))
NVIDIA = replace(V1, kernel_sizes=(11, 7, 3))
NEMO_44K_MEL = replace(CONVENTIONS["nemo-44k"], bands=80)

TINY = HiFiGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3, 5), dilations=((1,), (2,)))
TINY_MEL = MelConfig(sample_rate=16000, fft_size=32, hop=8, window_size=24, bands=80, low=0, high=7000)
TINY_ISTFT_MEL = replace(TINY_MEL, hop=16)
TINY_MELGAN = MelGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), units=2)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Threads only wait for each other where other processes run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


def build(checkpoint: Checkpoint) -> Generator:
    network: Generator = checkpoint.config.generator.build().double().eval()
    network.load_state_dict(checkpoint.weights)
    return network


def matches(wave: torch.Tensor, mean: float, deviation: float, listed: list[float]) -> None:
    found = [float(wave.mean()), float(wave.std(correction=0)), *ends_and_middle(wave)]
    assert found == pytest.approx([mean, deviation, *listed], rel=0, abs=6e-7)  # six decimals are known


# fmt: off
GOLDEN: dict[str, tuple[Callable[..., Path], Any, str, tuple[Any, ...], tuple[Any, ...]]] = {
    "ParallelWaveGAN melgan.v1": (
        foreign.parallel_wavegan, DESCRIPT, "parallel-wavegan",
        (-0.420896, 0.209759, [0.133951, -0.638492, -0.055363, -0.012836, -0.652409, -0.340430, -0.633163]), ()),
    "ParallelWaveGAN multi_band_melgan.v2": (
        foreign.parallel_wavegan, MULTI_BAND, "parallel-wavegan",
        (0.309559, 0.958959, [-0.756005, 0.455544, 1.793258, -0.747379, 0.508612, -0.301136, -0.548972]), ()),
    "ParallelWaveGAN hifigan.v1": (
        foreign.parallel_wavegan, PWG, "parallel-wavegan",
        (-0.374192, 0.070063, [-0.188216, -0.193218, -0.151184, -0.260658, -0.359252, -0.144425, 0.071162]), ()),
    "ParallelWaveGAN hifigan.v1 24 kHz": (
        foreign.parallel_wavegan, PWG_24K, "parallel-wavegan-24k",
        (-0.167529, 0.087289, [-0.105382, -0.056171, -0.061549, -0.289710, -0.226444, 0.056404, 0.054184]), ()),
    "ParallelWaveGAN causal HiFi-GAN": (
        foreign.parallel_wavegan, replace(PWG, causal=True), "parallel-wavegan",
        (-0.116900, 0.120592, [0.008772, -0.047025, -0.030205, -0.052698, -0.253902, 0.079247, -0.132486]), ()),
    "ParallelWaveGAN causal MelGAN": (
        foreign.parallel_wavegan, replace(DESCRIPT, causal=True), "parallel-wavegan",
        (-0.187050, 0.163862, [-0.403084, -0.319745, -0.139369, -0.200725, -0.359771, -0.193697, -0.260296]), ()),
    "seungwonpark": (
        foreign.seungwonpark, DESCRIPT, "tacotron2",
        (0.163211, 0.163483, [-0.054642, 0.241990, 0.435713, -0.070487, 0.244469, 0.189574, 0.103749]), ()),
    "SpeechT5": (
        foreign.speecht5, SPEECHT5, "speecht5",
        (-0.142073, 0.074443, [-0.077898, -0.158002, -0.198026, -0.116543, -0.257546, -0.217234, -0.216341]), ()),
    "FastSpeech2Conformer": (
        foreign.conformer, CONFORMER, "espnet",
        (-0.209042, 0.070861, [-0.091355, -0.072343, -0.147776, -0.200714, -0.165593, -0.253261, -0.285124]), ()),
    "SpeechBrain": (
        foreign.speechbrain, SPEECHBRAIN, "tacotron2",
        (0.165530, 0.065536, [0.284893, 0.193589, 0.319597, 0.186628, 0.195832, 0.210394, 0.257537]),
        (0.168125, 0.067191, [0.274182, 0.197081, 0.314742, 0.183466, 0.196259, 0.201861, 0.175007])),
    "Coqui HiFi-GAN": (
        foreign.coqui, V1, "coqui-ln",
        (0.060182, 0.059079, [-0.206222, -0.138929, -0.116802, 0.041133, 0.046195, 0.075060, -0.003406]),
        (0.060630, 0.060484, [-0.202578, -0.127735, -0.110191, 0.042885, 0.045637, 0.068897, -0.002706])),
    "Coqui MelGAN": (
        foreign.coqui, DESCRIPT, "coqui",
        (-0.013151, 0.362637, [0.305244, -0.188022, -0.018538, -0.333287, -0.127416, 0.377058, 0.063676]),
        (-0.014772, 0.366555, [0.348702, -0.266763, 0.163791, -0.333287, -0.127416, 0.379703, 0.024232])),
    "Coqui multi-band MelGAN": (
        foreign.coqui, replace(MULTI_BAND, pqmf=PqmfConfig(cutoff=0.15)), "coqui", (),
        (-0.800729, 1.361267, [-2.907061, -1.507989, -0.275852, -3.241748, -0.649273, -0.820640, 0.677018])),
    "NeMo": (
        foreign.nemo, V1, "nemo",
        (-0.196349, 0.055105, [-0.127447, -0.198309, -0.172439, -0.190108, -0.039050, -0.166680, -0.148745]), ()),
    "NeMo 44.1 kHz": (
        foreign.nemo, NEMO_44K, "nemo-44k",
        (-0.206115, 0.043095, [-0.123357, -0.239498, -0.170460, -0.195757, -0.211731, -0.212520, -0.104988]), ()),
}
"""Writer, configuration, convention; what the network makes of a mel, and what the original's inference makes of it."""
# fmt: on

MELS = CONVENTIONS | {"coqui-ln": foreign.COQUI_MEL, "nemo-44k": NEMO_44K_MEL}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_file_on_disk_makes_the_original_samples(tmp_path: Path, name: str) -> None:
    writer, config, convention, forward, inference = GOLDEN[name]
    vocoder = Vocoder.from_pretrained(writer(tmp_path, config, MELS[convention]), dtype=torch.float64)
    assert vocoder.config.generator == config
    assert replace(vocoder.config.mel, normalization=MELS[convention].normalization) == MELS[convention]
    if forward:
        matches(vocoder.generator(MEL), *forward)
    if inference:
        assert not vocoder.config.inference.trimmed
    if inference or vocoder.config.inference == InferenceFrames():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # normal noise is no mel of any convention
            matches(vocoder(MEL[0]), *(inference or forward))


SMALL: dict[str, tuple[Callable[..., Path], Any, MelConfig]] = {
    "official": (foreign.official, TINY, TINY_MEL),
    "iSTFTNet": (foreign.official_istftnet, ISTFTNetConfig(trunk=TINY, fft_size=8, istft_hop=2), TINY_ISTFT_MEL),
    "descript": (foreign.descript, replace(DESCRIPT, channels=16, units=1), CONVENTIONS["melgan"]),
    "ParallelWaveGAN HiFi-GAN": (foreign.parallel_wavegan, replace(TINY, crop_rule="output-padded"), TINY_MEL),
    "ParallelWaveGAN MelGAN": (foreign.parallel_wavegan, TINY_MELGAN, TINY_MEL),
    "ESPnet": (foreign.espnet, replace(TINY, crop_rule="output-padded"), TINY_MEL),
    "transformers": (foreign.speecht5, replace(TINY, standardised=True), replace(TINY_MEL, hop=8)),
    "SpeechBrain": (foreign.speechbrain, replace(TINY, padding_mode="reflect"), TINY_MEL),
    "Coqui": (foreign.coqui, TINY, replace(TINY_MEL, gain=20, logarithm="decimal")),
    "NeMo": (foreign.nemo, TINY, TINY_MEL),
    "NVIDIA": (foreign.deep_learning_examples, TINY, TINY_MEL),
}
"""Of each format a model of a few kilobytes."""


def weights_of(name: str, folder: Path, values: foreign.Values, **options: Any) -> dict[str, torch.Tensor]:
    writer, config, mel = SMALL[name]
    folder.mkdir()
    return open_checkpoint(writer(folder, config, mel, values=values, **options)).weights


@pytest.mark.parametrize("name", SMALL)
def test_small_models_have_their_configuration_and_convention(tmp_path: Path, name: str) -> None:
    writer, config, mel = SMALL[name]
    checkpoint = open_checkpoint(writer(tmp_path, config, mel))
    assert checkpoint.config.generator == config
    found = checkpoint.config.mel
    if name != "transformers":  # whose files do not say it
        assert (found.fft_size, found.window_size) == (mel.fft_size, mel.window_size)
        assert (found.low, found.high, found.sample_rate) == (mel.low, mel.high, mel.sample_rate)
    assert (found.hop, found.bands) == (mel.hop, mel.bands)
    wave = build(checkpoint)(torch.zeros(1, config.mel_bands, 9, dtype=torch.float64))
    assert wave.shape == (1, 1, 9 * config.hop)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("transformers", "descript")])
def test_bands_lie_between_the_edges_that_a_file_says(tmp_path: Path, name: str) -> None:
    writer, config, mel = SMALL[name]
    found = open_checkpoint(writer(tmp_path, config, replace(mel, low=55, high=7200))).config.mel
    assert (found.low, found.high) == (55, 7200)


@pytest.mark.parametrize("name", SMALL)
def test_a_tensor_that_is_missing_or_left_over_is_named(tmp_path: Path, name: str) -> None:
    def without(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        values = named_values(shapes)
        lost = max(name for name in values if name.endswith(".bias") and "post" not in name)
        return {name: tensor for name, tensor in values.items() if name != lost}

    def with_more(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return named_values(shapes) | {"encoder.layer.bias": torch.zeros(1)}

    with pytest.raises(ValueError, match=r"has no [\w.]+\.bias; the settings belong to other weights"):
        weights_of(name, tmp_path / "without", without)
    with pytest.raises(ValueError, match=r"has encoder\.layer\.bias, for which there is no place"):
        weights_of(name, tmp_path / "with more", with_more)


LARGE: dict[str, tuple[Callable[..., Path], Any, MelConfig]] = {
    "bshall": (foreign.bshall, bshall_format.GENERATOR, CONVENTIONS["bshall"]),
    "gpt-sovits": (foreign.gpt_sovits, gpt_sovits.GENERATOR, CONVENTIONS["gpt-sovits-v4"]),
    "seungwonpark": (foreign.seungwonpark, DESCRIPT, CONVENTIONS["tacotron2"]),
}
"""Formats whose code leaves no choice of sizes."""


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_each_tensor_that_is_taken_out_is_named(tmp_path: Path, name: str) -> None:
    writer, config, mel = (SMALL | LARGE)[name]
    names: list[str] = []

    def ones(shapes: foreign.Shapes, lost: str = "") -> dict[str, torch.Tensor]:
        names.extend(shapes if not lost else ())
        one = torch.ones(())  # the large ones take no room in a file
        return {
            name: one.expand(shape) if len(shapes) > 200 else one.repeat(shape)
            for name, shape in shapes.items()
            if name != lost
        }

    writer(tmp_path, config, mel, values=ones)
    # the first and the last layers whole; between them, steps of four meet each of the three tensors of a layer
    for lost in dict.fromkeys([*names[:6], *names[6::4][: 40 if name in SMALL else 3], *names[-3:]]):
        path = writer(tmp_path, config, mel, values=partial(ones, lost=lost))
        with pytest.raises(ValueError) as caught:
            open_checkpoint(path)
        layer = lost.rpartition(".")[0].removesuffix(".parametrizations.weight")
        missing = re.search(r"(?:has no|lacks) ([^;]*)", str(caught.value))
        assert missing is not None, str(caught.value)
        assert lost in missing[1].split(", ") or layer in missing[1].split(", "), f"{lost}: {caught.value}"


def test_each_tensor_that_is_taken_out_of_our_own_folder_is_named(tmp_path: Path) -> None:
    standardised = replace(TINY, standardised=True)
    weights = standardised.build().state_dict()
    save_native(tmp_path, VocoderConfig(generator=standardised, mel=TINY_MEL), weights)
    for lost in weights:
        save_file({name: tensor for name, tensor in weights.items() if name != lost}, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=rf"has no {re.escape(lost)};"):
            open_checkpoint(tmp_path)


def declared(name: str, folder: Path, settings: Path) -> None:
    """Say in the settings of a format that layers have no bias."""
    values = foreign_settings.read(settings)
    if name == "official":
        values["conv_post_bias"] = False
    elif name == "Coqui":
        values["generator_model_params"]["conv_post_bias"] = False
    elif name == "ESPnet":
        values["tts_conf"]["vocoder_params"]["bias"] = False
    elif name == "SpeechBrain":
        settings.write_text(settings.read_text() + "conv_post_bias: False\n")
        return
    else:
        values["generator_params"]["bias"] = False
    settings.write_text(json.dumps(values) if settings.suffix == ".json" else yaml.dump(values))


BIAS_FREE = {
    "official": "conv_post",
    "Coqui": "conv_post",
    "SpeechBrain": "conv_post.conv",
    "ParallelWaveGAN HiFi-GAN": "",
    "ParallelWaveGAN MelGAN": "",
    "ESPnet": "",
}
"""Formats whose settings can say that the last layer, or none at all, has a bias."""


@pytest.mark.parametrize("name", BIAS_FREE)
def test_a_bias_may_be_absent_only_where_the_settings_say_so(tmp_path: Path, name: str) -> None:
    """It is zero then: the samples are those of the same network with biases of zero."""
    writer, config, mel = SMALL[name]

    def is_bias(tensor: str) -> bool:
        return tensor.endswith(".bias") and tensor.startswith(BIAS_FREE[name])

    def without(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return {tensor: value for tensor, value in named_values(shapes).items() if not is_bias(tensor)}

    def zero(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return {tensor: value * (not is_bias(tensor)) for tensor, value in named_values(shapes).items()}

    for folder in ("zero", "without"):
        (tmp_path / folder).mkdir()
    expected = open_checkpoint(writer(tmp_path / "zero", config, mel, values=zero))
    path = writer(tmp_path / "without", config, mel, values=without)
    with pytest.raises(ValueError, match=r"has no [\w.]+\.bias"):
        open_checkpoint(path)
    declared(name, path, next(file for file in path.iterdir() if file.suffix in (".json", ".yml", ".yaml")))
    with torch.device("meta"):  # a default device is not that of a file
        found = open_checkpoint(path)
    assert found.weights.keys() == expected.weights.keys()
    assert torch.equal(build(found)(MEL), build(expected)(MEL))


@pytest.mark.parametrize("name", SMALL)
def test_weights_that_are_not_finite_or_not_floats_are_refused(tmp_path: Path, name: str) -> None:
    def diverged(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return {name: torch.full_like(tensor, torch.nan) for name, tensor in named_values(shapes).items()}

    def whole(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return {name: tensor.to(torch.int32) for name, tensor in named_values(shapes).items()}

    with pytest.raises(ValueError, match="holds values that are not finite; the run that saved it had diverged"):
        weights_of(name, tmp_path / "diverged", diverged)
    with pytest.raises(ValueError, match="holds int32; weights are floats"):
        weights_of(name, tmp_path / "whole", whole)


@pytest.mark.parametrize("name", SMALL)
def test_settings_of_another_model_are_refused(tmp_path: Path, name: str) -> None:
    def wider(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        return named_values({name: (shape[0] + 1, *shape[1:]) for name, shape in shapes.items()})

    with pytest.raises(ValueError, match=r"has shape \([\d, ]+\), but the settings need \([\d, ]+\)"):
        weights_of(name, tmp_path / "wider", wider)


@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("NeMo", "NVIDIA", "descript")])
def test_missing_settings_are_asked_for(tmp_path: Path, name: str) -> None:
    writer, config, mel = SMALL[name]
    writer(tmp_path, config, mel)
    settings = next(path for path in tmp_path.iterdir() if path.suffix in (".json", ".yml", ".yaml"))
    moved = settings.rename(tmp_path.parent / f"{tmp_path.name}{settings.suffix}")
    with pytest.raises(ValueError, match=rf"there is no {settings.name} beside it; name the settings .* config="):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path, config=moved).config.generator == config


def test_settings_that_are_named_go_before_those_in_the_file(tmp_path: Path) -> None:
    """Of the formats that bring their own."""
    other = TINY_MEL.sample_rate + 1000
    for name in ("nemo", "nvidia", "seungwonpark"):
        (tmp_path / name).mkdir()
    nemo = foreign.nemo(tmp_path / "nemo", TINY, TINY_MEL)
    with tarfile.open(nemo) as archive:
        text = archive.extractfile("./model_config.yaml").read().decode()
    nvidia = foreign.deep_learning_examples(tmp_path / "nvidia", TINY, TINY_MEL)
    tacotron = CONVENTIONS["tacotron2"]
    melgan = foreign.seungwonpark(tmp_path / "seungwonpark", DESCRIPT, tacotron, values=foreign.single)
    written = torch.load(next(melgan.iterdir()))["hp_str"].replace("22050", str(other))
    for path, named in (
        (nemo, text.replace("16000", str(other))),
        (nvidia, json.dumps({"sampling_rate": other})),
        (melgan, written),
    ):
        (tmp_path / "named.yaml").write_text(named)
        assert open_checkpoint(path, config=tmp_path / "named.yaml").config.mel.sample_rate == other
        assert open_checkpoint(path).config.mel.sample_rate != other


@pytest.mark.parametrize("where", ["npy", "h5", "state"])
def test_statistics_of_a_mel_become_its_normalization(tmp_path: Path, where: str) -> None:
    mel = CONVENTIONS["parallel-wavegan"]
    narrow = replace(DESCRIPT, channels=16, units=1)
    checkpoint = open_checkpoint(foreign.parallel_wavegan(tmp_path, narrow, mel, statistics=where))
    expected = {name: tuple(values.astype(float).tolist()) for name, values in foreign.STATISTICS.items()}
    assert checkpoint.config.mel == replace(mel, normalization=Normalization(**expected))


def test_a_model_without_its_statistics_takes_mels_that_are_standardised_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known, path = tmp_path / "known", tmp_path / "unknown"
    for folder, statistics in ((known, "npy"), (path, None)):
        folder.mkdir()
        foreign.parallel_wavegan(folder, TINY_MELGAN, TINY_MEL, statistics=statistics, values=foreign.single)
    vocoder, whole = Vocoder.from_pretrained(path), Vocoder.from_pretrained(known)
    assert "it takes mels that are standardised already" in vocoder.notes[-1]
    assert vocoder.config.mel == replace(whole.config.mel, normalization=Normalization(unknown=True))
    mel = draw(1, 80, 100).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave = vocoder(mel)
    with pytest.warns(UserWarning, match=r"-\d\.\d+ on average; .* is the mel standardised"):
        vocoder(mel - 2.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(wave, whole(mel))
    with pytest.raises(ValueError, match="that standardise this convention are not known"):
        vocoder.mel(torch.zeros(4000))
    with pytest.raises(ValueError, match="standardised by statistics that are not known; give it as"):
        vocoder(mel, convention="parallel-wavegan")
    for opened in (path, tmp_path / "saved"):
        assert main(["info", str(opened)]) == 0
        assert "standardised by statistics that are not known" in capsys.readouterr().out
        vocoder.save_pretrained(tmp_path / "saved")


def test_loudness_is_guessed_where_statistics_are_unknown(tmp_path: Path) -> None:
    """For the check whether float16 is wide enough, which hears a mel of ours."""
    network, convention = replace(DESCRIPT, channels=16, units=1), CONVENTIONS["parallel-wavegan"]
    path = foreign.parallel_wavegan(tmp_path, network, convention, statistics=None, values=foreign.single)
    mel = loud_mel(open_checkpoint(path).config.mel)
    assert float(mel.mean().abs()) < 1e-4 and float(mel.std()) == pytest.approx(1, abs=0.01)


def test_unknown_statistics_have_no_values() -> None:
    with pytest.raises(ValueError, match="but unknown is true; leave out one of them"):
        Normalization(mean=1.0, unknown=True)


@pytest.mark.parametrize("lost", ["mean", "scale"])
def test_one_of_two_statistics_is_refused(tmp_path: Path, lost: str) -> None:
    path = foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL, statistics="state")
    file = next(tmp_path.glob("*.pkl"))
    content = torch.load(file)
    del content["model"]["generator"][lost]
    torch.save(content, file)
    with pytest.raises(ValueError, match=f"has no {lost} beside"):
        open_checkpoint(path)


def test_statistics_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL, statistics=None)
    np.save(tmp_path / "stats.npy", np.zeros((3, 80)))
    with pytest.raises(ValueError, match=r"stats\.npy: has shape \(3, 80\); expected two rows"):
        open_checkpoint(path)
    np.save(tmp_path / "stats.npy", np.zeros((2, 80)))
    with pytest.raises(ValueError, match=r"scale holds a zero"):
        open_checkpoint(path)
    np.save(tmp_path / "stats.npy", np.ones((2, 79)))
    with pytest.raises(ValueError, match=r"normalization.mean has 79 values for 80 bands"):
        open_checkpoint(path)


def test_hdf5_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL, statistics="h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"stats\.h5: is an HDF5 file; to read it, run: pip install 'fastvoc\[hdf5\]'"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("version", "cutoff"), [("0.4.2", 0.15), (None, 0.15), ("0.4.3", 0.142), ("0.5", 0.142), ("0.5.4a0", 0.142)]
)
def test_trap_the_version_decides_about_the_filter_bank(tmp_path: Path, version: str | None, cutoff: float) -> None:
    narrow = replace(MULTI_BAND, channels=8, units=1)
    path = foreign.parallel_wavegan(tmp_path, narrow, CONVENTIONS["parallel-wavegan"], version=version)
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.generator.pqmf == PqmfConfig(cutoff=cutoff)
    expected = synthesis_weight(PqmfConfig(cutoff=cutoff))
    assert torch.equal(checkpoint.weights["head.filters"].float(), expected)
    assert f"cutoff of the filter bank is {cutoff}" in checkpoint.notes[0]


@pytest.mark.parametrize(("version", "differs"), [("0.5.3", True), ("0.5.4", False), ("0.6", False), (None, True)])
def test_trap_the_first_hop_of_an_older_causal_model_is_noted(
    tmp_path: Path, version: str | None, differs: bool
) -> None:
    causal = replace(TINY_MELGAN, causal=True, padding_mode="reflect")
    notes = open_checkpoint(foreign.parallel_wavegan(tmp_path, causal, TINY_MEL, version=version)).notes
    assert any("a causal model of a version before 0.5.4" in note for note in notes) == differs


def test_generators_of_parallel_wavegan_that_are_not_opened_are_named(tmp_path: Path) -> None:
    path = foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL)
    settings = yaml.safe_load((tmp_path / "config.yml").read_text())
    for kind in ("StyleMelGANGenerator", "ParallelWaveGANGenerator"):
        (tmp_path / "config.yml").write_text(yaml.dump(settings | {"generator_type": kind}))
        with pytest.raises(ValueError, match=f"generator_type is {kind}; of ParallelWaveGAN fastvoc opens HiFiGANGen"):
            open_checkpoint(path)
    (tmp_path / "config.yml").write_text(yaml.dump(settings | {"generator_params": {"nonlinear_activation": "ReLU"}}))
    with pytest.raises(ValueError, match=r"generator_params: nonlinear_activation is 'ReLU'; .*'LeakyReLU'"):
        open_checkpoint(path)


def test_bshall_is_known_by_its_shapes(tmp_path: Path) -> None:
    path = foreign.bshall(tmp_path, bshall_format.GENERATOR, CONVENTIONS["bshall"], values=foreign.single)
    for opened in (path, tmp_path):
        checkpoint = open_checkpoint(opened)
        assert checkpoint.config.generator == bshall_format.GENERATOR
        assert checkpoint.config.mel == CONVENTIONS["bshall"]
        assert checkpoint.source == "HiFi-GAN (bshall) generator"


def test_seungwonpark_appends_silence_and_cuts_it(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(foreign.seungwonpark(tmp_path, DESCRIPT, CONVENTIONS["tacotron2"]))
    habit = checkpoint.config.inference
    assert habit == InferenceFrames(appended_frames=10, appended_value=-11.5129, trimmed=True)
    extended = habit.extend(MEL)
    assert extended.shape == (1, 80, 22)
    assert torch.equal(extended[..., :12], MEL) and (extended[..., 12:] == -11.5129).all()
    assert habit.cut(torch.arange(22 * 256), 256).tolist() == list(range(12 * 256))


def test_replicated_frames_are_added_and_cut(tmp_path: Path) -> None:
    habit = InferenceFrames(replicated_frames=2)
    mel = torch.arange(6.0).reshape(2, 3)
    assert habit.extend(mel).tolist() == [[0, 0, 0, 1, 2, 2, 2], [3, 3, 3, 4, 5, 5, 5]]
    assert habit.cut(torch.arange(7 * 4), 4).tolist() == list(range(8, 20))
    nothing = InferenceFrames()
    assert torch.equal(nothing.extend(mel), mel) and torch.equal(nothing.cut(mel, 4), mel)


def test_transformers_in_a_pickle_and_inside_text_to_speech_are_the_same(tmp_path: Path) -> None:
    _, config, mel = SMALL["transformers"]
    for name in ("safe", "pickled", "inside"):
        (tmp_path / name).mkdir()
    expected = open_checkpoint(foreign.speecht5(tmp_path / "safe", config, mel))
    pickled = foreign.speecht5(tmp_path / "pickled", config, mel, safe=False)
    state = torch.load(pickled / "pytorch_model.bin")
    settings = json.loads((pickled / "config.json").read_text())
    inside = {f"vocoder.{name}": tensor for name, tensor in state.items()} | {"model.encoder.bias": torch.zeros(1)}
    torch.save(inside, tmp_path / "inside" / "pytorch_model.bin")
    (tmp_path / "inside" / "config.json").write_text(json.dumps({"vocoder_config": settings}))
    for folder in (pickled, tmp_path / "inside"):
        found = open_checkpoint(folder)
        assert found.config == expected.config
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


def test_transformers_that_do_not_normalize_leave_the_statistics(tmp_path: Path) -> None:
    _, config, mel = SMALL["transformers"]
    path = foreign.speecht5(tmp_path, config, mel)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"normalize_before": False}))
    checkpoint = open_checkpoint(path)
    assert not checkpoint.config.generator.standardised
    assert "mean and scale in the file are not used" in checkpoint.notes[0]


def test_tags_in_speechbrain_settings_make_no_objects(tmp_path: Path) -> None:
    _, config, mel = SMALL["SpeechBrain"]
    path = foreign.speechbrain(tmp_path, config, mel)
    settings = (tmp_path / "hyperparams.yaml").read_text()
    trace = tmp_path / "trace"
    (tmp_path / "hyperparams.yaml").write_text(f"{settings}attack: !apply:os.system ['touch {trace}']\n")
    checkpoint = open_checkpoint(path)
    assert checkpoint.config.inference == InferenceFrames(replicated_frames=5)
    assert not trace.exists()


def test_what_speechbrain_settings_lack_is_noted_or_refused(tmp_path: Path) -> None:
    _, config, mel = SMALL["SpeechBrain"]
    path = foreign.speechbrain(tmp_path, config, mel)
    settings = (tmp_path / "hyperparams.yaml").read_text()
    (tmp_path / "hyperparams.yaml").write_text(settings.replace("sample_rate: 16000\n", "").replace("7000.0", "null"))
    assert "does not say the mel" in open_checkpoint(path).notes[0]
    (tmp_path / "hyperparams.yaml").write_text(settings + "mel_normalized: True\n")
    with pytest.raises(ValueError, match="mel_normalized is True"):
        open_checkpoint(path)
    (tmp_path / "hyperparams.yaml").write_text(settings.replace("n_fft: 32", "n_fft: !ref <win_length> * 2"))
    with pytest.raises(ValueError, match=r"n_fft is '<win_length> \* 2'"):
        open_checkpoint(path)


PARALLEL_WAVEGAN: dict[str, Any] = {
    "in_channels": 80,
    "out_channels": 1,
    "kernel_size": 7,
    "channels": 512,
    "bias": True,
    "upsample_scales": (8, 8, 2, 2),
    "use_causal_conv": False,
}
THREE: dict[str, Any] = {"resblock_kernel_sizes": (3, 7, 11)}

DEFAULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "espnet2/layers/log_mel.py, LogMelFbank": (
        espnet.Features,
        {
            "fs": 16000,
            "n_fft": 1024,
            "win_length": None,
            "hop_length": 256,
            "n_mels": 80,
            "fmin": 80,
            "fmax": 7600,
            "htk": False,
            "log_base": 10,
        },
    ),
    "TTS/config/shared_configs.py, BaseAudioConfig": (
        coqui.Features,
        {
            "fft_size": 1024,
            "win_length": 1024,
            "hop_length": 256,
            "sample_rate": 22050,
            "preemphasis": 0,
            "ref_level_db": 20,
            "min_level_db": -100,
            "log_func": "np.log10",
            "spec_gain": 20,
            "num_mels": 80,
            "mel_fmin": 0,
            "mel_fmax": None,
            "signal_norm": True,
            "symmetric_norm": True,
            "max_norm": 4,
            "clip_norm": True,
            "stats_path": None,
        },
    ),
    "nemo/collections/asr/parts/preprocessing/features.py, FilterbankFeatures": (
        nemo.Features,
        {
            "lowfreq": 0,
            "highfreq": None,
            "log": True,
            "log_zero_guard_type": "add",
            "mag_power": 2,
            "log_zero_guard_value": 2**-24,
            "pad_value": 0,
        },
    ),
    "hifigan/arg_parser.py and common/layers.py of NVIDIA": (
        deep_learning_examples.Settings,
        {
            "sampling_rate": 22050,
            "filter_length": 1024,
            "hop_length": 256,
            "win_length": 1024,
            "num_mels": 80,
            "mel_fmin": 0,
            "mel_fmax": 8000,
        },
    ),
    "transformers, SpeechT5HifiGanConfig": (
        transformers.Settings,
        {
            "model_in_dim": 80,
            "upsample_initial_channel": 512,
            "leaky_relu_slope": 0.1,
            "normalize_before": True,
            "resblock_dilation_sizes": ((1, 3, 5),) * 3,
            **THREE,
        },
    ),
    "parallel_wavegan/models/hifigan.py, HiFiGANGenerator": (
        parallel_wavegan.HiFiGANParameters,
        {
            "upsample_kernel_sizes": (16, 16, 4, 4),
            "resblock_dilations": ((1, 3, 5),) * 3,
            **THREE,
            "use_additional_convs": True,
            "nonlinear_activation_params": {"negative_slope": 0.1},
            **PARALLEL_WAVEGAN,
        },
    ),
    "parallel_wavegan/models/melgan.py, MelGANGenerator": (
        parallel_wavegan.MelGANParameters,
        {
            "stack_kernel_size": 3,
            "stacks": 3,
            "nonlinear_activation_params": {"negative_slope": 0.2},
            "pad": "ReflectionPad1d",
            "use_final_nonlinear_activation": True,
            **PARALLEL_WAVEGAN,
        },
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_settings_leave_out_has_the_default_of_the_original(name: str) -> None:
    kind, expected = DEFAULTS[name]
    fields = kind.__pydantic_fields__
    assert {field: fields[field].get_default(call_default_factory=True) for field in expected} == expected


def coqui_settings(folder: Path, **audio: Any) -> None:
    settings = foreign_settings.read(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(settings | {"audio": settings["audio"] | audio}))


def test_coqui_maps_decibels_to_a_range(tmp_path: Path) -> None:
    _, config, mel = SMALL["Coqui"]
    path = foreign.coqui(tmp_path, config, mel)
    assert open_checkpoint(path).config.mel.normalization == CONVENTIONS["coqui"].normalization
    coqui_settings(tmp_path, symmetric_norm=False, clip_norm=False, max_norm=1.0, ref_level_db=0)
    assert open_checkpoint(path).config.mel.normalization == Normalization(mean=-100, scale=100)
    coqui_settings(tmp_path, signal_norm=False)
    assert open_checkpoint(path).config.mel.normalization == Normalization()
    coqui_settings(tmp_path, preemphasis=0.98)
    with pytest.raises(ValueError, match=r"preemphasis is 0\.98"):
        open_checkpoint(path)


def test_pickled_statistics_of_coqui_are_refused_and_can_be_converted(tmp_path: Path) -> None:
    _, config, mel = SMALL["Coqui"]
    path = foreign.coqui(tmp_path, config, mel)
    coqui_settings(tmp_path, stats_path="scale_stats.npy", signal_norm=True)
    with pytest.raises(ValueError, match=r"needs the statistics of the mel, but scale_stats\.npy is not beside it"):
        open_checkpoint(path)
    mean, scale = np.full(80, -3.0), np.full(80, 2.0)
    np.save(tmp_path / "scale_stats.npy", {"mel_mean": mean, "mel_std": scale, "audio_config": {}})
    with pytest.raises(
        ValueError, match=r"holds pickled objects, which could run code .* run once: python -c"
    ) as caught:
        open_checkpoint(path)
    command = re.search(r'python -c "(.*)"', str(caught.value))
    assert command is not None
    subprocess.run([sys.executable, "-c", command[1]], cwd=tmp_path, check=True)
    assert open_checkpoint(path).config.mel.normalization == Normalization(mean=(-3.0,) * 80, scale=(2.0,) * 80)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("melgan_generator", replace(DESCRIPT, units=1)),
        ("fullband_melgan_generator", replace(DESCRIPT, units=1)),
        ("multiband_melgan_generator", replace(MULTI_BAND, units=1, pqmf=PqmfConfig(cutoff=0.15))),
    ],
)
def test_each_melgan_of_coqui_is_as_wide_as_its_code_says(tmp_path: Path, kind: str, config: Any) -> None:
    path = foreign.coqui(tmp_path, config, CONVENTIONS["coqui"])
    settings = tmp_path / "config.json"
    settings.write_text(re.sub(r'"(multiband_)?melgan_generator"', f'"{kind}"', settings.read_text()))
    found = open_checkpoint(path).config.generator
    assert (found.channels, found.units, found.rates) == (config.channels, 1, config.rates)


def test_a_filter_bank_of_coqui_belongs_to_the_multi_band_melgan(tmp_path: Path) -> None:
    config = replace(MULTI_BAND, channels=512, units=1, pqmf=PqmfConfig(cutoff=0.15))
    path = foreign.coqui(tmp_path, config, CONVENTIONS["coqui"])
    settings = tmp_path / "config.json"
    settings.write_text(settings.read_text().replace("multiband_melgan_generator", "melgan_generator"))
    with pytest.raises(ValueError, match="generator_model is melgan_generator, but the weights have a filter bank"):
        open_checkpoint(path)


def test_older_coqui_files_hold_the_bare_generator(tmp_path: Path) -> None:
    _, config, mel = SMALL["Coqui"]
    path = foreign.coqui(tmp_path, config, mel)
    expected = open_checkpoint(path)
    model = torch.load(tmp_path / "model_file.pth")["model"]
    bare = {name.removeprefix("model_g."): t for name, t in model.items() if name.startswith("model_g.")}
    del bare["conv_post.bias"]
    torch.save({"model": bare, "model_disc": {"a": torch.zeros(1)}}, tmp_path / "model_file.pth")
    settings = foreign_settings.read(tmp_path / "config.json")
    settings["generator_model_params"]["conv_post_bias"] = False
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = open_checkpoint(path)
    assert found.config == expected.config
    assert "conv_post has no bias; ours is zero" in found.notes
    assert found.weights["head.conv.bias"].tolist() == [0.0]


@pytest.mark.parametrize(
    "options", [{"mode": "w:gz"}, {"flat": True}, {"mode": "w:bz2"}], ids=["gzip", "flat", "bzip2"]
)
def test_archives_of_nemo(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    plain.mkdir()
    other.mkdir()
    expected = open_checkpoint(foreign.nemo(plain, TINY, TINY_MEL))
    path = foreign.nemo(other, TINY, TINY_MEL, **options)
    if options.get("mode") == "w:bz2":
        with pytest.raises(ValueError, match="neither a PyTorch nor a safetensors file"):
            open_checkpoint(path)
        return
    found = open_checkpoint(path)
    assert found.config == expected.config
    assert found.config.mel.last_frame == -11.52
    assert found.weights.keys() == expected.weights.keys()


def test_an_unpacked_archive_of_nemo_is_the_same(tmp_path: Path) -> None:
    """Also where PyTorch Lightning has put a name around its weights."""
    path = foreign.nemo(tmp_path, TINY, TINY_MEL)
    expected = open_checkpoint(path)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    path.unlink()
    for outer in (False, True):
        if outer:
            weights = torch.load(tmp_path / "model_weights.ckpt")
            torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "model_weights.ckpt")
        found = open_checkpoint(tmp_path)
        assert found.config == expected.config
        assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


def test_nothing_of_an_archive_becomes_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    path = foreign.nemo(folder, TINY, TINY_MEL)
    with tarfile.open(path, "a") as archive:
        for name in ("../../model_config.yaml", str(tmp_path / "model_weights.ckpt"), "../evil"):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("model_weights.ckpt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert open_checkpoint(path).config.generator == TINY
    assert sorted(found for found in tmp_path.rglob("*") if found.is_file()) == [path]


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_member_that_claims_more_than_an_archive_can_hold_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """A sparse file of 1 TiB takes a kilobyte."""
    path = tmp_path / "bomb.nemo"
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("model_config.yaml")
        archive.addfile(member, io.BytesIO())
        sparse = tarfile.TarInfo("model_weights.ckpt")
        sparse.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "model_weights.ckpt",
            "GNU.sparse.realsize": str(1 << 40),
        }
        pieces = b"1\n0\n512\n".ljust(512, b"\0") + b"PK".ljust(512, b"\0")
        sparse.size = len(pieces)
        archive.addfile(sparse, io.BytesIO(pieces))
    with tarfile.open(path) as archive:
        assert archive.getmember("model_weights.ckpt").size == 1 << 40
    read: list[str] = []
    extract = tarfile.TarFile.extractfile

    def watched(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
        read.append(member.name)
        if member.size > 1 << 30:
            raise MemoryError
        return extract(archive, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", watched)
    with pytest.raises(ValueError, match=r"is an archive without model_weights\.ckpt"):
        open_checkpoint(path)
    assert read == ["model_config.yaml"]


def test_statistics_that_were_never_written_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """HDF5 lets a small file claim any size; what was not written reads as zeros."""
    h5py = pytest.importorskip("h5py")
    path = foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL, statistics="h5")
    with h5py.File(tmp_path / "stats.h5", "w") as file:
        file.create_dataset("scale", data=np.ones(80))
        file.create_dataset("mean", shape=(1 << 40,), dtype="f8")
    assert (tmp_path / "stats.h5").stat().st_size < 1 << 16
    with pytest.raises(ValueError, match=r"stats\.h5: holds no mean and scale of the mel bands"):
        open_checkpoint(path)


def test_archives_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.nemo"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("model_config.yaml"))
    with pytest.raises(ValueError, match=r"is an archive without model_weights\.ckpt; of archives fastvoc opens"):
        open_checkpoint(path)


@pytest.mark.parametrize("options", [{"average": False}, {"flat": True}, {"twice": True}], ids=str)
def test_older_files_of_nvidia_are_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    config = replace(TINY, kernel_sizes=(11, 7, 3), dilations=((1,), (1,), (1,)))  # reversed, as the default there

    def numbered(shapes: foreign.Shapes) -> dict[str, torch.Tensor]:
        """Values that do not depend on names, which differ."""
        return {name: draw(place, *shapes[name]) for place, name in enumerate(shapes)}

    expected, found = tmp_path / "expected", tmp_path / "found"
    expected.mkdir()
    found.mkdir()
    one = open_checkpoint(foreign.deep_learning_examples(expected, config, TINY_MEL, values=numbered))
    other = open_checkpoint(foreign.deep_learning_examples(found, config, TINY_MEL, values=numbered, **options))
    assert one.config == other.config and one.config.generator == config
    assert all(torch.equal(other.weights[name], tensor) for name, tensor in one.weights.items())
    assert one.notes == ("the moving average of the weights, gen_ema, is taken",)
    assert bool(other.notes) == ("average" not in options)


@pytest.mark.parametrize("settings", ["config.json", "hifigan_T2_v1.json", None])
def test_matcha_files_without_an_ending(tmp_path: Path, settings: str | None) -> None:
    foreign.official(tmp_path, TINY, TINY_MEL)
    (tmp_path / "g_00000005").rename(tmp_path / "hifigan_T2_v1")
    elsewhere = tmp_path / "config.json"
    if settings is not None:
        elsewhere.rename(tmp_path / settings)
        assert open_checkpoint(tmp_path).config.generator == TINY
        assert open_checkpoint(tmp_path / "hifigan_T2_v1").config.generator == TINY
    else:
        elsewhere.rename(tmp_path / "v1.json")
        assert open_checkpoint(tmp_path, config=tmp_path / "v1.json").config.generator == TINY


def test_steps_in_names_count_by_value(tmp_path: Path) -> None:
    foreign.parallel_wavegan(tmp_path, TINY_MELGAN, TINY_MEL)
    (tmp_path / "checkpoint-2500000steps.pkl").rename(tmp_path / "checkpoint-1000000steps.pkl")
    (tmp_path / "checkpoint-999999steps.pkl").write_bytes(b"")
    assert open_checkpoint(tmp_path).config.generator == TINY_MELGAN


def test_names_on_the_hub_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writer, config, mel = SMALL["transformers"]
    cache = tmp_path / "cache"
    cache.mkdir()
    writer(cache, config, mel)
    asked = []

    def snapshot_download(name: str, *, ignore_patterns: list[str]) -> str:
        asked.append((name, "*.onnx" in ignore_patterns))
        if name == "microsoft/nothing":
            raise OSError("404 Client Error.\n\nRepository Not Found")
        return str(cache)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    assert open_checkpoint("microsoft/speecht5_hifigan").config.generator == config
    assert open_checkpoint(Path("microsoft/speecht5_hifigan")).config.generator == config
    with pytest.raises(FileNotFoundError, match=r"microsoft/nothing: is no path, and .* 404 Client Error\. Repository"):
        open_checkpoint("microsoft/nothing")
    assert asked == [("microsoft/speecht5_hifigan", True)] * 2 + [("microsoft/nothing", True)]


def test_names_on_the_hub_need_its_package_and_paths_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"on the Hugging Face hub, run: pip install 'fastvoc\[hub\]'"):
        open_checkpoint("microsoft/speecht5_hifigan")
    (tmp_path / "runs").mkdir()
    for path in ("runs/missing", "./microsoft/speecht5_hifigan", "g_00000001", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=r"no such file or folder$"):
            open_checkpoint(path)


def test_unusual_tensors_are_refused_before_anything_touches_them(tmp_path: Path) -> None:
    path = foreign.official(tmp_path, TINY, TINY_MEL, values=foreign.single) / "g_00000005"
    state = torch.load(path)["generator"]
    huge = torch.zeros(1).expand(1 << 20, 1 << 20, 7)  # a view, of four bytes in the file
    unusual = {
        "is a sparse, quantized or empty kind": torch.zeros(4, 80, 7).to_sparse(),
        "has shape .1048576, 1048576, 7., but the settings need": huge,
        "holds complex64": torch.zeros(4, 80, 7, dtype=torch.complex64),
    }
    for sentence, tensor in unusual.items():
        for names in ({"conv_pre.weight_v": tensor, "conv_pre.weight_g": torch.ones(1).expand(len(tensor), 1, 1)},):
            torch.save({"generator": state | names}, path)
            with pytest.raises(ValueError, match=sentence):
                open_checkpoint(path)


ABSURD: dict[str, Any] = {
    "channels that no machine holds": {"upsample_initial_channel": 2**40},
    "more stages than bits": {"upsample_rates": [2] * 40, "upsample_kernel_sizes": [4] * 40},
    "endless dilations": {"resblock_dilation_sizes": [list(range(1, 10**5))] * 2},
    "words": {"upsample_rates": "eight"},
    "nothing": {"upsample_rates": None},
    "infinity": {"fmax": float("inf")},
    "no rate": {"upsample_rates": [0, 8]},
    "no stages": {"upsample_rates": [], "upsample_kernel_sizes": []},
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_settings_are_refused_in_one_short_sentence(tmp_path: Path, name: str) -> None:
    path = foreign.official(tmp_path, TINY, TINY_MEL)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | ABSURD[name]))
    with pytest.raises(ValueError, match=r"config\.json: ") as caught:
        open_checkpoint(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"upsample_initial_channel": 2**40},
        {"resblock_kernel_sizes": [3, 2**40 + 1]},
        {"resblock_dilation_sizes": [[1, 3], [1, 2**40]]},
    ],
    ids=["a number", "in a list", "in a list of lists"],
)
def test_a_number_that_no_vocoder_has_is_named_wherever_it_stands(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = foreign.official(tmp_path, TINY, TINY_MEL)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | settings))
    with pytest.raises(ValueError, match=r"is 109951162777[67]; no vocoder has more than 65536"):
        open_checkpoint(path)


BOMBS = {
    "depth": "[" * 100_000,
    "deep objects": '{"a":' * 1000 + "1" + "}" * 1000,
    "aliases": "a: &a [1]\n" + "".join(f"{y}: &{y} [*{x}, *{x}, *{x}]\n" for x, y in pairwise("abcdefghijklmnopqrs")),
    "a mapping that holds itself": "a: &a {b: *a}",
    "a date that does not exist": "a: 2001-99-99",
    "a key that is a list": "{[1]: 2}",
    "two documents": "a: 1\n---\nb: 2",
    "a number without digits": "a: !!int ''",
    "bytes": "\x00\x01",
    "a number": "5",
}


@pytest.mark.parametrize("name", BOMBS)
def test_settings_that_are_none_are_refused_in_one_short_sentence(tmp_path: Path, name: str) -> None:
    path = foreign.official(tmp_path, TINY, TINY_MEL)
    (tmp_path / "config.json").write_text(BOMBS[name])
    with pytest.raises(ValueError, match=r"config\.json: ") as caught:
        open_checkpoint(path)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)
