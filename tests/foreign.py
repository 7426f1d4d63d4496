"""Writes files as other projects do: their names of tensors, their settings, their containers.

Each writer takes a folder, one of our configurations and a mel convention, and returns the path to open. The settings
are those that the original projects write; names of layers come from `golden`, which does not share them with the code
that is tested.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import torch
import yaml
from golden import Shapes, foreign_shapes, named_values
from safetensors.torch import save_file
from torch import Tensor

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints.formats import hifigan, melgan
from fastvoc.models import HiFiGANConfig, MelGANConfig

Values = Callable[[Shapes], dict[str, Tensor]]


def state_of(config: Any, layers: Any, spelling: str = "weight norm", values: Values = named_values) -> dict[str, Any]:
    return values(foreign_shapes(config, layers(config), spelling))


def single(shapes: Shapes) -> dict[str, Tensor]:
    """Fill tensors as most files hold them."""
    return {name: tensor.float() for name, tensor in named_values(shapes).items()}


def network(config: HiFiGANConfig) -> dict[str, Any]:
    """The settings of a HiFi-GAN under the names that most projects give them."""
    return {
        "upsample_initial_channel": config.channels,
        "upsample_kernel_sizes": list(config.rate_kernel_sizes),
        "resblock_kernel_sizes": list(config.kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in config.dilations],
    }


def official(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    state = state_of(config, hifigan.table, **options)
    torch.save({"generator": state}, folder / "g_00000005")
    settings = network(config) | {
        "resblock": config.block,
        "upsample_rates": list(config.rates),
        "num_mels": mel.bands,
        "num_freq": 1025,
        "n_fft": mel.fft_size,
        "hop_size": mel.hop,
        "win_size": mel.window_size,
        "sampling_rate": mel.sample_rate,
        "fmin": mel.low,
        "fmax": mel.high,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def official_istftnet(folder: Path, config: Any, mel: MelConfig, **options: Any) -> Path:
    official(folder, config.trunk, mel)
    torch.save({"generator": state_of(config, golden.istftnet, **options)}, folder / "g_00000005")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"gen_istft_n_fft": config.fft_size, "gen_istft_hop_size": config.istft_hop}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def descript(folder: Path, config: MelGANConfig, mel: MelConfig, **options: Any) -> Path:
    torch.save(state_of(config, melgan.table, **options), folder / "netG.pt")
    values = {"n_mel_channels": config.mel_bands, "ngf": config.channels // 16, "n_residual_layers": config.units}
    (folder / "args.yml").write_text(yaml.dump(values))
    return folder


def bshall(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    state = state_of(config, hifigan.table, **options)
    path = folder / "hifigan-67926ec6.pt"
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    return path


def gpt_sovits(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    torch.save(state_of(config, hifigan.table, spelling="plain", **options), folder / "vocoder.pth")
    return folder / "vocoder.pth"


def seungwonpark(folder: Path, config: MelGANConfig, mel: MelConfig, **options: Any) -> Path:
    settings = {
        "data": {"train": "", "validation": ""},
        "audio": {
            "n_mel_channels": mel.bands,
            "segment_length": 16000,
            "pad_short": 2000,
            "filter_length": mel.fft_size,
            "hop_length": mel.hop,
            "win_length": mel.window_size,
            "sampling_rate": mel.sample_rate,
            "mel_fmin": mel.low,
            "mel_fmax": mel.high,
        },
    }
    content = {
        "model_g": state_of(config, golden.seungwonpark_melgan, **options),
        "model_d": {"discriminators.0.discriminator.6.bias": torch.zeros(1)},
        "optim_g": {},
        "optim_d": {},
        "step": 1,
        "epoch": 6400,
        "hp_str": yaml.dump(settings),
        "githash": "aca5990",
    }
    torch.save(content, folder / "LJ11_aca5990_6400.pt")
    return folder


STATISTICS = {"mean": np.linspace(-3, -2, 80, dtype=np.float32), "scale": np.linspace(0.5, 1, 80, dtype=np.float32)}


def parallel_wavegan(
    folder: Path,
    config: HiFiGANConfig | MelGANConfig,
    mel: MelConfig,
    *,
    statistics: str | None = "npy",
    version: str | None = "0.5.3",
    **options: Any,
) -> Path:
    """`statistics` is where the mean and scale of the mel are: in `stats.npy`, `stats.h5`, the state dict, nowhere."""
    layers = golden.pwg_hifigan if isinstance(config, HiFiGANConfig) else golden.pwg_melgan
    state = state_of(config, layers, **options)
    mean, scale = (STATISTICS[name][: mel.bands] for name in ("mean", "scale"))
    if statistics == "npy":
        np.save(folder / "stats.npy", np.stack([mean, scale]))
    elif statistics == "h5":
        import h5py

        with h5py.File(folder / "stats.h5", "w") as file:
            file["mean"], file["scale"] = mean, scale
    elif statistics == "state":
        state |= {"mean": torch.from_numpy(mean), "scale": torch.from_numpy(scale)}
    content = {"model": {"generator": state, "discriminator": {"a": torch.zeros(1)}}, "optimizer": {}, "steps": 2500000}
    torch.save(content, folder / "checkpoint-2500000steps.pkl")
    settings = {
        "sampling_rate": mel.sample_rate,
        "fft_size": mel.fft_size,
        "hop_size": mel.hop,
        "win_length": None if mel.window_size == mel.fft_size else mel.window_size,
        "window": "hann",
        "num_mels": mel.bands,
        "fmin": mel.low,
        "fmax": mel.high,
        "format": "npy" if statistics == "npy" else "hdf5",
        "generator_type": "HiFiGANGenerator" if isinstance(config, HiFiGANConfig) else "MelGANGenerator",
        "generator_params": pwg_parameters(config),
        "outdir": "exp/train",
    }
    (folder / "config.yml").write_text(yaml.dump(settings | ({} if version is None else {"version": version})))
    return folder


def pwg_parameters(config: HiFiGANConfig | MelGANConfig) -> dict[str, Any]:
    shared = {
        "in_channels": config.mel_bands,
        "channels": config.channels,
        "kernel_size": 7,
        "upsample_scales": list(config.rates),
        "use_causal_conv": config.causal,
        "nonlinear_activation": "LeakyReLU",
        "nonlinear_activation_params": {"negative_slope": config.slope},
        "bias": True,
        "use_weight_norm": True,
    }
    if isinstance(config, HiFiGANConfig):
        return shared | {
            "out_channels": 1,
            "upsample_kernal_sizes": list(config.rate_kernel_sizes),
            "resblock_kernel_sizes": list(config.kernel_sizes),
            "resblock_dilations": [list(dilations) for dilations in config.dilations],
            "use_additional_convs": config.block == "1",
        }
    return shared | {
        "out_channels": config.pqmf.bands if config.pqmf else 1,
        "stack_kernel_size": 3,
        "stacks": config.units,
        "pad": "ReflectionPad1d",
        "pad_params": {},
        "use_final_nonlinear_activation": True,
    }


def espnet(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    state = state_of(config, golden.pwg_hifigan, **options)
    model = {f"tts.generator.vocoder.{name}": tensor for name, tensor in state.items()}
    model |= {"tts.generator.text2mel.encoder.bias": torch.zeros(1), "tts.discriminator.a": torch.zeros(1)}
    torch.save(model, folder / "train.total_count.ave_5best.pth")
    settings = {
        "tts": "joint_text2wav",
        "tts_conf": {
            "sampling_rate": mel.sample_rate,
            "vocoder_type": "hifigan_generator",
            "vocoder_params": pwg_parameters(config) | {"global_channels": -1},
        },
        "feats_extract_conf": {
            "fs": mel.sample_rate,
            "n_fft": mel.fft_size,
            "hop_length": mel.hop,
            "win_length": mel.window_size,
            "n_mels": mel.bands,
            "fmin": mel.low,
            "fmax": mel.high,
        },
        "normalize": None,
    }
    (folder / "config.yaml").write_text(yaml.dump(settings))
    return folder


def speecht5(
    folder: Path, config: HiFiGANConfig, mel: MelConfig, *, safe: bool = True, kind: str = "hifigan", **options: Any
) -> Path:
    state = state_of(config, golden.transformers_hifigan, "plain", **options)
    if safe:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    settings = network(config) | {
        "architectures": ["SpeechT5HifiGan"],
        "model_type": kind,
        "model_in_dim": config.mel_bands,
        "upsample_rates": list(config.rates),
        "leaky_relu_slope": config.slope,
        "normalize_before": True,
        "initializer_range": 0.01,
    }
    if kind == "hifigan":
        settings["sampling_rate"] = mel.sample_rate
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def conformer(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    return speecht5(folder, config, mel, kind="fastspeech2_conformer_hifigan", safe=False, **options)


def speechbrain(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    torch.save(state_of(config, golden.speechbrain_hifigan, **options), folder / "generator.ckpt")
    lists = "\n".join(f"{name}: {json.dumps(value)}" for name, value in network(config).items())
    names = [*network(config), "in_channels", "out_channels", "resblock_type", "upsample_factors"]
    references = "\n".join(f"    {name}: !ref <{name}>" for name in names)
    (folder / "hyperparams.yaml").write_text(
        f"""
seed: 1234
__set_seed: !apply:torch.manual_seed [!ref <seed>]
sample_rate: {mel.sample_rate}
n_fft: {mel.fft_size}
win_length: {mel.window_size}
mel_fmin: {mel.low}
mel_fmax: {mel.high}
in_channels: {config.mel_bands}
out_channels: 1
resblock_type: "{config.block}"
upsample_factors: {list(config.rates)}
{lists}
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
{references}
    inference_padding: 5
modules:
    generator: !ref <generator>
"""
    )
    return folder


COQUI_MEL = replace(CONVENTIONS["tacotron2"], floor=1e-8)
"""The convention of Coqui's HiFi-GAN: ln without a normalization."""


def coqui(folder: Path, config: HiFiGANConfig | MelGANConfig, mel: MelConfig, **options: Any) -> Path:
    if isinstance(config, HiFiGANConfig):
        state = state_of(config, hifigan.table, "parametrized", **options)
        kind = "hifigan_generator"
        parameters = network(config) | {
            "upsample_factors": list(config.rates),
            "resblock_type": config.block,
            "inference_padding": 5,
        }
    else:
        state = state_of(config, golden.coqui_melgan, "parametrized", **options)
        kind = "multiband_melgan_generator" if config.pqmf else "melgan_generator"
        parameters = {"upsample_factors": list(config.rates), "num_res_blocks": config.units}
        if config.pqmf:
            state |= coqui_pqmf(config.pqmf.bands)
    content = {"model": {f"model_g.{name}": tensor for name, tensor in state.items()}, "step": 1, "config": {}}
    content["model"]["model_d.mpd.discriminators.0.conv_post.bias"] = torch.zeros(1)
    torch.save(content, folder / "model_file.pth")
    settings = {
        "model": "gan",
        "generator_model": kind,
        "generator_model_params": parameters,
        "audio": {
            "fft_size": mel.fft_size,
            "win_length": mel.window_size,
            "hop_length": mel.hop,
            "sample_rate": mel.sample_rate,
            "num_mels": mel.bands,
            "mel_fmin": mel.low,
            "mel_fmax": mel.high,
            "log_func": "np.log" if mel.logarithm == "natural" else "np.log10",
            "spec_gain": mel.gain,
            "signal_norm": mel.gain == 20,
            "preemphasis": 0.0,
        },
    }
    text = json.dumps(settings, indent=4)
    (folder / "config.json").write_text(text.replace('"audio": {', '"audio": { // of "the" mel\n/* in Hz */'))
    return folder


def coqui_pqmf(bands: int) -> dict[str, Tensor]:
    """The filters as Coqui builds and stores them: their phase is half a sample off the centre."""
    from scipy.signal import firwin

    prototype = firwin(63, 0.15, window=("kaiser", 9.0))
    band, offset = np.arange(bands)[:, None], np.arange(63) - 30.5
    angle = (2 * band + 1) * np.pi / (2 * bands) * offset
    turn = (-1.0) ** band * np.pi / 4
    spread = torch.zeros(bands, bands, bands)
    for place in range(bands):
        spread[place, place, 0] = 1
    return {
        "pqmf_layer.H": torch.from_numpy(2 * prototype * np.cos(angle + turn)).float()[:, None],
        "pqmf_layer.G": torch.from_numpy(2 * prototype * np.cos(angle - turn)).float()[None],
        "pqmf_layer.updown_filter": spread,
    }


def nemo(
    folder: Path, config: HiFiGANConfig, mel: MelConfig, *, mode: str = "w", flat: bool = False, **options: Any
) -> Path:
    state = state_of(config, hifigan.table if flat else golden.nemo_hifigan, **options)
    model = {f"generator.{name}": tensor for name, tensor in state.items()}
    model |= {
        "mpd.discriminators.0.conv_post.bias": torch.zeros(1),
        "audio_to_melspec_precessor.window": torch.hann_window(mel.window_size, periodic=False),
        "audio_to_melspec_precessor.fb": torch.zeros(1, mel.bands, mel.fft_size // 2 + 1),
    }
    settings = {
        "preprocessor": {
            "_target_": "nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures",
            "nfilt": mel.bands,
            "lowfreq": mel.low,
            "highfreq": mel.high,
            "n_fft": mel.fft_size,
            "n_window_size": mel.window_size,
            "n_window_stride": mel.hop,
            "pad_to": 0,
            "pad_value": -11.52,
            "sample_rate": mel.sample_rate,
            "window": "hann",
            "normalize": None,
            "preemph": None,
            "dither": 0.0,
            "log": True,
            "log_zero_guard_type": "clamp",
            "log_zero_guard_value": 1e-5,
            "mag_power": 1.0,
            "exact_pad": True,
        },
        "generator": network(config)
        | {
            "_target_": "nemo.collections.tts.modules.hifigan_modules.Generator",
            "resblock": int(config.block),
            "upsample_rates": list(config.rates),
        },
    }
    weights = io.BytesIO()
    torch.save(model, weights)
    path = folder / "tts_hifigan.nemo"
    with tarfile.open(path, mode) as archive:
        members = {"model_config.yaml": yaml.dump(settings).encode(), "model_weights.ckpt": weights.getvalue()}
        for name, content in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def deep_learning_examples(
    folder: Path,
    config: HiFiGANConfig,
    mel: MelConfig,
    *,
    average: bool = True,
    flat: bool = False,
    twice: bool = False,
    **options: Any,
) -> Path:
    """`flat` numbers blocks through all stages, `twice` adds a dimension to weights, as older files do."""
    state = state_of(config, hifigan.table if flat else golden.nemo_hifigan, **options)
    if twice:
        state = {name: t[..., None] if name.endswith("weight_v") else t for name, t in state.items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    setup = {
        "sampling_rate": mel.sample_rate,
        "filter_length": mel.fft_size,
        "hop_length": mel.hop,
        "win_length": mel.window_size,
        "num_mels": mel.bands,
        "mel_fmin": mel.low,
        "mel_fmax": mel.high,
        "epochs": 6500,
    }
    content = {
        "generator": other if average else state,
        "gen_ema": state if average else None,
        "config": network(config) | {"resblock": config.block, "upsample_rates": list(config.rates)},
        "train_setup": setup,
        "train_state": {"epoch": 6500},
    }
    torch.save(content, folder / "hifigan_gen_checkpoint_6500.pt")
    return folder
