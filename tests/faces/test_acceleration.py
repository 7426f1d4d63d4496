"""Live generators of other projects run plans and kernels in place, and keep what they are."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from live_networks import CoquiHiFiGAN, CoquiMelGAN, OfficialGeneratorOfBlocks2, SpeechBrainHiFiGAN, filled
from originals import KanBayashiHiFiGAN, KanBayashiMelGAN, OfficialGenerator
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

import fastvoc
from fastvoc import Vocoder, native
from fastvoc.audio import CONVENTIONS
from fastvoc.models import HiFiGANConfig
from fastvoc.models.hifigan import V3
from fastvoc.models.melgan import DESCRIPT, MULTI_BAND

SMALL = HiFiGANConfig(
    mel_bands=20,
    channels=32,
    rates=(4, 2),
    rate_kernel_sizes=(8, 4),
    kernel_sizes=(3, 5),
    dilations=((1, 3), (1, 2)),
)
SMALL_V3 = replace(SMALL, block="2")
SMALL_MELGAN = replace(DESCRIPT, mel_bands=20, channels=32, rates=(4, 2), rate_kernel_sizes=(8, 4), units=2)
MULTI = replace(MULTI_BAND, mel_bands=20, channels=32, rates=(4, 2), rate_kernel_sizes=(8, 4), units=2)

FRAMES = 60


class MultiBand(nn.Module):
    """A generator of ParallelWaveGAN whose ``inference`` does not go through its forward."""

    def __init__(self) -> None:
        super().__init__()
        network = KanBayashiMelGAN(MULTI)
        layers = list(network.melgan)
        head = nn.utils.weight_norm(nn.Conv1d(layers[-2].in_channels, 4, 7))
        self.melgan = nn.Sequential(*layers[:-2], head, nn.Tanh())

    def forward(self, c: Tensor) -> Tensor:
        return self.melgan(c)

    def inference(self, c: Tensor) -> Tensor:
        return self.melgan(c.T[None])


def speecht5(*, normalized: bool = True) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=20,
        upsample_initial_channel=32,
        upsample_rates=[4, 2],
        upsample_kernel_sizes=[8, 4],
        resblock_kernel_sizes=[3, 5],
        resblock_dilation_sizes=[[1, 3], [1, 2]],
        normalize_before=normalized,
    )
    network = filled(transformers.SpeechT5HifiGan(config))
    network.mean.copy_(torch.linspace(-1, 1, 20))
    network.scale.copy_(torch.linspace(0.5, 2, 20))
    return network


def without_weight_norm() -> Any:
    network = filled(OfficialGenerator(SMALL))
    for layer in network.modules():
        if hasattr(layer, "weight_g"):
            nn.utils.remove_weight_norm(layer)
    return network


NETWORKS: dict[str, Callable[[], Any]] = {
    "jik876": lambda: filled(OfficialGenerator(SMALL)),
    "jik876, block 2": lambda: filled(OfficialGeneratorOfBlocks2(SMALL_V3)),
    "jik876, folded": without_weight_norm,
    "MockingBird": lambda: filled(
        OfficialGenerator(
            replace(SMALL, rates=(5, 2), rate_kernel_sizes=(10, 4), crop_rule="output-padded"), output_padded=True
        )
    ),
    "AudioLDM's taps": lambda: filled(
        OfficialGenerator(replace(SMALL, rates=(5, 2), rate_kernel_sizes=(16, 4), crop_rule="symmetric"))
    ),
    "Coqui": lambda: filled(CoquiHiFiGAN(SMALL)),
    "Coqui, no bias": lambda: filled(CoquiHiFiGAN(SMALL, bias=False)),
    "Coqui MelGAN": lambda: filled(CoquiMelGAN(replace(SMALL_MELGAN, channels=512, units=1))),
    "Coqui multi-band": lambda: filled(CoquiMelGAN(replace(MULTI, channels=384, units=1))),
    "SpeechBrain": lambda: filled(SpeechBrainHiFiGAN(SMALL)),
    "ParallelWaveGAN": lambda: filled(
        KanBayashiHiFiGAN(replace(SMALL, rates=(5, 2), rate_kernel_sizes=(10, 4), crop_rule="output-padded"))
    ),
    "ParallelWaveGAN MelGAN": lambda: filled(KanBayashiMelGAN(SMALL_MELGAN)),
    "ParallelWaveGAN multi-band": lambda: filled(MultiBand()),
    "SpeechT5": speecht5,
    "SpeechT5, not normalized": lambda: speecht5(normalized=False),
}

TURNED = ("SpeechT5", "SpeechT5, not normalized")


def mel_for(name: str, *, batch: int = 2, frames: int = FRAMES, dtype: torch.dtype = torch.float32) -> Tensor:
    random = torch.Generator().manual_seed(3)
    shape = (batch, frames, 20) if name in TURNED else (batch, 20, frames)
    return torch.randn(shape, generator=random).to(dtype)


def near(ours: Tensor, theirs: Tensor, exact: Tensor) -> None:
    """Ours is as near to double precision as the original is: twice as far and half a unit of each sample at most.

    All samples count, by their squares, since the largest error of a few hundred is a matter of luck.
    """
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    units = 64 if ours.dtype == torch.float64 else 1  # the exact samples are rounded there, too, in a dozen long sums
    allowed = 2 * (theirs.double() - exact).norm() + units * torch.finfo(ours.dtype).eps * exact.norm()
    assert (ours.double() - exact).norm() <= allowed
    assert exact.abs().max() > 0.01 and exact.std() > 1e-3


def plain(network: nn.Module) -> Any:
    """Copy a network, as it was before it was accelerated; what weight norm has folded, no leaf, is folded anew."""
    with torch.no_grad():
        for layer in network.modules():
            for hook in layer._forward_pre_hooks.values():
                hook(layer, None)
    return copy.deepcopy(network)


def holds(network: nn.Module, mel: Tensor, **given: Tensor) -> None:
    """An accelerated network gives the samples of its plain copy, and not by running the original."""
    with torch.no_grad():
        theirs = plain(network)(mel, **given)
        exact = plain(network).double()(mel.double(), **{name: value.double() for name, value in given.items()})
        near(network(mel, **given), theirs, exact)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_live_generator_keeps_its_samples_and_runs_a_plan(name: str) -> None:
    network, mel = NETWORKS[name](), mel_for(name)
    with torch.no_grad():
        before = network(mel)
    accelerated = fastvoc.accelerate(network)
    holds(network, mel)
    assert accelerated.latest is None
    holds(network, mel[0])
    holds(network, mel_for(name, batch=1, frames=31))
    assert accelerated.latest is None
    with torch.inference_mode():
        ways = accelerated.explain()
        assert list(ways)[-1] == "original forward"
        if native.missing() is None:
            assert ways["plan"] is None and repr(accelerated).endswith("runs by plan)")
    accelerated.undo()
    with torch.no_grad():
        assert torch.equal(network(mel), before)
    assert accelerated.explain() == {"original forward": None} and repr(accelerated).endswith("undone)")


def test_what_a_plan_runs_is_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The original's layers are not called at all while the network is accelerated."""
    network, mel = NETWORKS["jik876, folded"](), mel_for("jik876")
    fastvoc.accelerate(network)
    monkeypatch.setattr(F, "leaky_relu", None)
    with torch.no_grad():
        assert network(mel).shape == (2, 1, FRAMES * SMALL.hop)


@pytest.mark.parametrize("kind", [CoquiHiFiGAN, SpeechBrainHiFiGAN])
def test_a_condition_goes_along(kind: Any) -> None:
    network, mel = filled(kind(SMALL, conditioned=6)), mel_for("Coqui")
    accelerated = fastvoc.accelerate(network)
    speakers = torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(1))
    holds(network, mel, g=speakers)
    assert accelerated.latest is None
    with torch.no_grad():
        assert not torch.allclose(network(mel, g=speakers), network(mel, g=-speakers), atol=1e-3)
        if kind is CoquiHiFiGAN:  # one for all, which the original spreads by itself
            network(mel, speakers[:1])
            assert "its condition is not a plain tensor of shape (2, 6, 1)" in str(accelerated.latest)


@pytest.mark.parametrize(
    "name", ["Coqui", "SpeechBrain", "ParallelWaveGAN multi-band", "Coqui MelGAN", "Coqui multi-band"]
)
def test_what_calls_the_network_inside_is_faster_too(name: str) -> None:
    network, mel = NETWORKS[name](), mel_for(name, batch=1)
    mel = mel[0].T if name.startswith("Parallel") else mel
    with torch.no_grad():
        theirs, exact = network.inference(mel), plain(network).double().inference(mel.double())
        accelerated = fastvoc.accelerate(network)
        near(network.inference(mel), theirs, exact)
    assert accelerated.latest is None


# what stays the original's


def fallback(network: nn.Module, accelerated: Any, mel: Tensor, reason: str, **given: Any) -> Tensor:
    made: Tensor = network(mel, **given)
    assert reason in str(accelerated.latest)
    return made


def test_training_and_gradients_run_the_original_and_explain_says_so() -> None:
    network, mel = NETWORKS["jik876"](), mel_for("jik876")
    other = plain(network)
    accelerated = fastvoc.accelerate(network)
    network.train()
    with torch.no_grad():
        assert torch.equal(fallback(network, accelerated, mel, "training mode"), other(mel))
        assert "training mode" in str(accelerated.explain()["plan"])
    network.eval()
    wave = fallback(network, accelerated, mel, "gradients are recorded")
    wave.square().mean().backward()
    other(mel).square().mean().backward()
    for one, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, theirs.grad)
    assert "gradients are recorded" in str(accelerated.explain()["plan"])
    network.requires_grad_(False)
    assert not network(mel).requires_grad and accelerated.latest is None
    wave = fallback(network, accelerated, mel.clone().requires_grad_(), "gradients are recorded")
    assert wave.requires_grad


def test_weights_are_not_read_at_each_step_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    network, mel = NETWORKS["jik876"](), mel_for("jik876")
    fastvoc.accelerate(network)
    counterpart = vars(network)["_fastvoc_counterpart"]
    monkeypatch.setattr(counterpart, "_make", None)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):
        network.train()(mel).square().mean().backward()
        optimiser.step()
    monkeypatch.undo()
    network.eval()
    holds(network, mel)


def test_autocast_transforms_and_other_inputs_run_the_original() -> None:
    network, mel = NETWORKS["jik876"]().requires_grad_(False), mel_for("jik876")
    accelerated = fastvoc.accelerate(network)
    with torch.autocast("cpu", torch.bfloat16):
        assert fallback(network, accelerated, mel, "autocast is on").dtype == torch.bfloat16
        assert "autocast is on" in str(accelerated.explain()["plan"])
    tangent = torch.func.jvp(network, (mel,), (torch.ones_like(mel),))[1]
    assert "function transform" in str(accelerated.latest) and tangent.abs().max() > 0
    with pytest.raises(RuntimeError):
        fallback(network, accelerated, mel.double(), "")
    assert "not a plain tensor of torch.float32" in str(accelerated.latest)
    with pytest.raises(RuntimeError):
        network(mel[:, :7])
    assert "no mel of 20 bands" in str(accelerated.latest)
    with pytest.raises(TypeError):
        network(mel, mel)
    assert "not those of its forward" in str(accelerated.latest)
    assert network(mel[:0]).shape == (0, 1, FRAMES * SMALL.hop)
    assert "(0, 20, 60)" in str(accelerated.latest)
    traced = torch.jit.trace(network, mel, check_trace=False)
    assert "traced" in str(accelerated.latest)
    torch.testing.assert_close(traced(mel), network(mel), rtol=0, atol=1e-6)


def test_a_trace_is_that_of_the_original() -> None:
    network, mel = NETWORKS["SpeechT5"](), mel_for("SpeechT5")
    accelerated = fastvoc.accelerate(network)
    with torch.no_grad():
        traced = make_fx(network)(mel)
        assert "a dispatch mode, such as a tracer" in str(accelerated.latest)
        assert torch.equal(traced(-mel), plain(network)(-mel))
        network(mel)
    assert accelerated.latest is None


def test_mels_too_short_to_reflect_run_the_original() -> None:
    network = NETWORKS["SpeechBrain"]().requires_grad_(False)
    accelerated = fastvoc.accelerate(network)
    wave = fallback(network, accelerated, mel_for("SpeechBrain", frames=4), "layers that reflect need")
    assert torch.equal(wave, plain(network)(mel_for("SpeechBrain", frames=4)))


def test_an_exported_module_is_the_original() -> None:
    network, mel = NETWORKS["jik876, folded"]().requires_grad_(False), mel_for("jik876")
    accelerated = fastvoc.accelerate(network)
    program = torch.export.export(network, (mel,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("conv1d" in target for target in targets) and not any("fastvoc" in target for target in targets)
    torch.testing.assert_close(program.module()(mel), network(mel), rtol=0, atol=1e-6)
    assert accelerated.latest is None


def test_scripting_is_refused_in_a_sentence_and_takes_a_copy() -> None:
    network = NETWORKS["SpeechT5"]()
    fastvoc.accelerate(network)
    with pytest.raises(RuntimeError, match="compiles the code of SpeechT5HifiGan"):
        torch.jit.script(nn.Sequential(network))
    assert not hasattr(copy.deepcopy(network), "__prepare_scriptable__")


def test_without_values_there_is_still_a_shape() -> None:
    network, mel = NETWORKS["SpeechT5"](), mel_for("SpeechT5")
    accelerated, values = fastvoc.accelerate(network), copy.deepcopy(network.state_dict())
    with torch.no_grad():
        assert network.to("meta")(mel.to("meta")).shape == (2, FRAMES * SMALL.hop)
    assert "mean is on the meta device" in str(accelerated.latest)
    network.to_empty(device="cpu").load_state_dict(values)
    holds(network, mel)
    assert accelerated.latest is None


def test_around_an_accelerated_module_code_is_compiled() -> None:
    network, mel = NETWORKS["SpeechT5"]().requires_grad_(False), mel_for("SpeechT5")
    accelerated = fastvoc.accelerate(network)
    expected = 2 * network(mel + 1)
    compiled = torch.compile(lambda mel: 2 * network(mel + 1), backend="aot_eager")
    assert torch.equal(compiled(mel), expected) and accelerated.latest is None
    torch.testing.assert_close(torch.compile(network, backend="aot_eager")(mel), network(mel), rtol=0, atol=1e-6)


# what changes afterwards

CHANGES: dict[str, Callable[[Any], Any]] = {
    "written to": lambda network: network.conv_pre.bias.mul_(3),
    "loaded": lambda network: network.load_state_dict({n: 0.9 * t for n, t in network.state_dict().items()}),
    "assigned": lambda network: network.load_state_dict(
        {n: 0.9 * t for n, t in network.state_dict().items()}, assign=True
    ),
    "through .data": lambda network: network.conv_pre.bias.data.fill_(0.3),
    "another layer": lambda network: setattr(network, "conv_pre", nn.Conv1d(20, 32, 7, padding=3)),
    "double precision": lambda network: network.double(),
    "bfloat16": lambda network: network.bfloat16(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["jik876", "jik876, folded"])
def test_changed_weights_are_heard(name: str, change: str) -> None:
    network, mel = NETWORKS[name](), mel_for(name)
    accelerated = fastvoc.accelerate(network)
    with torch.no_grad():
        before = network(mel)
        CHANGES[change](network)
        network.requires_grad_(False)
    holds(network, mel.to(next(network.parameters()).dtype))
    assert accelerated.latest is None
    if change not in ("double precision", "bfloat16"):
        assert not torch.allclose(network(mel), before, atol=1e-4)


def another_slope(network: Any) -> None:
    if hasattr(network, "config"):
        network.config.leaky_relu_slope = 0.3
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.3


@pytest.mark.parametrize("name", ["SpeechT5", "ParallelWaveGAN", "ParallelWaveGAN MelGAN", "Coqui MelGAN"])
def test_another_slope_is_heard(name: str) -> None:
    network, mel = NETWORKS[name](), mel_for(name)
    accelerated = fastvoc.accelerate(network)
    with torch.no_grad():
        before = network(mel)
        another_slope(network)
    holds(network, mel)
    # ours has the slopes of the published networks, where settings do not say them
    assert accelerated.latest is None or "it is another network" in accelerated.latest
    with torch.no_grad():
        assert not torch.allclose(network(mel), before, atol=1e-4)


def other_config(network: Any) -> None:
    network.config = copy.deepcopy(network.config)
    network.config.leaky_relu_slope = 0.3


def other_edges(network: Any) -> None:
    network.conv_pre.padding_mode = "replicate"
    network.conv_pre._reversed_padding_repeated_twice = [3, 3]


def wider_taps(network: Any) -> None:
    convolution = network.resblocks[0].convs1[0]
    convolution.dilation = convolution.padding = (2,)


SETTINGS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "normalisation": ("SpeechT5", lambda network: setattr(network.config, "normalize_before", False)),
    "another config": ("SpeechT5", other_config),
    "edges": ("SpeechT5", other_edges),
    "dilation": ("jik876", wider_taps),
}


@pytest.mark.parametrize("change", SETTINGS)
def test_another_setting_is_heard(change: str) -> None:
    """Whether a network of ours has it, or the original runs."""
    name, apply = SETTINGS[change]
    network, mel = NETWORKS[name](), mel_for(name)
    fastvoc.accelerate(network)
    with torch.no_grad():
        before = network(mel)
        apply(network)
        holds(network, mel)
        assert not torch.allclose(network(mel), before, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_of_optimisers_are_heard(fused: bool) -> None:
    network, mel = NETWORKS["jik876"](), mel_for("jik876")
    fastvoc.accelerate(network)
    with torch.no_grad():
        before = network(mel)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=fused)
    network(mel).square().mean().backward()
    optimiser.step()
    holds(network, mel)
    with torch.no_grad():
        assert not torch.allclose(network(mel), before, atol=1e-4)


def test_weight_norm_comes_and_goes() -> None:
    network, mel = speecht5(), mel_for("SpeechT5")
    accelerated = fastvoc.accelerate(network)
    network.apply_weight_norm()
    holds(network, mel)
    assert accelerated.latest is None
    with torch.no_grad():
        network.conv_post.parametrizations.weight.original0.mul_(0.5)
    holds(network, mel)
    assert accelerated.latest is None


def test_what_is_put_in_later_runs_as_long_as_it_is_there() -> None:
    network, mel = NETWORKS["jik876"]().requires_grad_(False), mel_for("jik876")
    accelerated = fastvoc.accelerate(network)
    handle = network.ups[0].register_forward_hook(lambda module, given, made: 2 * made)
    wave = fallback(network, accelerated, mel, "its module 'ups.0' has forward hooks")
    assert torch.equal(wave, plain(network)(mel)) and accelerated.explain()["original forward"] is None
    handle.remove()
    holds(network, mel)
    assert accelerated.latest is None
    around = network.register_forward_hook(lambda module, given, made: 0 * made)
    assert not network(mel).any() and accelerated.latest is None
    around.remove()

    class Adapted(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    network.conv_pre = Adapted(20, 32, 7, padding=3)
    fallback(network, accelerated, mel, "'conv_pre' is a Adapted, which is no plain convolution")
    network.conv_pre = nn.Conv1d(20, 32, 5, padding=3)
    fallback(network, accelerated, mel, "")
    assert accelerated.latest is not None


def test_copies_and_pickles_are_plain() -> None:
    network, mel = NETWORKS["jik876, folded"]().requires_grad_(False), mel_for("jik876")
    before = network(mel)
    fastvoc.accelerate(network)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), copy.copy(network)):
        assert type(other) is OfficialGenerator and torch.equal(other(mel), before)
    assert isinstance(network, OfficialGenerator) and type(network).__name__ == "OfficialGenerator"
    assert set(network.state_dict()) == set(other.state_dict())
    model = nn.ModuleDict({"inside": network})
    assert torch.equal(copy.deepcopy(model)["inside"](mel), before)


def test_nothing_is_left_of_what_nobody_holds() -> None:
    network = NETWORKS["jik876"]().requires_grad_(False)
    fastvoc.accelerate(network)
    network(mel_for("jik876"))
    reference = weakref.ref(network)
    gc.disable()
    try:
        del network
        assert reference() is None
    finally:
        gc.enable()


def test_threads_share_an_accelerated_module() -> None:
    network, mel = NETWORKS["jik876"]().requires_grad_(False), mel_for("jik876")
    fastvoc.accelerate(network)
    expected, made = network(mel), []
    threads = [threading.Thread(target=lambda: made.extend(network(mel) for _ in range(3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 12 and all(torch.equal(one, expected) for one in made)


def test_in_a_with_block_and_twice() -> None:
    network = NETWORKS["jik876"]()
    with fastvoc.accelerate(network) as first:
        second = fastvoc.accelerate(network, backend="reference")
        with torch.no_grad():
            ways = second.explain()
            assert ways["plan"] == "backend 'reference' was asked for" and ways["reference"] is None
            assert first.explain() == ways
    assert type(network) is OfficialGenerator
    second.undo()
    second.refresh()


# what is refused


class OtherSlope(OfficialGenerator):
    def forward(self, mel: Tensor) -> Tensor:
        return 0.5 * super().forward(mel)


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = OfficialGenerator(SMALL), OfficialGenerator(SMALL)


def hooked() -> nn.Module:
    network = NETWORKS["jik876"]()
    network.conv_pre.register_forward_hook(lambda module, given, made: made)
    return network


def patched() -> nn.Module:
    network = NETWORKS["jik876"]()
    network.forward = lambda mel: mel
    return network


class Broken(OfficialGenerator):
    def forward(self, mel: Tensor) -> Tensor:
        raise KeyError("speaker")


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no module": (lambda: 3, TypeError, "module is a int; it must be a torch.nn.Module"),
    "another network": (
        lambda: nn.Linear(2, 2),
        ValueError,
        "Linear is no generator that is known, and has none insid",
    ),
    "other samples": (
        lambda: filled(OtherSlope(SMALL)),
        ValueError,
        "OtherSlope: makes other samples than the hifigan",
    ),
    "two": (Pair, ValueError, "Pair has 2 generators inside, one, other; give them one by one"),
    "hooks": (hooked, ValueError, "its module 'conv_pre' has forward hooks"),
    "another forward": (patched, ValueError, "has another forward than its class"),
    "meta": (lambda: OfficialGenerator(SMALL).to("meta"), ValueError, "is on the meta device; it needs values first"),
    "no waves": (lambda: filled(Broken(SMALL)), ValueError, "Broken: could not be tried on a random mel: 'speaker'"),
    "several dtypes": (
        lambda: [network := NETWORKS["jik876"](), network.conv_post.half()][0],
        ValueError,
        "weights of several dtypes or on several devices",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_generator_is_refused_and_left_alone(case: str) -> None:
    make, kind, sentence = REFUSED[case]
    module = make()
    before = type(module)
    with pytest.raises(kind, match=sentence) as caught:
        fastvoc.accelerate(module)
    assert "\n" not in str(caught.value) and type(module) is before
    assert not hasattr(module, "_fastvoc_counterpart")


def test_a_misspelt_backend_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="accelerate: 'cpuu' is not a backend; known: cuda, triton, cpu, reference"):
        fastvoc.accelerate(NETWORKS["jik876"](), backend="cpuu")


# transformers' own pipelines


def test_speech_of_speecht5_is_that_of_its_plain_vocoder() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.SpeechT5Config(
        vocab_size=30,
        hidden_size=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        num_mel_bins=20,
        speaker_embedding_dim=8,
        speech_decoder_prenet_units=16,
        speech_decoder_postnet_units=16,
    )
    model, vocoder = transformers.SpeechT5ForTextToSpeech(config).eval(), speecht5()
    text, speaker = torch.arange(4, 12)[None], torch.randn(1, 8)

    def speech() -> Tensor:
        torch.manual_seed(1)  # its pre-net drops out, also when it speaks
        wave: Tensor = model.generate_speech(text, speaker, vocoder=vocoder, minlenratio=3.0, maxlenratio=6.0)
        return wave

    theirs = speech()
    with fastvoc.accelerate(vocoder) as accelerated:
        ours = speech()
        assert accelerated.latest is None
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
    assert torch.equal(speech(), theirs) and theirs.abs().max() > 0.01


def test_the_vocoder_inside_a_fastspeech2_conformer_is_found() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    acoustic = transformers.FastSpeech2ConformerConfig(
        hidden_size=16,
        vocab_size=30,
        num_mel_bins=20,
        encoder_num_attention_heads=2,
        encoder_layers=1,
        encoder_linear_units=16,
        decoder_layers=1,
        decoder_num_attention_heads=2,
        decoder_linear_units=16,
        speech_decoder_postnet_layers=1,
        speech_decoder_postnet_units=16,
        duration_predictor_channels=16,
        energy_predictor_channels=16,
        pitch_predictor_channels=16,
        convolution_bias=True,
    )
    own = speecht5().config
    settings = {name: getattr(own, name) for name in ("model_in_dim", "upsample_initial_channel", "upsample_rates")}
    settings |= {name: getattr(own, name) for name in ("upsample_kernel_sizes", "resblock_kernel_sizes")}
    settings |= {"resblock_dilation_sizes": own.resblock_dilation_sizes, "normalize_before": True}
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(
        model_config=acoustic.to_dict(), vocoder_config=settings
    )
    model = transformers.FastSpeech2ConformerWithHifiGan(config).eval()
    filled(model.vocoder)
    text = torch.arange(1, 9)[None]
    with torch.inference_mode():
        theirs = model(text, return_dict=True).waveform
        accelerated = fastvoc.accelerate(model)
        ours = model(text, return_dict=True).waveform
        assert accelerated.name == "vocoder" and accelerated.latest is None
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
        assert theirs.abs().max() > 0.01


# vocoders of modules and of dictionaries


def test_a_vocoder_is_made_of_a_live_module() -> None:
    network, mel = NETWORKS["jik876"]().requires_grad_(False), mel_for("jik876", batch=1)[0] - 5
    convention = replace(CONVENTIONS["hifigan"], bands=20, hop=8, fft_size=256, window_size=256)
    vocoder = Vocoder.from_module(nn.ModuleDict({"inside": network}), mel=convention)
    assert vocoder.config.mel == convention and vocoder.dtype == torch.float32
    exact = plain(network).double()(mel.double())[0]
    near(vocoder(mel), network(mel)[0], exact)
    pieces = list(vocoder.stream(mel[:, n : n + 7] for n in range(0, FRAMES, 7)))
    near(torch.cat(pieces), network(mel)[0], exact)
    with torch.no_grad():
        network.conv_pre.bias.add_(1)
    assert not torch.allclose(vocoder(mel), network(mel)[0], atol=1e-4)  # it has its own copy
    assert Vocoder.from_module(network.half(), mel=convention).dtype == torch.float16
    assert Vocoder.from_module(network, mel=convention, dtype="bfloat16").dtype == torch.bfloat16


def test_what_a_module_says_of_its_mel_is_taken() -> None:
    assert Vocoder.from_module(speecht5()).config.mel.logarithm == "decimal"
    assert Vocoder.from_module(speecht5()).sample_rate == 16000
    network = NETWORKS["jik876"]()
    with pytest.raises(ValueError, match="OfficialGenerator does not say how its mels were made; name that as mel=, a"):
        Vocoder.from_module(network)
    network.h = {
        "sampling_rate": 8000,
        "n_fft": 256,
        "hop_size": 8,
        "win_size": 128,
        "num_mels": 20,
        "fmin": 0,
        "fmax": 4000,
    }
    vocoder = Vocoder.from_module(network)
    assert (vocoder.sample_rate, vocoder.config.mel.window_size, vocoder.config.mel.high) == (8000, 128, 4000)
    assert Vocoder.from_module(NETWORKS["Coqui"](), mel=vocoder.config.mel).config.inference.replicated_frames == 5
    with pytest.raises(ValueError, match="from_module: the mel has 80 bands but the generator takes 20"):
        Vocoder.from_module(network, mel="hifigan")
    with pytest.raises(ValueError, match="convention: 'hifigam' is not a known name; did you mean 'hifigan'"):
        Vocoder.from_module(network, mel="hifigam")
    with pytest.raises(ValueError, match="makes sub-bands, and does not say which filter bank joins them"):
        Vocoder.from_module(NETWORKS["ParallelWaveGAN multi-band"](), mel=vocoder.config.mel)
    with pytest.raises(ValueError, match="OtherSlope: makes other samples"):
        Vocoder.from_module(filled(OtherSlope(SMALL)), mel=vocoder.config.mel)


def test_weights_that_are_not_finite_are_named() -> None:
    network, mel = NETWORKS["SpeechT5"](), mel_for("SpeechT5")
    accelerated = fastvoc.accelerate(network)
    with torch.no_grad():
        network.conv_post.bias.fill_(float("nan"))
        assert network(mel).isnan().all() and "conv_post.bias holds values that are not finite" in str(
            accelerated.latest
        )
    for use in (fastvoc.accelerate, Vocoder.from_module):
        with pytest.raises(ValueError, match=r"conv_post\.bias holds values that are not finite"):
            use(network)  # type: ignore[operator]


def test_a_vocoder_is_made_of_tensors_and_settings() -> None:
    state = OfficialGeneratorOfBlocks2(V3).state_dict()
    vocoder = Vocoder.from_state_dict({"generator": state}, "hifigan-v3")
    mel = torch.randn(80, 20) - 5
    network = OfficialGeneratorOfBlocks2(V3)
    network.load_state_dict(state)
    near(vocoder(mel), network(mel)[0].detach(), network.double()(mel.double())[0].detach())
    again = Vocoder.from_state_dict(vocoder.generator.state_dict(), vocoder.config)
    assert torch.equal(again(mel), vocoder(mel))
    with pytest.raises(TypeError, match="state is a list; it must be a dictionary of tensors"):
        Vocoder.from_state_dict([1], "hifigan-v3")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state is a list; it must be a dictionary of tensors"):
        Vocoder.from_state_dict([1], vocoder.config)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"trunk\.stem\.bias is a str; it must be a tensor"):
        Vocoder.from_state_dict({**again.generator.state_dict(), "trunk.stem.bias": "x"}, vocoder.config)  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="config is a NoneType; it must be a VocoderConfig, a dictionary of settings"):
        Vocoder.from_state_dict(state, None)  # type: ignore[arg-type]
    for empty, config in ((state, "hifigan-v3"), (again.generator.state_dict(), vocoder.config)):
        with pytest.raises(ValueError, match="is a sparse, quantized or empty kind of tensor"):
            Vocoder.from_state_dict({name: t.to("meta") for name, t in empty.items()}, config)
    with pytest.raises(FileNotFoundError, match="config 'hifigan-v9' is no file, and no preset: bigvgan"):
        Vocoder.from_state_dict(state, "hifigan-v9")
    with pytest.raises(ValueError, match="config: lacks fmax"):
        Vocoder.from_state_dict(state, {"resblock": "2"})
    with pytest.raises(ValueError, match=r"has no trunk\.stem\.weight"):
        Vocoder.from_state_dict(
            {name: t for name, t in again.generator.state_dict().items() if "stem.w" not in name}, vocoder.config
        )
