"""BigVGAN: samples of the original from files in its layout, its activation, and what is refused."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import SPELLINGS, draw, ends_and_middle, hashed, samples
from torch import Tensor

from fastvoc import Vocoder, ops
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import VocoderConfig, open_checkpoint
from fastvoc.checkpoints.formats import bigvgan
from fastvoc.checkpoints.reading.source import Source
from fastvoc.cli import main
from fastvoc.models import BigVGAN, BigVGANConfig
from fastvoc.models.bigvgan import BASE_24K, V2_24K
from fastvoc.ops.smooth_snake.call import FILTER, SmoothSnake, doubled

SMALL = BigVGANConfig(
    mel_bands=20, channels=32, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3, 7), dilations=((1, 3, 5),) * 2,
    final="tanh",
)  # fmt: skip
LINEAR = replace(SMALL, block="2", dilations=((1, 3),) * 2, activation="snake", logarithmic=False)
SMALL_MEL = MelConfig(
    sample_rate=16000, fft_size=64, hop=8, window_size=64, bands=20, low=0, high=None, root_epsilon=1e-9
)

Rule = Callable[[dict[str, tuple[int, ...]], BigVGANConfig], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def shapes_of(config: BigVGANConfig, spelling: str, *, bias: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a file, written down here from the original's class."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *weight: int, out: int | None = None) -> None:
        for ending in SPELLINGS[spelling]:
            magnitude = ending in ("weight_g", "parametrizations.weight.original0")
            shapes[f"{name}.{ending}"] = (weight[0], 1, 1) if magnitude else weight
        shapes[f"{name}.bias"] = (weight[0] if out is None else out,)

    def activation(name: str, channels: int) -> None:
        for parameter in ("alpha", "beta") if config.activation == "snakebeta" else ("alpha",):
            shapes[f"{name}.act.{parameter}"] = (channels,)

    conv("conv_pre", config.channels, config.mel_bands, 7)
    channels, number = config.channels, 0
    for stage, taps in enumerate(config.rate_kernel_sizes):
        channels //= 2
        conv(f"ups.{stage}.0", 2 * channels, channels, taps, out=channels)
        for size, dilations in zip(config.kernel_sizes, config.dilations, strict=True):
            names = ("convs1", "convs2") if config.block == "1" else ("convs",)
            for unit in range(len(dilations)):
                for name in names:
                    conv(f"resblocks.{number}.{name}.{unit}", channels, channels, size)
            for place in range(len(names) * len(dilations)):
                activation(f"resblocks.{number}.activations.{place}", channels)
            number += 1
    activation("activation_post", channels)
    conv("conv_post", 1, channels, 7)
    if not bias:
        del shapes["conv_post.bias"]
    return shapes


def numbered(shapes: dict[str, tuple[int, ...]], config: BigVGANConfig) -> dict[str, Tensor]:
    values = {}
    for place, name in enumerate(sorted(shapes)):
        noise = hashed(int(np.prod(shapes[name])), place).reshape(shapes[name])
        if name.endswith("weight_g") or (name.endswith("alpha") and not config.logarithmic):
            noise = 0.75 + 0.25 * noise
        elif name.endswith(("alpha", "beta")):
            noise = 0.5 * noise
        elif name.endswith("bias"):
            noise = 0.1 * noise
        values[name] = noise
    return values


def named(shapes: dict[str, tuple[int, ...]], config: BigVGANConfig) -> dict[str, Tensor]:
    values = {}
    for name, shape in shapes.items():
        noise = draw(zlib.crc32(name.encode()), *shape)
        if name.endswith("weight_g"):
            noise = 1 + 0.1 * noise
        else:
            noise = noise / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * noise
        values[name] = noise.float().double()  # as the values that the original was given
    return values


def settings_of(config: BigVGANConfig, mel: MelConfig, *, bias: bool) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "resblock": config.block,
        "num_gpus": 0,
        "batch_size": 32,
        "upsample_rates": list(config.rates),
        "upsample_kernel_sizes": list(config.rate_kernel_sizes),
        "upsample_initial_channel": config.channels,
        "resblock_kernel_sizes": list(config.kernel_sizes),
        "resblock_dilation_sizes": [list(dilations) for dilations in config.dilations],
        "activation": config.activation,
        "snake_logscale": config.logarithmic,
        "segment_size": 8192,
        "num_mels": mel.bands,
        "n_fft": mel.fft_size,
        "hop_size": mel.hop,
        "win_size": mel.window_size,
        "sampling_rate": mel.sample_rate,
        "fmin": mel.low,
        "fmax": mel.high,
    }
    if not bias:
        settings |= {"use_bias_at_final": False, "use_cqtd_instead_of_mrd": True, "cqtd_filters": 128}
    if config.final == "clamp":
        settings["use_tanh_at_final"] = False
    return settings


def written(
    folder: Path,
    config: BigVGANConfig,
    mel: MelConfig,
    *,
    bias: bool = True,
    spelling: str = "weight norm",
    rule: Rule = numbered,
    file: str = "bigvgan_generator.pt",
) -> Path:
    """A folder as the original writes it, with the filters that its files hold."""
    state = rule(shapes_of(config, spelling, bias=bias), config)
    taps = torch.tensor(FILTER).float().view(1, 1, 12)
    for name in [name for name in state if name.endswith(".act.alpha")]:
        layer = name.removesuffix(".act.alpha")
        state |= {f"{layer}.upsample.filter": taps, f"{layer}.downsample.lowpass.filter": taps}
    folder.mkdir(exist_ok=True, parents=True)
    torch.save({"generator": state}, folder / file)
    (folder / "config.json").write_text(json.dumps(settings_of(config, mel, bias=bias)))
    return folder


def mel_of(frames: int) -> Tensor:
    """A mel whose values a vocoder takes for one."""
    return 3 * hashed(20 * frames, 999).reshape(1, 20, frames).float() - 7


def network(folder: Path) -> BigVGAN:
    checkpoint = open_checkpoint(folder)
    made = checkpoint.config.generator.build().double().eval()
    made.load_state_dict(checkpoint.weights)
    assert isinstance(made, BigVGAN)
    return made


def listed(y: Tensor) -> list[float]:
    return [float(y.mean()), *samples(y, (0, 1, 7, 100, -1))]


# fmt: off
NUMBERED = {
    "version 1": (SMALL, True, 29650, [
        -0.0275097658, -0.133241279, -0.1268396, -0.0589360797, -0.0720405137, -0.0132796617]),
    "version 2": (replace(SMALL, final="clamp"), False, 29649, [
        0.0305976672, 0.0811109568, 0.0832387215, -0.107202541, 0.366327605, -0.0197239026]),
    "block 2, linear Snake": (LINEAR, True, 15978, [
        0.0321410232, -0.0491936728, -0.0929394069, -0.0104483581, 0.232763898, 0.0375355682]),
}
"""Configuration, whether the last convolution has a bias, tensors in the file; mean, and samples 0, 1, 7, 100, -1."""
# fmt: on


@pytest.mark.parametrize("name", NUMBERED)
def test_files_in_the_original_layout_make_the_original_samples(name: str, tmp_path: Path) -> None:
    config, bias, count, expected = NUMBERED[name]
    assert sum(int(np.prod(shape)) for shape in shapes_of(config, "weight norm", bias=bias).values()) == count
    folder = written(tmp_path, config, SMALL_MEL, bias=bias)
    assert open_checkpoint(folder).config == VocoderConfig(generator=config, mel=SMALL_MEL)
    wave = network(folder)(hashed(320, 999).reshape(1, 20, 16))
    assert wave.shape == (1, 1, 128)
    assert listed(wave) == pytest.approx(expected, rel=0, abs=1e-8)


def test_base_of_24_khz_makes_the_original_samples(tmp_path: Path) -> None:
    made = network(written(tmp_path, BASE_24K, CONVENTIONS["bigvgan-24k"]))
    mel = 2 * hashed(800, 999).reshape(1, 100, 8)
    stem = made.trunk.stem(mel)
    inner = made.trunk.residual[0]
    block = made.trunk.up[0](stem)
    units, active = inner.branches[0], iter(inner.activations[0])
    for first, second in units:
        inside = first(next(active)(block))
        block = block + second(next(active)(inside))
    for found, expected in (
        (made(mel), [0.0282230629, 0.0955107882, 0.0120417091, 0.00124010921, -0.0632267162, -0.118134604]),
        (stem, [0.00425273101, -0.155231272, -0.223238607, -1.70653591, 0.0390807734, 0.72264186]),
        (block, [0.00853684481, 0.663711737, 0.740446823, -0.0208425964, 0.866214333, 0.586185173]),
    ):
        assert listed(found) == pytest.approx(expected, rel=0, abs=1e-8)
    assert made.receptive_field == (18, 18)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "version 2"])
def test_named_weights_make_the_original_samples(name: str, tmp_path: Path) -> None:
    """Computed with filters made in float32: ours rounded to that move the samples by as much as is allowed here."""
    config, bias, frames, tolerance, expected = {
        "base": (BASE_24K, True, 12, 3e-6, [
            -0.107899, 0.735269, 0.197520, 0.524660, 0.527416, 0.699339, 0.642345, -0.017066, -0.258169]),
        "version 2": (V2_24K, False, 6, 3e-5, [
            -0.226261, 0.912729, 0.004142, -1.000000, 1.000000, 0.856723, -1.000000, 0.278157, -0.029413]),
    }[name]  # fmt: skip
    made = network(written(tmp_path, config, CONVENTIONS["bigvgan-24k"], bias=bias, rule=named))
    wave = made(draw(0, 1, 100, frames))
    found = [float(wave.mean()), float(wave.std(correction=0)), *ends_and_middle(wave)]
    assert found == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_and_place_of_the_weights_is_read(spelling: str, tmp_path: Path) -> None:
    def same(shapes: dict[str, tuple[int, ...]], config: BigVGANConfig) -> dict[str, Tensor]:
        return {
            name: torch.ones(shape) if name.endswith(("weight_g", "original0")) else torch.full(shape, 0.1)
            for name, shape in shapes.items()
        }

    files = ("g_00000007", "bigvgan_generator.pt", "g_05000000")
    waves = []
    for number, file in enumerate(files):
        folder = written(tmp_path / str(number), SMALL, SMALL_MEL, spelling=spelling, rule=same, file=file)
        if number == 2:  # saved without the name around it
            torch.save(torch.load(folder / file)["generator"], folder / file)
        waves.append(network(folder)(hashed(320, 999).reshape(1, 20, 16)))
    assert torch.equal(waves[0], waves[1]) and torch.equal(waves[0], waves[2])


def test_a_last_bias_may_be_absent_only_where_the_settings_say_so(tmp_path: Path) -> None:
    folder = written(tmp_path, SMALL, SMALL_MEL, bias=False)
    settings = json.loads((folder / "config.json").read_text())
    with torch.device("meta"):  # a default device is not that of a file
        checkpoint = open_checkpoint(folder)
    assert (
        checkpoint.weights["head.conv.bias"].tolist() == [0]
        and "conv_post has no bias; ours is zero" in checkpoint.notes
    )
    del settings["use_bias_at_final"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r'has no conv_post\.bias; .* has to say with "use_bias_at_final": false'):
        open_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(settings | {"use_bias_at_final": "no"}))
    with pytest.raises(ValueError, match="use_bias_at_final is 'no'; expected true or false"):
        open_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps(settings | {"use_bias_at_final": False, "use_tanh_at_final": 1}))
    with pytest.raises(ValueError, match="use_tanh_at_final is 1; expected true or false"):
        open_checkpoint(folder)


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, final="clamp"), LINEAR], ids=["1", "2", "linear"])
def test_what_is_written_is_opened_again_and_is_in_the_original_layout(config: BigVGANConfig, tmp_path: Path) -> None:
    bias = config.final == "tanh"
    folder = written(tmp_path / "theirs", config, SMALL_MEL, bias=bias)
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "again"), "--to", "bigvgan"]) == 0
    state = torch.load(tmp_path / "again" / "bigvgan_generator.pt")["generator"]
    shapes = shapes_of(config, "weight norm", bias=bias)
    learned = {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith("filter")}
    assert learned == shapes
    filters = [tensor for name, tensor in state.items() if name.endswith(("upsample.filter", "lowpass.filter"))]
    assert len(filters) == 2 * sum(name.endswith("alpha") for name in shapes)
    mel = mel_of(16)
    wave = Vocoder.from_pretrained(tmp_path / "again")(mel)
    torch.testing.assert_close(wave, Vocoder.from_pretrained(folder)(mel), rtol=0, atol=1e-6)


def test_other_filters_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, SMALL, SMALL_MEL)
    content = torch.load(folder / "bigvgan_generator.pt")
    name = "resblocks.1.activations.3.upsample.filter"
    for wrong in (content["generator"][name] + 0.1, torch.zeros(1, 1, 8), torch.zeros(1, 1, 12, dtype=torch.int64)):
        changed = {"generator": content["generator"] | {name: wrong}}
        torch.save(changed, folder / "bigvgan_generator.pt")
        with pytest.raises(ValueError, match=rf"{name} is not the filter of 12 taps"):
            open_checkpoint(folder)


def test_files_that_are_no_generators_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, SMALL, SMALL_MEL, file="model.pt")
    content = torch.load(folder / "model.pt")["generator"]
    torch.save({"generator": content | {"cond_layer.weight": torch.ones(3, 3, 1)}}, folder / "model.pt")
    with pytest.raises(ValueError, match="is a checkpoint of IndexTTS's BigVGAN, which takes no mel"):
        open_checkpoint(folder / "model.pt")
    torch.save({"mpd": {"a": torch.ones(1)}, "mrd": {"b": torch.ones(1)}}, folder / "do_00000001")
    with pytest.raises(ValueError, match=r"optimizers of a BigVGAN run; open bigvgan_generator\.pt"):
        open_checkpoint(folder / "do_00000001")
    torch.save({"generator": {name: t for name, t in content.items() if "conv_post" not in name}}, folder / "model.pt")
    with pytest.raises(ValueError, match="seems to be a part of a checkpoint of BigVGAN; it lacks conv_post"):
        open_checkpoint(folder / "model.pt")


def test_settings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    folder = written(tmp_path, SMALL, SMALL_MEL)
    settings = json.loads((folder / "config.json").read_text())
    for changed, sentence in (
        ({"activation": "relu"}, "activation"),
        ({"upsample_kernel_sizes": [8, 5]}, "does not multiply the length by 2 exactly"),
        ({"resblock": "3"}, "block"),
        ({"upsample_initial_channel": 64}, "the settings need"),
    ):
        (folder / "config.json").write_text(json.dumps(settings | changed))
        with pytest.raises(ValueError, match=sentence):
            open_checkpoint(folder)
    del settings["snake_logscale"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="lacks snake_logscale; these are not the settings of a BigVGAN"):
        open_checkpoint(folder)


def test_every_published_configuration_is_a_preset_of_its_size() -> None:
    counts = {  # parameters under weight norm, as the original counts them
        "bigvgan_base_22khz_80band": 13_953_474,
        "bigvgan_base_24khz_100band": 14_025_154,
        "bigvgan_22khz_80band": None,
        "bigvgan_24khz_100band": 112_446_290,
        "bigvgan_v2_22khz_80band_256x": None,
        "bigvgan_v2_22khz_80band_fmax8k_256x": None,
        "bigvgan_v2_24khz_100band_256x": 112_446_289,
        "bigvgan_v2_44khz_128band_256x": 112_747_345,
        "bigvgan_v2_44khz_128band_512x": 122_184_529,
    }
    assert set(bigvgan.FORMAT.presets) == set(counts)
    for name, settings in bigvgan.FORMAT.presets.items():
        source = Source(Path("g_00000001"), Path(name), {}, _parsed={Path(name): settings})
        with pytest.raises(ValueError, match=r"has no conv_pre"):  # all that it needs is said
            bigvgan.read(source)
        generator, mel = bigvgan._PUBLISHED[name]
        assert generator.hop == mel.hop and generator.mel_bands == mel.bands
        with torch.device("meta"):
            parameters = [*generator.build().parameters()]
        under_norm = sum(p.numel() + (p.shape[0] if p.ndim == 3 else 0) for p in parameters)
        assert counts[name] in (None, under_norm - (generator.final == "clamp"))


X = 2 * hashed(192, 997).reshape(1, 4, 48)
LOG = 0.5 * hashed(4, 0), 0.5 * hashed(4, 1)


def test_the_activation_makes_the_original_values() -> None:
    activation = SmoothSnake(X, *LOG)
    even, odd = doubled(X)
    for found, expected in (
        (
            ops.smooth_snake(X, *LOG),
            [0.570261025, -0.341037853, 2.53289502, 0.00262723612, 2.21404089, -0.489671635],
        ),
        (
            torch.stack([even, odd], -1).flatten(-2),
            [0.073572942, -2.0975785, -0.968581251, -1.50992065, -0.698949006, -1.45025863],
        ),
        (
            torch.stack([activation.snake(even), activation.snake(odd)], -1).flatten(-2),
            [0.569603673, -0.789334373, -0.00590894242, -0.00174451338, -0.456311274, -0.884391874],
        ),
        (
            ops.smooth_snake(X, 0.75 + 0.25 * hashed(4, 0), logarithmic=False),
            [0.625062653, -0.506349238, 2.12997828, -0.029648633, 2.62177609, -0.234766023],
        ),
    ):
        assert listed(found) == pytest.approx(expected, rel=0, abs=1e-8)


def test_the_activation_has_the_original_gradients() -> None:
    with torch.enable_grad():
        x, alpha, beta = (tensor.clone().requires_grad_() for tensor in (X, *LOG))
        ops.smooth_snake(x, alpha, beta).backward(hashed(192, 991).reshape(X.shape))
    expected = [0.00956048477, -0.970558724, 1.1743756, -0.105584903, -0.428992684, 0.0613969367]
    assert listed(x.grad) == pytest.approx(expected, rel=0, abs=1e-8)
    assert alpha.grad.tolist() == pytest.approx([-2.9463840968, 0.8501339171, 1.2645802744, 0.2094836786], abs=1e-9)
    assert beta.grad.tolist() == pytest.approx([-1.4322890937, -0.4425564244, -0.7827198122, -0.3996047794], abs=1e-9)


def test_the_filter_is_the_kaiser_window_that_the_original_computes() -> None:
    attenuation = 2.285 * 5 * np.pi * 1.2 + 7.95  # scipy's estimate, for 12 taps and a transition of 0.3
    window = np.kaiser(12, 0.1102 * (attenuation - 8.7))
    taps = window * np.sinc(0.5 * (np.arange(-6, 6) + 0.5))
    assert pytest.approx(taps / taps.sum(), rel=0, abs=1e-15) == FILTER
