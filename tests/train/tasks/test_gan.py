"""One step of training, against the formulas of the originals written out, and what each setting changes in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc.audio import MelConfig, mel_spectrogram, multi_resolution_stft, pqmf_analysis
from fastvoc.config import to_dict
from fastvoc.models.discriminators import ResolutionDiscriminatorConfig
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.learning.ema import MovingAverage
from fastvoc.train.learning.optimisers import Learner, OptimiserConfig, ScheduleConfig
from fastvoc.train.learning.weight_norm import add_weight_norm, folded, load_plain_weights, plain_weights
from fastvoc.train.tasks.adversary import Turn
from fastvoc.train.tasks.gan import GanTask
from fastvoc.train.tasks.smoothing import smooth
from fastvoc.train.tasks.task import _precision

MEL = MelConfig(sample_rate=8000, fft_size=64, hop=8, window_size=64, bands=6, low=0, high=4000)
SMALL = {
    "mel": to_dict(MEL),
    "loss_mel": None,
    "generator.mel_bands": 6,
    "generator.rates": [4, 2],
    "generator.rate_kernel_sizes": [8, 4],
    "generator.channels": 8,
    "data.recordings": "nowhere",
    "segment": 512,
    "batch": 2,
}
MELGAN = {"adversary.discriminators.0.channels": 4, "adversary.discriminators.0.downsampling": [4, 4]}
HIFIGAN = {
    "generator.kernel_sizes": [3, 5],
    "generator.dilations": [[1, 2], [1, 3]],
    "adversary.discriminators.0.channels": 2,
    "adversary.discriminators.1.channels": 16,
}
PLAIN_ADAM: dict[str, Any] = {
    f"{whose}__{name}": value
    for whose in ("optimiser", "adversary__optimiser")
    for name, value in {"kind": "adam", "clip": None}.items()
}
DEVICE = torch.device("cpu")


def hifigan(**changes: Any) -> TrainConfig:
    """A small HiFi-GAN without spectral norm, in which every pass of a step sees the same weights."""
    one = {"adversary.discriminators": [{"kind": "period", "channels": 2, "periods": [2, 3]}]}
    kept = {name: value for name, value in HIFIGAN.items() if name.startswith("generator")}
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load_config("hifigan-v1", SMALL | kept | one | dotted)


def melgan(recipe: str = "melgan", **changes: Any) -> TrainConfig:
    kernels = {"generator.rate_kernel_sizes": [16, 16]} if recipe == "melgan-keras" else {}
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return load_config(recipe, SMALL | MELGAN | kernels | dotted)


def batch(seed: int = 0, dtype: torch.dtype = torch.float64, size: int = 2) -> Tensor:
    noise = torch.rand(size, 512, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (0.6 * noise - 0.3).to(dtype)


class ByHand:
    """Adam as Kingma and Ba 2015 write it, with AdamW's decay, and Keras' clipping of each variable."""

    def __init__(self, network: nn.Module, config: OptimiserConfig) -> None:
        self.config = config
        self.variables = list(network.parameters())
        self.moments = [(torch.zeros_like(v), torch.zeros_like(v)) for v in self.variables]
        self.time = 0

    @torch.no_grad()
    def follow(self, gradients: tuple[Tensor, ...], epoch: int) -> None:
        config, (b1, b2) = self.config, self.config.betas
        rate = config.learning_rate * (config.schedule.decay**epoch if config.schedule.per == "epoch" else 1)
        self.time += 1
        for variable, gradient, (m, v) in zip(self.variables, gradients, self.moments, strict=True):
            g = gradient
            if config.clip is not None and config.clip_by == "variable" and g.norm() > config.clip:
                g = g * config.clip / g.norm()
            m.copy_(b1 * m + (1 - b1) * g)
            v.copy_(b2 * v + (1 - b2) * g * g)
            variable.mul_(1 - rate * config.weight_decay)
            root = (v / (1 - b2**self.time)).sqrt() + config.epsilon
            variable.sub_(rate * m / (1 - b1**self.time) / root)


class Naive:
    """The originals' steps, pass by pass, from the same first weights as a task."""

    def __init__(self, task: GanTask) -> None:
        assert task.adversary is not None
        self.generator = deepcopy(task.generator)
        self.discriminators = deepcopy(task.adversary.network)
        self.mine = ByHand(self.generator, task.config.optimiser)
        self.theirs = ByHand(self.discriminators, task.adversary.config.optimiser)

    def gradients(self, loss: Tensor, network: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)

    def descript(self, wave: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """descriptinc/melgan-neurips 6488045, scripts/train.py: the maps of the recordings stay from before."""
        fake = self.generator(mel_of(wave))
        real_maps = self.discriminators(wave[:, None])
        fake_maps = self.discriminators(fake.detach())
        d = wave.new_zeros(())
        for scale in fake_maps:
            d = d + F.relu(1 + scale[-1]).mean()
        for scale in real_maps:
            d = d + F.relu(1 - scale[-1]).mean()
        self.theirs.follow(self.gradients(d, self.discriminators), epoch)

        fake_maps = self.discriminators(fake)
        g = wave.new_zeros(())
        for scale in fake_maps:
            g = g - scale[-1].mean()
        weight = 4.0 / (2 + 1) * (1.0 / 3)  # two strided layers here, three scales
        for real, made in zip(real_maps, fake_maps, strict=True):
            for x, y in zip(real[:-1], made[:-1], strict=True):
                g = g + 10 * weight * F.l1_loss(y, x.detach())
        self.mine.follow(self.gradients(g, self.generator), epoch)
        return d, g

    def keras(self, wave: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The tutorial's train_step: one pass, real maps not detached, both gradients, then both updates."""
        fake = self.generator(mel_of(wave))
        real_maps, fake_maps = self.discriminators(wave[:, None]), self.discriminators(fake)
        ones, zeros = torch.ones_like, torch.zeros_like
        adversarial = torch.stack([F.mse_loss(m[-1], ones(m[-1])) for m in fake_maps]).mean()
        maps = [(x, y) for r, f in zip(real_maps, fake_maps, strict=True) for x, y in zip(r[:-1], f[:-1], strict=True)]
        features = torch.stack([(x - y).abs().mean() for x, y in maps]).mean()
        g = adversarial + 10 * features
        d = torch.stack(
            [
                F.mse_loss(r[-1], ones(r[-1])) + F.mse_loss(f[-1], zeros(f[-1]))
                for r, f in zip(real_maps, fake_maps, strict=True)
            ]
        ).mean()
        mine, theirs = self.gradients(g, self.generator), self.gradients(d, self.discriminators)
        self.mine.follow(mine, epoch)
        self.theirs.follow(theirs, epoch)
        return d, g

    def hifigan(self, wave: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """jik876/hifi-gan 4769534, train.py: everything again after the discriminators' update, nothing detached."""
        fake = self.generator(mel_of(wave))
        self.iterate_powers()
        real_maps, fake_maps = self.discriminators(wave[:, None]), self.discriminators(fake.detach())
        d = wave.new_zeros(())
        for real, made in zip(real_maps, fake_maps, strict=True):
            d = d + ((1 - real[-1]) ** 2).mean() + (made[-1] ** 2).mean()
        self.theirs.follow(self.gradients(d, self.discriminators), epoch)

        self.iterate_powers()
        real_maps, fake_maps = self.discriminators(wave[:, None]), self.discriminators(fake)
        g = 45 * (mel_of(wave) - mel_of(fake[:, 0])).abs().mean()
        for real, made in zip(real_maps, fake_maps, strict=True):
            g = g + ((1 - made[-1]) ** 2).mean()
            for x, y in zip(real, made, strict=True):
                g = g + 2 * (x - y).abs().mean()
        self.mine.follow(self.gradients(g, self.generator), epoch)
        return d, g

    def parallel_wavegan(self, wave: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """kan-bayashi/ParallelWaveGAN 8674037, bin/train.py: the generator, its waves again, the discriminators."""
        fake = self.generator(mel_of(wave))
        g = sum(multi_resolution_stft(fake[:, 0], wave, ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))))
        scores = [maps[-1] for maps in self.discriminators(fake)]
        g = g + 4 * torch.stack([((1 - s) ** 2).mean() for s in scores]).mean()
        self.mine.follow(self.gradients(g, self.generator), epoch)

        fake = self.generator(mel_of(wave)).detach()
        pairs = zip(self.discriminators(wave[:, None]), self.discriminators(fake), strict=True)
        d = torch.stack([((1 - r[-1]) ** 2).mean() + (f[-1] ** 2).mean() for r, f in pairs]).mean()
        self.theirs.follow(self.gradients(d, self.discriminators), epoch)
        return d, g

    def iterate_powers(self) -> None:
        """One step of spectral norm's power iteration (Miyato 2018, algorithm 1), which evaluation then leaves."""
        self.discriminators.eval()
        for name, module in self.discriminators.named_modules():
            if hasattr(module, "_u"):
                original = self.discriminators.get_parameter(name.rsplit(".", 1)[0] + ".original").detach().flatten(1)
                module._u.copy_(F.normalize(original @ module._v, dim=0))
                module._v.copy_(F.normalize(original.T @ module._u, dim=0))


def mel_of(wave: Tensor) -> Tensor:
    return mel_spectrogram(wave, MEL)


EXACT: dict[str, Callable[[], TrainConfig]] = {
    "descript": melgan,
    "keras": lambda: melgan("melgan-keras"),
    "hifigan": lambda: load_config("hifigan-v1", SMALL | HIFIGAN),
    "parallel_wavegan": lambda: melgan("melgan-stft", segment=2048, adversary__starts_at=0, **PLAIN_ADAM),
}


def weights_of(task: GanTask) -> dict[str, Tensor]:
    assert task.adversary is not None
    networks = {"generator": task.generator, "discriminators": task.adversary.network}
    return {
        f"{which}.{name}": value.detach().clone()
        for which, network in networks.items()
        for name, value in network.named_parameters()
    }


@pytest.mark.parametrize("original", EXACT)
def test_steps_are_those_of_the_original_to_the_last_bits(original: str) -> None:
    """Three steps, so that the optimisers' memories and the maps from before an update count; an epoch ends."""
    task = GanTask(EXACT[original](), DEVICE, torch.float64)
    naive = Naive(task)
    before = weights_of(task)
    for number in range(3):
        wave = batch(number, size=task.config.segment // 256).view(2, -1)
        epoch = number // 2
        d, g = getattr(naive, original)(wave, epoch)
        numbers = task.step(wave, step=number + 1, epoch=epoch)
        assert numbers["discriminators"].item() == pytest.approx(d.item(), abs=1e-10)
        assert total_of(task, numbers) == pytest.approx(g.item(), abs=1e-10)
    after = weights_of(task)
    expected = [*naive.generator.parameters(), *naive.discriminators.parameters()]
    for (name, found), wanted in zip(after.items(), expected, strict=True):
        torch.testing.assert_close(found, wanted.detach(), rtol=0, atol=1e-10, msg=name)
    # the hinge's last biases may stay: what recordings and fakes say of them cancels
    moved = [not torch.equal(after[name], before[name]) for name in after]
    assert sum(moved) >= len(moved) - 3


def total_of(task: GanTask, numbers: dict[str, Tensor]) -> float:
    return sum(loss.weight * numbers[name].item() for name, loss in task.config.losses.items())


@pytest.mark.parametrize("detached", [True, False])
def test_trap_detaching_the_maps_of_recordings_changes_no_update(detached: bool) -> None:
    """MelGAN detaches them and HiFi-GAN does not; the generator's gradient is the same."""
    task = GanTask(hifigan(losses__mel=0), DEVICE, torch.float64)
    assert task.adversary is not None
    wave = batch()
    fake = task.generator(mel_of(wave))
    real_maps, fake_maps = task.adversary.network(wave[:, None]), task.adversary.network(fake)
    loss = wave.new_zeros(())
    for real, made in zip(real_maps, fake_maps, strict=True):
        loss = loss + (1 - made[-1]).square().mean()
        for x, y in zip(real, made, strict=True):
            loss = loss + 2 * ((x.detach() if detached else x) - y).abs().mean()
    expected = torch.autograd.grad(loss, list(task.generator.parameters()))
    task._teach_generator(task.examples(wave), Turn(learns=False, judges=True), {})
    for variable, gradient in zip(task.generator.parameters(), expected, strict=True):
        torch.testing.assert_close(variable.grad, gradient, rtol=0, atol=1e-12)
    assert all(variable.grad is None for variable in task.adversary.network.parameters())


def test_recomputing_changes_no_update_and_keeps_less() -> None:
    updated, kept = [], []
    for recompute in (False, True):
        task = GanTask(hifigan(recompute=recompute), DEVICE, dtype=torch.float64)
        task.step(batch(), step=1)
        updated.append(weights_of(task))
        sizes: dict[int, int] = {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            wave = task.generator(torch.zeros(1, 6, 200, dtype=torch.float64))
        kept.append(sum(sizes.values()))
        assert wave.requires_grad
    torch.testing.assert_close(updated[0], updated[1], rtol=0, atol=0)
    assert kept[1] < 0.5 * kept[0]


def test_parts_of_a_batch_give_the_update_of_the_whole() -> None:
    updated = []
    for parts in (1, 2):
        task = GanTask(hifigan(accumulate=parts, batch=4), DEVICE, torch.float64)
        numbers = [task.step(batch(n, size=4), step=n + 1) for n in range(2)]
        updated.append((weights_of(task), numbers))
    (whole, numbers), (parted, others) = updated
    for name, value in whole.items():
        torch.testing.assert_close(parted[name], value, rtol=0, atol=1e-12, msg=name)
    for one, other in zip(numbers, others, strict=True):
        assert {name: v.item() for name, v in other.items()} == pytest.approx({n: v.item() for n, v in one.items()})


@pytest.mark.parametrize(
    ("settings", "learning", "judging"),
    [
        ({}, [1, 2, 3, 4], [1, 2, 3, 4]),
        ({"starts_at": 2}, [3, 4], [3, 4]),
        ({"starts_at": 1, "listens_for": 2}, [2, 3, 4], [4]),
        ({"frozen_for": 2}, [3, 4], [1, 2, 3, 4]),
    ],
    ids=["from the start", "later", "learns before it judges", "judges before it learns"],
)
def test_when_the_adversary_learns_and_judges(
    settings: dict[str, int], learning: list[int], judging: list[int]
) -> None:
    task = GanTask(hifigan(**{f"adversary__{name}": value for name, value in settings.items()}), DEVICE)
    learned, judged = [], []
    for step in range(1, 5):
        before = weights_of(task)
        numbers = task.step(batch(dtype=torch.float32), step=step)
        after = weights_of(task)
        changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
        assert "generator" in changed
        if "discriminators" in changed:
            learned.append(step)
        if "adversarial" in numbers:
            judged.append(step)
        assert ("discriminators" in numbers) == ("discriminators" in changed)
    assert (learned, judged) == (learning, judging)


@pytest.mark.parametrize("kind", ["adamw", "radam"])
@pytest.mark.parametrize("order", ["discriminators-first", "generator-first", "together"])
def test_an_update_that_is_not_finite_is_left_out(kind: str, order: str) -> None:
    settings = {"adversary__order": order, "optimiser__kind": kind, "adversary__optimiser__kind": kind}
    task = GanTask(hifigan(**settings), DEVICE)
    task.step(batch(0, torch.float32), step=1)
    before = weights_of(task)
    wave = batch(1, torch.float32)
    wave[1, 100] = float("nan")
    numbers = task.step(wave, step=2)
    assert not numbers["mel"].isfinite()
    assert not numbers["generator_gradient"].isfinite()
    after = weights_of(task)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert task.step(batch(2, torch.float32), step=3)["mel"].isfinite()
    assert not torch.equal(weights_of(task)["generator.trunk.stem.bias"], before["generator.trunk.stem.bias"])


def test_sub_bands_are_judged_before_the_filter_bank_joins_them() -> None:
    """The bank cannot see errors that cancel in the wave, so the loss must not look behind it."""
    changes = {"generator.rates": [2], "generator.rate_kernel_sizes": [4], "segment": 4096}
    small = {name: value for name, value in SMALL.items() if name not in changes}
    config = load_config("multi-band-melgan", small | changes | {"generator.units": 1})
    task = GanTask(config, DEVICE, torch.float64)
    wave = batch(size=16).view(2, -1)
    heard: list[Tensor] = []
    task.generator.head.conv.register_forward_hook(lambda module, inputs, output: heard.append(output.detach()))
    numbers = task.step(wave, step=1)
    resolutions = ((384, 30, 150), (683, 60, 300), (171, 10, 60))
    expected = sum(multi_resolution_stft(heard[0], pqmf_analysis(wave), resolutions))
    assert numbers["subband_stft"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert set(numbers) == {"stft", "subband_stft", "generator_gradient"}


def test_a_mel_that_is_given_is_taken() -> None:
    config = hifigan()
    task, other = GanTask(config, DEVICE), GanTask(config, DEVICE)
    wave = batch(dtype=torch.float32)
    own, given = task.step(wave, step=1), other.step((wave, mel_of(wave) + 1), step=1)
    assert own["mel"] != given["mel"]
    again = GanTask(config, DEVICE).step((wave, mel_of(wave)), step=1)
    assert {name: value.item() for name, value in again.items()} == {name: value.item() for name, value in own.items()}


def test_a_mel_is_smoothed_by_triangles_along_both_axes() -> None:
    mel = torch.zeros(3, 7, 9)
    mel[:, 3, 4] = 1
    mel[2, :, 0] = 8
    expected = torch.zeros(3, 7, 9)
    expected[0, 2:5, 2:7] = torch.outer(torch.tensor([1.0, 2, 1]) / 4, torch.tensor([1.0, 2, 3, 2, 1]) / 9)
    expected[1] = mel[1]
    expected[2, 3, 3:6] = torch.tensor([1.0, 2, 1]) / 4
    expected[2, :, :2] += torch.tensor([6.0, 2])  # beyond an end stands what is at it
    found = smooth(mel, torch.tensor([[1, 2], [0, 0], [0, 1]]), 2)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    assert torch.equal(found[1], mel[1])


def test_smoothed_mels_are_those_of_the_waves_and_only_the_generator_is_fed_them() -> None:
    task = GanTask(hifigan(data__smoothing=2, accumulate=2), dtype=torch.float64)
    reach = torch.tensor([[0, 2], [1, 0]])
    first, second = task.examples((batch(), reach))
    plain = mel_spectrogram(batch(), MEL)
    for number, example in enumerate((first, second)):
        assert torch.equal(example.wave, batch()[number : number + 1])
        wanted = smooth(plain[number : number + 1], reach[number : number + 1], 2)
        torch.testing.assert_close(example.mel, wanted, rtol=0, atol=1e-12)
        assert not torch.allclose(example.mel, plain[number : number + 1])
    numbers = task.step((batch(), reach), step=1)
    assert all(bool(value.isfinite()) for value in numbers.values())


def test_bfloat16_leaves_waves_and_spectra_exact() -> None:
    """The generator's head and all spectra are in float32: a wave in bfloat16 has noise 50 dB under it."""
    numbers = {}
    for precision in ("float32", "bfloat16"):
        task = GanTask(hifigan(precision=precision), DEVICE)
        example = task.examples(batch(dtype=torch.float32))[0]
        assert {value.dtype for value in task.make(example, {"wave"}).values()} == {torch.float32}
        numbers[precision] = task.step(example.wave, step=1)
    assert all(value.dtype == torch.float32 for value in numbers["bfloat16"].values())
    # eight bits of each product, averaged over many
    exact = {name: value.item() for name, value in numbers["float32"].items()}
    assert {name: value.item() for name, value in numbers["bfloat16"].items()} == pytest.approx(exact, rel=0.02)


def test_float16_lowers_its_scale_until_gradients_fit() -> None:
    task = GanTask(hifigan(precision="float16"), DEVICE)
    before, scales = weights_of(task), []
    for step in range(1, 4):
        task.step(batch(dtype=torch.float32), step=step)
        scales.append(task.learner.scaler.get_scale())
    overflowed = [scale for scale in scales if scale < 2.0**16]
    assert bool(overflowed) or not torch.equal(
        weights_of(task)["generator.trunk.stem.bias"], before["generator.trunk.stem.bias"]
    )
    assert all(bool(value.isfinite().all()) for value in weights_of(task).values())


def test_the_moving_average_follows_and_is_what_is_saved() -> None:
    task = GanTask(hifigan(ema=0.5), DEVICE, torch.float64)
    assert task.average is not None
    name = "trunk.stem.bias"
    expected = task.generator.get_parameter(name).detach().clone()
    for step in range(1, 12):
        task.step(batch(step), step=step)
        decay = min(0.5, step / (9 + step))
        expected = decay * expected + (1 - decay) * task.generator.get_parameter(name).detach()
    torch.testing.assert_close(task.average.network.get_parameter(name).detach(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(plain_weights(task.average.network)[name], expected, rtol=0, atol=1e-12)
    assert not torch.equal(task.generator.get_parameter(name), expected)


def test_an_average_of_little_experience_forgets_its_beginning() -> None:
    network, average = nn.Linear(1, 1), nn.Linear(1, 1)
    moving = MovingAverage(average, 0.999)
    moving._variables = list(network.parameters())
    for updates in range(200):
        moving.update(updates)
    start = average.weight - network.weight
    left = (moving.network.weight - network.weight) / start
    assert abs(left.item()) < 1e-6  # 0.999^200 would leave 0.8


def test_weight_norm_changes_nothing_but_how_a_network_learns() -> None:
    network = hifigan().generator.build().double()
    plain = {name: value.clone() for name, value in network.state_dict().items()}
    mel = mel_of(batch())
    expected = network(mel)
    add_weight_norm(network)
    names = dict(network.named_parameters())
    assert names["trunk.up.0.parametrizations.weight.original0"].shape == (8, 1, 1)  # input channels
    torch.testing.assert_close(network(mel), expected, rtol=0, atol=1e-14)
    plain_again = plain_weights(network)
    assert plain_again.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(plain_again[name], value, rtol=0, atol=1e-15)


def test_plain_weights_go_into_a_network_with_weight_norm() -> None:
    network, other = (hifigan().generator.build().double() for _ in range(2))
    add_weight_norm(network)
    load_plain_weights(network, other.state_dict())
    mel = mel_of(batch())
    torch.testing.assert_close(network(mel), other(mel), rtol=0, atol=1e-14)


def test_keras_leaves_the_first_convolution_plain() -> None:
    names = dict(GanTask(melgan("melgan-keras"), DEVICE).generator.named_parameters())
    assert "trunk.stem.weight" in names
    assert "head.conv.parametrizations.weight.original0" in names


def test_norms_are_computed_once_for_all_passes() -> None:
    task = GanTask(load_config("hifigan-v1", SMALL | HIFIGAN), DEVICE)
    assert task.adversary is not None
    first = task.adversary.network.networks[1].scales[0].convs[0]  # under spectral norm
    with folded(task.adversary.network):
        weight = first.weight
        assert first.weight is weight
    assert first.weight is not weight


def test_resolution_discriminators_see_magnitudes() -> None:
    """UnivNet's: 93,634 variables per resolution under weight norm; a wave upside down looks the same."""
    network = ResolutionDiscriminatorConfig().build()
    assert sum(variable.numel() for variable in network.parameters()) == 3 * 93_634
    wave = batch(dtype=torch.float32, size=8).view(1, 1, -1)
    maps = network(wave)
    assert [len(one) for one in maps] == [6, 6, 6]
    # bins, and frames of a signal padded by half of what the transform exceeds the hop, halved three times
    frames = [1 + (4096 - hop) // hop for hop in (120, 240, 50)]
    assert [tuple(one[-1].shape[2:]) for one in maps] == [
        (bins, -(-count // 8)) for bins, count in zip((513, 1025, 257), frames, strict=True)
    ]
    for one, other in zip(maps, network(-wave), strict=True):
        torch.testing.assert_close(one[-1], other[-1])


def test_silence_teaches_resolution_discriminators_nothing_infinite() -> None:
    wave = torch.zeros(1, 1, 4096, requires_grad=True)
    sum(one[-1].sum() for one in ResolutionDiscriminatorConfig(channels=4).build()(wave)).backward()
    assert wave.grad is not None
    assert bool(wave.grad.isfinite().all())


def learner(*, scaled: bool = False, **settings: Any) -> tuple[Learner, list[nn.Parameter]]:
    network = nn.Module()
    network.register_parameter("a", nn.Parameter(torch.zeros(3, dtype=torch.float64)))
    network.register_parameter("b", nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    config = OptimiserConfig(kind="adam", learning_rate=1.0, betas=(0.0, 0.0), epsilon=1e9, **settings)
    return Learner(network, config, scaled=scaled), list(network.parameters())


@pytest.mark.parametrize(("clip_by", "factors"), [("network", (0.2, 0.2)), ("variable", (1 / 3, 0.25))])
def test_clipping_by_network_and_by_variable(clip_by: str, factors: tuple[float, float]) -> None:
    """With an epsilon that outweighs everything Adam's update is the gradient over it."""
    learner_, (a, b) = learner(clip=1.0, clip_by=clip_by)
    a.grad, b.grad = torch.tensor([3.0, 0, 0]).double(), torch.tensor([0.0, 4]).double()
    assert learner_.update().item() == pytest.approx(5)
    assert -a[0].item() * 1e9 == pytest.approx(3 * factors[0], rel=1e-6)
    assert -b[1].item() * 1e9 == pytest.approx(4 * factors[1], rel=1e-6)


def test_a_gradient_shorter_than_the_clip_is_left_alone() -> None:
    learner_, (a, b) = learner(clip=10.0)
    a.grad, b.grad = torch.tensor([3.0, 0, 0]).double(), torch.tensor([0.0, 4]).double()
    learner_.update()
    assert -a[0].item() * 1e9 == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("clip_by", ["network", "variable"])
def test_trap_gradients_are_clipped_after_the_scale_is_taken_off(clip_by: str) -> None:
    learner_, (a, b) = learner(clip=1.0, clip_by=clip_by, scaled=True)
    assert learner_.scaler.get_scale() > 1000
    learner_.backward(2 * a[0] + 0 * b.sum())
    assert learner_.update().item() == pytest.approx(2)
    assert -a[0].item() * 1e9 == pytest.approx(1, rel=1e-6)
    learner_.backward(0.5 * a[1] + 0 * b.sum())
    assert learner_.update().item() == pytest.approx(0.5)
    assert -a[1].item() * 1e9 == pytest.approx(0.5, rel=1e-6)


def test_trap_the_official_rate_decays_once_per_epoch() -> None:
    schedule = load_config("hifigan-v1", {"data.recordings": "x"}).optimiser.schedule
    assert [schedule.factor(updates, 0) for updates in (0, 1, 800)] == [1, 1, 1]
    assert schedule.factor(801, 1) == pytest.approx(0.999)
    assert schedule.factor(10**6, 1000) == pytest.approx(0.999**1000)


def test_the_rate_of_an_optimiser_is_the_schedules() -> None:
    learner_, (a, b) = learner(schedule=ScheduleConfig(kind="exponential", per="epoch", decay=0.5))
    for epoch in (0, 0, 3):
        a.grad, b.grad = torch.ones(3).double(), torch.ones(2).double()
        learner_.schedule(epoch)
        learner_.update()
    assert learner_.rate == 0.125
    assert learner_.updates == 3


@pytest.mark.parametrize(
    ("schedule", "updates", "factor"),
    [
        (ScheduleConfig(), 10**9, 1.0),
        (ScheduleConfig(kind="exponential", decay=0.9), 2, 0.81),
        (ScheduleConfig(kind="steps", decay=0.5, milestones=(10, 20)), 9, 1.0),
        (ScheduleConfig(kind="steps", decay=0.5, milestones=(10, 20)), 10, 0.5),
        (ScheduleConfig(kind="steps", decay=0.5, milestones=(10, 20)), 25, 0.25),
        (ScheduleConfig(kind="cosine", length=100, lowest=0.2), 50, 0.6),
        (ScheduleConfig(kind="cosine", length=100, lowest=0.2), 1000, 0.2),
        (ScheduleConfig(warm_up=3), 0, 0.25),
        (ScheduleConfig(warm_up=3), 3, 1.0),
    ],
)
def test_schedules(schedule: ScheduleConfig, updates: int, factor: float) -> None:
    assert schedule.factor(updates, 0) == pytest.approx(factor)


def test_a_restored_task_goes_on_to_the_last_bit() -> None:
    config = load_config("hifigan-v1", SMALL | HIFIGAN | {"ema": 0.9, "adversary.discriminators.1.scales": 1})
    task, other = GanTask(config, DEVICE), GanTask(config, DEVICE)
    for step in range(1, 3):
        task.step(batch(step, torch.float32), step=step)
    state = deepcopy(task.state_dict())
    torch.manual_seed(99)
    other.load_state_dict(state)
    for step in range(3, 5):
        task.step(batch(step, torch.float32), step=step)
        other.step(batch(step, torch.float32), step=step)
    for name, value in flat(task.state_dict()).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(flat(other.state_dict())[name])), name


def flat(state: Any, name: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flat(value, f"{name}.{key}").items()}
    if isinstance(state, (list, tuple)):
        return {k: v for n, value in enumerate(state) for k, v in flat(value, f"{name}.{n}").items()}
    return {name: state} if isinstance(state, (Tensor, int, float)) else {}


@pytest.mark.slow
def test_compiled_networks_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_(module, backend="aot_eager"))
    compiled, plain = (GanTask(hifigan(compile=on), DEVICE) for on in (True, False))
    for step in range(1, 4):
        ours, theirs = (task.step(batch(step, torch.float32), step=step) for task in (compiled, plain))
        wanted = {name: value.item() for name, value in theirs.items()}
        assert {name: value.item() for name, value in ours.items()} == pytest.approx(wanted, rel=1e-3)


AROUND: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "float64": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "bfloat16": (lambda: torch.set_default_dtype(torch.bfloat16), lambda: torch.set_default_dtype(torch.float32)),
    "meta": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
}
"""What others may have set for the whole process, and back."""


OF_EACH_KIND: dict[str, Callable[[], TrainConfig]] = {
    "griffin-lim-net": lambda: load_config(
        "griffin-lim-net",
        {"generator.channels": 8, "data.recordings": "nowhere", "segment": 2048, "batch": 2},
    ),
    "melgan": melgan,
    "hifigan-v1": lambda: hifigan(ema=0.9),
    "melgan-stft": lambda: melgan("melgan-stft", adversary__starts_at=0, segment=2048),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("recipe", OF_EACH_KIND)
def test_defaults_of_the_process_change_no_bit_of_a_run(recipe: str, around: str) -> None:
    """Networks, their first weights, and steps."""
    found = []
    config = OF_EACH_KIND[recipe]()
    change, restore = AROUND[around]
    waves = [batch(step, torch.float32).repeat(1, config.segment // 512) for step in (1, 2)]
    for changed in (True, False):  # what is kept between steps is made in the first one
        before = torch.get_default_dtype()
        if changed:
            change()
        try:
            task = GanTask(config, DEVICE)
            for step, wave in enumerate(waves, start=1):
                numbers = task.step(wave, step=step)
            assert changed == (torch.get_default_dtype() != before or torch.get_default_device().type == "meta")
            weights = task.plain_generator().state_dict()
        finally:
            restore()
        found.append({**numbers, **weights, **flat(task.state_dict())})
    for name, value in found[1].items():
        assert torch.equal(torch.as_tensor(found[0][name]), torch.as_tensor(value)), name


def test_bfloat16_is_chosen_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation or fast

    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    monkeypatch.setattr("torch.cuda.device", nullcontext)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    cases = ((True, (8, 0), torch.bfloat16), (False, (7, 5), torch.float16), (False, (6, 1), torch.float32))
    for fast, capability, wanted in cases:  # noqa: B007
        assert _precision("auto", torch.device("cuda", 0)) is wanted
    assert asked == [False, False, False]
    assert _precision("auto", DEVICE) is torch.float32
    assert _precision("float16", torch.device("cuda", 0)) is torch.float16
