"""Layers in 8 bits: what plans compute is what they say, and waves stay as near as was promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_plan import CONVOLUTIONAL, WIDE, wide
from test_streaming import BANDS, checkpoint, hifigan, random_mel
from torch import Tensor
from torch.nn import functional as F

from fastvoc import Vocoder, native
from fastvoc.checkpoints import Checkpoint, InferenceFrames, Int8Layer
from fastvoc.engine import Plan, Quantization, calibrate
from fastvoc.engine.quantize import steps_of
from fastvoc.engine.runs import layers_of, operands
from fastvoc.ops import backends
from fastvoc.ops.network import INPUT, NOTHING, Layer

compiled = backends()["cpu"] is None
pytestmark = pytest.mark.skipif(not compiled, reason=f"no native kernels: {backends()['cpu']}")
narrow = pytest.mark.skipif(
    not compiled or not native.multiplies_bfloat16(), reason="this processor does not multiply 8-bit integers"
)


def mels(count: int, frames: int, *, seed: int) -> list[Tensor]:
    return [random_mel(BANDS, frames, seed=100 * seed + number) for number in range(count)]


def snr(wave: Tensor, exact: Tensor) -> float:
    return float(10 * (exact.double().square().sum() / (wave.double() - exact.double()).square().sum()).log10())


@cache
def quantised(name: str) -> Vocoder:
    return wide(name).quantise(mels(2, 40, seed=1), smallest_snr=36)


def simulated(layers: list[Layer], x: Tensor, *, narrowed: bool) -> Tensor:
    """Run layers in float64: (B, bands, T) → (B, C, T'); operands as a plan rounds them, or not."""
    results = {INPUT: x.double()}
    for number, layer in enumerate(layers):
        x, weight = F.leaky_relu(results[layer.input], layer.slope), layer.weight.detach().double()
        if narrowed and layer.int8 is None:
            x, weight = x.float().bfloat16().double(), weight.float().bfloat16().double()
        elif narrowed:
            assert layer.int8 is not None
            scale, zero_point = float(torch.tensor(layer.int8.scale)), layer.int8.zero_point
            x = scale * ((x / scale).round() + zero_point).clamp(0, 255).sub(zero_point)
            weight = eight_bits(layer)
        mode = {"zero": "constant"}.get(layer.padding_mode, layer.padding_mode)
        bias = None if layer.bias is None else layer.bias.detach().double()
        if layer.kind == "conv1d":
            y = F.conv1d(F.pad(x, layer.padding, mode), weight, bias, dilation=layer.dilation)
        else:
            left, right = layer.padding
            if mode == "replicate":
                x, left = F.pad(x, (1, 0), mode), left + layer.stride
            y = F.conv_transpose1d(x, weight, bias, stride=layer.stride)
            y = y[..., left : y.shape[-1] - right]
        y = y + (results[layer.residual] if layer.residual != NOTHING else 0)
        y = y + (results[layer.partial] if layer.partial != NOTHING else 0)
        y = F.leaky_relu(y / layer.divisor, layer.slope_after)
        results[number] = y.tanh() if layer.tanh else y
    return results[len(layers) - 1]


def eight_bits(layer: Layer) -> Tensor:
    """A weight on 255 steps per output channel, and of an upsampling per phase."""
    weight = layer.weight.detach().clone()
    out, phases = (0, 1) if layer.kind == "conv1d" else (1, layer.stride)
    for phase in range(phases):
        part = weight[..., phase::phases]
        largest = part.abs().amax([axis for axis in range(3) if axis != out], keepdim=True)
        scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
        weight[..., phase::phases] = (part / scale).round() * scale
    return weight.double()


@narrow
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_plan_computes_what_it_says(name: str, every: int) -> None:
    generator, mel = Vocoder(checkpoint(name)).generator, random_mel(1, BANDS, 200)
    layers = layers_of(generator)
    standardised = "standardised" in name
    x = (mel - generator.mean[:, None]) / generator.scale[:, None] if standardised else mel  # type: ignore[index]
    with torch.inference_mode():
        int8 = dict(list(enumerate(steps_of(generator, layers, [mel])))[::every])
        made = Plan(generator, int8=int8)(mel)
        layers = [replace(layer, int8=int8.get(number)) for number, layer in enumerate(layers)]
        said, exact = (simulated(layers, x, narrowed=narrowed) for narrowed in (True, False))
    # Sums in float32 are rounded to another of 2^8 steps than exact ones once in 2^14 times or so, by one step; that
    # is 2^-14 of the energy that rounding adds, in each of a hundred layers at most.
    assert (made - said).square().sum() <= 100 * 2**-14 * (said - exact).square().sum()


@narrow
@pytest.mark.parametrize("name", ["hifigan", "hifigan, causal", "melgan"])
def test_operands_are_what_layers_multiply(name: str) -> None:
    layers = layers_of(Vocoder(checkpoint(name)).generator)
    mel = random_mel(1, BANDS, 12)
    last = layers[-1]
    with torch.inference_mode():
        multiplied = list(operands(layers, mel))[-1]
    wave = simulated([replace(last, input=INPUT, slope=1.0)], multiplied, narrowed=False)
    assert torch.allclose(wave, simulated(layers, mel, narrowed=False), atol=1e-5)


@narrow
@pytest.mark.parametrize("name", WIDE)
def test_waves_keep_the_promise_for_other_mels(name: str) -> None:
    exact, fast = wide(name), quantised(name)
    assert len(fast.config.int8) >= len(layers_of(exact.generator)) // 2
    assert all(snr(fast(mel), exact(mel)) >= 36 for mel in mels(6, 60, seed=2))


def test_steps_reach_as_far_beyond_what_was_heard_as_they_say() -> None:
    layers = layers_of(Vocoder(checkpoint("hifigan")).generator)
    heard = [mel[None] for mel in mels(2, 12, seed=1)]
    with torch.inference_mode():
        steps = steps_of(Vocoder(checkpoint("hifigan")).generator, layers, heard)
        multiplied = list(zip(*(operands(layers, mel) for mel in heard), strict=True))
    signed = 0
    for step, parts in zip(steps, multiplied, strict=True):
        least = min(0.0, *(float(part.min()) for part in parts))
        largest = max(0.0, *(float(part.max()) for part in parts))
        assert -step.zero_point * step.scale == pytest.approx(1.2 * least, abs=step.scale)
        assert (255 - step.zero_point) * step.scale == pytest.approx(1.2 * largest, abs=step.scale)
        signed += least < 0 < largest
    assert signed > len(steps) // 2


def test_steps_of_a_standardised_generator_are_those_of_standardised_mels() -> None:
    speaking = Vocoder(checkpoint("hifigan, standardised")).generator
    plain = hifigan().build().eval()
    weights = {name: value for name, value in speaking.state_dict().items() if name not in ("mean", "scale")}
    plain.load_state_dict(weights)
    heard = [mel[None] for mel in mels(2, 12, seed=1)]
    standardised = [(mel - speaking.mean[:, None]) / speaking.scale[:, None] for mel in heard]  # type: ignore[index]
    with torch.inference_mode():
        found = steps_of(speaking, layers_of(speaking), heard)
        assert found == steps_of(plain, layers_of(plain), standardised)
        assert found != steps_of(plain, layers_of(plain), heard)


class Simulated:
    """Stands in for a plan where the processor does not multiply in 8 bits: it computes what a plan says."""

    def __init__(self, generator: Any, *, int8: dict[int, Quantization]) -> None:
        self.generator = generator
        self.layers = [replace(layer, int8=int8.get(number)) for number, layer in enumerate(layers_of(generator))]

    def __call__(self, mel: Tensor) -> Tensor:
        if self.generator.standardised:
            mel = (mel - self.generator.mean[:, None]) / self.generator.scale[:, None]
        return simulated(self.layers, mel, narrowed=True).float()


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvoc.engine.quantize.Plan", Simulated)
    monkeypatch.setattr(Plan, "refuses", staticmethod(lambda generator: None))
    monkeypatch.setattr(Plan, "refuses_int8", staticmethod(lambda generator: None))


def habitual(name: str, **habit: Any) -> Vocoder:
    base = checkpoint(name)
    return Vocoder(replace(base, config=replace(base.config, inference=InferenceFrames(**habit))))


@pytest.mark.usefixtures("anywhere")
def test_as_many_layers_as_keep_the_promise_multiply_in_8_bits() -> None:
    generator = Vocoder(checkpoint("hifigan")).generator
    heard = [mel[None] for mel in mels(2, 20, seed=1)]
    alone = min(snr(Simulated(generator, int8={})(mel), generator(mel)) for mel in heard)
    counts = []
    for ratio in (20, alone - 3, alone - 0.5):
        chosen = calibrate(generator, heard, smallest_snr=ratio)
        kept = min(snr(Simulated(generator, int8=chosen)(mel), generator(mel)) for mel in heard)
        assert kept >= ratio
        counts.append(len(chosen))
    last = len(layers_of(generator)) - 1
    assert counts[0] == last - 1  # all but the first layer and the head
    assert counts[0] > counts[1] > counts[2] > 0
    with pytest.raises(ValueError, match=rf"keep 90 dB; with all in bfloat16 waves keep {alone:.1f} dB"):
        calibrate(generator, heard, smallest_snr=90)


@pytest.mark.usefixtures("anywhere")
def test_layers_that_save_the_most_for_their_error_come_first() -> None:
    generator = Vocoder(checkpoint("hifigan")).generator
    layers = layers_of(generator)
    heard = [mel[None] for mel in mels(2, 20, seed=1)]
    with torch.inference_mode():
        steps = steps_of(generator, layers, heard)
        waves = [generator(mel) for mel in heard]

        def noise(*numbers: int) -> float:
            plan = Simulated(generator, int8={number: steps[number] for number in numbers})
            pairs = zip(heard, waves, strict=True)
            return max(float((plan(mel) - wave).square().sum() / wave.square().sum()) for mel, wave in pairs)

        rows = {INPUT: 1.0}
        readers: dict[tuple[int, float], list[int]] = {}
        for number, layer in enumerate(layers):
            rows[number] = rows[layer.input] * layer.stride
            if 0 < number < len(layers) - 1:
                readers.setdefault((layer.input, layer.slope), []).append(number)
        saved = {key: sum(layers[n].weight.numel() * rows[layers[n].input] for n in ns) for key, ns in readers.items()}
        costs = {key: (noise(*numbers) - noise()) / saved[key] for key, numbers in readers.items()}
        ratio = -10 * math.log10(noise(*(n for key in sorted(costs, key=costs.__getitem__)[:3] for n in readers[key])))
        chosen = calibrate(generator, heard, smallest_snr=ratio - 1e-6)
    taken = {key for key, numbers in readers.items() if set(numbers) <= chosen.keys()}
    assert 0 < len(taken) < len(readers) and sum(len(readers[key]) for key in taken) == len(chosen)
    assert max(costs[key] for key in taken) <= min(costs[key] for key in readers.keys() - taken)


@pytest.mark.usefixtures("anywhere")
def test_quantising_needs_mels() -> None:
    with pytest.raises(ValueError, match="quantise: there are no mels; it needs a few seconds"):
        Vocoder(checkpoint("hifigan")).quantise([])


@pytest.mark.usefixtures("anywhere")
def test_frames_that_the_original_adds_are_heard_too() -> None:
    heard = mels(2, 20, seed=1)
    ended = [torch.cat([mel, torch.full((BANDS, 5), -50.0)], dim=1) for mel in heard]
    habit = {"appended_frames": 5, "appended_value": -50.0}
    found = habitual("hifigan", **habit).quantise(heard, smallest_snr=20).config.int8
    assert found == Vocoder(checkpoint("hifigan")).quantise(ended, smallest_snr=20).config.int8
    assert found != Vocoder(checkpoint("hifigan")).quantise(heard, smallest_snr=20).config.int8


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_quantising_leaves_the_vocoder_as_it_is_and_keeps_what_was_asked_for(dtype: torch.dtype | None) -> None:
    speaking = Vocoder(replace(checkpoint("hifigan"), notes=("a note",)), dtype=dtype)
    (mel,) = mels(1, 20, seed=3)
    weights = {name: value.clone() for name, value in speaking.generator.state_dict().items()}
    fast = speaking.quantise([mel], smallest_snr=20)
    for each in (speaking, fast):
        found = each.generator.state_dict()
        assert all(found[name].dtype == value.dtype for name, value in weights.items())
        assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert not speaking.config.int8
    line = f"plan with {len(fast.config.int8)} layers in int8"
    assert fast.explain().keys() == {line, *speaking.explain()}
    for name in ("dtype", "device", "backend", "source", "notes"):
        assert getattr(fast, name) == getattr(speaking, name)


@narrow
def test_a_greater_promise_leaves_fewer_layers() -> None:
    generator = wide("hifigan, block 2").generator
    heard = [mel[None] for mel in mels(2, 40, seed=1)]
    chosen = [calibrate(generator, heard, smallest_snr=ratio) for ratio in (25, 36, 40)]
    assert len(chosen[0]) > len(chosen[1]) > len(chosen[2]) > 0
    ends = {0, len(layers_of(generator)) - 1}
    assert not ends & set(chosen[0])


@narrow
@pytest.mark.parametrize("name", WIDE)
def test_threads_and_chunks_change_no_bit(name: str) -> None:
    fast, (mel,) = quantised(name), mels(1, 70, seed=3)
    waves: list[Tensor] = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            waves.append(fast(mel))
    finally:
        torch.set_num_threads(before)
    for sizes in ([1] * 70, [33, 37]):
        waves.append(torch.cat(list(fast.stream(torch.split(mel, sizes, dim=1)))))
    assert all(torch.equal(wave, waves[0]) for wave in waves)


@narrow
def test_a_folder_keeps_the_layers_and_the_weights_stay_float(tmp_path: Path) -> None:
    fast, (mel,) = quantised("hifigan"), mels(1, 30, seed=3)
    fast.save_pretrained(tmp_path)
    opened = Vocoder.from_pretrained(tmp_path)
    assert opened.config == fast.config
    assert torch.equal(opened(mel), fast(mel))
    weights = opened.generator.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in wide("hifigan").generator.state_dict().items())


@narrow
def test_elsewhere_it_runs_as_if_nothing_were_quantised_and_says_so() -> None:
    plain, fast, (mel,) = wide("hifigan"), quantised("hifigan"), mels(1, 30, seed=3)
    line = f"plan with {len(fast.config.int8)} layers in int8"
    assert next(iter(fast.explain().items())) == (line, None)
    with native.use_isa("avx512"):
        assert fast.explain()[line] == "this processor does not multiply 8-bit integers (AVX512_VNNI)"
        assert fast.explain()["plan"] is None
        assert torch.equal(fast(mel), plain(mel))
        with pytest.raises(NotImplementedError, match="does not multiply 8-bit integers"):
            plain.quantise([mel])
    assert not torch.equal(fast(mel), plain(mel))


@pytest.mark.parametrize("isa", list(native.isas()) if compiled else [])
def test_the_library_itself_refuses(isa: str) -> None:
    generator = Vocoder(checkpoint("hifigan")).generator
    with native.use_isa(isa):
        for steps in (
            Quantization(-1.0, 0),
            Quantization(float("nan"), 0),
            Quantization(1.0, -1),
            Quantization(1.0, 256),
        ):
            with pytest.raises(RuntimeError, match=r"plan: .*(precision|network)"):
                Plan(generator, int8={1: steps})
        if not native.multiplies_bfloat16():
            with pytest.raises(RuntimeError, match="precision"):
                Plan(generator, int8={1: Quantization(1.0, 128)})


@narrow
def test_what_cannot_be_quantised_is_refused() -> None:
    speaking = wide("hifigan")

    def refused(error: type[Exception], reason: str, heard: Sequence[Tensor], *, ratio: float = 30) -> None:
        with pytest.raises(error, match=reason):
            speaking.quantise(heard, smallest_snr=ratio)

    refused(ValueError, "there are no mels", [])
    refused(ValueError, "mel has", [torch.zeros(BANDS + 1, 20)])
    refused(ValueError, "no layer can multiply in 8 bits and keep 90 dB", mels(1, 20, seed=1), ratio=90)
    with pytest.raises(NotImplementedError, match="conditioned"):
        Vocoder(checkpoint("hifigan, conditioned")).quantise(mels(1, 20, seed=1))
    config = replace(speaking.config, int8=(Int8Layer(layer=99, scale=1.0, zero_point=0),))
    with pytest.raises(ValueError, match="layer 99 is to multiply in 8 bits, but there are only"):
        Vocoder(Checkpoint(config, speaking.generator.state_dict(), "a test"))(*mels(1, 20, seed=1))
