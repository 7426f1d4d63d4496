"""NSynth's networks: the original's numbers, samples one by one as all at once, and its checkpoint."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_bundles as bundles
import torch
from golden import hashed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastvoc
from fastvoc import Autoencoder, native, ops
from fastvoc.blocks import draw_class
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint, open_checkpoint
from fastvoc.checkpoints.formats import nsynth as form
from fastvoc.cli import main
from fastvoc.models import NSynth, NSynthConfig
from fastvoc.models.nsynth import H512_BO16, expand, quantise, scaled

TINY = NSynthConfig(
    code_channels=4, hop=40, encoder_channels=6, encoder_layers=5, channels=8, skip_channels=7, layers=5, cycle=3
)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def tiny(dtype: torch.dtype = torch.float64, **changes: Any) -> NSynth:
    torch.manual_seed(0)
    network = replace(TINY, **changes).build().to(dtype)
    for value in network.parameters():
        value.mul_(1.5).add_(0.05)  # fresh gates hardly hear their input, and fresh biases are zero
    return network


def variables(config: NSynthConfig) -> dict[str, tuple[int, ...]]:
    """The original's variables and their shapes."""
    taps, width, code = config.kernel_size, config.channels, config.code_channels
    encoder, skip = config.encoder_channels, config.skip_channels
    layers = {"ae_startconv": (taps, 1, encoder), "ae_bottleneck": (1, encoder, code)}
    for n in range(1, config.encoder_layers + 1):
        layers |= {f"ae_dilatedconv_{n}": (taps, encoder, encoder), f"ae_res_{n}": (1, encoder, encoder)}
    layers |= {"startconv": (taps, 1, width), "skip_start": (1, width, skip), "out1": (1, skip, skip)}
    layers |= {"cond_map_out1": (1, code, skip), "logits": (1, skip, 256)}
    for n in range(1, config.layers + 1):
        layers |= {f"dilatedconv_{n}": (taps, width, 2 * width), f"cond_map_{n}": (1, code, 2 * width)}
        layers |= {f"res_{n}": (1, width, width), f"skip_{n}": (1, width, skip)}
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        found |= {f"{name}/W": (1, *shape), f"{name}/biases": shape[2:]}
    return found


def by_rule(config: NSynthConfig, begins: str = "") -> dict[str, Tensor]:
    """Values by the place of a variable among the sorted names."""
    values = {}
    for place, (name, shape) in enumerate(sorted(variables(config).items())):
        if name.startswith(begins):
            noise = hashed(int(np.prod(shape)), place).reshape(shape)
            values[name] = 0.1 * noise if name.endswith("biases") else noise * np.sqrt(3 / (shape[1] * shape[2]))
    return values


def test_the_mu_law_is_nsynths_own() -> None:
    classes = torch.arange(256)
    assert torch.equal(quantise(expand(classes)), classes)
    assert torch.equal(quantise(expand(classes, torch.float64)), classes)
    assert float(expand(torch.tensor(128))) == 0 and int(quantise(torch.zeros(()))) == 128
    # floor(128 sign ln(1 + 255 |x|) / ln 256): below silence a step begins at once, and 1 would be a class too many
    wave = torch.tensor([1.0, 2.0, -1.0, -3.0, 1e-6, -1e-6, 0.5, -0.5], dtype=torch.float64)
    assert quantise(wave).tolist() == [255, 255, 0, 0, 128, 127, 240, 15]
    torch.testing.assert_close(
        expand(torch.tensor([129, 127, 255]), torch.float64),
        torch.tensor([256 ** (1.5 / 128) - 1, 1 - 256 ** (0.5 / 128), 256 ** (127.5 / 128) - 1]).double() / 255,
        rtol=1e-7,
        atol=0,
    )
    assert scaled(torch.tensor([0, 128, 255]), torch.float32).tolist() == [-1.0, 0.0, 127 / 128]


def test_codes_are_the_originals() -> None:
    """Of x = 0.5 H(2048, 983); TensorFlow's numbers in float32."""
    wave = 0.5 * hashed(2048, 983)
    classes = quantise(wave) - 128
    assert classes[:2].tolist() == [13, -88]
    assert float(classes.double().mean()) == pytest.approx(-3.797852, abs=1e-6)
    values = by_rule(H512_BO16, "ae_")
    encoder = H512_BO16.build().encoder.double()
    for theirs, ours in form.table(H512_BO16):
        if ours.startswith("encoder."):
            layer: Any = encoder.get_submodule(ours.removeprefix("encoder."))
            layer.weight.copy_(values[f"{theirs[0]}/W"][0].permute(2, 1, 0))
            layer.bias.copy_(values[f"{theirs[0]}/biases"])
    code = encoder(scaled(classes + 128, torch.float64)[None, None])[0].T
    assert code.shape == (4, 16)
    found = [float(code.mean()), *code.flatten()[[0, 1, 7, -1]].tolist()]
    assert found == pytest.approx([5.105207, 47.36639, 55.80979, 77.93701, -11.825], rel=1e-5)


@pytest.mark.slow
def test_the_checkpoint_makes_the_originals_codes_and_loss(tmp_path: Path) -> None:
    """Both networks by the rule, from a bundle of their own names: 374 variables, 61,804,048 values."""
    shapes = variables(H512_BO16)
    assert len(shapes) == 374 and sum(int(np.prod(shape)) for shape in shapes.values()) == 61_804_048
    values = by_rule(H512_BO16)
    checkpoint = form.read(_Content(values))  # type: ignore[arg-type]
    network = H512_BO16.build().double()
    network.load_state_dict(checkpoint.weights)
    wave = 0.5 * hashed(2048, 983)[None, None]
    assert float(network.negative_log_likelihood(wave[:, 0])["cross_entropy"]) == pytest.approx(72.1173, rel=2e-6)
    assert float(network.encode(wave).mean()) == pytest.approx(5.105207, rel=1e-6)


class _Content:
    file = Path("a test")

    def __init__(self, values: dict[str, Tensor]) -> None:
        self._values = values

    def state(self) -> dict[str, Tensor]:
        return self._values


def test_sizes_and_lengths() -> None:
    with torch.device("meta"):
        network = H512_BO16.build()
        assert sum(value.numel() for value in network.parameters()) == 61_804_048
        assert sum(value.numel() for value in network.encoder.parameters()) == 1_976_336
    assert network.encoder.reach == 3070
    small = tiny(torch.float32, hop=512)
    assert small.encode(torch.zeros(1, 1, 64000)).shape == (1, 4, 125)


@settings(max_examples=10, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    kernel_size=st.sampled_from([2, 3, 5]),
    hop=st.sampled_from([1, 7, 40]),
    cycle=st.integers(1, 5),
)
def test_sample_by_sample_is_all_at_once(chunks: list[int], kernel_size: int, hop: int, cycle: int) -> None:
    """In float64: the same classes as the parallel network's for the same numbers, and the same bits in any chunks."""
    # the encoder has centred taps only, which an even number has not; it is not asked here
    network = tiny(kernel_size=kernel_size, hop=hop, cycle=cycle, layers=6)
    frames = sum(chunks)
    random = torch.Generator().manual_seed(frames)
    code = torch.randn(2, 4, frames, generator=random, dtype=torch.float64)
    noise = torch.rand(2, 1, frames * hop, generator=random, dtype=torch.float64)
    temperature = torch.tensor([1.0, 0.5], dtype=torch.float64)
    state, pieces, first = network.begin(2), [], 0
    for count in chunks:
        own = slice(first * hop, (first + count) * hop)
        kept = [part.clone() for part in state]
        following, wave = network.advance(
            state, code[..., first : first + count], last=False, noise=noise[..., own], temperature=temperature
        )
        assert all(torch.equal(*pair) for pair in zip(state, kept, strict=True))  # it is not written into
        state, first = following, first + count
        pieces.append(wave)
    made = torch.cat(pieces, dim=-1)
    assert torch.equal(made, network(code, noise=noise, temperature=temperature))
    if not frames:
        return
    classes = quantise(made)
    logits = network.decoder(scaled(classes, torch.float64), code)
    drawn = [draw_class(logits[..., t], noise[:, 0, t], temperature) for t in range(frames * hop)]
    assert torch.equal(torch.stack(drawn, dim=-1), classes[:, 0])


@pytest.mark.slow
def test_sample_by_sample_is_all_at_once_over_four_thousand_samples() -> None:
    network = tiny(hop=400, layers=20, cycle=10)
    code = torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = torch.rand(1, 1, 4000, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    temperature = torch.ones(1, dtype=torch.float64)
    classes = quantise(network(code, noise=noise, temperature=temperature))
    assert classes.unique().numel() > 100
    logits = network.decoder(scaled(classes, torch.float64), code)
    drawn = [draw_class(logits[..., t], noise[:, 0, t], temperature) for t in range(4000)]
    assert torch.equal(torch.stack(drawn, dim=-1), classes[:, 0])


@pytest.mark.skipif(ops.backends()["cpu"] is not None, reason=f"no native code: {ops.backends()['cpu']}")
@pytest.mark.parametrize("isa", native.isas() if ops.backends()["cpu"] is None else [])
@pytest.mark.parametrize("chunks", [[5], [1, 0, 3, 1]])
def test_native_steps_draw_the_classes_of_the_whole_network(isa: str, chunks: list[int]) -> None:
    """In float32: the parallel network's classes in float64 for the same numbers, but at boundaries; in any chunks."""
    frames, batch, hop = 5, 3, 40
    network = tiny(torch.float32, layers=6)
    random = torch.Generator().manual_seed(5)
    code = torch.randn(batch, 4, frames, generator=random)
    noise = torch.rand(batch, 1, frames * hop, generator=random)
    temperature = torch.tensor([1.0, 0.5, 0.0])
    with native.use_isa(isa):
        assert network.explain_steps()["native steps"] is None
        whole = network(code, noise=noise, temperature=temperature)
        state, pieces, first = network.begin(batch), [], 0
        for count in chunks:
            own, part = slice(first * hop, (first + count) * hop), code[..., first : first + count]
            state, wave = network.advance(state, part, last=False, noise=noise[..., own], temperature=temperature)
            pieces.append(wave)
            first += count
        assert torch.equal(torch.cat(pieces, dim=-1), whole)
        alone = [network(code[n, None], noise=noise[n, None], temperature=temperature[n, None]) for n in range(batch)]
        assert torch.equal(torch.cat(alone), whole)
        # the state is that of steps in PyTorch, which go on from it
        more = torch.rand(batch, 1, hop, generator=random)
        going_on = network.advance(state, code[..., :1], last=True, noise=more, temperature=temperature)[1]
    with ops.use_backend("reference"):
        assert network.explain_steps()["native steps"] == "backend 'reference' was asked for"
        other = network.advance(state, code[..., :1], last=True, noise=more, temperature=temperature)[1]
    assert float((going_on != other).float().mean()) < 0.05  # until a number lies at a boundary
    classes = quantise(whole)[:, 0]
    exact = network.double()
    logits = exact.decoder(scaled(classes, torch.float64)[:, None], code.double())
    heads = (logits / temperature.clamp(min=0.1)[:, None, None]).softmax(dim=1).cumsum(dim=1)
    drawn = [draw_class(logits[..., t], noise[:, 0, t].double(), temperature.double()) for t in range(frames * hop)]
    different = torch.stack(drawn, dim=-1) != classes
    near = (heads - noise).abs().amin(dim=1) < 1e-4
    assert not bool(different[:2][~near[:2]].any()) and int(different.sum()) <= 2
    assert classes[0].unique().numel() > 50


@pytest.mark.parametrize(
    ("backend", "dtype", "why"),
    [
        ("cuda", torch.float32, "its head reads the code"),
        ("triton", torch.float32, "backend 'triton' was asked for"),
        ("cpu", torch.float64, "its weights are torch.float64"),
    ],
)
def test_a_backend_without_steps_is_refused(backend: str, dtype: torch.dtype, why: str) -> None:
    network, code = tiny(dtype), torch.zeros(1, 4, 1, dtype=dtype)
    drawn = {"noise": torch.rand(1, 1, 40, dtype=dtype), "temperature": torch.ones(1, dtype=dtype)}
    with ops.use_backend(backend):
        assert all(network.explain_steps().values())
        with pytest.raises(NotImplementedError, match=f"NSynth: .*{why}.*with backend 'reference'"):
            network(code, **drawn)


@pytest.mark.skipif(ops.backends()["cpu"] is not None, reason=f"no native code: {ops.backends()['cpu']}")
def test_native_steps_see_weights_that_change() -> None:
    network, code = tiny(torch.float32), torch.zeros(1, 4, 2)
    drawn = {"noise": torch.rand(1, 1, 80, generator=torch.Generator().manual_seed(1)), "temperature": torch.ones(1)}
    before = network(code, **drawn)
    network.decoder.classes.bias[:100] += 9
    assert not torch.equal(network(code, **drawn), before)


def test_the_encoder_hears_the_future_and_the_decoder_does_not() -> None:
    network = tiny(encoder_layers=6, cycle=6, hop=40)
    wave = torch.rand(1, 1, 400, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.5
    changed = wave.clone()
    changed[..., 200] = -changed[..., 200] - 0.1
    differs = (network.encode(wave) != network.encode(changed)).any(dim=1)[0]
    reach = network.encoder.reach
    assert reach == 1 + 63
    assert differs.nonzero().flatten().tolist() == list(range((200 - reach) // 40, (200 + reach) // 40 + 1))
    code = network.encode(wave)
    first, second = (network.decoder(network.levels(one), code) for one in (wave, changed))
    differs = (first != second).any(dim=1)[0]
    assert not differs[:201].any() and bool(differs[201])
    heard = code.clone()
    heard[..., 5] += 1
    differs = (network.decoder(network.levels(wave), heard) != first).any(dim=1)[0]
    assert not differs[:200].any() and bool(differs[200:240].all())


def test_the_sigmoid_comes_first() -> None:
    """The gates of one layer, written out."""
    network = tiny(layers=1)
    levels = network.levels(torch.rand(1, 1, 40, generator=torch.Generator().manual_seed(4)).double())
    code = torch.randn(1, 4, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    decoder = network.decoder
    x = decoder.stem(torch.nn.functional.pad(levels, (1, -1)))
    layer = decoder.layers[0]
    gate = layer.dilated(x) + layer.condition(code)
    added = layer.out(torch.sigmoid(gate[:, :8]) * torch.tanh(gate[:, 8:]))
    skip = torch.relu(decoder.skip(x) + added[:, 8:])
    expected = decoder.classes(torch.relu(decoder.hidden(skip) + decoder.condition(code)))
    torch.testing.assert_close(decoder(levels, code), expected, rtol=0, atol=1e-12)


def test_a_class_is_the_first_that_a_number_reaches() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.0, 0.7]], dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    for chosen, expected in ((0.0, 0), (0.09, 0), (0.11, 1), (0.29, 1), (0.31, 3), (0.9999999, 3), (1.0, 3)):
        assert int(draw_class(logits, chosen * one, one)) == expected
    assert int(draw_class(logits, 0.01 * one, 0 * one)) == 3
    assert int(draw_class(logits, 0.01 * one, 1e-300 * one)) == 3
    # at temperature 2 the probabilities are as their roots: 0.193, 0.274, 0, 0.512
    assert int(draw_class(logits, 0.19 * one, 2 * one)) == 0 and int(draw_class(logits, 0.2 * one, 2 * one)) == 1
    batch = draw_class(logits.expand(3, 4), torch.tensor([0.05, 0.2, 0.5]).double(), torch.tensor([1.0, 1, 0]).double())
    assert batch.tolist() == [0, 1, 3]


def test_first_weights_are_uniform_of_unit_variance() -> None:
    torch.manual_seed(0)
    network = replace(TINY, channels=64, encoder_channels=64).build()
    for weight, fan_in in (
        (network.encoder.dilated[1].weight, 3 * 64),
        (network.decoder.layers[0].dilated.weight, 3 * 64),
        (network.decoder.layers[0].out.weight, 64),
    ):
        assert float(weight.abs().max()) <= (3 / fan_in) ** 0.5
        assert float(weight.std()) == pytest.approx(fan_in**-0.5, rel=0.05)
    assert not network.decoder.classes.bias.any()


def saved(folder: Path, config: NSynthConfig = TINY, **more: Tensor) -> tuple[Path, dict[str, Tensor]]:
    """A bundle as a run of the original leaves it."""
    values = {name: value.float() for name, value in by_rule(config).items()}
    beside = {"global_step": torch.tensor(200000, dtype=torch.int32), "beta1_power": torch.tensor(0.0)}
    beside |= {f"{name}/Adam": torch.zeros_like(value) for name, value in values.items()}
    return bundles.write(folder / "model.ckpt-200000", values | beside | more), values


PUBLISHED = replace(TINY, hop=512, cycle=10)
"""What no shape tells is as in the published network."""


def test_its_checkpoint_is_opened_by_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index, values = saved(tmp_path)
    for path in (tmp_path, index, tmp_path / "model.ckpt-200000", tmp_path / "model.ckpt-200000.data-00000-of-00001"):
        opened = fastvoc.open(path)
        assert isinstance(opened, Autoencoder)
        assert opened.config.generator == PUBLISHED
        assert (opened.source, opened.notes, opened.sample_rate) == ("NSynth (Magenta)", (), 16000)
    weights = opened.generator.state_dict()
    assert torch.equal(weights["encoder.dilated.2.weight"], values["ae_dilatedconv_3/W"][0].permute(2, 1, 0))
    assert torch.equal(weights["decoder.layers.4.dilated.weight"], values["dilatedconv_5/W"][0])
    assert torch.equal(weights["decoder.layers.0.out.weight"][..., :8], values["res_1/W"][0])
    assert torch.equal(weights["decoder.layers.0.out.weight"][..., 8:], values["skip_1/W"][0])
    assert torch.equal(weights["decoder.condition.bias"], values["cond_map_out1/biases"])
    assert main(["info", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "NSynth (Magenta)" in told and "16000 Hz" in told and "512" in told
    assert main(["convert", str(tmp_path), str(tmp_path / "ours")]) == 0
    ours = fastvoc.open(tmp_path / "ours")
    assert all(torch.equal(value, weights[name]) for name, value in ours.generator.state_dict().items())
    with pytest.raises(ValueError, match=r"Vocoder: .* holds 'nsynth', which is for Autoencoder; fastvoc\.open"):
        fastvoc.Vocoder.from_pretrained(tmp_path)


def test_moving_averages_are_taken_where_they_are_alone(tmp_path: Path) -> None:
    values = {name: value.float() for name, value in by_rule(TINY).items()}
    averages = {f"{name}/ExponentialMovingAverage": 2 * value for name, value in values.items()}
    for name, content in (("both", values | averages), ("averages", averages)):
        (tmp_path / name).mkdir()
        bundles.write(tmp_path / name / "model.ckpt-1", content)
    both, alone = (open_checkpoint(tmp_path / name) for name in ("both", "averages"))
    assert "left aside" in both.notes[0]
    assert torch.equal(both.weights["decoder.classes.bias"], values["logits/biases"])
    assert "are moving averages" in alone.notes[0]
    assert torch.equal(alone.weights["decoder.classes.bias"], 2 * values["logits/biases"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dilatedconv_2/biases": None}, "has no dilatedconv_2/biases; it is a part of an NSynth autoencoder"),
        ({"res_4/W": torch.zeros(1, 1, 8, 9)}, "res_4 has a weight of shape"),
        ({"skip_4/W": torch.zeros(1, 1, 9, 7)}, "res_4 and skip_4 read channels of different numbers"),
        ({"cond_map_3/W": torch.zeros(1, 1, 5, 16)}, "decoder.layers.2.condition.weight has shape"),
        ({"odd/W": torch.zeros(1, 1, 5, 16)}, "has odd, for which there is no place"),
        ({"logits/biases": torch.full((256,), torch.nan)}, "holds values that are not finite"),
        ({"startconv/W": torch.zeros(8)}, "startconv has a weight of shape"),
        ({"ae_startconv/W": torch.zeros(1, 17, 1, 6)}, "has shape"),
    ],
)
def test_what_is_no_such_checkpoint_is_a_sentence(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    values = {name: value.float() for name, value in by_rule(TINY).items()} | change
    bundles.write(tmp_path / "model.ckpt-1", {name: value for name, value in values.items() if value is not None})
    with pytest.raises(ValueError, match=said) as error:
        fastvoc.open(tmp_path)
    assert "\n" not in str(error.value)


def test_an_archive_of_a_checkpoint_and_what_is_not_written_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, _ = saved(tmp_path)
    with tarfile.open(tmp_path / "wavenet-ckpt.tar", "w") as archive:
        archive.add(index, "wavenet-ckpt/model.ckpt-200000.index")
    with pytest.raises(ValueError, match=r"is an archive of a checkpoint of TensorFlow; unpack it, and open its model"):
        fastvoc.open(tmp_path / "wavenet-ckpt.tar")
    for arguments in (["out.onnx"], ["out", "--to", "hifigan"]):
        assert main(["convert", str(index), str(tmp_path / arguments[0]), *arguments[1:]]) == 2
        assert "holds 'nsynth', which is no vocoder; name a folder" in capsys.readouterr().err


def test_another_bundle_is_named(tmp_path: Path) -> None:
    bundles.write(tmp_path / "model.ckpt-1", {"dense/kernel": torch.zeros(2, 2)})
    with pytest.raises(
        ValueError, match="holds tensors such as dense/kernel, which are of no format that fastvoc knows"
    ):
        fastvoc.open(tmp_path)


@pytest.mark.skipif(
    ops.backends()["cpu"] is not None or not native.multiplies_bfloat16(), reason="no multiplications in 8 bits here"
)
def test_eight_bits_keep_the_ratio_that_was_asked_for(tmp_path: Path) -> None:
    config = replace(TINY, channels=24, skip_channels=20, layers=5, cycle=3)
    torch.manual_seed(7)
    weights = {name: 1.5 * value for name, value in config.build().state_dict().items()}
    whole = Autoencoder(Checkpoint(AutoencoderConfig(generator=config), weights, "a test"))
    code = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    narrow = whole.quantise([code], smallest_snr=30)
    way = "decoder by native steps with 10 of 10 convolutions in int8"
    assert {layer.layer for layer in narrow.config.int8} == set(range(10))
    assert narrow.explain()[way] is None
    wave = narrow.decode(code, seed=2)
    assert torch.equal(torch.cat([narrow.decode(code[n], seed=2 + n)[None] for n in range(2)]), wave)
    narrow.save_pretrained(tmp_path)
    assert torch.equal(Autoencoder.from_pretrained(tmp_path).decode(code, seed=2), wave)
    # the first sample that comes out otherwise than of the whole network in float64 is near a boundary of classes
    exact = config.build().double()
    exact.load_state_dict({name: value.double() for name, value in weights.items()})
    classes = quantise(wave)
    noise = narrow.generator.draws(torch.arange(2, 4), 0, 3).double()
    logits = exact.decoder(scaled(classes, torch.float64)[:, None], code.mT.double())
    sums = logits.softmax(1).cumsum(1)
    off = (sums - noise).abs().amin(1)[(sums <= noise).sum(1) != classes]
    assert 0 < len(off) < 0.25 * classes.numel() and float(off.max()) < 0.02
    narrow.generator.decoder.classes.weight.mul_(1.5)
    assert narrow.explain()[way] == "the generator has changed since the layers were chosen; quantise it again"
    narrow.save_pretrained(tmp_path / "changed")
    assert not Autoencoder.from_pretrained(tmp_path / "changed").config.int8
    with pytest.raises(ValueError, match="there are no codes"):
        whole.quantise([])
    with pytest.raises(ValueError, match="NSynth: no convolution can multiply in 8 bits and keep 95 dB"):
        whole.quantise([code], smallest_snr=95)
    with pytest.raises(NotImplementedError, match=r"its weights are torch\.float64"):
        Autoencoder(Checkpoint(whole.config, weights, "a test"), dtype="float64").quantise([code])
