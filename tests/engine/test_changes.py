"""A vocoder plays its generator as it is, in every way in which PyTorch's users change a network."""

from __future__ import annotations

import copy
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_streaming import BANDS, GENERATORS, checkpoint, hifigan, random_mel
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_map

from fastvoc import Vocoder
from fastvoc.blocks import Conv1d, ResidualBlocks
from fastvoc.checkpoints import Checkpoint, Int8Layer
from fastvoc.engine import CudaGraphs, WeightVersion
from fastvoc.engine.cuda_graphs import Operators
from fastvoc.models import Generator
from fastvoc.ops import backends
from fastvoc.ops.kept import Samples
from fastvoc.optimiser_steps import OptimiserSteps

MEL = random_mel(BANDS, 24)


def stem(generator: Any) -> Conv1d:
    conv = getattr(generator, "trunk", generator).stem
    assert isinstance(conv, Conv1d)
    return conv


def inner(generator: Generator) -> tuple[nn.ModuleList, str]:
    """Return a convolution within residual blocks, as the list that holds it and its place."""
    unit = next(m for m in generator.modules() if isinstance(m, nn.ModuleList) and isinstance(m[0], Conv1d))
    return unit, "0"


def other(vocoder: Vocoder, seed: int = 1) -> Generator:
    torch.manual_seed(seed)
    generator = vocoder.config.generator.build().requires_grad_(False)
    for parameter in generator.parameters():
        parameter.mul_(1.5)
    buffers = dict(vocoder._generator.named_buffers())
    for name, buffer in generator.named_buffers():  # filter banks, which are zero at first
        buffer.copy_(buffers[name])
    return generator


def step(make: Callable[[Any], torch.optim.Optimizer]) -> Callable[[Vocoder], None]:
    def change(vocoder: Vocoder) -> None:
        parameters = list(vocoder.generator.parameters())
        optimiser = make(parameters)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        for parameter in parameters:
            parameter.grad = None

    return change


def written_to(vocoder: Vocoder) -> None:
    with torch.no_grad():
        stem(vocoder.generator).weight.mul_(2)


def in_inference_mode(vocoder: Vocoder) -> None:
    with torch.inference_mode():
        stem(vocoder.generator).weight.mul_(2)


def through_numpy(vocoder: Vocoder) -> None:
    stem(vocoder.generator).weight.numpy()[:] *= 2


def through_data_of_all(vocoder: Vocoder) -> None:  # as averages of weights are copied
    for ours, theirs in zip(vocoder.generator.parameters(), other(vocoder).parameters(), strict=True):
        ours.data.copy_(theirs.data)


def merged(vocoder: Vocoder) -> None:  # as low-rank updates are
    weight = stem(vocoder.generator).weight
    weight.data += 0.1 * torch.ones_like(weight)


def swapped_tensors(vocoder: Vocoder) -> None:
    torch.utils.swap_tensors(stem(vocoder.generator).weight, nn.Parameter(2 * stem(vocoder.generator).weight))


def of_other_strides(vocoder: Vocoder) -> None:  # as transposed checkpoints are loaded by assignment
    weight = stem(vocoder.generator).weight
    weight.data = weight.data.transpose(0, 2).contiguous().transpose(0, 2)
    vocoder(MEL, condition=condition_for(vocoder))
    weight.data.mul_(2)


def with_memory_taken_away(vocoder: Vocoder) -> None:  # as owners that shard weights do
    weight = stem(vocoder.generator).weight
    values, storage = weight.detach().clone(), weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    vocoder._version.revision()
    storage.resize_(size)
    weight.data.copy_(2 * values)


class Wrapped(Tensor):
    """A tensor that has no memory but that of another, as sharded and quantised weights are."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)  # type: ignore

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def plain(value: Any) -> Any:
            return value.inner if isinstance(value, Wrapped) else value

        result = function(*tree_map(plain, args), **tree_map(plain, kwargs or {}))
        return Wrapped(result) if function is torch.ops.aten.detach.default else result


def without_memory(vocoder: Vocoder) -> None:
    conv = stem(vocoder.generator)
    conv.weight = nn.Parameter(Wrapped(2 * conv.weight.detach()), requires_grad=False)


def new_parameter(vocoder: Vocoder) -> None:
    conv = stem(vocoder.generator)
    conv.weight = nn.Parameter(2 * conv.weight.detach(), requires_grad=False)


def behind_the_module(vocoder: Vocoder) -> None:  # as accelerate and DeepSpeed do
    conv = stem(vocoder.generator)
    conv._parameters["weight"] = nn.Parameter(2 * conv.weight.detach(), requires_grad=False)


def single_value(vocoder: Vocoder) -> None:  # equal at first, written to later
    conv = next(m for m in reversed(list(vocoder.generator.modules())) if isinstance(m, Conv1d))
    conv.bias = nn.Parameter(conv.bias.detach().clone(), requires_grad=False)
    vocoder(MEL, condition=condition_for(vocoder))
    with torch.no_grad():
        conv.bias.add_(0.5)


def new_module(vocoder: Vocoder) -> None:
    generator: Any = vocoder.generator
    holder = getattr(generator, "trunk", generator)
    holder.stem = stem(other(vocoder))


def new_inner_module(vocoder: Vocoder) -> None:
    unit, place = inner(vocoder.generator)
    unit[int(place)] = copy.deepcopy(unit[int(place)])
    with torch.no_grad():
        unit[int(place)].weight.mul_(2)


def new_generator(vocoder: Vocoder) -> None:
    vocoder.generator = other(vocoder)


def loaded(vocoder: Vocoder, **how: Any) -> None:
    vocoder.generator.load_state_dict(other(vocoder).state_dict(), **how)


def hooked(vocoder: Vocoder) -> None:
    stem(vocoder.generator).register_forward_hook(lambda module, inputs, output: 2 * output)


def hooked_before(vocoder: Vocoder) -> None:
    stem(vocoder.generator).register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def hooked_inside(vocoder: Vocoder) -> None:
    unit, place = inner(vocoder.generator)
    unit[int(place)].register_forward_hook(lambda module, inputs, output: 2 * output)


def patched(vocoder: Vocoder) -> None:
    conv = stem(vocoder.generator)
    plain = conv.forward
    conv.forward = lambda x, **options: 2 * plain(x, **options)  # type: ignore[method-assign]


class LowRank(nn.Module):
    """A wrapped convolution, as adapters make it: with the weight of what it wraps, and more."""

    def __init__(self, conv: Conv1d) -> None:
        super().__init__()
        self.conv = conv
        self.down = nn.Parameter(torch.full((2, conv.weight.shape[1], 1), 0.1))
        self.up = nn.Parameter(torch.full((conv.weight.shape[0], 2, 1), 0.1))

    @property
    def weight(self) -> Tensor:
        return self.conv.weight

    @property
    def bias(self) -> Tensor:
        return self.conv.bias

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return self.conv.needs(first, last)

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        low = nn.functional.conv1d(nn.functional.conv1d(x, self.down), self.up)
        result: Tensor = self.conv(x, **options) + low
        return result


def wrapped(vocoder: Vocoder) -> None:
    generator: Any = vocoder.generator
    holder = getattr(generator, "trunk", generator)
    holder.stem = LowRank(holder.stem).requires_grad_(False)


def wrapped_inside(vocoder: Vocoder) -> None:
    unit, place = inner(vocoder.generator)
    unit[int(place)] = LowRank(unit[int(place)]).requires_grad_(False)


def normed(vocoder: Vocoder) -> None:
    conv = stem(vocoder.generator)
    parametrizations.weight_norm(conv)
    with torch.no_grad():
        conv.parametrizations.weight.original0.mul_(2)  # type: ignore[union-attr, operator]


def normed_as_of_old(vocoder: Vocoder) -> None:
    unit, place = inner(vocoder.generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(unit[int(place)])
    with torch.no_grad():
        unit[int(place)].weight_g.mul_(2)


def pruned(vocoder: Vocoder) -> None:
    prune.l1_unstructured(stem(vocoder.generator), "weight", amount=0.5)


def other_dtype(vocoder: Vocoder) -> None:
    vocoder.generator.double()
    stem(vocoder.generator).weight.data.mul_(2)


CHANGES: dict[str, Callable[[Vocoder], None]] = {
    "written to": written_to,
    "written to in inference mode": in_inference_mode,
    "written to through numpy": through_numpy,
    "data copied": through_data_of_all,
    "data added to": merged,
    "data replaced": lambda v: setattr(stem(v.generator).weight, "data", 2 * stem(v.generator).weight.data),
    "tensors swapped": swapped_tensors,
    "of other strides": of_other_strides,
    "memory taken away": with_memory_taken_away,
    "without memory": without_memory,
    "a new parameter": new_parameter,
    "a new parameter behind the module": behind_the_module,
    "a single new value": single_value,
    "loaded": loaded,
    "loaded by assignment": lambda v: loaded(v, assign=True),
    "a new module": new_module,
    "a new module inside": new_inner_module,
    "a new generator": new_generator,
    "AdamW": step(lambda p: torch.optim.AdamW(p, lr=0.05)),
    "AdamW, fused": step(lambda p: torch.optim.AdamW(p, lr=0.05, fused=True)),
    "Adam, fused": step(lambda p: torch.optim.Adam(p, lr=0.05, fused=True)),
    "SGD, fused": step(lambda p: torch.optim.SGD(p, lr=0.05, fused=True)),
    "SGD, for each": step(lambda p: torch.optim.SGD(p, lr=0.05, foreach=True)),
    "a forward hook": hooked,
    "a hook before": hooked_before,
    "a hook inside": hooked_inside,
    "another forward": patched,
    "an adapter": wrapped,
    "an adapter inside": wrapped_inside,
    "weight norm": normed,
    "weight norm as of old": normed_as_of_old,
    "pruned": pruned,
    "another dtype": other_dtype,
}

NETWORKS = ["hifigan", "hifigan, conditioned", "melgan", "istftnet", "griffin-lim-net"]


def condition_for(vocoder: Vocoder) -> Tensor | None:
    width = vocoder._generator.condition_channels
    return torch.linspace(-2, 2, width) if width else None


def by_the_generator(vocoder: Vocoder) -> Tensor:
    condition, weight = condition_for(vocoder), next(vocoder.generator.parameters())
    arguments = [value[None].to(weight) for value in (MEL, condition) if value is not None]
    with torch.inference_mode():
        wave: Tensor = vocoder.generator(*arguments)[0, 0]
        return wave


def assert_plays(wave: Tensor, vocoder: Vocoder) -> None:
    """Hold a wave to the generator's, with room for Griffin-Lim, whose rounds amplify roundings."""
    expected = by_the_generator(vocoder)
    room = 1e-3 if vocoder.config.generator.kind == "griffin-lim-net" else 1e-5
    torch.testing.assert_close(wave, expected, rtol=0, atol=room * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("change", "name"),
    [(c, n) for c in CHANGES for n in NETWORKS if (c, n) != ("a single new value", "griffin-lim-net")],  # it has none
)
def test_a_changed_generator_is_what_plays(change: str, name: str) -> None:
    vocoder = Vocoder(checkpoint(name))
    condition = condition_for(vocoder)
    before = vocoder(MEL, condition=condition)
    CHANGES[change](vocoder)
    after = vocoder(MEL, condition=condition)
    assert_plays(after, vocoder)
    assert (after - before).abs().max() > 1e-3 * before.abs().max()
    assert torch.equal(vocoder(MEL, condition=condition), after)  # and nothing is taken as changed again
    assert torch.equal(vocoder(MEL, condition=condition), after)


SAME_STREAM = [n for n in CHANGES if n not in ("another dtype",)]


@pytest.mark.parametrize("name", ["hifigan", "melgan", "istftnet"])
@pytest.mark.parametrize("change", SAME_STREAM)
def test_a_stream_that_begins_anew_plays_the_changed_generator(change: str, name: str) -> None:
    vocoder = Vocoder(checkpoint(name))
    streamer = vocoder.streamer()
    streamer.push(MEL)
    CHANGES[change](vocoder)
    streamer.reset()
    assert_plays(torch.cat([streamer.push(MEL[:, :9]), streamer.push(MEL[:, 9:]), streamer.flush()]), vocoder)


def test_a_running_stream_goes_on_with_the_changed_generator() -> None:
    vocoder, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 120)
    streamer, reach = vocoder.streamer(), sum(vocoder.receptive_field)
    first = streamer.push(mel[:, :60])
    merged(vocoder)
    wave = torch.cat([first, streamer.push(mel[:, 60:]), streamer.flush()])
    with torch.inference_mode():
        expected = vocoder.generator(mel[None])[0, 0]
    # behind the change, all that reaches back to frames before it has passed
    begin = (60 + reach) * vocoder.hop
    torch.testing.assert_close(wave[begin:], expected[begin:], rtol=0, atol=1e-6)


def test_a_running_stream_says_what_it_cannot_go_on_with() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    streamer = vocoder.streamer()
    streamer.push(MEL)
    hooked(vocoder)
    with pytest.raises(ValueError, match=r"cannot go on with what the stream remembers; reset\(\) begins a new stream"):
        streamer.push(MEL)
    streamer.reset()
    assert_plays(torch.cat([streamer.push(MEL), streamer.flush()]), vocoder)


ALTERED = {
    "a forward hook": r"its module '(trunk\.)?stem' has forward hooks",
    "a hook inside": r"its module '.*branches\.0\.0\.0' has forward hooks",
    "another forward": r"its module '(trunk\.)?stem' has another forward than its class Conv1d",
    "an adapter": r"its module '(trunk\.)?stem' is a LowRank, which is none of fastvoc's blocks",
    "weight norm": r"its module '(trunk\.)?stem' is a ParametrizedConv1d, which is none of fastvoc's blocks",
    "without memory": r"its module '(trunk\.)?stem' has a weight that is a Wrapped, whose values only PyTorch can read",
    "pruned": r"its module '(trunk\.)?stem' has forward hooks",
}


@pytest.mark.parametrize("change", ALTERED)
def test_explain_says_what_keeps_a_generator_from_being_compiled(change: str) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    CHANGES[change](vocoder)
    reason = vocoder.explain()["plan"]
    assert reason is not None
    assert re.search(ALTERED[change], reason)


def test_hooks_of_all_modules_run() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder(MEL)
    vocoder.generator.eval()
    called: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: called.append(type(module).__name__))
    try:
        vocoder(MEL)
    finally:
        handle.remove()
    assert "Conv1d" in called
    assert vocoder.explain()["plan"] is None


def test_a_value_that_nothing_can_notice_is_heard_after_refresh() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder(MEL)
    weight = stem(vocoder.generator).weight
    weight.data.view(-1)[1] += 5  # between the samples
    vocoder.refresh()
    assert_plays(vocoder(MEL), vocoder)


@pytest.mark.parametrize(
    ("given", "kind", "sentence"),
    [
        (nn.Identity(), TypeError, "generator is a Identity; it must be a fastvoc.models.Generator"),
        (GENERATORS["melgan"].build(), ValueError, "takes 6 bands and makes 10 samples per frame; .* must be 6 and 8"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(given: Any, kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        Vocoder(checkpoint("hifigan")).generator = given


def test_what_was_put_into_a_generator_is_not_saved_as_if_it_were_none(tmp_path: Any) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    normed(vocoder)
    with pytest.raises(ValueError, match=r"weights are not those of config\.generator; remove what was put into it"):
        vocoder.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def in_8_bits() -> Vocoder:
    checked = checkpoint("hifigan")
    config = replace(checked.config, int8=(Int8Layer(layer=2, scale=0.01, zero_point=128),))
    return Vocoder(Checkpoint(config, checked.weights, "a test"))


@pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")
@pytest.mark.parametrize("change", ["written to", "a new generator", "AdamW, fused"])
def test_layers_in_8_bits_belong_to_the_weights_that_they_were_chosen_for(change: str, tmp_path: Path) -> None:
    vocoder, line = in_8_bits(), "plan with 1 layers in int8"
    before = vocoder.explain()[line]
    assert before is None or "this processor" in before
    assert copy.deepcopy(vocoder.to(dtype="bfloat16").to(dtype="float32")).explain()[line] == before
    CHANGES[change](vocoder)
    changed = "the generator has changed since the layers were chosen; quantise it again"
    assert vocoder.explain()[line] == copy.deepcopy(vocoder).explain()[line] == changed
    assert_plays(vocoder(MEL), vocoder)
    vocoder.save_pretrained(tmp_path / "saved")
    assert Vocoder.from_pretrained(tmp_path / "saved").config.int8 == ()
    in_8_bits().save_pretrained(tmp_path / "as chosen")
    assert len(Vocoder.from_pretrained(tmp_path / "as chosen").config.int8) == 1


def test_nothing_is_looked_at_while_nobody_holds_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []
    monkeypatch.setattr(WeightVersion, "_changed", lambda self: looked.append(True))
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder(MEL)
    assert not looked
    assert isinstance(vocoder.generator, Generator)
    vocoder(MEL)
    assert looked == [True]  # once per call


def test_steps_of_other_networks_change_nothing() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder.generator.eval()
    vocoder(MEL)
    revision = vocoder._version.revision()
    other_weights = [nn.Parameter(torch.ones(3))]
    optimiser = torch.optim.SGD(other_weights, lr=1.0)
    other_weights[0].grad = torch.ones(3)
    optimiser.step()
    assert vocoder._version.revision() == revision
    step(lambda p: torch.optim.SGD(p, lr=0.1, fused=True))(vocoder)
    assert vocoder._version.revision() != revision


@pytest.fixture
def graphs() -> Iterator[tuple[CudaGraphs, list[int]]]:
    recorded: list[int] = []

    def capture(run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        recorded.append(1)
        wave = run()
        return lambda: wave.copy_(run()), wave

    generator = Vocoder(checkpoint("hifigan")).generator
    yield CudaGraphs(generator, lambda g: Operators(g, backend="reference"), capture=capture, unrecorded=0), recorded


@pytest.mark.parametrize("change", ["a forward hook", "an adapter inside", "another forward", "weight norm"])
def test_graphs_are_not_recorded_of_what_others_put_in(change: str, graphs: tuple[CudaGraphs, list[int]]) -> None:
    running, recorded = graphs
    running(MEL[None])
    assert len(recorded) == 1
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder.generator = running.generator
    CHANGES[change](vocoder)
    torch.testing.assert_close(running(MEL[None])[0, 0], by_the_generator(vocoder))
    assert len(recorded) == 1 and "its module" in str(running.explain(1, 24))


@pytest.mark.parametrize("name", ["hifigan", "hifigan, block 2", "melgan", "melgan, keras", "hifigan, causal"])
def test_residual_blocks_one_by_one_are_the_fused_ones(name: str) -> None:
    generator = Vocoder(checkpoint(name)).generator.double()
    mel = random_mel(1, BANDS, 30, dtype=torch.float64)
    fused = generator(mel)
    for module in generator.modules():
        if isinstance(module, Conv1d):
            module.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(generator(mel), fused, rtol=1e-10, atol=1e-12)


def test_condition_is_refused_where_there_is_none() -> None:
    for name in ("hifigan", "griffin-lim-net"):
        with pytest.raises(ValueError, match="a condition was given; this generator takes none"):
            Vocoder(checkpoint(name))(MEL, condition=torch.zeros(3))


def test_what_one_thread_compiles_while_another_looks_is_not_taken_for_what_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    merged(vocoder)
    looks = Samples.__init__

    def slow(samples: Samples, tensors: list[Tensor]) -> None:
        monkeypatch.setattr(Samples, "__init__", looks)
        other_thread = threading.Thread(target=vocoder, args=(MEL,))
        other_thread.start()
        other_thread.join()
        merged(vocoder)
        looks(samples, tensors)

    vocoder(MEL)
    merged(vocoder)
    monkeypatch.setattr(Samples, "__init__", slow)
    vocoder(MEL)
    assert_plays(vocoder(MEL), vocoder)


def test_a_step_of_an_optimiser_that_is_no_more_is_seen() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    weight, revision = stem(vocoder.generator).weight, vocoder._version.revision()
    weight.grad = torch.zeros_like(weight)
    weight.grad.view(-1)[-1] = 1  # one value, which is no sample, and a fused step, which PyTorch does not count
    weight.requires_grad_()
    torch.optim.SGD([weight], lr=1.0, fused=True).step()
    assert vocoder._version.revision() is not revision
    revision = vocoder._version.revision()
    assert vocoder._version.revision() is revision


def test_a_step_is_seen_while_other_optimisers_come_and_go() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    watch = vocoder._version
    vocoder.generator.eval()
    revision = watch.revision()
    mine, others = torch.optim.SGD(vocoder.generator.parameters()), torch.optim.SGD([nn.Parameter(torch.ones(1))])

    class Latest(weakref.WeakKeyDictionary[torch.optim.Optimizer, int]):
        def __setitem__(self, optimiser: torch.optim.Optimizer, number: int) -> None:
            watch.revision()  # of another thread, between the step and the note of it
            super().__setitem__(optimiser, number)

    latest, OptimiserSteps.latest = OptimiserSteps.latest, Latest()
    try:
        others.step()
        assert watch.revision() is revision
        mine.step()
        assert watch.revision() is not revision
    finally:
        OptimiserSteps.latest = latest


def test_a_pass_that_could_not_be_made_is_made_at_the_next_call(graphs: tuple[CudaGraphs, list[int]]) -> None:
    running, _ = graphs
    make, failures = running.make, [KeyboardInterrupt()]

    def failing(generator: Generator) -> Any:
        if failures:
            raise failures.pop()
        return make(generator)

    running(MEL[None])
    before, running.make = running._pass, failing
    with torch.no_grad():
        stem(running.generator).weight.mul_(2)
    with pytest.raises(KeyboardInterrupt):
        running(MEL[None])
    running(MEL[None])
    assert running._pass is not before


@pytest.mark.parametrize("place", ["the copy", "the original"])
def test_a_copy_and_its_original_each_watch_their_own_generator(place: str) -> None:
    original = Vocoder(checkpoint("hifigan"))
    original(MEL)
    copied = copy.copy(original)
    changed, other_one = (copied, original) if place == "the copy" else (original, copied)
    merged(changed)  # one generator until another is put in its place
    assert_plays(other_one(MEL), changed)
    changed.generator = other(changed)
    for vocoder in (original, copied):
        vocoder(MEL)
        merged(vocoder)
        assert_plays(vocoder(MEL), vocoder)


def test_another_network_is_neither_saved_nor_quantised_under_the_name_of_the_first(tmp_path: Any) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    generator = hifigan(dilations=((3, 1), (5, 1))).build()  # of which the weights fit
    generator.load_state_dict(vocoder.generator.state_dict())
    vocoder.generator = generator
    assert_plays(vocoder(MEL), vocoder)
    with pytest.raises(ValueError, match=r"save_pretrained: the generator is another network than config\.generator"):
        vocoder.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ValueError, match=r"quantise: the generator is another network than config\.generator"):
        vocoder.quantise([MEL])


class Adapter(nn.Module):
    """A wrapped convolution that says nothing of what it wraps."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        result: Tensor = 2 * self.conv(x, **options)
        return result


PLACES: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "the stem": lambda g: (g.trunk, "stem"),
    "within residual blocks": inner,
    "up-sampling": lambda g: (g.trunk.up, "1"),
    "the head": lambda g: (g.head, "conv"),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_is_wrapped_reaches_as_far_as_before(place: str) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    reach = vocoder.receptive_field
    holder, name = PLACES[place](vocoder.generator)
    setattr(holder, name, Adapter(getattr(holder, name)).requires_grad_(False))
    assert vocoder.receptive_field == reach
    assert_plays(torch.cat(list(vocoder.stream(MEL.split(5, dim=-1)))), vocoder)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_wrapped_so_that_nobody_knows_its_reach_is_named(place: str) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    holder, name = PLACES[place](vocoder.generator)
    setattr(holder, name, Adapter(nn.Identity()))
    with pytest.raises(TypeError, match="Adapter does not say which samples its results read"):
        vocoder.streamer()


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_hooks_on_the_gradients_of_a_convolution_inside_a_block_are_run(register: str) -> None:
    blocks, x = ResidualBlocks(4, [[[(3, 1)], [(5, 1)]]], slope=0.1), torch.randn(1, 4, 20, requires_grad=True)
    plain = torch.autograd.grad(blocks(x).square().sum(), x)
    heard: list[object] = []
    getattr(next(blocks._elements()), register)(lambda module, *grads: heard.append(module))
    hooked = torch.autograd.grad(blocks(x).square().sum(), x)
    assert len(heard) == 1
    torch.testing.assert_close(hooked, plain)
