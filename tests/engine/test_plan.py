"""Plans: whole generators as one native call give the operators' samples, whatever the tiles, threads and precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_streaming import BANDS, GENERATORS, checkpoint, condition_of, hifigan, melgan, random_mel
from torch import Tensor

from fastvoc import Vocoder, native, ops
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.engine import Plan
from fastvoc.models import Generator
from fastvoc.ops import backends, use_backend
from fastvoc.ops.network import INPUT, Layer, with_weights

pytestmark = pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")

ISAS = list(native.isas()) if backends()["cpu"] is None else []
PLANNED = [name for name in GENERATORS if "conditioned" not in name and name != "griffin-lim-net"]
CONVOLUTIONAL = [name for name in PLANNED if GENERATORS[name].kind in ("hifigan", "melgan")]

# wide enough for Toom-Cook, with all its forms: 3, 7 and 11 taps, and 5 in blocks of single convolutions
WIDE: dict[str, Any] = {
    "hifigan": hifigan(channels=128, kernel_sizes=(3, 7, 11), dilations=((1, 3), (1, 5), (2, 3))),
    "hifigan, block 2": hifigan(channels=128, block="2", kernel_sizes=(3, 5), dilations=((1, 2), (2, 6))),
    "melgan": melgan(channels=128),
}


def wide(name: str) -> Vocoder:
    """A generator whose signal neither dies nor saturates, in the trained range of weights."""
    torch.manual_seed(0)
    weights = WIDE[name].build().state_dict()
    mel = checkpoint("hifigan" if "hifigan" in name else "melgan").config.mel
    return Vocoder(Checkpoint(VocoderConfig(generator=WIDE[name], mel=mel), weights, "a test"))


def network(name: str) -> Generator:
    return Vocoder(checkpoint(name)).generator


def operators(generator: Generator, mel: Tensor) -> Tensor:
    with torch.inference_mode():
        wave: Tensor = generator(mel)
        return wave


def plan(generator: Generator, mel: Tensor, *, in_order: bool = False) -> Tensor:
    with torch.inference_mode():
        return Plan(generator, in_order=in_order)(mel)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_in_order_a_plan_gives_the_samples_of_the_operators_to_the_bit(name: str, isa: str) -> None:
    generator = network(name)
    with native.use_isa(isa):
        for frames in (9, 1500):  # within a tile, and over many
            mel = random_mel(2, BANDS, frames)
            assert torch.equal(plan(generator, mel, in_order=True), operators(generator, mel))


@pytest.mark.parametrize("name", ["istftnet", "istftnet, angle"])
def test_a_transform_follows_a_plan(name: str) -> None:
    generator, mel = network(name), random_mel(2, BANDS, 30)
    assert torch.equal(plan(generator, mel, in_order=True), operators(generator, mel))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", WIDE)
def test_toom_cook_is_as_exact_as_plain_pytorch(name: str, isa: str) -> None:
    speaking = wide(name)
    mel = random_mel(1, BANDS, 60)
    with use_backend("reference"):
        plain = operators(speaking.generator, mel).double()
        exact = operators(speaking.generator.double(), mel.double())
    speaking.generator.float()
    with native.use_isa(isa):
        compiled = Plan(speaking.generator)
        assert compiled.toom_cook_layers >= 4
        with torch.inference_mode():
            error = (compiled(mel) - exact).abs().max()
    assert error <= 2 * (plain - exact).abs().max() + torch.finfo(torch.float32).eps * exact.abs().max()


def test_transposed_convolutions_multiply_less_where_a_phase_has_two_taps() -> None:
    # other convolutions are too narrow or have a single tap
    layers = {
        taps: Plan(hifigan(channels=128, rate_kernel_sizes=taps, kernel_sizes=(1,), dilations=((1,),)).build())
        for taps in ((4, 2), (8, 4))
    }
    assert layers[8, 4].toom_cook_layers == layers[4, 2].toom_cook_layers + 2


@pytest.mark.skipif(not ISAS or not native.multiplies_bfloat16(), reason="this processor does not multiply bfloat16")
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_bfloat16_is_as_exact_as_plain_pytorch(name: str) -> None:
    mel = random_mel(1, BANDS, 40).bfloat16()
    speaking = Vocoder(checkpoint(name), dtype=torch.bfloat16)
    made = plan(speaking.generator, mel).double()
    with use_backend("reference"):
        plain = operators(speaking.generator, mel).double()
        exact = operators(speaking.generator.double(), mel.double())
    largest = float(exact.abs().max())
    assert (made - exact).abs().max() <= 2 * (plain - exact).abs().max() + torch.finfo(torch.bfloat16).eps * largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", WIDE)
def test_threads_change_no_bit(name: str, dtype: torch.dtype) -> None:
    if dtype == torch.bfloat16 and not native.multiplies_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    generator, mel = wide(name).generator.to(dtype), random_mel(1, BANDS, 90).to(dtype)
    waves = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            waves.append(plan(generator, mel))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(waves[0], waves[1]) and torch.equal(waves[0], waves[2])


@pytest.mark.parametrize("name", WIDE)
def test_what_follows_changes_no_bit_of_what_is_certain(name: str) -> None:
    # the blocks of Toom-Cook begin at the same samples whatever the length
    speaking, mel = wide(name), random_mel(BANDS, 90)
    certain = (60 - speaking.receptive_field[1] - 1) * speaking.hop
    short, long = speaking(mel[:, :60]), speaking(mel)
    # of the last block, some inputs are zeros in one and rows in the other
    blocks = 1 + 144 // speaking.hop
    assert torch.equal(short[: certain - blocks * speaking.hop], long[: certain - blocks * speaking.hop])


def test_new_weights_are_packed_again() -> None:
    speaking, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 20)
    before = speaking(mel)
    assert torch.equal(speaking(mel), before)
    with torch.no_grad():
        speaking.generator.trunk.stem.weight.mul_(2)  # type: ignore[union-attr, operator]
    after = speaking(mel)
    assert not torch.equal(after, before)
    assert torch.equal(after, operators(speaking.generator, mel[None])[0, 0])


@pytest.mark.parametrize(
    ("name", "buffer"),
    [
        ("hifigan, standardised", "mean"),
        ("hifigan, standardised", "scale"),
        ("melgan, multi-band", "head.filters"),
        ("griffin-lim-net", "filters"),
    ],
)
def test_new_filters_and_statistics_are_heard(name: str, buffer: str) -> None:
    speaking, mel = Vocoder(checkpoint(name)), random_mel(BANDS, 40)
    before = speaking(mel)
    speaking.generator.get_buffer(buffer).mul_(0.5)
    after = speaking(mel)
    assert not torch.allclose(after, before, rtol=0.01, atol=1e-4)
    torch.testing.assert_close(after, operators(speaking.generator, mel[None])[0, 0], rtol=0, atol=1e-5)


def test_plans_follow_the_instruction_set() -> None:
    speaking, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 20)
    waves = []
    for isa in ISAS:
        with native.use_isa(isa):
            waves.append(speaking(mel))
            assert torch.equal(waves[-1], operators(speaking.generator, mel[None])[0, 0])
    assert all(torch.allclose(wave, waves[0], rtol=0, atol=1e-5) for wave in waves)


def test_too_short_to_reflect_is_refused_as_by_the_operators() -> None:
    generator, mel = network("melgan"), random_mel(1, BANDS, 3)
    with pytest.raises(ValueError, match="needs at least 4 to reflect 3") as by_operators:
        operators(generator, mel)
    with pytest.raises(ValueError) as by_plan:
        plan(generator, mel)
    assert str(by_plan.value) == str(by_operators.value)


REFUSED: dict[str, tuple[str, torch.dtype, str]] = {
    "conditioned": ("hifigan, conditioned", torch.float32, "it is conditioned on a vector per utterance"),
    "amplifying": ("griffin-lim-net", torch.float32, "its GriffinLimNet amplifies every rounding"),
    "float64": ("hifigan", torch.float64, "its weights are torch.float64; a plan computes in torch.float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_plan_says_why_and_runs_by_operators(case: str) -> None:
    name, dtype, reason = REFUSED[case]
    speaking = Vocoder(checkpoint(name), dtype=dtype)
    assert str(speaking.explain()["plan"]).startswith(reason)
    assert (speaking.explain().get("plan in parts", "none") is None) == (case != "float64")
    mel, condition = random_mel(1, BANDS, 20, dtype=dtype), condition_of(name, 1)
    arguments: list[Any] = [mel] if condition is None else [mel, condition.to(dtype)]
    with torch.inference_mode():
        assert torch.equal(speaking(mel, condition=condition)[0], speaking.generator(*arguments)[0, 0])


def test_explain_names_what_runs() -> None:
    assert next(iter(Vocoder(checkpoint("hifigan")).explain().items())) == ("plan", None)
    plain = Vocoder(checkpoint("hifigan"), backend="reference")
    assert plain.explain()["plan"] == "backend 'reference' was asked for"
    assert plain.explain()["cpu"] == "backend 'reference' was asked for"
    with use_backend("reference"):
        assert Vocoder(checkpoint("hifigan")).explain()["plan"] == "backend 'reference' was asked for"


def test_a_forced_definition_runs_no_plan() -> None:
    speaking, mel = Vocoder(checkpoint("hifigan"), backend="reference"), random_mel(BANDS, 20)
    speaking(mel)
    assert ops.last_backends()["conv1d"] == "reference"
    assert speaking._runner.plan() is None


def test_streams_of_a_batch_must_have_heard_equally_much() -> None:
    (run,) = Plan(network("hifigan"), in_order=True).runs
    states = run.start(2)
    states[:1], _ = run.advance(states[:1], random_mel(1, BANDS, 3), ended=False, known=3)
    with pytest.raises(ValueError, match="were given different numbers of frames"):
        run.advance(states, random_mel(2, BANDS, 5), ended=True, known=8)


def test_weights_are_copied_only_where_they_must_be_and_into_one_piece_of_memory() -> None:
    weight, bias = torch.randn(4, 3, 5), torch.randn(4)
    fits = Layer(kind="conv1d", input=INPUT, weight=weight, bias=bias, padding=(2, 2))
    narrow = replace(fits, weight=weight.bfloat16(), bias=None)
    strided = replace(fits, weight=torch.randn(4, 5, 3).mT)
    made = with_weights([fits, narrow, strided, narrow], torch.float32)
    assert made[0].weight.data_ptr() == weight.data_ptr() and made[0].bias.data_ptr() == bias.data_ptr()
    assert all(one.weight.is_contiguous() and one.weight.dtype == torch.float32 for one in made)
    assert torch.equal(made[1].weight, weight.bfloat16().float()) and made[1].bias is None
    assert torch.equal(made[2].weight, strided.weight) and torch.equal(made[3].weight, made[1].weight)
    assert len({one.weight.untyped_storage().data_ptr() for one in made[1:]}) == 1
