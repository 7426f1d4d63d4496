"""WaveGlow: the original's numbers, both directions, streams of what is kept, and what guards its training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from golden import hashed, numbered_values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastvoc.models.waveglow
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.checkpoints.tensor_names import to_native
from fastvoc.config import from_dict
from fastvoc.engine import StreamState
from fastvoc.models import WaveGlow, WaveGlowConfig
from fastvoc.models.waveglow import PUBLISHED, SMALL, WIDE
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


def vocoder(config: WaveGlowConfig = TINY, dtype: torch.dtype = torch.float64) -> Vocoder:
    values = {"sample_rate": 8000, "fft_size": 64, "hop": config.hop, "window_size": 64, "bands": config.mel_bands}
    mel: MelConfig = from_dict(MelConfig, values | {"low": 0, "high": 4000}, "a test")
    weights = network(config).state_dict()
    return Vocoder(Checkpoint(VocoderConfig(generator=config, mel=mel), weights, "a test"), dtype=dtype)


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
