"""WaveGlow: the original's numbers, both directions, streams of what is kept, and what guards its training."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from golden import hashed, numbered_values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastvoc.models.waveglow
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig, write_audio
from fastvoc.audio.picture import draw_noise
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.cli import main
from fastvoc.config import from_dict
from fastvoc.engine import StreamState
from fastvoc.models import WaveGlow, WaveGlowConfig
from fastvoc.models.waveglow import PUBLISHED, SMALL, WIDE
from fastvoc.native import isas, multiplies_bfloat16, use_isa
from fastvoc.ops import backends
from fastvoc.train.learning.weight_norm import add_weight_norm, plain_weights

BANDS, HOP = 5, 12
TINY = WaveGlowConfig(
    mel_bands=BANDS, hop=HOP, upsample_kernel_size=36, group=6, flows=4, early_every=2, channels=6, layers=2
)


def names_of(config: WaveGlowConfig) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, str]]]:
    """Names and shapes of the original's tensors, and the layers of ours that they are."""
    bands, width = config.mel_bands, config.channels
    shapes: dict[str, tuple[int, ...]] = {
        "upsample.weight": (bands, bands, config.upsample_kernel_size),
        "upsample.bias": (bands,),
    }
    table = [("upsample", "upsample")]
    for flow, channels in enumerate(config.widths()):
        layers = [
            ("start", "start", width, channels // 2, 1),
            ("cond_layer", "condition", 2 * width * config.layers, bands * config.group, 1),
            ("end", "end", channels, width, 1),
        ]
        for number in range(config.layers):
            rows = width if number == config.layers - 1 else 2 * width
            layers.append((f"in_layers.{number}", f"layers.{number}.conv", 2 * width, width, config.kernel_size))
            layers.append((f"res_skip_layers.{number}", f"layers.{number}.out", rows, width, 1))
        for theirs, ours, rows, columns, taps in layers:
            name = f"WN.{flow}.{theirs}"
            table.append((name, f"flows.{flow}.network.{ours}"))
            shapes[f"{name}.bias"] = (rows,)
            if theirs == "end":
                shapes[f"{name}.weight"] = (rows, columns, taps)
            else:
                shapes[f"{name}.weight_g"] = (rows, 1, 1)
                shapes[f"{name}.weight_v"] = (rows, columns, taps)
        shapes[f"convinv.{flow}.conv.weight"] = (channels, channels, 1)
        table.append((f"convinv.{flow}.conv.weight", f"flows.{flow}.mix"))
    return shapes, table


def filled(config: WaveGlowConfig) -> dict[str, Tensor]:
    """The original's tensors, filled by the rule of the golden values."""
    values = numbered_values(names_of(config)[0])
    for flow, channels in enumerate(config.widths()):
        mix = torch.eye(channels, dtype=torch.float64) + 0.2 * hashed(channels**2, 500 + channels).view(channels, -1)
        values[f"convinv.{flow}.conv.weight"] = mix[..., None]
        values[f"WN.{flow}.end.weight"] *= 0.1
    return values


def network(config: WaveGlowConfig = TINY) -> WaveGlow:
    values, (_, table) = filled(config), names_of(config)
    values |= {name: value[..., 0] for name, value in values.items() if name.startswith("convinv")}
    made = config.build().double()
    made.load_state_dict(to_native(values, table, config, "a test"))
    return made.requires_grad_(False)


@pytest.mark.slow
def test_the_numbers_are_the_originals() -> None:
    """NVIDIA/waveglow 8afb643, WaveGlow.forward, WaveGlowLoss and WaveGlow.infer with sigma 0, in float64."""
    made = network(PUBLISHED)
    mel, wave = hashed(720, 993).view(1, 80, 9), 0.5 * hashed(2048, 994).view(1, -1)
    with torch.inference_mode():
        found = made.transform(wave, mel)
        z, loss = found.z.flatten(), made.negative_log_likelihood(wave, mel)
        silent = made(mel, noise=torch.zeros(1, 8, 288).double(), temperature=torch.zeros(1).double()).flatten()
    places = [0, 1, 7, 100, -1]
    wanted = [-0.110341875, 0.704676641, -1.42379285, 1.29837963, -0.181082121, 0.0506198364]
    assert [float(z.mean()), *z[places].tolist()] == pytest.approx(wanted, rel=1e-8)
    wanted = [0.104464361, 0.103335232, 0.138381076, -0.411689147, 0.793866205, -0.4240909]
    assert [float(silent.mean()), *silent[places].tolist()] == pytest.approx(wanted, rel=1e-8)
    assert float(found.log_scales) == pytest.approx(18.356970857, rel=1e-8)
    assert float(sum(loss.values())) == pytest.approx(1.8752408124, rel=1e-10)
    back = made.inverse(found.z, mel[..., :8])
    torch.testing.assert_close(back, wave, rtol=0, atol=1e-12)
    made, mel, wave = made.float(), mel.float(), wave.float()
    back = made.inverse(made.transform(wave, mel).z, mel[..., :8])
    torch.testing.assert_close(back, wave, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("config", "count"), [(PUBLISHED, 87_879_272), (WIDE, 268_294_760)])
def test_there_are_as_many_parameters_as_in_the_original_while_it_trains(config: WaveGlowConfig, count: int) -> None:
    with torch.device("meta"):
        made = config.build()
    rows = sum(len(layer.weight) for flow in made.flows for layer in normed(flow))  # a magnitude each
    assert sum(weight.numel() for weight in made.parameters()) + rows == count


def normed(flow: Any) -> list[Any]:
    stack = flow.network
    return [stack.start, stack.condition, *(part for layer in stack.layers for part in (layer.conv, layer.out))]


def test_weight_norm_is_on_what_the_original_has_it_on() -> None:
    made = TINY.build()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    add_weight_norm(made)
    plain = {name.rpartition(".")[0] for name in made.state_dict() if name.endswith(".weight")}
    assert plain == {"upsample", *(f"flows.{number}.network.end" for number in range(4))}
    for name, value in plain_weights(made).items():
        torch.testing.assert_close(value, before[name], rtol=1e-6, atol=1e-7)


def mel_of(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (8 * values - 11).to(dtype)


def noise_of(config: WaveGlowConfig, batch: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (batch, config.group, frames * config.hop // config.group)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("frames", [1, 2, 9, 40])
def test_waves_are_made_of_what_they_become(frames: int) -> None:
    made, z, mel = network(), noise_of(TINY, 3, frames), mel_of(3, BANDS, frames)
    wave = made.inverse(z, mel)
    assert wave.shape == (3, frames * HOP)
    torch.testing.assert_close(made.transform(wave, mel).z, z, rtol=0, atol=1e-10)


def test_a_fresh_network_is_orthogonal_and_its_loss_that_of_the_wave() -> None:
    made, wave = TINY.build().double().requires_grad_(False), 0.3 * torch.randn(2, 120, dtype=torch.float64)
    parts = made.negative_log_likelihood(wave, mel_of(2, BANDS, 10))
    assert float(parts["scales"]) == 0 and float(parts["determinants"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["noise"]) == pytest.approx(float(wave.square().mean()) / 2, rel=1e-5)
    halved = replace(TINY, deviation=0.5).build().double()
    halved.load_state_dict(made.state_dict())
    torch.testing.assert_close(
        halved.negative_log_likelihood(wave, mel_of(2, BANDS, 10))["noise"], 4 * parts["noise"], rtol=1e-12, atol=0
    )
    for flow in made.flows:
        assert float(torch.linalg.det(flow.mix)) == pytest.approx(1, abs=1e-5)  # type: ignore[arg-type]


def test_the_determinant_is_that_of_the_whole_map() -> None:
    made, mel = network(), mel_of(1, BANDS, 2)
    wave = 0.3 * torch.randn(1, 2 * HOP, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = torch.func.jacrev(lambda wave: made.transform(wave, mel).z.flatten())(wave)[:, 0]
    found = made.transform(wave, mel)
    total = float(found.log_scales.sum() + found.log_determinants.sum())
    assert total == pytest.approx(float(torch.linalg.slogdet(whole)[1]), rel=1e-9)


def checkpoint(config: WaveGlowConfig = TINY) -> Checkpoint:
    size = max(64, 4 * config.hop)
    values = {"sample_rate": 8000, "fft_size": size, "hop": config.hop, "window_size": size, "bands": config.mel_bands}
    mel: MelConfig = from_dict(MelConfig, values | {"low": 0, "high": 4000}, "a test")
    return Checkpoint(VocoderConfig(generator=config, mel=mel), network(config).state_dict(), "a test")


def vocoder(config: WaveGlowConfig = TINY, dtype: torch.dtype = torch.float64) -> Vocoder:
    return Vocoder(checkpoint(config), dtype=dtype)


def test_it_says_how_far_it_looks_and_looks_no_farther() -> None:
    made, frames, at = network(), 30, 15
    past, future = made.receptive_field
    # 4 flows of 1 + 2 rows of 6 samples: 12 rows are 6 frames; three frames reach into a sample by 36 taps
    assert (past, future) == (8, 6)
    mel = (0.05 * mel_of(1, BANDS, frames)).requires_grad_()  # where no gate is saturated
    wave = made.inverse(noise_of(TINY, 1, frames), mel)
    (reached,) = torch.autograd.grad(wave[0, at * HOP : (at + 1) * HOP].sum(), mel)  # the farthest are of 1e-16
    assert reached.abs().sum(dim=(0, 1)).nonzero()[:, 0].tolist() == list(range(at - past, at + future + 1))
    with torch.device("meta"):
        assert PUBLISHED.build().receptive_field == (99, 96)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=10, deadline=None)
@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_streams_are_the_whole_whatever_the_chunks(dtype: torch.dtype, chunks: list[int]) -> None:
    made, mel = vocoder(dtype=dtype), mel_of(BANDS, sum(chunks), dtype=dtype)
    streamer = made.streamer(seed=5)
    pieces = [streamer.push(part) for part in mel.split(chunks, dim=-1)]
    heard = sum(chunks)
    assert sum(map(len, pieces)) == max(0, heard - made.receptive_field[1]) * HOP
    whole = made(mel, seed=5)
    tolerance = 200 * torch.finfo(dtype).eps * float(whole.abs().max())
    joined = torch.cat([*pieces, streamer.flush()])
    torch.testing.assert_close(joined, whole, rtol=0, atol=tolerance)
    if dtype == torch.float32 and backends()["cpu"] is None:
        assert torch.equal(joined, whole)  # the kernels sum every row alike
    assert not streamer.recomputes
    # the stream is what the network makes of the whole noise at once
    noise = made.draws(torch.tensor([5]), 0, heard).to(dtype)  # type: ignore[misc]
    once = made.generator(mel[None], noise=noise, temperature=torch.full((1,), 0.6, dtype=dtype))[0, 0]
    torch.testing.assert_close(whole, once, rtol=0, atol=tolerance)


def test_a_long_mel_is_made_in_windows_and_is_the_flows_run_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frames = network(), 50
    z, mel = noise_of(TINY, 2, frames), mel_of(2, BANDS, frames)
    whole = made.inverse(z, mel)
    for window in (1, 3, 7):
        monkeypatch.setattr(fastvoc.models.waveglow, "WINDOW", window)
        torch.testing.assert_close(made.inverse(z, mel), whole, rtol=0, atol=1e-11)


def test_states_part_and_meet_and_batches_are_their_items() -> None:
    made = vocoder()
    mel = mel_of(3, BANDS, 40)
    together = made(mel, seed=7)
    for number, wave in enumerate(made(mel, lengths=[40, 13, 1], seed=7)):
        length = (40, 13, 1)[number]
        torch.testing.assert_close(wave, made(mel[number, :, :length], seed=7 + number), rtol=0, atol=0)
    for number in range(3):
        torch.testing.assert_close(together[number], made(mel[number], seed=7 + number), rtol=0, atol=1e-11)
    one, two = made.streamer(seed=1), made.streamer(seed=2)
    one.push(mel[0, :, :20])
    two.push(mel[1, :, :17])
    joined = made.streamer(2)
    joined.restore(StreamState.join([one.state(), two.state()]))
    both = joined.push(mel[:2, :, :9])
    torch.testing.assert_close(both[0], one.push(mel[0, :, :9]), rtol=0, atol=1e-11)
    torch.testing.assert_close(both[1], two.push(mel[1, :, :9]), rtol=0, atol=1e-11)


def test_temperature_scales_the_noise() -> None:
    made, mel = vocoder(), mel_of(BANDS, 12)
    noise = made.draws(torch.tensor([4]), 0, 12).double()  # type: ignore[misc]
    for temperature in (0.0, 0.6, 1.0):
        expected = made.generator.inverse(temperature * noise, mel[None])[0]  # type: ignore[operator]
        torch.testing.assert_close(made(mel, seed=4, temperature=temperature), expected, rtol=0, atol=1e-12)
    assert torch.equal(made(mel, seed=4), made(mel, seed=4, temperature=0.6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    made, mel = vocoder(dtype=dtype), mel_of(BANDS, 30)
    exact = vocoder()(mel, seed=1)
    error = made(mel, seed=1).double() - exact
    assert 10 * math.log10(float(exact.square().mean() / error.square().mean())) > (
        30 if dtype == torch.bfloat16 else 48
    )


def test_what_runs_is_explained_with_taps_as_many_as_the_originals() -> None:
    config = WaveGlowConfig(channels=8, layers=2, flows=2)
    settings = VocoderConfig(generator=config, mel=CONVENTIONS["waveglow"])
    table = Vocoder(Checkpoint(settings, config.build().state_dict(), "a test")).explain()
    assert config.upsample_kernel_size == 1024 and table["reference"] is None
    assert "frame" not in (table["cpu"] or "")  # nothing is so short that it is refused for that


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_fresh_weights_have_the_default_dtype(dtype: torch.dtype) -> None:
    kept = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        built = TINY.build()
    finally:
        torch.set_default_dtype(kept)
    assert {weight.dtype for weight in built.parameters()} == {dtype}
    mix = cast(Any, built.flows[0]).mix.double()
    # entries are rounded to half of the last of 8 bits, and a product adds as many as the matrix is wide, twice
    torch.testing.assert_close(mix @ mix.T, torch.eye(len(mix)).double(), rtol=0, atol=2 * len(mix) * 2.0**-9)


def test_a_singular_matrix_is_named() -> None:
    made, mel = network(), mel_of(1, BANDS, 4)
    assert made.diagnosis() == ""
    with torch.no_grad():
        made.flows[2].mix[0].zero_()  # type: ignore[operator, union-attr]
    with pytest.raises(ValueError, match=r"1x1 convolution of flow 2 \(flows.2.mix\) is singular"):
        made.inverse(noise_of(TINY, 1, 4), mel)
    assert made.diagnosis() == "the 1x1 convolution of flow 2 is singular (flows.2.mix), so that it has no inverse"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hop": 9}, "hop 9 must be a multiple of group 6"),
        ({"upsample_kernel_size": 7}, "upsample_kernel_size 7 must be the hop 12 at least"),
        ({"kernel_size": 2}, "kernel_size 2 must be odd"),
        ({"early_every": 1, "flows": 5}, "must be even and leave two channels"),
        ({"early_size": 1}, "must be even"),
        ({"flows": 0}, "flows"),
        ({"deviation": 0.0}, "deviation"),
    ],
)
def test_settings_of_no_network_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **changes)


@pytest.mark.parametrize(
    ("wave", "mel"),
    [(torch.zeros(1, 1, 12), (1, BANDS, 1)), (torch.zeros(1, 8), (1, BANDS, 1)), (torch.zeros(1, 18), (1, BANDS, 1))],
)
def test_waves_of_no_mel_are_refused(wave: Tensor, mel: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the wave must be"):
        network().transform(wave.double(), mel_of(*mel))


def test_it_is_saved_and_opened(tmp_path: Path) -> None:
    made, mel = vocoder(dtype=torch.float32), mel_of(BANDS, 12, dtype=torch.float32)
    made.save_pretrained(tmp_path)
    assert torch.equal(Vocoder.from_pretrained(tmp_path)(mel, seed=2), made(mel, seed=2))
    with pytest.raises(ValueError, match="WaveGlow learns from the likelihood"):
        made.generator.outputs(mel[None], {"wave"})
    assert SMALL.build().receptive_field == (35, 32)


def test_samples_that_overflow_are_refused_and_the_stream_goes_on() -> None:
    made, mel = vocoder(dtype=torch.float32), mel_of(BANDS, 12, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"at temperature 3.4e\+38 samples are no finite numbers"):
        made(mel, seed=1, temperature=3.4e38)
    streamer = made.streamer(seed=1, temperature=3.4e38)
    streamer.push(mel[:, :1])
    before = streamer.state()
    with pytest.raises(ValueError, match="take a lower temperature"):
        streamer.push(mel)
    assert streamer.state() is before
    assert made(mel, seed=1, temperature=1e9).isfinite().all()


def original_denoiser(wave: Tensor, bias: Tensor, strength: float) -> Tensor:
    """denoiser.py and stft.py of NVIDIA/waveglow 8afb643, as products with matrices of cosines."""
    size, hop = 1024, 256
    turns = torch.outer(torch.arange(size // 2 + 1).double(), torch.arange(size).double()) * (2 * math.pi / size)
    basis = torch.cat([turns.cos(), -turns.sin()])
    window = 0.5 - 0.5 * torch.cos(torch.arange(size).double() * (2 * math.pi / size))
    inverse = torch.linalg.pinv(size / hop * basis).T * window

    def transform(wave: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([wave[1 : size // 2 + 1].flip(0), wave, wave[-size // 2 - 1 : -1].flip(0)])
        real, imaginary = (padded.unfold(0, size, hop) @ (basis * window).T).T.chunk(2)
        return (real**2 + imaginary**2).sqrt(), torch.atan2(imaginary, real)

    magnitude, phase = transform(wave)
    magnitude = (magnitude - strength * transform(bias)[0][:, :1]).clamp(min=0)
    frames = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()]).T @ inverse
    made, total = torch.zeros(2, (len(frames) - 1) * hop + size, dtype=torch.float64)
    for number, frame in enumerate(frames):
        made[number * hop :][:size] += frame
        total[number * hop :][:size] += window**2
    return (made / total.clamp(min=1e-12) * (size / hop))[size // 2 : -size // 2]


def test_denoising_is_the_originals() -> None:
    config = replace(TINY, hop=256, group=8, upsample_kernel_size=512)
    made, mel = vocoder(config), mel_of(BANDS, 20)
    wave = made(mel, seed=3)
    nothing = made(torch.zeros(BANDS, 88, dtype=torch.float64), seed=0, temperature=0.0)
    assert torch.equal(made(mel, seed=3, denoising=0.0), wave)
    for strength in (0.1, 5.0):
        denoised = made(mel, seed=3, denoising=strength)
        expected = original_denoiser(wave, nothing, strength)
        torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-9 * float(wave.abs().max()))
        assert (denoised - wave).abs().max() > 1e-4
    for number, each in enumerate(made(mel_of(2, BANDS, 20), lengths=[20, 9], seed=3, denoising=0.1)):
        alone = made(mel_of(2, BANDS, 20)[number, :, : (20, 9)[number]], seed=3 + number, denoising=0.1)
        assert torch.equal(each, alone)


def test_what_is_made_of_nothing_is_kept_until_the_weights_change(monkeypatch: pytest.MonkeyPatch) -> None:
    made, mel = vocoder(replace(TINY, hop=256, group=8, upsample_kernel_size=512)), mel_of(BANDS, 5)
    first = made(mel, seed=1, denoising=1.0)
    lengths = []
    voice = made._synthesizer.voice
    monkeypatch.setattr(
        made._synthesizer, "voice", lambda mel, *rest: lengths.append(mel.shape[-1]) or voice(mel, *rest)
    )
    assert torch.equal(made(mel, seed=1, denoising=1.0), first)
    assert lengths == [5]
    with torch.no_grad():
        made.generator.flows[0].network.end.bias += 0.1  # type: ignore[index, union-attr, operator]
    made(mel, seed=1, denoising=1.0)
    assert sorted(lengths) == [5, 5, 88]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda made, mel: made(mel, denoising=-0.1), "denoising is -0.1; it must be a finite number"),
        (lambda made, mel: made(mel, denoising=math.nan), "denoising is nan; it must be a finite number"),
        (lambda made, mel: made(mel[:, :1], denoising=0.1), "wave has 12 samples; needs more than 512"),
        (lambda made, mel: made.streamer(denoising=0.1), "it is done to whole waves"),
        (lambda made, mel: list(made.stream([mel], denoising=0.1)), "it is done to whole waves"),
    ],
)
def test_denoising_that_cannot_be_done_is_refused(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call(vocoder(), mel_of(BANDS, 50))


MIDDLE = replace(TINY, channels=40, layers=3)  # wide enough for Toom and Cook's method
native_only = pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("isa", isas() if backends()["cpu"] is None else [])
def test_native_layers_are_as_exact_as_operators(isa: str, dtype: torch.dtype) -> None:
    mel = mel_of(2, BANDS, 60)
    with use_isa(isa):
        made = vocoder(MIDDLE, dtype)
        if dtype == torch.bfloat16 and not multiplies_bfloat16():
            assert "does not multiply" in str(made.explain()["native layers"])
            return
        assert made.explain()["native layers"] is None
        exact = vocoder(MIDDLE)(mel.to(dtype).double(), seed=1)
        plain = Vocoder(checkpoint(MIDDLE), dtype=dtype, backend="reference")(mel.to(dtype), seed=1)
        fast = made(mel.to(dtype), seed=1)
        largest = float(exact.abs().max())
        errors = [float((wave.double() - exact).square().mean().sqrt()) for wave in (fast, plain)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * largest
        pieces = [streamer.push(part) for streamer in [made.streamer(2, seed=1)] for part in mel.to(dtype).split(7, -1)]
        streamed = torch.cat([*pieces], dim=-1).double()
        error = float((streamed - exact[:, : streamed.shape[-1]]).square().mean().sqrt())
        assert error <= 2 * errors[1] + torch.finfo(dtype).eps * largest


@native_only
def test_streams_have_the_same_bits_however_they_are_cut_and_by_any_number_of_threads() -> None:
    made, mel = vocoder(MIDDLE, torch.float32), mel_of(BANDS, 130, dtype=torch.float32)

    def streamed(length: int) -> Tensor:
        streamer = made.streamer(seed=2)
        return torch.cat([*map(streamer.push, mel.split(length, dim=-1)), streamer.flush()])

    once, whole, threads = streamed(3), made(mel, seed=2), torch.get_num_threads()
    for length in (1, 7, 60, 130):
        assert torch.equal(streamed(length), once)
    assert not torch.equal(once, whole)  # which is multiplied less
    torch.testing.assert_close(once, whole, rtol=0, atol=1e-4)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(made(mel, seed=2), whole) and torch.equal(streamed(7), once)
    finally:
        torch.set_num_threads(threads)


@native_only
def test_weights_that_change_are_packed_again_and_copies_pack_their_own() -> None:
    made, mel = vocoder(MIDDLE, torch.float32), mel_of(BANDS, 20, dtype=torch.float32)
    first = made(mel, seed=1)
    other = copy.deepcopy(made)
    assert torch.equal(other(mel, seed=1), first) and torch.equal(pickle.loads(pickle.dumps(made))(mel, seed=1), first)
    with torch.no_grad():
        made.generator.flows[1].network.layers[0].conv.weight.mul_(1.5)  # type: ignore[index, union-attr, operator]
    changed = made(mel, seed=1)
    assert not torch.equal(changed, first) and torch.equal(other(mel, seed=1), first)
    fresh = vocoder(MIDDLE, torch.float32)
    fresh.generator.load_state_dict(made.generator.state_dict())
    assert torch.equal(fresh(mel, seed=1), changed)


@pytest.mark.parametrize(
    ("backend", "dtype"), [(None, torch.float32), ("reference", torch.float32), (None, torch.float64)]
)
def test_matrices_are_inverted_once_for_weights(
    monkeypatch: pytest.MonkeyPatch, backend: str | None, dtype: torch.dtype
) -> None:
    made, mel = Vocoder(checkpoint(), dtype=dtype, backend=backend), mel_of(BANDS, 20, dtype=dtype)
    inverted, invert = [], torch.linalg.inv_ex
    monkeypatch.setattr(torch.linalg, "inv_ex", lambda matrix: inverted.append(len(matrix)) or invert(matrix))
    first = made(mel, seed=1)
    assert sorted(inverted) == sorted(TINY.widths())
    assert torch.equal(made(mel, seed=1), first)
    assert len(inverted) == TINY.flows
    with torch.no_grad():
        made.generator.flows[1].mix.mul_(2.0)  # type: ignore[index, union-attr, operator]
    changed = made(mel, seed=1)
    assert len(inverted) == 2 * TINY.flows
    fresh = Vocoder(checkpoint(), dtype=dtype, backend=backend)
    fresh.generator.load_state_dict(made.generator.state_dict())
    assert torch.equal(fresh(mel, seed=1), changed) and not torch.equal(changed, first)


def test_gradients_reach_the_matrices_and_the_noise_after_a_call_without() -> None:
    made, z, mel = network(), noise_of(TINY, 1, 4).requires_grad_(), mel_of(1, BANDS, 4)
    with torch.inference_mode():
        made.inverse(z, mel)  # whose inverses are kept, and have no gradient
    (slope,) = torch.autograd.grad(made.inverse(z, mel).square().sum(), z)
    mix = cast(Tensor, made.flows[2].mix.requires_grad_())  # type: ignore[union-attr, operator]
    (of_mix,) = torch.autograd.grad(made.inverse(z, mel).square().sum(), mix)
    step, way, along = 1e-6, noise_of(TINY, 1, 4), hashed(mix.numel(), 7).view_as(mix)

    def loss(by: float) -> tuple[float, float]:
        with torch.no_grad():
            moved = made.inverse(z + by * way, mel).square().sum()
            mix.add_(along, alpha=by)
            turned = made.inverse(z, mel).square().sum()
            mix.sub_(along, alpha=by)
        return float(moved), float(turned)

    rises = [(after - before) / (2 * step) for after, before in zip(loss(step), loss(-step), strict=True)]
    assert rises == pytest.approx([float((slope * way).sum()), float((of_mix * along).sum())], rel=1e-6)


class Asked(TorchDispatchMode):
    """What reads values of tensors, for which a GPU has to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.by: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2"):
            self.by.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)  # by native code and by operators
def test_a_call_waits_for_the_device_once_after_its_last_kernel(dtype: torch.dtype) -> None:
    made, mel = network(MIDDLE).to(dtype), mel_of(1, BANDS, 120, dtype=dtype)  # two windows
    temperature = torch.full((1,), 0.6, dtype=dtype)

    def wave() -> Tensor:
        noise = made.draws(torch.tensor([1]), 0, 120).to(dtype)
        return made.advance(made.begin(1), mel, last=True, noise=noise, temperature=temperature)[1]

    with torch.inference_mode():
        first = wave()
        with Asked() as asked:
            again = wave()
        assert torch.equal(again, first)
        assert asked.by == ["is_nonzero"]  # whether all samples are finite
        with Asked() as asked:
            made._make(
                made.begin(1),
                mel,
                noise_of(MIDDLE, 1, 120).to(dtype),
                made._prepared(mel, mel, in_order=False),
                last=True,
            )
        assert asked.by == []


def test_no_call_asks_for_values_of_tensors_that_have_none() -> None:
    with torch.device("meta"):
        made, mel = MIDDLE.build().eval(), torch.empty(2, BANDS, 9)
        noise = made.draws(torch.zeros(2, dtype=torch.int64), 0, 9)
        with torch.inference_mode():
            assert made(mel, noise=noise, temperature=torch.ones(2)).shape == (2, 1, 9 * HOP)


@native_only
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_layers_that_read_mel_frames_are_as_exact_as_those_that_read_them_upsampled(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    if dtype == torch.bfloat16 and not multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    mel = mel_of(2, BANDS, 60).to(dtype)
    exact, waves = vocoder(MIDDLE)(mel.double(), seed=1), {}
    for window in (7, 96):
        for share in (1, 10**12):
            monkeypatch.setattr(fastvoc.models.waveglow, "WINDOW", window)
            monkeypatch.setattr(fastvoc.models.waveglow, "MEMORY_SHARE", share)
            made = vocoder(MIDDLE, dtype)
            reason = made.explain()["native layers of mel frames"]
            assert reason is None if share == 1 else "more than 1/1000000000000 of this machine's memory" in str(reason)
            waves[window, share] = made(mel, seed=1).double()
    errors = {key: float((wave - exact).square().mean().sqrt()) for key, wave in waves.items()}
    for window in (7, 96):
        assert not torch.equal(waves[window, 1], waves[window, 10**12])
        assert errors[window, 1] <= 1.5 * errors[window, 10**12]


@native_only
def test_gradients_are_those_of_operators() -> None:
    made, z = network(MIDDLE).float(), noise_of(MIDDLE, 1, 6).float()
    mel = mel_of(1, BANDS, 6, dtype=torch.float32).requires_grad_()
    (slope,) = torch.autograd.grad(made.inverse(z, mel).square().sum(), mel)
    exact, wide = network(MIDDLE), mel.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(exact.inverse(z.double(), wide).square().sum(), wide)
    torch.testing.assert_close(slope.double(), expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_the_work_of_a_sample_is_counted() -> None:
    with torch.device("meta"):
        made = PUBLISHED.build()
    layers = sum(3 * 256 * 512 + 640 * 512 + 256 * (512 if number < 7 else 256) for number in range(8))
    rest = sum(channels // 2 * 256 + 256 * channels + channels**2 for channels in PUBLISHED.widths())
    assert made.multiply_accumulates == (12 * layers + rest) / 8 + 80 * 80 * 4
    assert made.multiply_accumulates == pytest.approx(10.1e6, rel=0.01)


def test_noise_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # what the picture says of a wave of which no flow makes anything else
    config = replace(TINY, mel_bands=80, hop=256, group=8, upsample_kernel_size=512)
    settings = VocoderConfig(generator=config, mel=CONVENTIONS["waveglow"])
    Vocoder(Checkpoint(settings, config.build().state_dict(), "a test")).save_pretrained(tmp_path / "vocoder")
    write_audio(tmp_path / "one.wav", 0.1 * torch.sin(torch.arange(9001) / 5), 22050)
    asked = ["noise", str(tmp_path / "one.wav"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*asked, "--vocoder", str(tmp_path / "vocoder")]) == 0
    assert (tmp_path / "out" / "one.png").stat().st_size > 10_000
    assert main([*asked, "--overwrite"]) == 2
    assert "which makes no noise of recordings; 'waveglow' does" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"noise has shape \(3,\); it must be \(channels, rows\)"):
        draw_noise(tmp_path / "no.png", torch.zeros(3), 1.0, 0.1)
