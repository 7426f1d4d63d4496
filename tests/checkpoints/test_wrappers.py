"""Generators inside what training puts around them: other names, other dictionaries, averages, discriminators."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import VocoderConfig, open_checkpoint, save_native
from fastvoc.models import HiFiGANConfig, ISTFTNetConfig, MelGANConfig
from fastvoc.models.melgan import DESCRIPT

State = dict[str, Tensor]

TINY = HiFiGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3,), dilations=((1,),))
MEL = MelConfig(sample_rate=16000, fft_size=32, hop=8, window_size=24, bands=80, low=0, high=7000)
MELGAN = MelGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), units=1)
ONE = torch.ones(1)


def native(folder: Path, config: Any, mel: MelConfig, **options: Any) -> Path:
    save_native(folder, VocoderConfig(generator=config, mel=mel), config.build().state_dict())
    return folder


def plain(content: Any) -> State:
    return dict(content)


FORMATS: dict[str, tuple[Callable[..., Path], Any, MelConfig, str, Callable[[Any], State]]] = {
    "official": (foreign.official, TINY, MEL, "g_00000005", lambda content: content["generator"]),
    "iSTFTNet": (
        foreign.official_istftnet,
        ISTFTNetConfig(trunk=TINY, fft_size=8, istft_hop=2),
        replace(MEL, hop=16),
        "g_00000005",
        lambda content: content["generator"],
    ),
    "descript": (foreign.descript, replace(DESCRIPT, channels=16, units=1), CONVENTIONS["melgan"], "netG.pt", plain),
    "ParallelWaveGAN": (
        foreign.parallel_wavegan,
        MELGAN,
        MEL,
        "checkpoint-2500000steps.pkl",
        lambda content: content["model"]["generator"],
    ),
    "ESPnet": (foreign.espnet, replace(TINY, crop_rule="output-padded"), MEL, "train.total_count.ave_5best.pth", plain),
    "transformers": (foreign.speecht5, replace(TINY, standardised=True), MEL, "model.safetensors", plain),
    "SpeechBrain": (foreign.speechbrain, replace(TINY, padding_mode="reflect"), MEL, "generator.ckpt", plain),
    "Coqui": (
        foreign.coqui,
        TINY,
        replace(MEL, gain=20, logarithm="decimal"),
        "model_file.pth",
        lambda content: {
            name.removeprefix("model_g."): t for name, t in content["model"].items() if name.startswith("model_g.")
        },
    ),
    "native": (native, TINY, MEL, "model.safetensors", plain),
}
"""Writer, configuration and convention; the file, and where in it the generator's tensors are."""


def named(state: State, before: str) -> State:
    return {f"{before}{name}": tensor for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "torch.compile": lambda state: named(state, "_orig_mod."),
    "compiled in data-parallel training": lambda state: {"generator": named(state, "module._orig_mod.module.")},
    "Lightning": lambda state: {
        "state_dict": named(state, "generator.") | {"mpd.discriminators.0.convs.0.bias": ONE, "mel.fb": ONE},
        "epoch": 3,
        "hyper_parameters": {},
        "optimizer_states": [{"state": {0: {"exp_avg": ONE}}}],
    },
    "Lightning and torch.compile": lambda state: {
        "state_dict": named(state, "generator._orig_mod.") | {"discriminator._orig_mod.mpd.0.bias": ONE}
    },
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"exp_avg": ONE}}},
    },
    "net_g beside net_d": lambda state: {"net_g": state, "net_d": {"convs.0.bias": ONE}},
    "ema alone": lambda state: {"ema": state},
    "AveragedModel": lambda state: {"ema_model": named(state, "module.") | {"n_averaged": torch.tensor(7)}},
    "several": lambda state: {"checkpoint": {"state_dict": named(state, "model.net_g.module.")}},
    "three names": lambda state: {"state_dict": named(state, "model.generator.module.") | {"model.msd.0.bias": ONE}},
}


def a_file(name: str, folder: Path) -> tuple[Path, State]:
    """Write a small model of a format, and return the file of its weights, and its generator's tensors."""
    writer, config, mel, file, generator = FORMATS[name]
    folder.mkdir()
    writer(folder, config, mel, values=foreign.single)
    path = folder / file
    state = generator(load_file(path) if path.suffix == ".safetensors" else torch.load(path))
    return path, {key: tensor.clone() for key, tensor in state.items()}  # the file is written over


@pytest.mark.parametrize("name", FORMATS)
def test_what_training_puts_around_a_generator_changes_nothing(tmp_path: Path, name: str) -> None:
    path, state = a_file(name, tmp_path / "original")
    expected = open_checkpoint(path)
    for wrapper, wrap in WRAPPERS.items():
        torch.save(wrap(state), path)
        found = open_checkpoint(path)
        assert found.config == expected.config, wrapper
        assert found.weights.keys() == expected.weights.keys(), wrapper
        assert all(torch.equal(found.weights[key], tensor) for key, tensor in expected.weights.items()), wrapper
        assert found.source == expected.source


COPIES: dict[str, tuple[Callable[[State, State], Any], str]] = {
    "two dictionaries": (
        lambda state, other: {"generator": state, "generator_ema": other},
        "the weights under generator are taken, not their moving average generator_ema",
    ),
    "the average first": (
        lambda state, other: {"ema": other, "net_g": state},
        "the weights under net_g are taken, not their moving average ema",
    ),
    "one dictionary": (
        lambda state, other: {"state_dict": named(other, "ema_model.module.") | named(state, "generator.")},
        "the weights under state_dict/generator are taken, not their moving average state_dict/ema_model; "
        "left aside: ema_model",
    ),
    "the average alone": (
        lambda state, other: {"generator_ema": state, "discriminator": {"a.bias": ONE}},
        "the moving average of the weights, generator_ema, is taken",
    ),
    "the same network elsewhere": (
        lambda state, other: {"generator": state, "best": other},
        "the weights under generator are taken, not those of the same network under best",
    ),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("kind", ["official", "ParallelWaveGAN"])
def test_of_several_copies_the_plain_weights_are_taken_and_a_note_says_so(tmp_path: Path, kind: str, name: str) -> None:
    wrap, note = COPIES[name]
    path, state = a_file(kind, tmp_path / "original")
    expected = open_checkpoint(path)
    torch.save(wrap(state, {key: tensor + 1 for key, tensor in state.items()}), path)
    found = open_checkpoint(path)
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in expected.weights.items())
    assert found.notes == (*expected.notes, note)


def test_what_a_wrapper_holds_besides_is_named(tmp_path: Path) -> None:
    path, state = a_file("official", tmp_path / "original")
    torch.save(WRAPPERS["Lightning"](state), path)
    assert open_checkpoint(path).notes == ("the weights are those under state_dict/generator; left aside: mpd, mel",)


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    path, state = a_file("official", tmp_path / "original")
    torch.save({"generator": state | named(state, "module.")}, path)
    with pytest.raises(ValueError, match=r"holds conv_pre\.weight_g twice, once as module\.conv_pre\.weight_g"):
        open_checkpoint(path)


@pytest.mark.parametrize("discriminators", [False, True])
@pytest.mark.parametrize("before", ["", "generator.", "generator._orig_mod."])
def test_no_sentence_claims_what_is_not_so(tmp_path: Path, before: str, discriminators: bool) -> None:
    """A layer that is absent is named, and those that are there are not; a generator beside discriminators is seen."""
    path, state = a_file("official", tmp_path / "original")
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("conv_post.")}
    more = {"mpd.discriminators.0.convs.0.bias": ONE, "msd.discriminators.0.convs.0.bias": ONE}
    torch.save({"state_dict": named(rest, before) | (more if discriminators else {})}, path)
    with pytest.raises(ValueError, match=r"a part of a checkpoint of HiFi-GAN; it lacks conv_post$"):
        open_checkpoint(path)


def test_an_unknown_network_beside_discriminators_is_not_called_absent(tmp_path: Path) -> None:
    torch.save({"mpd.0.bias": ONE, "decoder.layer.weight": ONE}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"holds tensors such as decoder\.layer\.weight, which are of no format"):
        open_checkpoint(tmp_path)


def test_names_of_another_project_with_our_settings_beside_them(tmp_path: Path) -> None:
    """Trap: Coqui's names around a generator of the official layout, whose settings tell."""
    path, state = a_file("official", tmp_path / "original")
    expected = open_checkpoint(path)
    torch.save({"model": named(state, "model_g.") | {"model_d.mpd.0.bias": ONE}}, path)
    found = open_checkpoint(path)
    assert found.source == "HiFi-GAN (jik876) generator"
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in expected.weights.items())


@pytest.mark.parametrize("name", ["NVIDIA", "seungwonpark"])
def test_formats_with_settings_inside_keep_them_under_other_names(tmp_path: Path, name: str) -> None:
    if name == "NVIDIA":
        foreign.deep_learning_examples(tmp_path, TINY, MEL, average=False)
        place = "generator"
    else:
        foreign.seungwonpark(tmp_path, DESCRIPT, CONVENTIONS["tacotron2"], values=foreign.single)
        place = "model_g"
    path = next(file for file in tmp_path.iterdir() if file.suffix == ".pt")
    expected, content = open_checkpoint(path), torch.load(path)
    content[place] = named(content[place], "module._orig_mod.module.")
    torch.save(content, path)
    found = open_checkpoint(path)
    assert found.config == expected.config
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in expected.weights.items())
    shutil.rmtree(tmp_path)
