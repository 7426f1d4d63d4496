"""What cannot be is refused with a sentence that says where, which value, and what would be right."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch
import yaml

from fastvoc.audio import CONVENTIONS, PqmfConfig, pqmf_analysis, pqmf_synthesis
from fastvoc.audio.picture import draw_comparison
from fastvoc.blocks import Upsample
from fastvoc.checkpoints import foreign_settings, open_checkpoint, statistics
from fastvoc.checkpoints.reading import safe_loading
from fastvoc.cli.vocoder.mel_files import read_mel
from fastvoc.config import read_plain
from fastvoc.models import GriffinLimNetConfig, HiFiGANConfig, MelGANConfig
from fastvoc.ops import availability, conv1d, residual, strided_conv1d, upsample
from fastvoc.train.config import load_config
from fastvoc.train.learning.optimisers import OptimiserConfig, ScheduleConfig
from fastvoc.train.learning.weight_norm import load_plain_weights
from fastvoc.train.report.validation import measure

MEL = replace(CONVENTIONS["hifigan"], fft_size=64, hop=16, window_size=64)
HIFIGAN = HiFiGANConfig(channels=16, rates=(4, 4), rate_kernel_sizes=(8, 8), kernel_sizes=(3,), dilations=((1, 3),))
MELGAN = MelGANConfig(channels=16, rates=(4, 4), rate_kernel_sizes=(8, 8), units=1)
NETWORK = GriffinLimNetConfig(mel_bands=6, channels=8, fft_size=64, hop=16, iterations=1)
ADAM = OptimiserConfig(kind="adam", learning_rate=1e-3)
ADVERSARY = load_config("hifigan-v1", {"data.recordings": "nowhere"}).adversary
PADDED: dict[str, Any] = {"crop_rule": "output-padded"}

CONFIGURATIONS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "HiFi-GAN, rates": (HIFIGAN, {"rates": (4, 4, 2)}, r"3 rates need as many rate_kernel_sizes, not \(8, 8\)"),
    "HiFi-GAN, kernels": (HIFIGAN, {"kernel_sizes": (3, 5)}, "2 kernel_sizes need as many lists of dilations"),
    "HiFi-GAN, dilations": (
        HIFIGAN,
        {"kernel_sizes": (3, 5), "dilations": ((1, 3), (1,))},
        "must be equally many for each kernel size",
    ),
    "HiFi-GAN, even": (HIFIGAN, {"kernel_sizes": (4,)}, r"kernel_sizes \(4,\) must be odd"),
    "HiFi-GAN, halves": (HIFIGAN, {"channels": 18}, "channels 18 cannot be halved 2 times"),
    "HiFi-GAN, short": (HIFIGAN, {"rate_kernel_sizes": (8, 2)}, "2 taps does not multiply the length by 4 exactly"),
    "HiFi-GAN, padded": (HIFIGAN, PADDED | {"rate_kernel_sizes": (8, 6)}, "rate 4 needs 8 taps with this crop_rule"),
    "HiFi-GAN, causal": (HIFIGAN, {"causal": True, "rate_kernel_sizes": (8, 6)}, "rate 4 needs 8 taps with this crop"),
    "MelGAN, rates": (MELGAN, {"rates": (4,)}, r"1 rates need as many rate_kernel_sizes, not \(8, 8\)"),
    "MelGAN, halves": (MELGAN, {"channels": 18}, "channels 18 cannot be halved 2 times"),
    "MelGAN, even": (MELGAN, {"unit_kernel_sizes": (3, 2)}, r"unit_kernel_sizes \(3, 2\) must be odd"),
    "MelGAN, padded": (MELGAN, PADDED | {"rate_kernel_sizes": (8, 6)}, "rate 4 needs 8 taps with this crop_rule"),
    "MelGAN, causal": (MELGAN, {"causal": True, "rate_kernel_sizes": (8, 6)}, "rate 4 needs 8 taps with this crop"),
    "Griffin-Lim, hop": (NETWORK, {"hop": 24}, "fft_size 64 must be even, a multiple of hop 24, and even beyond it"),
    "Griffin-Lim, odd": (
        NETWORK,
        {"fft_size": 30, "hop": 15},
        "fft_size 30 must be even, a multiple of hop 15, and even",
    ),
    "Griffin-Lim, odd transform": (
        NETWORK,
        {"fft_size": 45, "hop": 15},
        "fft_size 45 must be even, a multiple of hop 15",
    ),
    "steps": (ScheduleConfig(), {"kind": "steps"}, "a schedule of steps needs milestones"),
    "cosine": (ScheduleConfig(), {"kind": "cosine"}, "a cosine needs its length"),
    "RAdam": (ADAM, {"kind": "radam", "amsgrad": True}, "radam has no amsgrad; use adam or adamw"),
    "turns": (ADVERSARY, {"listens_for": 1, "frozen_for": 1}, "listens_for and frozen_for contradict each other"),
    "reuse": (ADVERSARY, {"reuse": True, "order": "generator-first"}, "reuse needs the discriminators' turn before"),
    "filter bank": (PqmfConfig(), {"taps": 4}, "taps 4 are too few for 4 bands; needs 6"),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_that_no_network_has_is_refused(name: str) -> None:
    config, changes, sentence = CONFIGURATIONS[name]
    with pytest.raises(ValueError, match=sentence):
        replace(config, **changes)


ONES = torch.ones(1, 3, 5)
BANK = PqmfConfig()

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "conv1d, nothing to replicate": (
        lambda: conv1d(ONES[..., :0], torch.ones(3, 3, 1), padding=(1, 1), padding_mode="replicate"),
        "conv1d: x has 0 frames; needs at least 1 to replicate",
    ),
    "conv1d, elsewhere": (
        lambda: conv1d(ONES, torch.ones(3, 3, 1, device="meta")),
        "conv1d: weight is on meta but x is on cpu; move one of them",
    ),
    "strided_conv1d, groups": (
        lambda: strided_conv1d(torch.ones(1, 4, 5), torch.ones(3, 2, 2), groups=2),
        "weight has 3 output channels; expected a multiple of 2 groups",
    ),
    "strided_conv1d, padding": (
        lambda: strided_conv1d(ONES, torch.ones(4, 3, 2), padding=(0, -1)),
        r"strided_conv1d: padding is \(0, -1\); expected no negative number",
    ),
    "upsample, channels": (
        lambda: upsample(ONES, torch.ones(2, 3, 2), stride=2),
        r"upsample: weight has shape \(2, 3, 2\) but x has 3 channels",
    ),
    "upsample, crop": (
        lambda: upsample(ONES, torch.ones(3, 3, 2), stride=2, crop=(-1, 0)),
        r"upsample: crop is \(-1, 0\); expected no negative number",
    ),
    "Upsample, centred": (lambda: Upsample(3, 3, 1, 4), "kernel of 1 taps is too short for rate 4 with the centred"),
    "Upsample, padded": (
        lambda: Upsample(3, 3, 3, 3, crop_rule="output-padded"),
        "kernel of 3 taps is too short for rate 3 with the output-padded crop",
    ),
    "residual, units": (
        lambda: residual(ONES, [torch.ones(3, 3, 1)] * 4, [torch.ones(3)] * 4, [1] * 4, shortcut=True),
        "residual: there are 4 weights; expected a multiple of 1 branches times 3 weights per unit",
    ),
    "residual, biases": (
        lambda: residual(ONES, [torch.ones(3, 3, 3)] * 2, [torch.ones(3)] * 3, [1] * 2),
        "residual: there are 2 weights, 3 biases and 2 dilations; expected as many of each",
    ),
    "residual, taps": (
        lambda: residual(ONES, [torch.ones(3, 3, 3)] * 3, [torch.ones(3)] * 3, [1] * 3, shortcut=True),
        r"weights\[2\] has shape \(3, 3, 3\); expected \(3, 3, 1\)",
    ),
    "a backend": (lambda: availability.missing("gpu"), "'gpu' is not a backend; known: cuda, triton, cpu"),
    "analysis, shape": (lambda: pqmf_analysis(torch.ones(1, 1, 8), BANK), r"needs \(samples,\) or \(batch, samples\)"),
    "analysis, length": (lambda: pqmf_analysis(torch.ones(9), BANK), "wave has 9 samples; needs a multiple of 4"),
    "measures": (lambda: measure({}, MEL), "measure: there are no samples; needs at least one"),
    "weights": (
        lambda: load_plain_weights(MELGAN.build(), {"head.other": ONES}),
        "load_plain_weights: the network has no head.other; needs its own state",
    ),
    "a setting of a number": (
        lambda: load_config("hifigan-v1", {"batch.size": 1}),
        "batch.size: there is nothing called 'size' to change",
    ),
    "synthesis": (lambda: pqmf_synthesis(torch.ones(3, 8), BANK), r"shape \(3, 8\); needs \(4, samples\)"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_cannot_be_made_is_refused(name: str) -> None:
    call, sentence = CALLS[name]
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_comparison_needs_waves(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draw_comparison: there are no waves; needs at least one"):
        draw_comparison(tmp_path / "none.png", {}, MEL)
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_none_are_told_from_a_file_that_is_absent(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "broken.yaml").write_text("[")
    (tmp_path / "latin.yaml").write_bytes("café: 1".encode("latin-1"))
    (tmp_path / "large.yaml").write_text("#" * (foreign_settings._LARGEST + 1))
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"list\.yaml: holds list, not the settings of a run"):
        load_config(tmp_path / "list.yaml")
    for read in (read_plain, foreign_settings.read):
        with pytest.raises(FileNotFoundError, match=r"absent\.json: no such file"):
            read(tmp_path / "absent.json")
        for name in ("broken.json", "broken.yaml", "latin.yaml"):
            with pytest.raises(ValueError, match=rf"{name}: (not a readable|is neither readable|is not text)"):
                read(tmp_path / name)
    with pytest.raises(ValueError, match=r"large\.yaml: has \d+ bytes, too many for settings"):
        foreign_settings.read(tmp_path / "large.yaml")
    with pytest.raises(ValueError, match=r"text: has \d+ characters, too many for settings"):
        foreign_settings.parse("#" * (foreign_settings._LARGEST + 1), "text")
    with pytest.raises(ValueError, match="a part: is list; expected names and values"):
        foreign_settings.pick(MelGANConfig, [1], "a part")


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}], ids=["lists", "names"])
def test_settings_are_nested_as_deeply_as_is_said_and_no_deeper(wrap: Callable[[Any], Any]) -> None:
    value: Any = 1
    for _ in range(foreign_settings._DEEPEST - 1):
        value = wrap(value)
    foreign_settings.check_size(value, "settings")
    with pytest.raises(ValueError, match="settings: is nested too deeply"):
        foreign_settings.check_size(wrap(value), "settings")


def test_statistics_are_two_rows_of_numbers(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    words = np.array(["a", "b"])
    np.savez(tmp_path / "words.npz", mean=words, scale=words)
    np.savez(tmp_path / "others.npz", mean=np.ones(2), deviation=np.ones(2))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "others.npz").read_bytes()[:-60])
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20))
    with h5py.File(tmp_path / "others.h5", "w") as file:
        file.create_dataset("mean", data=np.ones(2))
    refused = {
        "words.npz": "mean and scale must be numbers, one for each band",
        "others.npz": "holds mean, deviation; expected mean and scale",
        "cut.npz": "is no readable file of statistics",
        "cut.h5": "is no readable HDF5 file",
        "others.h5": "holds no mean and scale of the mel bands",
    }
    for name, sentence in refused.items():
        with pytest.raises(ValueError, match=rf"{name}: {sentence}"):
            statistics.read(tmp_path / name)
    with pytest.raises(ValueError, match="mean and scale must be numbers"):
        statistics.of_tensors({"mean": torch.ones(2, 2), "scale": torch.ones(2, 2)}, "tensors")
    with pytest.raises(ValueError, match="tensors: has no scale beside mean; statistics are both"):
        statistics.of_tensors({"mean": torch.ones(2)}, "tensors")
    assert statistics.of_tensors({}, "tensors") is None


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.dump(values))


def test_generators_of_coqui_that_are_not_opened_are_named(tmp_path: Path) -> None:
    path = foreign.coqui(tmp_path, HIFIGAN, foreign.COQUI_MEL)
    settings = tmp_path / "config.json"
    settings.write_text(settings.read_text().replace('"hifigan_generator"', '"univnet_generator"'))
    with pytest.raises(ValueError, match="generator_model is univnet_generator; of Coqui fastvoc opens hifigan_gen"):
        open_checkpoint(path)


def test_a_training_of_espnet_has_its_settings(tmp_path: Path) -> None:
    path = foreign.espnet(tmp_path, HIFIGAN, CONVENTIONS["espnet"])
    changed(next(tmp_path.rglob("config.yaml")), lambda values: values.pop("tts_conf"))
    with pytest.raises(ValueError, match="has no tts_conf; expected the settings of an ESPnet training"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "unknown"}, "version is 'unknown'; expected numbers such as 0.5.4"),
        ({"generator_params": [1]}, "generator_params is list; expected names and values"),
    ],
)
def test_settings_of_parallel_wavegan_that_make_no_sense_are_named(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = foreign.parallel_wavegan(tmp_path, replace(MELGAN, crop_rule="output-padded"), MEL)
    changed(tmp_path / "config.yml", lambda values: values.update(changes))
    with pytest.raises(ValueError, match=sentence):
        open_checkpoint(path)


def test_weights_of_an_archive_are_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "odd.nemo"
    with tarfile.open(path, "w") as archive:
        for name, content in (("model_config.yaml", b"a: 1"), ("model_weights.ckpt", b"nothing of the kind")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"odd\.nemo: model_weights\.ckpt: is not a PyTorch file"):
        safe_loading.load(path)


def test_a_mel_on_disk_has_a_suffix_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"clip\.txt: is not a mel; known suffixes: \.npy, \.npz, \.pt, \.pth, \.safet"
    ):
        read_mel(tmp_path / "clip.txt")
    with pytest.raises(FileNotFoundError, match=r"clip\.npy: no such file"):
        read_mel(tmp_path / "clip.npy")
