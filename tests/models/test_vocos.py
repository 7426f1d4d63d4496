"""Vocos: blocks, heads and whole networks against what the original code computed, its files, its mel."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from golden import Shapes, hashed
from torch import Tensor

import fastvoc
from fastvoc import Vocoder, native
from fastvoc.audio import CONVENTIONS, mel_spectrogram
from fastvoc.blocks.convnext import ConvNext
from fastvoc.blocks.spectral import SampleHead, SpectralHead
from fastvoc.checkpoints import Checkpoint, VocoderConfig, open_checkpoint
from fastvoc.checkpoints.formats import vocos
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.engine import Plan
from fastvoc.models import Vocos, VocosConfig
from fastvoc.models.vocos import ENCODEC_24K, MEL_24K, WAVENEXT
from fastvoc.ops import backends, last_backends

native_only = pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")
ISAS = list(native.isas()) if backends()["cpu"] is None else []

PRINTED = 1e-8
"""What nine printed digits and sums in another order leave."""

SMALL = VocosConfig(mel_bands=20, channels=32, hidden=96, blocks=3, fft_size=64, hop=16)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def values(shapes: Shapes) -> dict[str, Tensor]:
    """Fill each tensor with uniform numbers that its place among the sorted names seeds."""
    made = {}
    for place, name in enumerate(sorted(shapes)):
        shape, last = shapes[name], name.rpartition(".")[2]
        noise = hashed(int(np.prod(shape)), place).reshape(shape)
        if last == "bias":
            made[name] = 0.1 * noise
        elif len(shape) == 1:
            made[name] = 0.75 + 0.25 * noise
        else:
            made[name] = noise * np.sqrt(3 / np.prod(shape[1:]))
    return made


def original_shapes(config: VocosConfig) -> Shapes:
    """Names and shapes of the original's tensors, without those that settings tell."""
    with torch.device("meta"):
        native = config.build().state_dict()
    shapes: Shapes = {}
    for theirs, ours in vocos.table(config):
        names = {theirs: ours} if ours in native else {f"{theirs}.{e}": f"{ours}.{e}" for e in ("weight", "bias")}
        shapes |= {name: tuple(native[own].shape) for name, own in names.items()}
    if config.head == "samples":
        between = config.fft_size + 2
        del shapes["head.out.weight"], shapes["head.out.bias"]
        shapes |= {"head.linear_1.weight": (between, config.channels), "head.linear_1.bias": (between,)}
        return shapes | {"head.linear_2.weight": (config.hop, between)}
    return shapes | {"head.out.weight": shapes["head.out.weight"][:2]}


def filled(config: VocosConfig) -> Vocos:
    state = values(original_shapes(config))
    state["head.out.weight"] = state["head.out.weight"][..., None]
    network = config.build().double().eval()
    network.load_state_dict(to_native(state, vocos.table(config), config, "a test"))
    return network


def mel_of(bands: int, frames: int = 16) -> Tensor:
    return 2 * hashed(bands * frames, 999).reshape(1, bands, frames)


def matches(y: Tensor, *expected: float, tolerance: float = PRINTED) -> None:
    flat = y.double().flatten()
    found = [float(value) for value in (flat.mean(), *flat[[0, 1, 7, 100, -1]])]
    assert found == pytest.approx(expected, rel=0, abs=tolerance)


def block(conditions: int = 0, condition: int = 0) -> ConvNext:
    """A block of 16 and 48 channels with the original's weights, its tensors filled under its names for them."""
    norm = ("scale.weight", "shift.weight") if conditions else ("weight", "bias")
    names = {
        "dwconv.weight": "depthwise",
        "dwconv.bias": "depthwise_bias",
        f"norm.{norm[0]}": "norm",
        f"norm.{norm[1]}": "norm_bias",
        "pwconv1.weight": "expand",
        "pwconv1.bias": "expand_bias",
        "pwconv2.weight": "contract",
        "pwconv2.bias": "contract_bias",
        "gamma": "scale",
    }
    made = ConvNext(16, 48, conditions=conditions, condition=condition).double()
    weights = values({theirs: tuple(getattr(made, ours).shape) for theirs, ours in names.items()})
    made.load_state_dict({names[name]: tensor for name, tensor in weights.items()})
    return made


# fmt: off
def test_blocks_make_what_the_original_makes() -> None:
    x = hashed(320, 997).reshape(1, 16, 20)
    matches(block()(x), 0.0149859542, -0.882521109, 0.950304155, -0.0200220556, 0.999720856, -0.810915146)
    matches(block(4, 2)(x), 0.0552156482, -0.764763075, 0.84941492, 0.169406887, 0.649399052, -0.0126221217)


HEADS = {
    "same": (0.00710099816, -0.00430857986, 0.0120294332, -0.0108954121, -0.224758169, -0.113260462),
    "centre": (0.00696930769, -0.0518998447, -0.0196691977, 0.11965592, 0.0769220895, -0.0258703555),
}
# fmt: on


@pytest.mark.parametrize("padding", HEADS)
def test_spectral_heads_make_the_originals_wave(padding: str) -> None:
    head = SpectralHead(16, fft_size=64, hop=16, padding=padding).double()
    weights = values({"out.weight": (66, 16), "out.bias": (66,)})
    head.load_state_dict({"conv.weight": weights["out.weight"][..., None], "conv.bias": weights["out.bias"]})
    wave = head(hashed(320, 996).reshape(1, 20, 16).mT)
    assert wave.shape == (1, 1, 320 if padding == "same" else 304)
    matches(wave, *HEADS[padding])


def test_the_two_products_of_wavenext_are_one() -> None:
    shapes = {"head.linear_1.weight": (66, 16), "head.linear_1.bias": (66,), "head.linear_2.weight": (16, 66)}
    state = values({name.removeprefix("head."): shape for name, shape in shapes.items()})
    one = vocos._as_one({f"head.{name}": tensor for name, tensor in state.items()}, "a test")
    head = SampleHead(16, hop=16).double()
    head.load_state_dict({"conv.weight": one["head.out.weight"][..., None], "conv.bias": one["head.out.bias"]})
    wave = head(0.2 * hashed(320, 996).reshape(1, 20, 16).mT)
    matches(wave, -0.00529451234, 0.0864791046, -0.0393901975, -0.119555581, 0.0215076164, -0.0516845251)
    assert float(head(50 * hashed(320, 996).reshape(1, 20, 16).mT).abs().max()) == 1


# fmt: off
NETWORKS: dict[str, tuple[VocosConfig, int, tuple[float, ...]]] = {
    "small, centre": (SMALL, 240,
        (-0.00413089597, -0.19212791, -0.243584251, -0.20766726, 0.0226910102, -0.10408252)),
    "small, same": (replace(SMALL, padding="same"), 256,
        (0.00194362515, -0.121194857, -0.0935920163, -0.0716512001, 0.0204015484, 0.180500726)),
    "mel-24khz": (MEL_24K, 3840,
        (-0.000605484955, -0.0108587808, -0.0523515324, 0.0043303729, 0.0769341469, 0.0493922739)),
    "mel-24khz, same": (replace(MEL_24K, padding="same"), 4096,
        (-0.000565897638, 0.13159903, 0.00387086506, 0.0198339192, 0.0428021837, -0.0428769127)),
    "encodec-24khz": (replace(ENCODEC_24K, bandwidth=2), 5120,
        (0.00351186734, -0.018965073, 0.00167576375, 0.00922702135, 0.0849922197, -0.143368137)),
}
# fmt: on


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_make_the_originals_wave(name: str) -> None:
    config, samples, expected = NETWORKS[name]
    network = filled(config)
    wave = network(mel_of(config.mel_bands))
    assert wave.shape == (1, 1, samples) and network.samples(16) == samples
    matches(wave, *expected)


def test_inside_it_is_the_original_too() -> None:
    network = filled(MEL_24K)
    x = network.blocks[0](network.first_norm(network.stem(mel_of(100))))
    matches(x, 0.0122952826, 0.261265419, -0.181501141, -0.750938972, 1.65780288, 0.671917056)
    x = network.head.conv(network.features(mel_of(100)))[0].T
    matches(x, -0.00132212565, -1.03109529, 1.75002134, -0.0190361891, 0.716902745, 0.0551175619)


def test_published_sizes_have_their_parameters() -> None:
    assert sum(p.numel() for p in MEL_24K.build().parameters()) == 13_531_650
    assert sum(p.numel() for p in ENCODEC_24K.build().parameters()) == 7_984_258
    assert MEL_24K.build().receptive_field == (28, 29)


def test_its_mel_is_torchaudios() -> None:
    wave = 0.5 * hashed(8192, 998)
    centred = mel_spectrogram(wave, CONVENTIONS["vocos"])
    assert centred.shape == (100, 33)
    expected = (2.83497743, 1.03217471, 1.49801231, 1.86935657, 1.24086638, 4.23161872)
    matches(centred, *expected, tolerance=1e-6)
    same = mel_spectrogram(wave, replace(CONVENTIONS["vocos"], padding="same"))
    expected = (2.84142546, 1.34998108, 1.30464031, 1.78168958, 0.932037036, 4.33553761)
    matches(same, *expected, tolerance=1e-6)


def settings_of(config: VocosConfig, **features: Any) -> dict[str, Any]:
    """The original's settings of a network."""
    head = "WaveNextHead" if config.head == "samples" else "ISTFTHead"
    padding = "center" if config.padding == "centre" else "same"
    sizes = {"n_fft": config.fft_size, "hop_length": config.hop, "padding": padding}
    return {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_mels": config.mel_bands, **sizes, **features},
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {
                "input_channels": config.mel_bands,
                "dim": config.channels,
                "intermediate_dim": config.hidden,
                "num_layers": config.blocks,
            },
        },
        "head": {"class_path": f"vocos.heads.{head}", "init_args": {"dim": config.channels, **sizes}},
    }


def folder_of(place: Path, config: VocosConfig, settings: dict[str, Any], *, training: bool = False) -> Path:
    """Write what the original writes: with the buffers that it registers, or in the middle of a training."""
    state = {name: tensor.float() for name, tensor in values(original_shapes(config)).items()}
    state["feature_extractor.mel_spec.spectrogram.window"] = torch.hann_window(config.fft_size)
    state["feature_extractor.mel_spec.mel_scale.fb"] = torch.zeros(config.fft_size // 2 + 1, config.mel_bands)
    if config.head == "spectral":
        state["head.istft.window"] = torch.hann_window(config.fft_size)
    place.mkdir()
    if training:
        state["melspec_loss.mel_spec.mel_scale.fb"] = torch.zeros(4, 4)
        state["multiresddisc.discriminators.0.band_convs.0.0.weight_g"] = torch.ones(32, 1, 1, 1)
        torch.save({"epoch": 3, "state_dict": state, "optimizer_states": []}, place / "vocos_checkpoint_epoch=3.ckpt")
        settings = {
            "seed_everything": 4444,
            "model": {"class_path": "vocos.experiment.VocosExp", "init_args": settings},
        }
    else:
        torch.save(state, place / "pytorch_model.bin")
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    return place


@pytest.mark.parametrize("training", [False, True], ids=["published", "in training"])
@pytest.mark.parametrize("padding", ["centre", "same"])
def test_its_folders_are_opened(tmp_path: Path, padding: str, training: bool) -> None:
    config = replace(SMALL, padding=padding)
    vocoder = fastvoc.open(folder_of(tmp_path / "vocos", config, settings_of(config), training=training))
    assert isinstance(vocoder, Vocoder) and vocoder.generator.config == config
    assert vocoder.config.mel == replace(
        CONVENTIONS["vocos"], bands=20, fft_size=64, window_size=64, hop=16, padding=padding
    )
    mel = mel_of(20)
    expected = filled(config)(mel)[0, 0]
    # sixteen layers' roundings of values of the size of one
    torch.testing.assert_close(vocoder(mel[0].float()).double(), expected, rtol=0, atol=2e-5)


# fmt: off
COMMUNITY: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "vocos-mel-22khz": (
        {"mel_bands": 80, "padding": "same"},
        {"sample_rate": 22050, "f_min": 0, "f_max": 8000, "norm": "slaney", "mel_scale": "slaney", "clip_val": 1e-5},
        {"sample_rate": 22050, "high": 8000, "scale": "slaney", "area_normalized": True, "floor": 1e-5}),
    "vocos-audioset-32khz": (
        {"mel_bands": 128, "fft_size": 2048, "hop": 1024}, {"sample_rate": 32000},
        {"sample_rate": 32000, "high": 16000}),
    "vocos-mel-hifigan-compat-44100khz": (
        {"mel_bands": 80, "fft_size": 2048, "hop": 512, "padding": "same"},
        {"sample_rate": 44100, "f_min": 0, "f_max": 8000, "norm": "slaney", "mel_scale": "slaney"},
        {"sample_rate": 44100, "high": 8000, "scale": "slaney", "area_normalized": True}),
    "vocos-mel-48khz": (
        {"mel_bands": 128, "fft_size": 2048, "hop": 512}, {"sample_rate": 48000},
        {"sample_rate": 48000, "high": 24000}),
}
# fmt: on


@pytest.mark.parametrize("name", COMMUNITY)
def test_settings_of_other_trainings_are_read(tmp_path: Path, name: str) -> None:
    changes, features, mel = COMMUNITY[name]
    config = replace(SMALL, **changes)
    found = open_checkpoint(folder_of(tmp_path / "vocos", config, settings_of(config, **features))).config
    assert found.generator == config
    expected = replace(
        CONVENTIONS["vocos"],
        bands=config.mel_bands,
        fft_size=config.fft_size,
        window_size=config.fft_size,
        hop=config.hop,
        padding=config.padding,
        **mel,
    )
    assert found.mel == expected


def test_wavenext_is_opened(tmp_path: Path) -> None:
    config = replace(WAVENEXT, mel_bands=20, channels=32, hidden=96, blocks=3, fft_size=64, hop=16)
    found = open_checkpoint(folder_of(tmp_path / "wavenext", config, settings_of(config)))
    assert found.source == "WaveNeXt"
    vocoder, state = Vocoder(found), values(original_shapes(config))
    network = vocoder.generator
    features = network.features(mel_of(20).float()).double().mT
    between = features @ state["head.linear_1.weight"].T + state["head.linear_1.bias"]
    expected = (between @ state["head.linear_2.weight"].T).flatten().clamp(-1, 1)
    torch.testing.assert_close(vocoder(mel_of(20)[0].float()).double(), expected, rtol=0, atol=1e-5)


def test_what_is_written_is_read_and_has_all_that_the_original_demands(tmp_path: Path) -> None:
    read = open_checkpoint(folder_of(tmp_path / "theirs", SMALL, settings_of(SMALL)))
    vocos.write(tmp_path / "ours", read.config, read.weights)
    written = torch.load(tmp_path / "ours" / "pytorch_model.bin")
    first = torch.load(tmp_path / "theirs" / "pytorch_model.bin")
    assert {name: tensor.shape for name, tensor in written.items()} == {name: t.shape for name, t in first.items()}
    again = open_checkpoint(tmp_path / "ours")
    assert again.config == read.config
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in read.weights.items())


def named(name: str, *bases: type) -> type:
    """A class that a pickle calls by a name of another package, which is there while it is written."""
    module, _, last = name.rpartition(".")
    made = type(last, bases, {"__module__": module})
    package = types.ModuleType(module)
    setattr(package, last, made)
    parts = module.split(".")
    sys.modules |= {".".join(parts[:count]): types.ModuleType("parent") for count in range(1, len(parts))}
    sys.modules[module] = package
    return made


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("was-run"),)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A loss as Lightning keeps it among the settings of a training: a network of classes that are not here."""
    before = dict(sys.modules)
    transform = named("torchaudio.transforms._transforms.MelSpectrogram", torch.nn.Module)()
    transform.register_buffer("window", torch.hann_window(8))
    loss = named("vocos.loss.MelSpecReconstructionLoss", torch.nn.Module)()
    loss.mel_spec, loss.layers = transform, torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    yield loss
    for name in set(sys.modules) - set(before):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_networks_among_the_settings_of_a_training_are_inert(tmp_path: Path, objects: Any) -> None:
    folder = folder_of(tmp_path / "vocos", SMALL, settings_of(SMALL), training=True)
    (file,) = folder.glob("*.ckpt")
    content = torch.load(file) | {"hyper_parameters": {"melspec_loss": objects, "sample_rate": 24000}}
    torch.save(content, file)
    for name in [name for name in sys.modules if name.startswith(("vocos", "torchaudio"))]:
        del sys.modules[name]
    assert open_checkpoint(folder).config.generator == SMALL
    assert "vocos.loss" not in sys.modules


def test_what_stands_beside_them_is_refused_all_the_same(
    tmp_path: Path, objects: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "vocos", SMALL, settings_of(SMALL), training=True)
    (file,) = folder.glob("*.ckpt")
    for order in ((objects, Malicious()), (Malicious(), objects)):
        torch.save(torch.load(folder / file.name, weights_only=True) | {"hyper_parameters": order}, tmp_path / "x.ckpt")
        with pytest.raises(ValueError, match=r"wants to run .* while it is opened"):
            open_checkpoint(tmp_path / "x.ckpt", config=folder / "config.yaml")
    torch.save({"state_dict": {}, "model": torch.nn.Linear(2, 2)}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"wants to run torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(tmp_path / "x.ckpt")
    assert not Path("was-run").exists()


def small_vocoder(padding: str = "centre", dtype: torch.dtype = torch.float32, **settings: Any) -> Vocoder:
    config = replace(SMALL, padding=padding, **settings)
    mel = replace(CONVENTIONS["vocos"], bands=20, fft_size=64, window_size=64, hop=16, padding=padding)
    network = filled(config) if config.head == "spectral" else config.build()
    return Vocoder(
        Checkpoint(VocoderConfig(generator=config, mel=mel), network.float().state_dict(), "a test"), dtype=dtype
    )


@native_only
@pytest.mark.parametrize("isa", ISAS)
def test_plans_give_the_operators_samples_to_the_bit(isa: str) -> None:
    generator = small_vocoder().generator
    mel = mel_of(20, 90).float().expand(2, -1, -1)
    with torch.inference_mode(), native.use_isa(isa):
        plan = Plan(generator)
        assert torch.equal(plan(mel), generator(mel)) and last_backends()["convnext"] == "cpu"
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            assert torch.equal(plan(mel), generator(mel))
        finally:
            torch.set_num_threads(before)


@native_only
@pytest.mark.parametrize("padding", ["centre", "same"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_plans_stream_and_are_as_exact_as_plain_pytorch(padding: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not native.multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    vocoder, mel = small_vocoder(padding, dtype), mel_of(20, 67)[0].to(dtype)
    ways = vocoder.explain()
    assert next(name for name, reason in ways.items() if reason is None) == "plan in parts"
    exact = small_vocoder(padding, torch.float64)(mel.double())
    plain = Vocoder(
        Checkpoint(vocoder.config, vocoder.generator.state_dict(), "a test"), dtype=dtype, backend="reference"
    )
    ulp = torch.finfo(dtype).eps * float(exact.abs().max())
    allowed = 2 * float((plain(mel).double() - exact).abs().max()) + ulp
    wave = vocoder(mel)
    assert wave.dtype == dtype and float((wave.double() - exact).abs().max()) <= allowed
    for chunks in ([8] * 8 + [3], [1, 2, 3, 61], [67]):
        pieces = torch.cat([*vocoder.stream(mel.split(chunks, dim=-1))])
        assert pieces.shape == wave.shape
        assert float((pieces.double() - wave.double()).abs().max()) <= ulp  # an inverse FFT of other many frames


@native_only
def test_what_is_written_to_a_weight_is_heard() -> None:
    vocoder, mel = small_vocoder(), mel_of(20, 20)[0].float()
    before = vocoder(mel)
    for name, parameter in vocoder.generator.named_parameters():
        parameter.mul_(1.5)
        now = vocoder(mel)
        fresh = Vocoder(Checkpoint(vocoder.config, vocoder.generator.state_dict(), "a test"))
        assert not torch.equal(now, before) and torch.equal(now, fresh(mel)), name
        before = now


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_short_mels_and_batches(dtype: torch.dtype, tmp_path: Path) -> None:
    vocoder, mel = small_vocoder(dtype=dtype), mel_of(20, 30).to(dtype).expand(2, -1, -1)
    for frames in (1, 2, 5):
        assert vocoder(mel[0, :, :frames]).shape == (16 * (frames - 1),)
        assert vocoder(mel[..., :frames]).shape == (2, 16 * (frames - 1))
    for wave, length in zip(vocoder(mel, lengths=[30, 1]), (30, 1), strict=True):
        assert torch.equal(wave, vocoder(mel[0, :, :length]))
    vocoder.save_pretrained(tmp_path / "saved")
    assert torch.equal(Vocoder.from_pretrained(tmp_path / "saved", dtype=dtype)(mel), vocoder(mel))


def test_hooks_and_adapters_inside_are_called() -> None:
    vocoder, mel = small_vocoder(), mel_of(20, 20)[0].float()
    before = vocoder(mel)
    handle = vocoder.generator.blocks[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    hooked = vocoder(mel)
    assert not torch.equal(hooked, before)
    torch.testing.assert_close(hooked, vocoder.generator(mel[None])[0, 0], rtol=0, atol=1e-6)
    handle.remove()
    assert torch.equal(vocoder(mel), before)


REFUSED: dict[str, tuple[Any, str]] = {
    "other features": (
        lambda s: s["feature_extractor"].update(class_path="vocos.feature_extractors.Others"),
        "is made of Others; fastvoc opens a Vocos made of MelSpectrogramFeatures or EncodecFeatures",
    ),
    "another backbone": (
        lambda s: s["backbone"].update(class_path="vocos.models.VocosResNetBackbone"),
        "is made of VocosResNetBackbone; fastvoc opens a Vocos made of VocosBackbone",
    ),
    "another head": (
        lambda s: s["head"].update(class_path="vocos.heads.IMDCTSymExpHead"),
        "is made of IMDCTSymExpHead; fastvoc opens a Vocos made of ISTFTHead or WaveNextHead",
    ),
    "no head": (lambda s: s.pop("head"), "does not say the head of a Vocos"),
    "a head that is a list": (lambda s: s.update(head=[1]), "head is list; expected a class_path and init_args"),
    "two widths": (lambda s: s["head"]["init_args"].update(dim=5), "head.dim is 5 but backbone.dim is 32"),
    "no overlap": (lambda s: s["head"]["init_args"].update(n_fft=16), "fft_size 16 must be even and more than hop 16"),
    "one block less": (lambda s: s["backbone"]["init_args"].update(num_layers=2), "for which there is no place"),
    "one block more": (lambda s: s["backbone"]["init_args"].update(num_layers=4), r"has no backbone\.convnext\.3"),
    "other widths": (lambda s: s["backbone"]["init_args"].update(intermediate_dim=95), "but the settings need"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, what: str) -> None:
    change, sentence = REFUSED[what]
    settings = settings_of(SMALL)
    change(settings)
    with pytest.raises(ValueError, match=sentence) as error:
        open_checkpoint(folder_of(tmp_path / "vocos", SMALL, settings))
    assert str(error.value).startswith(str(tmp_path))
