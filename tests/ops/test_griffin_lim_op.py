"""The kernel of `griffin_lim` and the node that runs it: how exact, the same bits however it runs, what says so."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
from test_streaming import BANDS, GENERATORS, checkpoint, copy_of, random_mel, streamed
from torch import Tensor

from fastvoc import Vocoder, native, ops
from fastvoc.audio import read_audio
from fastvoc.blocks.griffin_lim import GriffinLimCall, PackedGriffinLim
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.ops import OPS, backends, explain
from fastvoc.ops.griffin_lim import cpu
from fastvoc.ops.griffin_lim.call import GriffinLim

needs_native = pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")

SMALL = GriffinLim(torch.zeros(1, 9, 6), torch.zeros(1, 3, 6), torch.ones(3, 9), 4, 1, 1, 1, 1)
"""A transform of 16 samples, of which four frames overlap."""


@cache
def default() -> Vocoder:
    return Vocoder.from_pretrained()


@cache
def speech_mel() -> Tensor:
    wave, rate = read_audio(str(files("fastvoc") / "assets" / "demo.wav"))
    return default().mel(wave[rate // 2 : rate + rate // 2], rate)


def drawn(call: GriffinLim, seed: int = 0) -> GriffinLim:
    generator = torch.Generator().manual_seed(seed)
    x, mel = (torch.randn(tensor.shape, generator=generator) for tensor in (call.x, call.mel))
    return call._replace(x=0.3 * x, mel=mel - 2, filters=torch.rand(call.filters.shape, generator=generator))


def hop_powers(x: Tensor) -> Tensor:
    return x.double().flatten().unflatten(0, (-1, 256)).square().mean(dim=-1).sqrt()


def power(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


@needs_native
@pytest.mark.parametrize("isa", native.isas() if backends()["cpu"] is None else [])
def test_all_rounds_of_speech_are_as_exact_as_plain_pytorch(isa: str) -> None:
    # Rounds divide by what may be near zero, where a rounding becomes a phase: some hops are far off, as chance has it,
    # whoever rounds. The geometric mean over hops is what two ways of rounding have in common, within a sixth.
    with torch.inference_mode():
        call = default().generator._call(speech_mel()[None])
        exact = GriffinLim(*(value.double() if isinstance(value, Tensor) else value for value in call)).reference()
        plain = call.reference()
        with native.use_isa(isa), ops.use_backend("cpu"):
            made = OPS["griffin_lim"](call)
    assert power(exact) > 0.01
    off, allowed = (float(hop_powers(wave - exact).log().mean().exp()) for wave in (made, plain))
    assert off <= 2 * allowed < 1e-4


@needs_native
def test_threads_and_chunks_change_no_bit_of_the_default_vocoder() -> None:
    mel, before = speech_mel(), torch.get_num_threads()
    waves = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            waves.append(default()(mel))
        for chunk in (1, 5, 64):
            waves.append(streamed(default(), mel.split(chunk, dim=-1)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(wave, waves[0]) for wave in waves)
    with torch.inference_mode():
        assert torch.equal(default().generator(mel[None])[0, 0], waves[0])


@needs_native
def test_windows_of_native_calls_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    call = drawn(SMALL._replace(x=torch.zeros(2, 9, 100), mel=torch.zeros(2, 3, 100)))
    whole = OPS["griffin_lim"](call)
    for window in (4, 33, 99):
        monkeypatch.setattr(cpu, "WINDOW", window)
        assert torch.equal(OPS["griffin_lim"](call), whole)


@needs_native
def test_the_default_vocoder_says_that_a_plan_runs_it() -> None:
    table = default().explain()
    assert str(table["plan"]).startswith("its GriffinLimNet amplifies every rounding")
    assert table["plan in parts"] is None
    plan = default()._runner.plan()
    assert plan is not None and any(isinstance(node, PackedGriffinLim) for node in plan.graph.nodes)
    default()(speech_mel()[:, :20])
    ops.conv1d(torch.zeros(1, 1, 3), torch.ones(1, 1, 1))
    default().generator(speech_mel()[None, :, :20])
    assert ops.last_backends()["griffin_lim"] == "cpu"


def odd(dtype: torch.dtype) -> Vocoder:
    """Return a vocoder whose transform has a factor of seven, which the kernel has not."""
    generator = copy_of(GENERATORS["griffin-lim-net"], fft_size=56, hop=14)
    plain = checkpoint("griffin-lim-net")
    torch.manual_seed(0)
    weights = generator.build().state_dict() | {"filters": torch.rand(BANDS, 29)}
    mel = copy_of(plain.config.mel, hop=14)
    return Vocoder(Checkpoint(VocoderConfig(generator=generator, mel=mel), weights, "a test"), dtype=dtype)


@needs_native
def test_what_the_kernel_cannot_transform_says_why_and_runs_its_rounds() -> None:
    call = drawn(GriffinLim(torch.zeros(1, 29, 9), torch.zeros(1, 3, 9), torch.ones(3, 29), 14))
    reason = "a transform of 56 samples; those of the kernel have at most 65536, and half of them has no factors but"
    assert str(explain(OPS["griffin_lim"], call)["cpu"]).startswith(reason)
    assert torch.equal(OPS["griffin_lim"](call), call.reference())
    node = GriffinLimCall(call.filters, 14, **dict(zip(GriffinLim._fields[4:], call[4:], strict=True)))
    assert node.packed(torch.float32) is None
    many = GriffinLim(torch.zeros(1, 81, 2), torch.zeros(1, 3, 2), torch.ones(3, 81), 2, iterations=0, revisions=0)
    assert explain(OPS["griffin_lim"], many)["cpu"] == "each sample is in 80 frames; the kernel takes at most 64"
    exact, single, mel = odd(torch.float64), odd(torch.float32), random_mel(BANDS, 30, dtype=torch.float64)
    whole = exact(mel)
    torch.testing.assert_close(streamed(exact, mel.split(7, dim=-1)), whole, rtol=0, atol=1e-9)
    assert single.explain()["plan in parts"] is None  # of its convolutions
    for wave in (single(mel.float()), streamed(single, mel.float().split(7, dim=-1))):
        assert power(wave - whole) < 1e-2 * power(whole)


def test_gradients_are_the_definitions() -> None:
    call = drawn(SMALL)
    call = GriffinLim(*(value.double() if isinstance(value, Tensor) else value for value in call))
    call = call._replace(x=call.x.requires_grad_(), mel=call.mel.requires_grad_())
    by_op = torch.autograd.grad(OPS["griffin_lim"](call).square().sum(), (call.x, call.mel))
    by_definition = torch.autograd.grad(call.reference().square().sum(), (call.x, call.mel))
    assert all(torch.equal(a, b) and a.abs().max() > 0 for a, b in zip(by_op, by_definition, strict=True))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "hop": ({"hop": 5}, r"hop is 5; expected an even part of the transform's 16 samples, which 9 channels are of"),
    "hop, odd beyond": ({"hop": 1}, r"hop is 1; expected an even part"),
    "no hop": ({"hop": 0}, r"hop is 0; expected"),
    "frames": (
        {"mel": torch.zeros(1, 3, 5)},
        r"mel has shape \(1, 3, 5\); expected \(1, 3, 6\), as many frames as x has",
    ),
    "filters": ({"filters": torch.ones(3, 8)}, r"filters has shape \(3, 8\); expected \(3, 9\), a row per band"),
    "rounds": ({"iterations": -1}, r"iterations is -1; expected a number from 0 to 4096"),
    "updates": ({"after": 5000}, r"after is 5000; expected a number from 0 to 4096"),
    "momentum": ({"momentum": 1.0}, r"momentum is 1\.0 and floor 1e-05; expected a momentum from 0 to below 1"),
    "floor": ({"floor": 0.0}, r"momentum is 0\.99 and floor 0\.0; expected"),
    "no frames": (
        {"x": torch.zeros(1, 9, 0), "mel": torch.zeros(1, 3, 0)},
        r"x has shape \(1, 9, 0\) and mel has 3 bands; expected at least two channels, one band and one frame",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case: str) -> None:
    changes, sentence = WRONG[case]
    with pytest.raises(ValueError, match=f"griffin_lim: {sentence}"):
        OPS["griffin_lim"](SMALL._replace(**changes))
