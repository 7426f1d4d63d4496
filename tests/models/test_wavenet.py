"""WaveNet: the originals' numbers, and samples made one by one that are those of the whole network."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from golden import foreign_shapes, hashed, numbered_values
from torch import Tensor
from torch.nn import functional as F

from fastvoc import Vocoder, native, noise, ops
from fastvoc.audio import MelConfig, mel_spectrogram
from fastvoc.audio.mu_law import decode_mu_law, encode_mu_law
from fastvoc.blocks.conditioning import BandTransposedConfig, RepeatedConfig, StretchedConfig, TransposedConfig
from fastvoc.blocks.distributions import GaussianConfig, LogisticsConfig, MuLawConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig, open_checkpoint
from fastvoc.checkpoints.formats import wavenet_vocoder
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.cli import main
from fastvoc.engine import StreamState
from fastvoc.models.wavenet import GAUSSIAN, LOGISTICS, MU_LAW, NV_WAVENET, WaveNet, WaveNetConfig
from fastvoc.ops.recurrent import LONGEST, SHORTEST, Steps

BANDS = 6

SMALL: dict[str, Any] = {
    "mel_bands": BANDS,
    "conditioning": StretchedConfig(rates=(4, 2), context=1),
    "channels": 12,
    "gates": 20,
    "skip_channels": 18,
    "head_channels": 14,
    "layers": 6,
    "cycle": 5,
}

NETWORKS: dict[str, WaveNetConfig] = {
    "mu-law": WaveNetConfig(**SMALL),
    "emphasised": WaveNetConfig(**SMALL, preemphasis=0.85, gain=0.55),
    "logistics": WaveNetConfig(**SMALL, distribution=LogisticsConfig(mixtures=3)),
    "gaussian": WaveNetConfig(**SMALL, distribution=GaussianConfig()),
    "one tap": WaveNetConfig(**{**SMALL, "kernel_size": 1}),
    "two taps": WaveNetConfig(
        **{**SMALL, "kernel_size": 2, "conditioning": TransposedConfig(hop=8, kernel_size=27)}, residual_scale=1.0
    ),
    "repeated": WaveNetConfig(**{**SMALL, "conditioning": RepeatedConfig(hop=8)}, skip_scale=1.0),
    "bands smoothed": WaveNetConfig(**{**SMALL, "conditioning": StretchedConfig(rates=(2, 2, 2), band_taps=3)}),
    "bands transposed": WaveNetConfig(**{**SMALL, "conditioning": BandTransposedConfig(rates=(2, 4))}, skip_scale=1.0),
    "vector": WaveNetConfig(**SMALL, condition_channels=3),
    "speakers": WaveNetConfig(**SMALL, condition_channels=3, speakers=4),
}

needs_native = pytest.mark.skipif(ops.backends()["cpu"] is not None, reason=f"no native code: {ops.backends()['cpu']}")


def mel_config(config: WaveNetConfig) -> MelConfig:
    return MelConfig(
        sample_rate=8000, fft_size=64, hop=config.hop, window_size=64, bands=config.mel_bands, low=0, high=4000
    )


@cache
def checkpoint(name: str) -> Checkpoint:
    config = NETWORKS[name]
    torch.manual_seed(1)
    weights = config.build().state_dict()
    for key in (key for key in weights if key.endswith("bias")):
        weights[key] = 0.2 * torch.rand_like(weights[key]) - 0.1  # fresh ones are zero
    for key in (key for key in weights if key.startswith("rows.stages")):
        weights[key] = 0.5 * torch.randn_like(weights[key])  # a mean of mels, which are negative, is lost in the ReLU
    return Checkpoint(VocoderConfig(generator=config, mel=mel_config(config)), weights, "a test")


def vocoder(name: str, dtype: torch.dtype = torch.float32, **options: Any) -> Vocoder:
    return Vocoder(checkpoint(name), dtype=dtype, **options)


def network(voice: Vocoder) -> WaveNet:
    assert isinstance(voice.generator, WaveNet)
    return voice.generator


def mel_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 6 - 9


def given(name: str, batch: int = 1) -> dict[str, Tensor]:
    condition = {"vector": torch.linspace(-1, 1, 3 * batch).view(batch, 3), "speakers": torch.tensor([[2.0]] * batch)}
    return {"condition": condition[name]} if name in condition else {}


# The originals' numbers.


@cache
def original_tensors(config: WaveNetConfig) -> dict[str, Tensor]:
    """Return what the original saves, filled by the rule of `golden.numbered_values`."""
    table = wavenet_vocoder.table(config)
    shapes = foreign_shapes(config, [pair for pair in table if not pair[1].startswith("rows.smooth")])
    for theirs, ours in table:
        if ours.startswith("rows.smooth"):
            shape = (1, 1, 1, 2 * config.conditioning.rates[0] + 1)  # type: ignore[attr-defined]
            shapes |= {f"{theirs}.weight_g": (1, 1, 1, 1), f"{theirs}.weight_v": shape}
    for name in wavenet_vocoder.bias_free(config):
        shapes.pop(f"{name}.bias", None)
    last = f"conv_layers.{config.layers - 1}.conv1x1_out"  # which nothing reads
    width = (config.channels, config.gates // 2, 1)
    shapes |= {f"{last}.weight_g": (width[0], 1, 1), f"{last}.weight_v": width, f"{last}.bias": width[:1]}
    for ending in ("weight_g", "weight_v"):  # the one layer that is not under weight norm
        shapes.pop(f"upsample_net.conv_in.{ending}")
    shapes["upsample_net.conv_in.weight"] = (config.mel_bands, config.mel_bands, 5)
    values = numbered_values(shapes)
    assert sum(tensor.numel() for tensor in values.values()) == COUNTS[config.distribution.kind]
    return values


def original(config: WaveNetConfig) -> WaveNet:
    """Build a network of the weights that the original has."""
    last, table = f"conv_layers.{config.layers - 1}.conv1x1_out", wavenet_vocoder.table(config)
    unread = {name: value for name, value in original_tensors(config).items() if not name.startswith(last)}
    weights = to_native(unread, table, config, "test", bias_free=wavenet_vocoder.bias_free(config))
    made = config.build().double().eval()
    made.load_state_dict(weights)
    return made


COUNTS = {"mu-law": 4_699_944, "logistics": 3_720_932, "gaussian": 3_717_292}


def fingerprint(x: Tensor) -> list[float]:
    return [float(x.mean()), *(float(x.flatten()[place]) for place in (0, 1, 7, 100, -1))]


def test_mu_law_network_has_the_originals_logits() -> None:
    model = original(MU_LAW)
    classes = ((hashed(1024, 991) + 1) / 2 * 256).floor().clip(0, 255).long()
    rows = model.rows.unpadded(hashed(640, 990).view(1, 80, 8))  # type: ignore[operator]
    with torch.no_grad():
        logits = model.parameters_of(classes[None], rows)
    expected = [0.00165440638, 0.116418271, 0.112148678, 0.114049865, 0.109584645, 0.0696228158]
    np.testing.assert_allclose(fingerprint(logits), expected, rtol=0, atol=1e-8)
    assert MU_LAW.receptive_samples == 6139


def test_networks_of_samples_have_the_originals_parameters_and_losses() -> None:
    wave, mel = 0.5 * hashed(1024, 992), hashed(640, 990).view(1, 80, 8)
    for config, loss in ((LOGISTICS, 11.804570126), (GAUSSIAN, 1.064427956)):
        model = original(config)
        with torch.no_grad():
            parameters = model.parameters_of(wave[None], model.rows.unpadded(mel))  # type: ignore[operator]
        if config is LOGISTICS:
            expected = [0.00437573278, 0.0783819206, 0.0789678411, 0.0794468361, 0.0838026345, -0.0419916797]
            np.testing.assert_allclose(fingerprint(parameters), expected, rtol=0, atol=1e-8)
        found = config.distribution.negative_log_likelihood(parameters[..., :-1], wave[None, 1:]).mean()
        np.testing.assert_allclose(float(found), loss, rtol=0, atol=1e-8)
        assert config.receptive_samples == 505


def nv_wavenet_tensors() -> dict[str, Tensor]:
    """Return what nv-wavenet's trainer saves, filled by the same rule."""
    shapes: dict[str, tuple[int, ...]] = {"upsample.weight": (80, 80, 800), "upsample.bias": (80,)}
    shapes |= {"cond_layers.conv.weight": (2048, 80, 1), "cond_layers.conv.bias": (2048,), "embed.weight": (256, 64)}
    for layer in range(16):
        each = {"dilate_layers": (128, 64, 2), "skip_layers": (256, 64, 1)}
        each |= {"res_layers": (64, 64, 1)} if layer < 15 else {}
        for kind, shape in each.items():
            shapes |= {f"{kind}.{layer}.conv.weight": shape, f"{kind}.{layer}.conv.bias": shape[:1]}
    shapes |= {"conv_out.conv.weight": (256, 256, 1), "conv_end.conv.weight": (256, 256, 1)}
    values = numbered_values(shapes)
    assert sum(tensor.numel() for tensor in values.values()) == 6_026_256
    return values | {"embed.weight": hashed(256 * 64, sorted(shapes).index("embed.weight")).view(256, 64)}


def test_nv_wavenet_has_the_originals_logits(tmp_path: Path) -> None:
    torch.save({"model": nv_wavenet_tensors(), "iteration": 210000}, tmp_path / "wavenet_210000")
    opened = open_checkpoint(tmp_path / "wavenet_210000")
    assert opened.config.generator == NV_WAVENET and "nv-wavenet" in opened.source
    assert (opened.config.mel.sample_rate, opened.config.mel.hop) == (16000, 200)
    model = NV_WAVENET.build().double()
    model.load_state_dict(opened.weights)
    classes = ((hashed(1024, 991) + 1) / 2 * 256).floor().clip(0, 255).long()[None, :1000]
    with torch.no_grad():
        logits = model.parameters_of(classes, model.rows(hashed(400, 995).view(1, 80, 5)))
    logits = torch.cat([torch.zeros(1, 256, 1), logits[..., :-1]], dim=-1)
    expected = [-0.0205597234, 0, 0.0884166756, -0.596951325, -0.158617135, 0.277740273]
    np.testing.assert_allclose(fingerprint(logits), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules_of_nv_wavenet_are_read_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    code = ModuleType("wavenet")
    monkeypatch.setitem(sys.modules, "wavenet", code)
    for name in ("WaveNet", "Conv"):
        made = type(name, (torch.nn.Module,), {"__module__": "wavenet"})
        setattr(code, name, made)
    tensors = {name: tensor.float() for name, tensor in nv_wavenet_tensors().items()}
    whole = code.WaveNet()
    for name, tensor in tensors.items():
        *way, last = name.split(".")
        place = whole
        for part in way:
            if part not in place._modules:
                kind = {"embed": torch.nn.Embedding, "upsample": torch.nn.ConvTranspose1d}.get(part, code.Conv)
                if part.endswith("_layers") and part != "cond_layers":
                    kind = torch.nn.ModuleList
                module = kind.__new__(kind)
                torch.nn.Module.__init__(module)
                place.add_module(part, module)
            place = place._modules[part]
        place.register_parameter(last, torch.nn.Parameter(tensor))
    assert whole.state_dict().keys() == tensors.keys()
    content = {"model": whole, "iteration": 3, "learning_rate": 1e-3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "wavenet_3", _use_new_zipfile_serialization=zipped)
    torch.save({"model": tensors}, tmp_path / "plain")
    monkeypatch.delitem(sys.modules, "wavenet")
    opened, plain = open_checkpoint(tmp_path / "wavenet_3"), open_checkpoint(tmp_path / "plain")
    assert opened.config == plain.config and opened.weights.keys() == plain.weights.keys()
    assert all(torch.equal(tensor, plain.weights[name]) for name, tensor in opened.weights.items())


def test_files_of_r9y9_are_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = original_tensors(GAUSSIAN)
    torch.save({"state_dict": values, "global_step": 3}, tmp_path / "checkpoint_step000000003_ema.pth")
    torch.save({"state_dict": {k: 0 * v for k, v in values.items()}}, tmp_path / "checkpoint_step000000003.pth")
    opened = open_checkpoint(tmp_path, config=Path("wavenet-gaussian"))
    assert opened.config.generator == GAUSSIAN and opened.config.mel.normalization.unknown
    assert float(opened.weights["output.weight"].abs().max()) > 0  # the moving average
    (tmp_path / "hparams.json").write_text(json.dumps(wavenet_vocoder.FORMAT.presets["wavenet-gaussian"]))
    assert main(["info", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "wavenet_vocoder" in told and "22050" in told and "meanvar.joblib" in told


OF_2018 = {
    "layers": 6,
    "stacks": 2,
    "residual_channels": 16,
    "gate_channels": 32,
    "skip_out_channels": 12,
    "gin_channels": 4,
    "n_speakers": 3,
    "upsample_scales": [4, 4, 8],
    "freq_axis_kernel_size": 3,
    "log_scale_min": math.log(1e-14),
    "min_level_db": -100,
    "hop_size": 128,
}
CLASSES = {"input_type": "mulaw-quantize", "quantize_channels": 256, "out_channels": 256}


def tensors_of_2018(settings: dict[str, Any]) -> dict[str, Tensor]:
    """Return what v0.1.1 saves, filled by the same rule."""
    told = wavenet_vocoder.HyperParameters(**{**settings, "upsample_scales": (4, 4, 8)})
    config = wavenet_vocoder.network(told, "a test", of_2018=True)
    shapes = foreign_shapes(config, wavenet_vocoder.table(config))
    last = "conv_layers.5.conv1x1_out"
    shapes |= {f"{last}.weight_g": (16, 1, 1), f"{last}.weight_v": (16, 16, 1), f"{last}.bias": (16,)}
    return numbered_values(shapes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OF_2018, (-0.0127141112406, -0.0743415261, -0.0751397456, -0.0863115904, -0.0456451477, -0.2253857642)),
        (
            OF_2018 | {"legacy": False},
            (-0.010512079104, -0.0462850814, -0.0431343168, -0.1130194474, -0.0424585999, -0.1895994997),
        ),
        (
            OF_2018 | CLASSES,
            (-0.00818367459399, -0.0788117615, -0.0798591463, -0.0681553720, -0.0599786698, 0.0055016709),
        ),
    ],
    ids=["logistics", "skips without factors", "classes"],
)
def test_files_of_2018_have_the_originals_parameters(
    tmp_path: Path, settings: dict[str, Any], expected: tuple[float, ...]
) -> None:
    """Those of r9y9/wavenet_vocoder v0.1.1, whose code was run on these weights."""
    torch.save({"state_dict": tensors_of_2018(settings)}, tmp_path / "checkpoint_step000320000_ema.pth")
    (tmp_path / "hparams.json").write_text(json.dumps(settings))
    opened = open_checkpoint(tmp_path)
    assert opened.notes == (
        "before February 2018, 0.01 was added to mels under the logarithm, of which its settings say nothing",
    )
    config = opened.config.generator
    model = config.build().double()
    model.load_state_dict(opened.weights)
    mel, inputs = (hashed(640, 990).view(1, 80, 8) + 1) / 2, 0.5 * hashed(1024, 992)[None]
    if config.distribution.classes:
        inputs = ((hashed(1024, 991) + 1) / 2 * 256).floor().clip(0, 255).long()[None]
    with torch.no_grad():
        found = model.parameters_of(inputs, model.rows(mel), torch.tensor([[1.0]]))
    np.testing.assert_allclose(fingerprint(found), expected, rtol=0, atol=1e-8)


def test_mels_of_2018_are_those_of_lws() -> None:
    """Of lws 3341893 in r9y9/wavenet_vocoder v0.1.1's audio.py, whose code was run on a wave."""
    mel = wavenet_vocoder.mel_of_2018(wavenet_vocoder.HyperParameters(), "a test")
    wave = 0.5 * hashed(8192, 997)
    found = mel_spectrogram(F.pad(wave, (768, 0)), mel)
    assert found.shape == (80, 35)
    expected = [0.644336307406, 0.476461061428, 0.572972626485, 0.661413001662, 0.687436900594, 0.550171717135]
    np.testing.assert_allclose(fingerprint(found), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="fft_size 1024 is no multiple of hop_size 300"):
        wavenet_vocoder.mel_of_2018(wavenet_vocoder.HyperParameters(hop_size=300), "a test")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"fft_size": 0}, "fft_size is 0"),
        ({"hop_size": 0}, "hop_size is 0"),
        ({"min_level_db": 100}, "min_level_db is 100"),
        ({"min_level_db": -1e9}, "floor is 0.0"),
        ({"fmax": 1e9}, "bands from 125.0 to 1000000000.0 Hz do not fit"),
        ({"upsample_scales": []}, "rates is"),
        ({"freq_axis_kernel_size": 2}, "band_taps 2 is even"),
    ],
)
def test_settings_of_2018_that_cannot_be_are_named(tmp_path: Path, setting: dict[str, Any], sentence: str) -> None:
    torch.save({"state_dict": tensors_of_2018(OF_2018)}, tmp_path / "checkpoint_step000320000_ema.pth")
    (tmp_path / "hparams.json").write_text(json.dumps(OF_2018 | setting))
    with pytest.raises(ValueError, match=f"hparams.json: {re.escape(sentence)}") as raised:
        open_checkpoint(tmp_path)
    assert "pydantic" not in str(raised.value)


def test_files_of_2018_have_any_transform_and_may_repeat_their_mels(tmp_path: Path) -> None:
    """Their settings have no win_length, and tensors of those that repeat mels look like later ones."""
    repeated = OF_2018 | {"upsample_conditional_features": False, "fft_size": 512}
    state = tensors_of_2018(repeated)
    torch.save({"state_dict": state}, tmp_path / "checkpoint_step000320000_ema.pth")
    (tmp_path / "hparams.json").write_text(json.dumps(repeated))
    opened = open_checkpoint(tmp_path)
    config, mel = opened.config.generator, opened.config.mel
    assert (config.conditioning, config.skip_scale) == (RepeatedConfig(hop=128), 1.0)
    assert (mel.window, mel.window_size) == ("sine", 512)
    torch.testing.assert_close(
        opened.weights["layers.5.skip.bias"], state["conv_layers.5.conv1x1_skip.bias"] * math.sqrt(0.5)
    )


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"stacks": 5}, "layers 24 are no multiple of stacks 5"),
        ({"cin_channels": -1}, "cin_channels is -1"),
        ({"input_type": "mulaw"}, "continuous"),
        ({"out_channels": 30}, "out_channels is 30"),
        ({"legacy": False}, "legacy is false"),
        ({"layers": "many"}, "layers is 'many'"),
        ({"upsample_params": {"upsample_scales": [4, 4]}}, "up_layers.5.weight_g"),
    ],
)
def test_settings_that_are_not_opened_are_named(tmp_path: Path, setting: dict[str, Any], sentence: str) -> None:
    torch.save({"state_dict": original_tensors(GAUSSIAN)}, tmp_path / "checkpoint_latest.pth")
    settings = wavenet_vocoder.FORMAT.presets["wavenet-gaussian"] | setting
    (tmp_path / "hparams.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=sentence):
        open_checkpoint(tmp_path)


# Samples.


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sample_depends_on_those_before_it_alone(name: str) -> None:
    model = network(vocoder(name, torch.float64))
    mel, wave = mel_of(1, BANDS, 12).double(), 0.3 * hashed(96, 3)[None]
    changed = wave.clone()
    changed[:, 40] += 0.4
    with torch.no_grad():
        before, after = (model(mel, x, **given(name)) for x in (wave, changed))
    different = (before != after).any(dim=1)[0]
    last = 42 if name == "emphasised" else 41  # pre-emphasis moves the sample behind it, too
    assert not different[:41].any() and different[41] and (name != "one tap" or not different[last + 1 :].any())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
def test_sample_by_sample_is_the_whole_network(name: str, backend: str) -> None:
    """What is drawn, given back to the whole network, is what that network draws of the same numbers."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    voice, mel, config = vocoder(name, dtype, backend=backend), mel_of(BANDS, 20), NETWORKS[name]
    condition = given(name)
    wave = voice(mel, seed=5, **{key: value[0] for key, value in condition.items()})
    exact = network(vocoder(name, torch.float64))
    drawn = voice.draws(torch.tensor([5]), 0, 20).double()  # type: ignore[misc]
    inputs = inputs_of(config, exact.emphasised(wave.double()[None]))
    parameters = whole(exact, mel, inputs, as_double(condition))
    expected = config.distribution.draw(parameters.T, drawn[0].T, torch.ones(len(wave), dtype=torch.float64))
    if config.distribution.classes:
        for t in (expected != inputs[0]).nonzero().flatten().tolist():  # only where a number lies at a boundary
            sums = parameters[:, t].softmax(0).cumsum(0)
            assert backend == "cpu" and float((sums - drawn[0, 0, t]).abs().min()) < 1e-4
        return
    torch.testing.assert_close(inputs[0], expected, rtol=0, atol=1e-10 if backend == "reference" else 2e-5)


def inputs_of(config: WaveNetConfig, samples: Tensor) -> Tensor:
    """Return what decodes to samples; the originals' encoders do not undo their decoders."""
    if not config.distribution.classes:
        return samples
    table = config.distribution.decode(torch.arange(config.distribution.classes)).double()
    return (samples[..., None] - table).abs().argmin(-1)


def whole(model: WaveNet, mel: Tensor, inputs: Tensor, condition: dict[str, Tensor]) -> Tensor:
    """Return the parameters of each sample, (outputs, T), given those before it."""
    first = torch.full_like(inputs[:, :1], model.config.distribution.silence)
    with torch.no_grad():
        rows = model.rows(mel.to(model.input.weight)[None])
        return model.parameters_of(torch.cat([first, inputs[:, :-1]], dim=1), rows, **condition)[0]


def as_double(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() for name, value in values.items()}


@needs_native
def test_native_classes_are_those_of_the_network_in_float64_over_4000_samples() -> None:
    mel = mel_of(BANDS, 500)
    wave = vocoder("mu-law")(mel, seed=3)
    assert len(wave) == 4000
    exact = network(vocoder("mu-law", torch.float64))
    classes = inputs_of(exact.config, wave)
    torch.testing.assert_close(decode_mu_law(classes, "truncated"), wave, rtol=0, atol=0)
    logits = whole(exact, mel, classes[None], {})
    number = noise.uniform(torch.tensor([3]), 0, channels=1, rows=4000)[0, 0].double()
    sums = logits.softmax(0).cumsum(0)
    chosen = (sums <= number).sum(0)
    near = (sums - number).abs().amin(0) < 1e-4
    assert torch.equal(chosen[~near], classes[~near]) and int((chosen != classes).sum()) <= 2
    assert len(classes.unique()) > 100


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
@pytest.mark.parametrize("chunks", [[1] * 11, [3, 0, 7, 1], [11]])
def test_chunks_change_no_bit(name: str, backend: str, chunks: list[int]) -> None:
    voice, mel = vocoder(name, backend=backend), mel_of(BANDS, 11)
    condition = {key: value[0] for key, value in given(name).items()}
    whole = voice(mel, seed=7, **condition)
    assert whole.shape == (11 * 8,) and bool(whole.isfinite().all())
    streamed = torch.cat(list(voice.stream(mel.split(chunks, dim=-1), seed=7, **condition)))
    assert torch.equal(streamed, whole)


@needs_native
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("isa", native.isas() if ops.backends()["cpu"] is None else [])
def test_batches_threads_and_instruction_sets(name: str, isa: str) -> None:
    batch, mel = 7, mel_of(7, BANDS, 9)
    voice, condition = vocoder(name), given(name, 7)
    with native.use_isa(isa):
        waves = voice(mel, seed=20, **condition)
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            assert torch.equal(voice(mel, seed=20, **condition), waves)
        finally:
            torch.set_num_threads(before)
        for item in range(batch):
            own = {key: value[item] for key, value in condition.items()}
            assert torch.equal(voice(mel[item], seed=20 + item, **own), waves[item])
        lengths = [9, 1, 4, 9, 2, 3, 5]
        each = voice(mel, lengths=lengths, seed=20, **condition)
    for wave, item, length, seed in zip(each, mel, lengths, range(20, 27), strict=True):
        own = {key: value[seed - 20] for key, value in condition.items()}
        with native.use_isa(isa):
            assert torch.equal(wave, voice(item[:, :length], seed=seed, **own))
    reference = Vocoder(checkpoint(name), dtype=torch.float64, backend="reference")(mel, seed=20, **condition)
    close = (reference.float() - waves).abs() < 1e-3
    assert float(close.float().mean()) > 0.98  # the same classes until a number lies at a boundary


def test_temperature_zero_takes_the_likeliest() -> None:
    for name in ("mu-law", "logistics", "gaussian"):
        voice, mel = vocoder(name), mel_of(BANDS, 4)
        cold = voice(mel, seed=1, temperature=0)
        assert torch.equal(cold, voice(mel, seed=2, temperature=0))
        assert not torch.equal(voice(mel, seed=1), voice(mel, seed=2))
        inputs = inputs_of(NETWORKS[name], cold)
        parameters = whole(network(voice), mel, inputs[None], {})
        likeliest = parameters[:1].T[:, 0] if name == "gaussian" else parameters[:3].argmax(0)
        if name == "mu-law":
            assert torch.equal(parameters.argmax(0), inputs)
        elif name == "gaussian":
            torch.testing.assert_close(likeliest.clamp(-1, 1), cold, rtol=0, atol=1e-5)
        else:
            means = parameters[3:6].gather(0, likeliest[None])[0]
            torch.testing.assert_close(means.clamp(-1, 1), cold, rtol=0, atol=1e-5)


@needs_native
def test_weights_that_change_are_packed_again() -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 6)
    before = voice(mel, seed=1)
    with torch.no_grad():
        network(voice).output.bias[:128] += 5
    after = voice(mel, seed=1)
    assert not torch.equal(before, after)
    assert torch.equal(Vocoder(checkpoint("mu-law"))(mel, seed=1), before)


@needs_native
@pytest.mark.parametrize("name", ["refresh", "step"])
def test_what_samples_of_weights_miss_is_packed_again(name: str) -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 6)
    before, bias = voice(mel, seed=1), network(voice).output.bias
    if name == "refresh":
        bias.data[-1] += 50
        voice.refresh()
    else:
        # fused steps are not counted by PyTorch, and this one reaches a single value, which is no sample
        weights = bias.detach().clone()
        bias.grad = torch.zeros_like(bias)
        bias.grad[-1] = -50
        bias.requires_grad_()
        torch.optim.SGD([bias], lr=1.0, fused=True).step()
        bias.grad = None
        assert int((bias != weights).sum()) == 1
    after = voice(mel, seed=1)
    assert torch.equal(after, copy.deepcopy(voice)(mel, seed=1)) and not torch.equal(after, before)


@pytest.mark.parametrize("name", ["mu-law", "logistics", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_smallest_temperatures_take_the_likeliest(name: str, dtype: torch.dtype) -> None:
    voice, mel = vocoder(name, dtype), mel_of(BANDS, 3)
    cold = voice(mel, seed=1, temperature=0)
    for temperature in (5e-324, 1e-45, 2e-38):
        torch.testing.assert_close(voice(mel, seed=1, temperature=temperature), cold, rtol=0, atol=1e-30)


def test_speakers_and_vectors_are_heard_and_checked() -> None:
    voice, mel = vocoder("speakers"), mel_of(BANDS, 4)
    waves = [voice(mel, seed=1, condition=torch.tensor([number])) for number in (0.0, 3.0)]
    assert not torch.equal(*waves)
    for number in (-1.0, 4.0, 0.5):
        with pytest.raises(ValueError, match="holds no number of a speaker"):
            voice(mel, seed=1, condition=torch.tensor([number]))
    with pytest.raises(ValueError, match="gates 21 is odd"):
        WaveNetConfig(gates=21)
    with pytest.raises(ValueError, match="band_taps 2 is even"):
        StretchedConfig(band_taps=2)
    with pytest.raises(ValueError, match="give their embedding a width"):
        WaveNetConfig(speakers=2)


def test_first_weights_are_r9y9s_and_let_the_last_layer_hear_samples() -> None:
    torch.manual_seed(0)
    model = replace(MU_LAW, mel_bands=BANDS, conditioning=RepeatedConfig(hop=8)).build()
    layer: Any = model.layers[20]
    for part, variance in (
        (layer.dilated, 2 / 384),
        (layer.skip, 2 / 128),
        (layer.condition, 2 / BANDS),
        (model.input, 1),
    ):
        assert float(part.weight.square().mean()) == pytest.approx(variance, rel=0.1)
        assert not part.bias.any()
    heard: list[Tensor] = []
    with torch.no_grad():
        for classes in (torch.full((1, 512), 127), torch.randint(256, (1, 512))):
            x, skip = model.embedded(classes), None
            for layer in model.layers:
                heard.append(x)
                x, skip = layer(x, torch.zeros(1, BANDS, 512), None, skip)
    difference = float((heard[59] - heard[29]).square().mean().sqrt())
    assert difference > 0.03  # with a sixth of the variance it is 3e-6


def test_bfloat16_says_and_does_what_it_can() -> None:
    voice, mel = vocoder("mu-law", torch.bfloat16), mel_of(BANDS, 30)
    wave = voice(mel, seed=1)
    assert wave.dtype == torch.bfloat16 and bool(wave.isfinite().all())
    assert torch.equal(torch.cat(list(voice.stream(mel.split(4, dim=-1), seed=1))), wave)
    if ops.backends()["cpu"] is None and native.multiplies_bfloat16():
        assert network(voice).explain_steps()["native steps"] is None


needs_int8 = pytest.mark.skipif(
    ops.backends()["cpu"] is not None or not native.multiplies_bfloat16(), reason="no multiplications in 8 bits here"
)


def parameters_given(voice: Vocoder, mel: Tensor, inputs: Tensor) -> Tensor:
    """Return what native steps say of each sample, (T, outputs), given inputs."""
    model = network(voice)
    packed, rows = model._packed(), model.rows(mel.to(model.input.weight)[None]).mT.float().contiguous()
    result = torch.empty(1, rows.shape[1], packed.sizes["outputs"])
    packed.run(
        Steps(
            time=torch.zeros(1, dtype=torch.int64),
            rings=torch.zeros(1, packed.rows, packed.sizes["channels"]),
            history=torch.full((1, 1), float(model.config.distribution.silence)),
            condition=rows,
            gates=None,
            noise=None,
            temperature=None,
            forced=inputs[None].float().contiguous(),
            parameters=result,
        )
    )
    return result[0]


@needs_int8
@pytest.mark.parametrize("name", ["mu-law", "logistics", "two taps"])
def test_eight_bits_keep_the_ratio_that_was_asked_for(name: str, tmp_path: Path) -> None:
    voice, mel, fresh = vocoder(name), mel_of(BANDS, 40), mel_of(BANDS, 80)[:, 40:]
    narrow = voice.quantise([mel], smallest_snr=30)
    assert {layer.layer for layer in narrow.config.int8} == set(range(12))
    way = "native steps with 12 of 12 convolutions in int8"
    assert next(iter(narrow.explain().items())) == (way, None)
    wave = narrow(fresh, seed=4)
    assert wave.dtype == torch.float32 and bool(wave.isfinite().all())
    assert torch.equal(torch.cat(list(narrow.stream(fresh.split([3, 1, 36], dim=-1), seed=4))), wave)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(narrow(torch.stack([fresh, mel]), seed=4)[0], wave)
    finally:
        torch.set_num_threads(before)
    narrow.save_pretrained(tmp_path)
    opened = Vocoder.from_pretrained(tmp_path)
    assert opened.explain() == narrow.explain() and torch.equal(opened(fresh, seed=4), wave)

    classes = bool(voice.config.generator.distribution.classes)
    drawn = voice(fresh, seed=4)
    samples = inputs_of(network(voice).config, network(voice).emphasised(drawn[None]))[0] if classes else drawn
    silence = torch.full_like(samples[:1], network(voice).config.distribution.silence)
    inputs = torch.cat([silence, samples[:-1]])
    right, near = parameters_given(voice, fresh, inputs), parameters_given(narrow, fresh, inputs)
    if classes:
        assert float((right.argmax(-1) == near.argmax(-1)).float().mean()) > 0.95
        right, near = right - right.mean(-1, keepdim=True), near - near.mean(-1, keepdim=True)
    error = float((near - right).square().sum() / right.square().sum())
    assert 0 < error < 10**-2.8  # of a mel that was not heard

    assert torch.equal(copy.copy(narrow)(fresh, seed=4), wave)
    assert narrow.to("cpu").explain()[way] is None and torch.equal(narrow(fresh, seed=4), wave)

    with torch.no_grad():
        network(narrow).output.weight.mul_(1.5)
    assert narrow.explain()[way] == "the generator has changed since the layers were chosen; quantise it again"
    changed = Checkpoint(replace(narrow.config, int8=()), network(narrow).state_dict(), "a test")
    assert torch.equal(narrow(fresh, seed=4), Vocoder(changed)(fresh, seed=4))


@needs_int8
def test_what_is_around_changes_no_choice_of_eight_bits() -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 20)
    expected = voice.quantise([mel], smallest_snr=30).config.int8
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = voice.quantise([mel], smallest_snr=30).config.int8
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    with torch.autocast("cpu", torch.bfloat16):
        assert found == expected == voice.quantise([mel, mel[None][:0]], smallest_snr=30).config.int8
    with pytest.raises(ValueError, match="there are no mels"):
        voice.quantise([mel[None][:0]])
    with pytest.raises(ValueError, match="keep nan dB"):
        voice.quantise([mel], smallest_snr=math.nan)


@needs_int8
def test_fewer_convolutions_multiply_in_eight_bits_for_a_higher_ratio() -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 20)
    ratios = {snr: len(voice.quantise([mel], smallest_snr=snr).config.int8) for snr in (30, 40)}
    assert 0 < ratios[40] < ratios[30] == 12
    with pytest.raises(
        ValueError, match=r"no convolution can multiply in 8 bits and keep 90 dB; with all in bfloat16 "
    ):
        voice.quantise([mel], smallest_snr=90)
    with pytest.raises(NotImplementedError, match=r"conditioned on speakers, for which nothing chooses"):
        vocoder("speakers").quantise([mel])
    chosen = voice.quantise([mel], smallest_snr=30).config.int8
    for layer, sentence in (
        (replace(chosen[0], layer=12), "convolution 12 is to multiply in 8 bits, but there are only 12"),
        (replace(chosen[0], zero_point=3), "convolution 0 has the zero point 3; it must be 128"),
    ):
        config = replace(voice.config, int8=(layer,))
        with pytest.raises(ValueError, match=sentence):
            Vocoder(Checkpoint(config, checkpoint("mu-law").weights, "a test"))


def voice_for_two_threads(dtype: torch.dtype = torch.float32) -> Vocoder:
    """Return one of a network large enough that a second thread looks back and sums skips."""
    config = WaveNetConfig(mel_bands=BANDS, layers=10, cycle=5, conditioning=RepeatedConfig(hop=8))
    torch.manual_seed(3)
    settings = VocoderConfig(generator=config, mel=mel_config(config))
    return Vocoder(Checkpoint(settings, config.build().state_dict(), "a test"), dtype=dtype)


@needs_native
@pytest.mark.parametrize("isa", native.isas() if ops.backends()["cpu"] is None else [])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_for_one_stream_change_no_bit(isa: str, dtype: torch.dtype) -> None:
    """Alone, with fewer streams than threads."""
    voice, mel, threads = voice_for_two_threads(dtype), mel_of(3, BANDS, 40), torch.get_num_threads()
    with native.use_isa(isa):
        if network(voice).explain_steps()["native steps"] is not None:
            pytest.skip("this instruction set does not multiply bfloat16")
        waves: list[Tensor] = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            try:
                waves += [voice(mel, seed=1), torch.stack([voice(mel[n], seed=1 + n) for n in range(3)])]
            finally:
                torch.set_num_threads(threads)
    assert all(torch.equal(wave, waves[0]) for wave in waves)


ON_ONE_CORE = """
import os
import re
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of all threads that are to come
import torch
import test_wavenet
voice, mel = test_wavenet.voice_for_two_threads(), test_wavenet.mel_of(test_wavenet.BANDS, 40)
torch.set_num_threads(1)
expected = voice(mel, seed=1)
assert test_wavenet.network(voice)._packed()._pause == 0  # there was no second one
torch.set_num_threads(2)
longest = 0
for _ in range(20):
    assert torch.equal(torch.cat(list(voice.stream(mel.split(8, dim=-1), seed=1))), expected)
    longest = max(longest, test_wavenet.network(voice)._packed()._pause)
print(longest)
"""


@needs_native
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_a_second_thread_without_a_core_is_left_out_for_longer_and_longer() -> None:
    where = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", ON_ONE_CORE], capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr
    assert SHORTEST < int(done.stdout) <= LONGEST


def test_three_mu_laws_are_three() -> None:
    silence = torch.zeros(1)
    assert [int(encode_mu_law(silence, law)) for law in ("rounded", "truncated", "floored")] == [128, 127, 128]
    assert [int(encode_mu_law(torch.ones(1), law)) for law in ("rounded", "truncated", "floored")] == [255, 255, 255]
    assert [int(encode_mu_law(-torch.ones(1), law)) for law in ("rounded", "truncated", "floored")] == [0, 0, 0]
    assert float(decode_mu_law(torch.tensor(128), "floored")) == 0
    np.testing.assert_allclose(float(decode_mu_law(torch.tensor(200), "rounded", dtype=torch.float64)), expanded(200))
    for law in ("rounded", "floored"):
        codes = torch.arange(256)
        assert torch.equal(encode_mu_law(decode_mu_law(codes, law, dtype=torch.float64), law), codes)


def expanded(code: int) -> float:
    s = 2 * code / 255 - 1
    return float(np.sign(s) * (256 ** abs(s) - 1) / 255)


def test_publications_have_their_sizes() -> None:
    assert (NV_WAVENET.hop, NV_WAVENET.receptive_samples) == (200, 511)
    weights = replace(NV_WAVENET).build().state_dict()
    assert sum(weights[name].numel() for name in ("rows.weight", "rows.bias")) == 5_120_080
    assert isinstance(MU_LAW.distribution, MuLawConfig)
    upsampler, conditions = 80 * 80 * 800 / 200, 16 * 80 * 128
    assert NV_WAVENET.build().multiply_accumulates - upsampler - conditions == 716_800
    assert 4.5e6 < MU_LAW.build().multiply_accumulates < 4.7e6


@needs_native
def test_states_that_are_none_are_refused_before_native_code_reads_them() -> None:
    voice, mel = vocoder("mu-law"), mel_of(BANDS, 9)
    streamer = voice.streamer(seed=1)
    streamer.push(mel[:, :5])
    memory = streamer.state().memory
    rings = next(place for place, tensor in enumerate(memory) if tensor.ndim == 3 and tensor.shape[2] == 12)
    time = next(place for place, tensor in enumerate(memory) if place > 5 and tensor.dtype == torch.int64)
    for place, changed, sentence in (
        (rings, memory[rings].half(), "rings is torch.float16"),
        (rings, memory[rings][..., :5], "rings is torch.float32 of shape"),
        (time, memory[time] - 100, "noise is torch.float32 of shape"),
    ):
        hostile = [*memory[:place], changed, *memory[place + 1 :]]
        streamer.restore(StreamState(tuple(hostile), "running"))
        with pytest.raises((ValueError, RuntimeError), match=sentence):
            streamer.push(mel[:, 5:])
