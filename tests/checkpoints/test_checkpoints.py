"""Files on disk, in their original layouts and in broken ones."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from golden import MEL, ends_and_middle, foreign_shapes, named_values
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import VocoderConfig, open_checkpoint, save_native
from fastvoc.checkpoints.formats import hifigan, istftnet, melgan, native
from fastvoc.checkpoints.tensor_names import fold, from_native, to_native, unfold
from fastvoc.models import HiFiGANConfig
from fastvoc.models.hifigan import V1, V2, V3
from fastvoc.models.istftnet import C8C8I
from fastvoc.models.melgan import DESCRIPT, MULTI_BAND

SMALL = replace(V1, channels=16)


def settings_of(config: HiFiGANConfig, **others: Any) -> dict[str, Any]:
    """The contents of config.json as the original repository has them."""
    return {
        "resblock": config.block,
        "num_gpus": 0,
        "batch_size": 16,
        "learning_rate": 0.0002,
        "adam_b1": 0.8,
        "adam_b2": 0.99,
        "lr_decay": 0.999,
        "seed": 1234,
        "upsample_rates": list(config.rates),
        "upsample_kernel_sizes": list(config.rate_kernel_sizes),
        "upsample_initial_channel": config.channels,
        "resblock_kernel_sizes": list(config.kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in config.dilations],
        "segment_size": 8192,
        "num_mels": 80,
        "num_freq": 1025,
        "n_fft": 1024,
        "hop_size": 256,
        "win_size": 1024,
        "sampling_rate": 22050,
        "fmin": 0,
        "fmax": 8000,
        "fmax_for_loss": None,
        "num_workers": 4,
        "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
        **others,
    }


def write_hifigan(
    folder: Path,
    config: HiFiGANConfig = SMALL,
    *,
    name: str = "g_00000005",
    spelling: str = "weight norm",
    wrap: Callable[[dict[str, Tensor]], Any] = lambda state: {"generator": state},
    **others: Any,
) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(wrap(named_values(foreign_shapes(config, hifigan.table(config), spelling))), folder / name)
    (folder / "config.json").write_text(json.dumps(settings_of(config, **others)))
    return folder / name


def matches(path: Path, mean: float, deviation: float, listed: list[float]) -> None:
    checkpoint = open_checkpoint(path)
    network = checkpoint.config.generator.build().double()
    network.load_state_dict(checkpoint.weights)
    with torch.no_grad():
        wave = network(MEL)
    found = [float(wave.mean()), float(wave.std(correction=0)), *ends_and_middle(wave)]
    assert found == pytest.approx([mean, deviation, *listed], rel=0, abs=6e-7)  # six decimals are known


def test_official_hifigan_v1_makes_the_original_samples(tmp_path: Path) -> None:
    listed = [-0.037475, -0.072336, -0.066596, -0.138778, -0.010747, -0.104743, -0.089295]
    matches(write_hifigan(tmp_path, V1), -0.100692, 0.051366, listed)


def test_official_hifigan_v2_makes_the_original_samples(tmp_path: Path) -> None:
    listed = [-0.224446, -0.106090, -0.253835, -0.314573, -0.103260, -0.155052, -0.169132]
    matches(write_hifigan(tmp_path, V2), -0.154679, 0.063420, listed)


def test_official_hifigan_v3_makes_the_original_samples(tmp_path: Path) -> None:
    listed = [-0.154361, -0.169941, -0.107197, -0.191624, -0.135971, -0.119250, -0.208110]
    matches(write_hifigan(tmp_path, V3), -0.167435, 0.059396, listed)


def test_istftnet_makes_the_original_samples(tmp_path: Path) -> None:
    state = named_values(foreign_shapes(C8C8I, istftnet.table(C8C8I)))
    torch.save({"generator": state}, tmp_path / "g_00000001")
    settings = settings_of(C8C8I.trunk, gen_istft_n_fft=16, gen_istft_hop_size=4)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    listed = [-0.005140, 0.018303, 0.022771, -0.047082, 0.029469, 0.002197, -0.051932]
    matches(tmp_path, 0.004081, 0.038594, listed)
    assert open_checkpoint(tmp_path).config.generator == C8C8I


def test_melgan_makes_the_original_samples(tmp_path: Path) -> None:
    torch.save(named_values(foreign_shapes(DESCRIPT, melgan.table(DESCRIPT))), tmp_path / "netG.pt")
    run = argparse.Namespace(
        n_mel_channels=80, ngf=32, n_residual_layers=3, save_path=pathlib.PurePosixPath("logs/baseline"), seq_len=8192
    )
    (tmp_path / "args.yml").write_text(yaml.dump(run))
    assert "!!python/object:argparse.Namespace" in (tmp_path / "args.yml").read_text()
    listed = [-0.054811, -0.542352, -0.240850, -0.171070, -0.696606, -0.029765, -0.523403]
    matches(tmp_path, -0.288359, 0.316122, listed)
    assert open_checkpoint(tmp_path).notes == ()
    assert open_checkpoint(tmp_path).config.mel == CONVENTIONS["melgan"]


def test_hifigan_settings_become_a_configuration(tmp_path: Path) -> None:
    write_hifigan(tmp_path, sampling_rate=24000, fmax=None)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.generator == SMALL
    assert checkpoint.config.mel == replace(CONVENTIONS["hifigan"], sample_rate=24000, high=None)
    assert checkpoint.source == "HiFi-GAN (jik876) generator"
    assert checkpoint.notes == ()


def test_an_unknown_setting_is_noted(tmp_path: Path) -> None:
    write_hifigan(tmp_path, mel_loss="l2")
    assert open_checkpoint(tmp_path).notes == ("config.json: mel_loss is not a setting of HiFi-GAN; it was ignored",)


RESAVINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "step": 5},
    "nested": lambda state: {"generator": {"model": state, "optimizer": {}}, "step": 5},
    "data parallel": lambda state: {"generator": {f"module.{name}": tensor for name, tensor in state.items()}},
}


@pytest.mark.parametrize("wrap", RESAVINGS.values(), ids=RESAVINGS)
def test_resaved_generators_are_the_same(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]) -> None:
    expected = open_checkpoint(write_hifigan(tmp_path / "original"))
    found = open_checkpoint(write_hifigan(tmp_path / "resaved", wrap=wrap, name="anything"))
    assert found.config == expected.config
    assert found.weights.keys() == expected.weights.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


def test_spellings_of_a_weight_are_the_same(tmp_path: Path) -> None:
    """Each spelling draws other values, so the three are made from one."""
    weight_norm = named_values(foreign_shapes(SMALL, hifigan.table(SMALL)))
    parametrized = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in weight_norm.items()
    }
    native_weights = to_native(weight_norm, hifigan.table(SMALL), SMALL, "test")
    plain = from_native(native_weights, hifigan.table(SMALL))
    for spelled in (parametrized, plain):
        found = to_native(spelled, hifigan.table(SMALL), SMALL, "test")
        assert all(torch.equal(found[name], tensor) for name, tensor in native_weights.items())


@pytest.mark.parametrize(("resblock", "block"), [("1", "1"), (1, "1"), ("2", "2"), (2, "2")])
def test_resblock_is_a_string_or_a_number(tmp_path: Path, resblock: str | int, block: str) -> None:
    config = replace(V3 if block == "2" else V1, channels=16)
    write_hifigan(tmp_path, config, resblock=resblock)
    assert open_checkpoint(tmp_path).config.generator.block == block


def test_the_newest_generator_of_a_folder_is_opened(tmp_path: Path) -> None:
    write_hifigan(tmp_path, name="g_00000005")
    write_hifigan(tmp_path, name="g_00000010", wrap=lambda state: {"generator": dict.fromkeys(state, torch.zeros(1))})
    (tmp_path / "do_00000010").write_bytes(b"")
    with pytest.raises(ValueError, match=r"g_00000010: conv_pre\.weight_g and .* no weight under weight norm"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path / "g_00000005").config.generator == SMALL


def test_settings_can_be_named(tmp_path: Path) -> None:
    path = write_hifigan(tmp_path)
    elsewhere = (tmp_path / "config.json").rename(tmp_path / "config_v1.json")
    with pytest.raises(ValueError, match=r"no config\.json beside it; name the settings"):
        open_checkpoint(path)
    assert open_checkpoint(path, config=elsewhere).config.generator == SMALL
    with pytest.raises(FileNotFoundError, match=r"nothing\.json: no such file"):
        open_checkpoint(path, config=tmp_path / "nothing.json")


def test_melgan_without_settings_has_the_default_ones_and_says_so(tmp_path: Path) -> None:
    small = replace(DESCRIPT, channels=16)
    state = named_values(foreign_shapes(small, melgan.table(small)))
    torch.save(state, tmp_path / "best_netG.pt")
    with pytest.raises(ValueError, match=r"model\.1\.weight has shape \(16, 80, 7\), but the settings need \(512, 80"):
        open_checkpoint(tmp_path)
    (tmp_path / "args.yml").write_text("ngf: 1\n")
    assert open_checkpoint(tmp_path).config.generator == small
    torch.save(named_values(foreign_shapes(DESCRIPT, melgan.table(DESCRIPT))), tmp_path / "best_netG.pt")
    (tmp_path / "args.yml").unlink()
    assert "no args.yml" in open_checkpoint(tmp_path).notes[0]


def test_melgan_settings_can_be_named(tmp_path: Path) -> None:
    small = replace(DESCRIPT, channels=16)
    torch.save(named_values(foreign_shapes(small, melgan.table(small))), tmp_path / "netG.pt")
    elsewhere = tmp_path / "run.yml"
    elsewhere.write_text(yaml.dump(argparse.Namespace(ngf=1)))
    assert open_checkpoint(tmp_path, config=elsewhere).config.generator == small
    elsewhere.write_text("- 1")
    with pytest.raises(ValueError, match=r"run\.yml: holds list; expected the settings of a vocoder"):
        open_checkpoint(tmp_path, config=elsewhere)


def test_tags_of_python_in_melgan_settings_make_no_objects(tmp_path: Path) -> None:
    small = replace(DESCRIPT, channels=16)
    torch.save(named_values(foreign_shapes(small, melgan.table(small))), tmp_path / "netG.pt")
    trace = tmp_path / "trace"
    attack = f"!!python/object/apply:os.system ['touch {trace}']"
    (tmp_path / "args.yml").write_text(f"ngf: 1\nsave_path: {attack}\n")
    assert open_checkpoint(tmp_path).config.generator == small
    assert not trace.exists()


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_is_never_run(tmp_path: Path, archive: bool) -> None:
    path, trace = write_hifigan(tmp_path), tmp_path / "trace"
    state = {"generator": torch.load(path)["generator"], "extra": Attack(trace)}
    torch.save(state, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=r"wants to run \w+\.system while it is opened") as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()

    torch.load(path, weights_only=False)
    assert trace.exists(), "the attack would have done nothing anyway"


def test_a_bare_pickle_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "g_00000001").write_bytes(pickle.dumps(Attack(trace), protocol=protocol))
        with pytest.raises(ValueError, match=r"Python pickle|neither a PyTorch"):
            open_checkpoint(tmp_path)
    assert not trace.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "g_00000001")
    with pytest.raises(ValueError, match=r"wants to run torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(tmp_path)


def zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<document/>")


def shortened(path: Path, **options: Any) -> None:
    torch.save({"generator": {"conv_pre.weight": torch.zeros(1000)}}, path, **options)
    path.write_bytes(path.read_bytes()[:2000])


def shortened_safetensors(path: Path) -> None:
    save_file({"conv_pre.weight": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def script(path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Identity()), path)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "shortened zip": (shortened, "is cut short; the end of its archive is missing"),
    "shortened legacy": (
        lambda path: shortened(path, _use_new_zipfile_serialization=False),
        "is damaged or cut short",
    ),
    "shortened safetensors": (shortened_safetensors, "damaged or cut short"),
    "web page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "is a web page"),
    "zip of something else": (zip_of_text, r"is a zip archive, of word/document\.xml and the like"),
    "TorchScript": (script, "is a TorchScript program"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "Keras": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5 file"),
    "archive": (lambda path: path.write_bytes(b"\x1f\x8b\x08"), "is an archive that is damaged or cut short"),
    "ONNX": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0"), "is an ONNX program"),
    "TensorFlow Lite": (lambda path: path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64)), "is a TensorFlow Lite"),
    "NumPy": (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), "is a NumPy array, such as a mel"),
    "sound": (lambda path: path.write_bytes(b"RIFF\x00\x00\x00\x00WAVE"), "is a sound file"),
    "text": (lambda path: path.write_text("hello"), "neither a PyTorch nor a safetensors file"),
    "tensor": (lambda path: torch.save(torch.zeros(1), path), "holds a Tensor; expected a dictionary"),
    "numbers": (lambda path: torch.save({"step": 5}, path), "holds no tensors, but step"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    make, sentence = BROKEN[name]
    path = tmp_path / "g_00000001"
    make(path)
    with pytest.raises(ValueError, match=sentence) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_generator_that_diverged_is_refused(value: str, dtype: torch.dtype, tmp_path: Path) -> None:
    path = write_hifigan(tmp_path)
    state = torch.load(path)
    state["generator"] = {name: tensor.to(dtype) for name, tensor in state["generator"].items()}
    state["generator"]["ups.0.bias"][3] = float(value)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"trunk\.up\.0\.bias holds values that are not finite"):
        open_checkpoint(path)


def test_safetensors_are_opened_under_any_name(tmp_path: Path) -> None:
    expected = open_checkpoint(write_hifigan(tmp_path))
    save_file(torch.load(tmp_path / "g_00000005")["generator"], tmp_path / "vocoder.pt")
    found = open_checkpoint(tmp_path / "vocoder.pt")
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in expected.weights.items())


ONE = torch.zeros(1)
FOREIGN: dict[str, tuple[Any, str]] = {
    "do_": (
        {"mpd": {"a": ONE}, "msd": {"a": ONE}, "optim_g": {}, "optim_d": {}, "steps": 1, "epoch": 1},
        "open the g_",
    ),
    "BigVGAN do_": ({"mpd": {"a": ONE}, "mrd": {"a": ONE}, "optim_g": {}}, "of a BigVGAN run"),
    "netD": ({"model.disc_0.model.layer_0.1.weight_v": ONE}, "open netG.pt"),
    "optG": ({"state": {0: {"exp_avg": ONE}}, "param_groups": []}, "state of an optimizer"),
    "BigVGAN": (
        {"generator": {"resblocks.0.activations.0.act.alpha": ONE}},
        "seems to be a part of a checkpoint of BigVGAN; it lacks conv_post",
    ),
    "HiFTNet": ({"generator": {"m_source.l_linear.weight": ONE}}, "HiFTNet or NSF"),
    "UnivNet": ({"res_stack.0.kernel_predictor.bias": ONE}, "UnivNet"),
    "seungwonpark": ({"model_g": {"generator.1.bias": ONE}, "hp_str": "", "githash": ""}, "MelGAN .seungwonpark."),
    "Coqui": ({"model": {"model_g.conv_pre.bias": ONE}}, "Coqui"),
    "Coqui old": ({"model": {"conv_pre.bias": ONE}, "model_disc": {"a": ONE}}, "Coqui"),
    "ParallelWaveGAN": ({"model": {"generator": {"melgan.1.bias": ONE}}, "steps": 1}, "ParallelWaveGAN"),
    "ESPnet": ({"tts.generator.vocoder.input_conv.bias": ONE}, "ESPnet text2wav"),
    "Vocos": ({"backbone.convnext.0.gamma": ONE}, "Vocos"),
    "Vocos training": ({"state_dict": {"backbone.embed.bias": ONE}}, "Vocos"),
    "Lightning": ({"state_dict": {"net.bias": ONE}}, "PyTorch Lightning"),
    "VITS": ({"model": {"dec.conv_pre.weight": ONE}}, "VITS"),
    "NeMo": ({"resblocks.0.0.convs1.0.bias": ONE}, "NeMo"),
    "SpeechBrain": ({"conv_pre.conv.weight_g": ONE}, "SpeechBrain"),
    "transformers": ({"upsampler.0.weight": ONE, "mean": ONE}, "transformers"),
    "ParallelWaveGAN WaveNet": ({"model": {"generator": {"first_conv.bias": ONE}}}, "the WaveNet of that name"),
    "StyleMelGAN": ({"model": {"generator": {"noise_upsample.0.bias": ONE}}}, "is a checkpoint of StyleMelGAN"),
    "WaveGlow": ({"state_dict": {"WN.0.in_layers.0.bias": ONE, "convinv.0.conv.weight": ONE}}, "WaveGlow"),
    "fish": ({"state_dict": {"generator.resblocks.0.blocks.0.convs1.0.bias": ONE}}, "fish vocoder"),
    "UnivNet training": ({"model_g": {"res_stack.0.kernel_predictor.bias": ONE}, "hp_str": "", "githash": ""}, "UnivN"),
    "JETS": ({"tts.generator.generator.input_conv.bias": ONE}, "ESPnet JETS, whose vocoder takes no mel"),
    "ESPnet VITS": ({"tts.generator.decoder.input_conv.bias": ONE}, "ESPnet VITS, whose vocoder takes no mel"),
    "text to mel": ({"tts.encoder.bias": ONE}, "ESPnet text-to-mel"),
    "XTTS": ({"hifigan_decoder.waveform_decoder.conv_pre.bias": ONE}, "XTTS, whose decoder takes no mel"),
    "WaveRNN": ({"rnn1.weight_ih_l0": ONE, "I.weight": ONE}, "WaveRNN"),
    "symbols": ({"model": {"generator": {"emb.weight": ONE, "input_conv.bias": ONE}}}, "discrete symbols"),
    "NVIDIA discriminators": ({"mpd": {"a": ONE}, "msd": {"a": ONE}, "mpd_ema": None}, "open its hifigan_gen_"),
    "bare discriminator": ({"discriminators.0.convs.0.bias": ONE}, "holds discriminators"),
    "SpeechBrain discriminator": ({"mpd.discriminators.0.convs.0.conv.bias": ONE}, "holds discriminators"),
    "optimizers": ({"optim_g": {"state": {0: {"exp_avg": ONE}}}, "scheduler_g": {}}, "state of optimizers"),
    "an optimizer's scheduler": ({"optimizer": {}, "scheduler": {"last": 1}}, "holds the state of optimizers"),
    "an optimizer beside something": ({"optimizer": {}, "foo": ONE}, "holds tensors such as foo, which are of no"),
    "unknown": ({"encoder.weight": ONE}, "holds tensors such as encoder.weight, which are of no format"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_formats_are_named(tmp_path: Path, name: str) -> None:
    content, sentence = FOREIGN[name]
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=sentence) as caught:
        open_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_bigvgan_settings_beside_plain_names_are_told_apart(tmp_path: Path) -> None:
    state = {"conv_pre.bias": ONE, "ups.0.0.bias": ONE, "resblocks.0.convs1.0.bias": ONE, "conv_post.bias": ONE}
    torch.save({"generator": state}, tmp_path / "g_00000001")
    (tmp_path / "config.json").write_text(json.dumps(settings_of(V1, activation="snakebeta", snake_logscale=True)))
    with pytest.raises(ValueError, match="seems to be a part of a checkpoint of BigVGAN; it lacks"):
        open_checkpoint(tmp_path)


def test_folders_without_one_generator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no weights; expected one of model\.safetensors"):
        open_checkpoint(tmp_path)
    torch.save({"mpd": {}}, tmp_path / "do_00000005")
    with pytest.raises(ValueError, match=r"holds do_00000005, the discriminators .* but no generator"):
        open_checkpoint(tmp_path)
    (tmp_path / "a.pt").touch()
    (tmp_path / "b.pt").touch()
    with pytest.raises(ValueError, match=r"several files of weights \(a.pt, b.pt\); name the one"):
        open_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing: no such file or folder"):
        open_checkpoint(tmp_path / "nothing")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = write_hifigan(tmp_path, wrap=lambda state: {k: v for k, v in state.items() if k != "ups.1.weight_v"})
    with pytest.raises(ValueError, match=r"has no ups\.1\.weight_v; the settings belong to other weights"):
        open_checkpoint(path)
    path = write_hifigan(tmp_path, wrap=lambda state: {k: v for k, v in state.items() if k != "ups.1.bias"})
    with pytest.raises(ValueError, match=r"has no ups\.1\.bias; the settings belong to other weights"):
        open_checkpoint(path)


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    path = write_hifigan(tmp_path, wrap=lambda state: state | {"ups.9.bias": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"has ups\.9\.bias, for which there is no place"):
        open_checkpoint(path)


def test_settings_of_other_weights_are_named(tmp_path: Path) -> None:
    path = write_hifigan(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings_of(replace(SMALL, channels=32))))
    with pytest.raises(ValueError, match=r"conv_pre\.weight has shape \(16, 80, 7\), but the settings need \(32, 80"):
        open_checkpoint(path)


def test_settings_that_lack_or_contradict_are_refused(tmp_path: Path) -> None:
    path = write_hifigan(tmp_path, hop_size=200)
    with pytest.raises(ValueError, match=r"config\.json: the mel has a frame every 200 samples but .* 256"):
        open_checkpoint(path)
    write_hifigan(tmp_path, upsample_kernel_sizes=[7, 16, 4, 4])
    with pytest.raises(ValueError, match=r"config\.json: .*7 taps leaves gaps at rate 8"):
        open_checkpoint(path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks fmax, fmin, hop_size"):
        open_checkpoint(path)


def test_spectral_norm_is_not_taken_for_weight_norm() -> None:
    """Trap: spectral norm too calls a tensor ``weight_v``."""
    table = hifigan.table(SMALL)
    state = named_values(foreign_shapes(SMALL, table))
    state["conv_pre.weight_orig"] = state["conv_pre.weight_v"]
    state["conv_pre.weight_u"], state["conv_pre.weight_v"] = torch.zeros(16), torch.zeros(560)
    del state["conv_pre.weight_g"]
    with pytest.raises(ValueError, match=r"has no conv_pre\.weight and has conv_pre\.weight_v"):
        to_native(state, table, SMALL, "test")


def test_a_layer_may_be_known_to_have_no_bias() -> None:
    table = hifigan.table(SMALL)
    state = named_values(foreign_shapes(SMALL, table))
    del state["conv_post.bias"]
    weights = to_native(state, table, SMALL, "test", bias_free=["conv_post"])
    assert weights["head.conv.bias"].tolist() == [0.0]
    assert weights["head.conv.bias"].dtype == torch.float64


def test_folding_is_exact_in_single_precision() -> None:
    v = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    g = torch.rand(4, 1, 1, generator=torch.Generator().manual_seed(1))
    exact = g.double() * v.double() / v.double().pow(2).sum(dim=(1, 2), keepdim=True).sqrt()
    assert torch.equal(fold(g, v), exact.float())
    reference = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 4, 5, bias=False))
    reference.load_state_dict({"parametrizations.weight.original0": g, "parametrizations.weight.original1": v})
    torch.testing.assert_close(fold(g, v), reference.weight.detach(), rtol=2e-7, atol=0)


TABLES = {
    "V1": (V1, hifigan.table),
    "V3": (V3, hifigan.table),
    "six stages": (replace(V1, channels=64, rates=(2,) * 6, rate_kernel_sizes=(4,) * 6), hifigan.table),
    "iSTFTNet": (C8C8I, istftnet.table),
    "MelGAN": (DESCRIPT, melgan.table),
    "MelGAN of five units": (replace(DESCRIPT, units=5), melgan.table),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_every_layer_once_on_both_sides(name: str) -> None:
    config, table = TABLES[name]
    theirs, ours = zip(*table(config), strict=True)
    assert len(set(theirs)) == len(theirs)
    with torch.device("meta"):
        layers = {key.rsplit(".", 1)[0] for key in config.build().state_dict()}
    assert sorted(ours) == sorted(layers)


def test_hifigan_counts_its_blocks_through_all_stages() -> None:
    table = dict(hifigan.table(V1))
    assert table["resblocks.0.convs1.0"] == "trunk.residual.0.branches.0.0.0"
    assert table["resblocks.5.convs2.1"] == "trunk.residual.1.branches.2.1.1"
    assert table["resblocks.11.convs1.2"] == "trunk.residual.3.branches.2.2.0"
    assert dict(hifigan.table(V3))["resblocks.8.convs.1"] == "trunk.residual.2.branches.2.1.0"


@pytest.mark.parametrize("weight_norm", [True, False])
def test_weights_travel_to_official_hifigan_and_back(tmp_path: Path, weight_norm: bool) -> None:
    network = SMALL.build()
    config = VocoderConfig(generator=SMALL, mel=CONVENTIONS["hifigan"])
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    exported = hifigan.write(SMALL, weights, weight_norm=weight_norm)
    assert ("conv_pre.weight_g" in exported["generator"]) == weight_norm
    torch.save(exported, tmp_path / "g_00000001")
    (tmp_path / "config.json").write_text(json.dumps(settings_of(SMALL)))
    back = open_checkpoint(tmp_path)
    assert back.config == config
    # a magnitude is rounded once: half a unit in its last place, and half in the product's
    tolerance = 2.0**-23 if weight_norm else 0
    for name, tensor in weights.items():
        torch.testing.assert_close(back.weights[name], tensor, rtol=tolerance, atol=0)


def test_weights_travel_to_melgan_and_back(tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in DESCRIPT.build().state_dict().items()}
    torch.save(melgan.write(DESCRIPT, weights, weight_norm=False), tmp_path / "netG.pt")
    back = open_checkpoint(tmp_path).weights
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def test_generators_that_the_original_cannot_express_are_not_exported() -> None:
    for config in (replace(SMALL, padding_mode="reflect"), replace(SMALL, last_slope=0.1)):
        with pytest.raises(ValueError, match="the original has no setting for"):
            hifigan.write(config, {})
    with pytest.raises(ValueError, match="and no more"):
        melgan.write(MULTI_BAND, {})


def test_odd_rates_are_exported_only_where_the_original_cuts_alike() -> None:
    padded = replace(SMALL, rates=(4, 2), rate_kernel_sizes=(8, 4), crop_rule="output-padded")
    for rates, taps in (((5, 4), (10, 8)), ((4, 5), (8, 10))):
        with pytest.raises(ValueError, match=r"the original cuts the transposed convolutions of rates .* elsewhere"):
            hifigan.write(replace(padded, rates=rates, rate_kernel_sizes=taps), {})
    odd = replace(SMALL, rates=(5, 4), rate_kernel_sizes=(11, 8))
    for config in (padded, odd):
        assert set(hifigan.write(config, config.build().state_dict())) == {"generator"}


def test_unfolding_is_the_inverse_of_folding() -> None:
    weight = torch.randn(7, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold(*unfold(weight)), weight, rtol=1e-15, atol=0)


@pytest.fixture
def small() -> tuple[VocoderConfig, dict[str, Tensor]]:
    config = VocoderConfig(generator=SMALL, mel=CONVENTIONS["hifigan"])
    return config, SMALL.build().state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_native_folder_keeps_everything(
    tmp_path: Path, small: tuple[VocoderConfig, dict[str, Tensor]], dtype: torch.dtype
) -> None:
    config, weights = small
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    weights["trunk.stem.weight"] = weights["trunk.stem.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    save_native(tmp_path / "vocoder", config, weights)
    assert sorted(path.name for path in (tmp_path / "vocoder").iterdir()) == ["config.json", "model.safetensors"]
    for path in (tmp_path / "vocoder", tmp_path / "vocoder" / "model.safetensors"):
        back = open_checkpoint(path)
        assert back.config == config
        assert back.weights.keys() == weights.keys()
        assert all(torch.equal(back.weights[name], tensor) for name, tensor in weights.items())
        assert all(tensor.dtype == dtype for tensor in back.weights.values())


@pytest.mark.parametrize("generator", [MULTI_BAND, C8C8I, replace(V2, standardised=True), replace(V2, causal=True)])
def test_native_folder_keeps_every_kind_of_generator(tmp_path: Path, generator: Any) -> None:
    config = VocoderConfig(generator=generator, mel=CONVENTIONS["hifigan"])
    weights = generator.build().state_dict()
    save_native(tmp_path, config, weights)
    back = open_checkpoint(tmp_path)
    assert back.config == config
    generator.build().load_state_dict(back.weights)


def test_an_interrupted_save_leaves_the_old_checkpoint(
    tmp_path: Path, small: tuple[VocoderConfig, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, weights = small
    save_native(tmp_path, config, weights)

    def full(*arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(native, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        save_native(tmp_path, config, {name: tensor + 1 for name, tensor in weights.items()})
    back = open_checkpoint(tmp_path)
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in weights.items())


def test_a_newer_format_is_refused(tmp_path: Path, small: tuple[VocoderConfig, dict[str, Tensor]]) -> None:
    save_native(tmp_path, *small)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["format"] == 1
    (tmp_path / "config.json").write_text(json.dumps(settings | {"format": 2}))
    with pytest.raises(ValueError, match="is of format 2, but this version of fastvoc reads up to 1; upgrade"):
        open_checkpoint(tmp_path)


def test_native_settings_are_strict(tmp_path: Path, small: tuple[VocoderConfig, dict[str, Tensor]]) -> None:
    save_native(tmp_path, *small)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["generator"]["chanels"] = settings["generator"].pop("channels")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="did you mean 'channels'"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"if these are weights of fastvoc, config\.json is not beside them: name it"):
        open_checkpoint(tmp_path)


def test_a_vocoder_needs_a_mel_that_fits_its_generator() -> None:
    with pytest.raises(ValueError, match="the mel has 100 bands but the generator takes 80"):
        VocoderConfig(generator=V1, mel=CONVENTIONS["bigvgan-24k"])
    with pytest.raises(ValueError, match="a frame every 300 samples but the generator makes 256"):
        VocoderConfig(generator=V1, mel=CONVENTIONS["parallel-wavegan-24k"])
    VocoderConfig(generator=MULTI_BAND, mel=CONVENTIONS["parallel-wavegan"])
    VocoderConfig(generator=C8C8I, mel=CONVENTIONS["hifigan"])


def test_weights_of_another_generator_are_not_saved(
    tmp_path: Path, small: tuple[VocoderConfig, dict[str, Tensor]]
) -> None:
    config, weights = small
    with pytest.raises(ValueError, match=r"save_native: has no head\.conv\.bias;"):
        save_native(tmp_path, config, {k: v for k, v in weights.items() if k != "head.conv.bias"})
    assert list(tmp_path.iterdir()) == []


def test_the_settings_say_the_hop_of_the_network_that_they_build() -> None:
    for config in (V1, V3, DESCRIPT, MULTI_BAND, C8C8I):
        with torch.device("meta"):
            network = config.build()
        assert (network.hop, network.mel_bands) == (config.hop, config.mel_bands)
