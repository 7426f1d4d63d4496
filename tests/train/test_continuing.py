"""Runs of other projects go on here as they would have gone on there: weights, memories of optimisers, place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import originals
import pytest
import torch
import yaml
from torch import Tensor, nn

import fastvoc
from fastvoc.audio import CONVENTIONS, MelConfig, Normalization, write_audio
from fastvoc.checkpoints.formats import hifigan
from fastvoc.config import to_dict
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.report.log import read_log
from fastvoc.train.report.report import Report
from fastvoc.train.start import begin, start
from fastvoc.train.tasks.gan import GanTask

RATE = 8000
SIZES: dict[str, Any] = {"sample_rate": RATE, "fft_size": 64, "hop": 8, "window_size": 64, "bands": 6}
MEL = replace(CONVENTIONS["hifigan"], **SIZES, low=0, high=4000)
PERIODS = (2, 3)
NETWORK = {
    "generator.mel_bands": 6,
    "generator.channels": 8,
    "generator.rates": [4, 2],
    "generator.rate_kernel_sizes": [8, 4],
    "batch": 2,
    "data.recordings": "nowhere",
    "precision": "float32",
}
HIFIGAN = NETWORK | {"generator.kernel_sizes": [3, 5], "generator.dilations": [[1, 2], [1, 3]], "segment": 512}
DISCRIMINATORS = [{"kind": "period", "channels": 2, "periods": PERIODS}, {"kind": "scale", "channels": 16, "scales": 2}]
THEIRS = [
    DISCRIMINATORS[0] | {"last_kernel_size": 2},
    DISCRIMINATORS[1] | {"strides": [4, 4, 4, 4, 1]},
]
STATISTICS = Normalization(mean=foreign.STATISTICS["mean"][:6].tolist(), scale=foreign.STATISTICS["scale"][:6].tolist())


def official(**changes: Any) -> TrainConfig:
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    own = {"mel": to_dict(MEL), "loss_mel": None, "adversary.discriminators": DISCRIMINATORS}
    return load_config("hifigan-v1", HIFIGAN | own | dotted)


def kan_bayashi_mel() -> MelConfig:
    return replace(CONVENTIONS["parallel-wavegan"], **SIZES, low=0, high=4000, normalization=STATISTICS)


def kan_bayashi(**changes: Any) -> TrainConfig:
    """hifigan.v1 of ParallelWaveGAN, small; milestones are passed before and after the checkpoint."""
    adam = {"kind": "adam", "learning_rate": 2e-4, "betas": [0.5, 0.9], "weight_decay": 0.0}
    adam["schedule"] = {"kind": "steps", "milestones": [3, 9], "decay": 0.5}
    own = {
        "mel": to_dict(kan_bayashi_mel()),
        "loss_mel": None,
        "generator.crop_rule": "output-padded",
        "adversary.discriminators": THEIRS,
        "adversary.order": "generator-first",
        "adversary.features_score": False,
        "optimiser": adam,
        "adversary.optimiser": adam,
    }
    return load_config("hifigan-v1", HIFIGAN | own | {name.replace("__", "."): v for name, v in changes.items()})


def kan_bayashi_melgan(kind: str, **changes: Any) -> TrainConfig:
    """melgan.v1 of ParallelWaveGAN with MelGAN's discriminator, small; the adversary comes in at step 4."""
    learns = {"kind": kind, "learning_rate": 1e-3, "epsilon": 1e-6, "amsgrad": kind == "adam"}
    learns["schedule"] = {"kind": "steps", "milestones": [5, 6], "decay": 0.5}
    own = {
        "mel": to_dict(kan_bayashi_mel()),
        "generator.units": 2,
        "generator.crop_rule": "output-padded",
        "segment": 2048,
        "adversary.discriminators": [{"kind": "melgan", "scales": 2, "channels": 4, "downsampling": [4, 2]}],
        "adversary.starts_at": 3,
        "optimiser": learns,
        "adversary.optimiser": learns,
    }
    return load_config("melgan-stft", NETWORK | own | {name.replace("__", "."): v for name, v in changes.items()})


def waves(config: TrainConfig, count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, config.batch, config.segment)
    return list((0.6 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.3).to(dtype))


class Place:
    """Of a loader."""

    steps_per_epoch = 7

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def official_trainer(config: TrainConfig, dtype: torch.dtype = torch.float64) -> originals.Trainer:
    torch.manual_seed(3)
    generator = originals.OfficialGenerator(config.generator).to(dtype)
    discriminators = originals.official_discriminators((16, 2), PERIODS, 2).to(dtype)
    return originals.Trainer(config, generator, discriminators)


@cache
def official_states(dtype: torch.dtype) -> list[dict[str, Any]]:
    """Three steps of an epoch and three of the next one."""
    trainer = official_trainer(official(), dtype)
    for number, wave in enumerate(waves(official(), 6, dtype=dtype)):
        trainer.official(wave)
        if number == 2:
            for schedule in trainer.schedules:
                schedule.step()
    return copy.deepcopy([part.state_dict() for part in parts_of(trainer)])


def parts_of(trainer: originals.Trainer) -> list[Any]:
    return [trainer.generator, trainer.discriminators, *trainer.optimisers]


def train_official(
    config: TrainConfig, dtype: torch.dtype = torch.float64, *, of: torch.dtype | None = None
) -> originals.Trainer:
    """`of` is the precision of the training so far."""
    trainer = official_trainer(config, dtype)
    for part, saved in zip(parts_of(trainer), official_states(of or dtype), strict=True):
        part.load_state_dict(copy.deepcopy(saved))
    return trainer


def save_official(trainer: originals.Trainer, folder: Path, **changes: Any) -> Path:
    foreign.official(folder, trainer.config.generator, trainer.config.mel)
    torch.save({"generator": trainer.generator.state_dict()}, folder / "g_00000005")
    content = {name: originals.spelled(trainer.discriminators[name].state_dict()) for name in ("mpd", "msd")}
    content |= {"optim_g": trainer.optimisers[0].state_dict(), "optim_d": trainer.optimisers[1].state_dict()}
    torch.save(content | {"steps": 5, "epoch": 1} | changes, folder / "do_00000005")
    return folder / "do_00000005"


def save_kan_bayashi(
    trainer: originals.Trainer, folder: Path, steps: int, settings: dict[str, Any], **changes: Any
) -> Path:
    foreign.parallel_wavegan(folder, trainer.config.generator, trainer.config.mel)
    names = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "RAdam": torch.optim.RAdam}
    kinds = {cls: name for name, cls in names.items()}
    path = folder / "config.yml"
    written = yaml.safe_load(path.read_text()) | settings
    for which, name in enumerate(("generator", "discriminator")):
        written[f"{name}_optimizer_type"] = kinds[type(trainer.optimisers[which])]
    path.write_text(yaml.dump(written))
    networks = {"generator": trainer.generator, "discriminator": trainer.discriminators}
    content = {
        "model": {name: originals.spelled(network.state_dict()) for name, network in networks.items()},
        "optimizer": {n: o.state_dict() for n, o in zip(networks, trainer.optimisers, strict=True)},
        "scheduler": {n: s.state_dict() for n, s in zip(networks, trainer.schedules, strict=True)},
        "steps": steps,
        "epochs": 1,
    }
    (folder / "checkpoint-2500000steps.pkl").unlink()
    torch.save(content | changes, folder / f"checkpoint-{steps}steps.pkl")
    return folder / f"checkpoint-{steps}steps.pkl"


def kan_bayashi_settings(**changes: Any) -> dict[str, Any]:
    """As hifigan.v1.yaml writes them, but for the channels."""
    leaky = {"nonlinear_activation": "LeakyReLU", "nonlinear_activation_params": {"negative_slope": 0.1}}
    shared = leaky | {"in_channels": 1, "out_channels": 1, "bias": True}
    scale = {"kernel_sizes": [15, 41, 5, 3], "channels": 16, "max_downsample_channels": 128, "max_groups": 16}
    period = {"kernel_sizes": [5, 3], "channels": 2, "max_downsample_channels": 64, "use_weight_norm": True}
    return {
        "discriminator_type": "HiFiGANMultiScaleMultiPeriodDiscriminator",
        "discriminator_params": {
            "scales": 2,
            "scale_downsample_pooling": "AvgPool1d",
            "scale_downsample_pooling_params": {"kernel_size": 4, "stride": 2, "padding": 2},
            "scale_discriminator_params": shared | scale | {"downsample_scales": [4, 4, 4, 4, 1]},
            "follow_official_norm": True,
            "periods": list(PERIODS),
            "period_discriminator_params": shared | period | {"downsample_scales": [3, 3, 3, 3, 1]},
        }
        | changes,
    }


def train_kan_bayashi(config: TrainConfig, steps: int, norms: tuple[str, ...] = ("spectral", "weight")) -> Any:
    torch.manual_seed(3)
    generator = originals.KanBayashiHiFiGAN(config.generator).double()
    discriminators = originals.kan_bayashi_discriminators((16, 2), PERIODS, norms).double()
    trainer = originals.Trainer(config, generator, discriminators)
    for number, wave in enumerate(waves(config, steps)):
        trainer.kan_bayashi(wave, number)
    return trainer


def train_kan_bayashi_melgan(config: TrainConfig, steps: int) -> Any:
    torch.manual_seed(3)
    generator = originals.KanBayashiMelGAN(config.generator).double()
    discriminators = originals.kan_bayashi_melgan_discriminator(2, 4, (4, 2)).double()
    trainer = originals.Trainer(config, generator, discriminators)
    for number, wave in enumerate(waves(config, steps)):
        trainer.kan_bayashi(wave, number)
    return trainer


MELGAN_SETTINGS = {
    "discriminator_type": "MelGANMultiScaleDiscriminator",
    "discriminator_params": {
        "scales": 2,
        "downsample_pooling_params": {"kernel_size": 4, "stride": 2, "padding": 1, "count_include_pad": False},
        "kernel_sizes": [5, 3],
        "channels": 4,
        "max_downsample_channels": 1024,
        "downsample_scales": [4, 2],
        "nonlinear_activation_params": {"negative_slope": 0.2},
    },
}


def agree(task: GanTask, trainer: originals.Trainer, begun: int, theirs: Callable[[Tensor, int], Any]) -> None:
    """Four more steps of both, from the same waves."""
    for number, wave in enumerate(waves(task.config, 4, seed=1)):
        d, g = theirs(wave, number)
        ours = task.step(wave, step=begun + 1 + number, epoch=1)
        total = sum(loss.weight * float(ours[name]) for name, loss in task.config.losses.items() if name in ours)
        assert total == pytest.approx(g, rel=1e-9), number
        assert float(ours["discriminators"]) == pytest.approx(d, rel=1e-9), number
        for learner, theirs_learn in zip((task.learner, task.adversary.learner), trainer.optimisers, strict=True):
            assert learner.updates == next(iter(theirs_learn.state.values()))["step"]


def same_sound(task: GanTask, trainer: originals.Trainer) -> None:
    mel = torch.randn(1, 6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(task.generator(mel), trainer.generator(mel), rtol=0, atol=1e-11)


@pytest.mark.parametrize("spelling", ["older", "newer"])
def test_an_official_pair_goes_on_as_the_original(tmp_path: Path, spelling: str) -> None:
    config = official(continue_from=str(tmp_path / "do_00000005"))
    trainer = train_official(config)
    newer = {"msd": trainer.discriminators["msd"].state_dict()} if spelling == "newer" else {}
    save_official(trainer, tmp_path, **newer)
    task, place = GanTask(config, dtype=torch.float64), Place()
    assert begin(task, place, strict=True) == 6
    assert place.step == 7  # the first of epoch 1
    same_sound(task, trainer)
    agree(task, trainer, 6, lambda wave, number: trainer.official(wave))
    same_sound(task, trainer)


def test_without_the_memory_it_would_not_go_on_like_that(tmp_path: Path) -> None:
    """The comparison can fail: weights alone lead elsewhere within two steps."""
    trainer = train_official(official())
    path = save_official(trainer, tmp_path)
    config = official(start_from=str(tmp_path), start_adversary_from=str(path))
    task = GanTask(config, dtype=torch.float64)
    assert begin(task, Place(), strict=True) == 0
    same_sound(task, trainer)
    with pytest.raises(AssertionError, match="assert"):
        agree(task, trainer, 6, lambda wave, number: trainer.official(wave))


def test_an_average_begins_at_the_weights_of_the_pair(tmp_path: Path) -> None:
    config = official(continue_from=str(tmp_path), ema=0.99)
    trainer = train_official(config)
    save_official(trainer, tmp_path)
    task = GanTask(config, dtype=torch.float64)
    begin(task, Place(), strict=True)
    mel = torch.randn(1, 6, 20, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(task.average.network(mel), trainer.generator(mel), rtol=0, atol=1e-11)


def test_a_hifigan_of_kan_bayashi_goes_on_as_the_original(tmp_path: Path) -> None:
    config = kan_bayashi(continue_from=str(tmp_path))
    trainer = train_kan_bayashi(config, 6)
    save_kan_bayashi(trainer, tmp_path, 6, kan_bayashi_settings())
    task, place = GanTask(config, dtype=torch.float64), Place()
    assert begin(task, place, strict=True) == 5  # the generator rests in the first step
    assert place.step == 7
    same_sound(task, trainer)
    agree(task, trainer, 5, lambda wave, number: trainer.kan_bayashi(wave, 6 + number))
    same_sound(task, trainer)


@pytest.mark.parametrize("kind", ["adam", "radam"])
@pytest.mark.parametrize("steps", [3, 6])
def test_a_melgan_of_kan_bayashi_goes_on_as_the_original(tmp_path: Path, kind: str, steps: int) -> None:
    """Before the adversary has come in, and after."""
    config = kan_bayashi_melgan(kind, continue_from=str(tmp_path))
    trainer = train_kan_bayashi_melgan(config, steps)
    assert bool(trainer.optimisers[1].state) == (steps == 6)
    save_kan_bayashi(trainer, tmp_path, steps, MELGAN_SETTINGS)
    task = GanTask(config, dtype=torch.float64)
    assert begin(task, Place(), strict=True) == steps - 1
    for number, wave in enumerate(waves(config, 4, seed=1)):
        d, g = trainer.kan_bayashi(wave, steps + number)
        ours = task.step(wave, step=steps + number, epoch=1)
        total = sum(loss.weight * float(ours[name]) for name, loss in task.config.losses.items() if name in ours)
        assert total == pytest.approx(g, rel=1e-9), number
        assert float(ours.get("discriminators", 0.0)) == pytest.approx(d, rel=1e-9), number
    same_sound(task, trainer)


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "wavs").mkdir()
    for number in range(7):
        write_audio(tmp_path / "wavs" / f"{number}.wav", 0.5 * torch.rand(2100, generator=generator) - 0.25, RATE)
    for slow in ("_show", "_draw_curves"):
        monkeypatch.setattr(Report, slow, lambda *arguments: None)
    monkeypatch.setattr(Report, "_open_tensorboard", lambda *arguments: None)
    monkeypatch.setattr("fastvoc.train.material.measure", lambda pairs, mel: {"mel_l1": 0.0})
    return tmp_path


def whole_run(place: Path, **changes: Any) -> TrainConfig:
    own = {
        "continue_from": str(place),
        "data__recordings": str(place / "wavs"),
        "data__workers": 0,
        "data__held_out": 1,
        "folder": str(place / "run"),
        "steps": 9,
        "report_every": 1,
    }
    return official(**own | changes)


def test_in_single_precision_it_differs_as_rounding_does(recordings: Path) -> None:
    """Three more steps here and in plain PyTorch, against the same in double precision.

    Both round in each of a few thousand operations, in another order; the larger of the errors over all weights is
    that of rounding, so ours may be twice as large by chance, and not more.
    """
    trainer = train_official(official(), torch.float32)
    save_official(trainer, recordings)
    exact = train_official(official(), torch.float64, of=torch.float32)
    run = start(whole_run(recordings), torch.device("cpu"))
    assert run.step == 6
    assert run.loader.epoch == 1
    losses: list[list[float]] = []
    for step in range(7, 10):
        wave = next(run.loader)
        ours = run.task.step(wave, step=step, epoch=1)
        losses.append([float(ours["discriminators"]), trainer.official(wave)[0], exact.official(wave.double())[0]])
    names, ours = dict(hifigan.table(run.config.generator)), run.task.plain_generator().state_dict()
    plain, truth = folded(trainer.generator), folded(exact.generator)
    our_error = max(float((ours[f"{names[name]}.weight"] - truth[name]).abs().max()) for name in truth)
    their_error = max(float((plain[name] - truth[name]).abs().max()) for name in truth)
    assert 0 < their_error < 1e-6
    assert our_error <= 2 * their_error
    for ours_now, plain_now, exact_now in losses:
        # a sum of at most eight rounded terms
        several = 4 * float(np.spacing(np.float32(exact_now)))
        assert ours_now == pytest.approx(exact_now, rel=0, abs=2 * abs(plain_now - exact_now) + several)


def folded(network: nn.Module) -> dict[str, Tensor]:
    """Weights of the layers of a plain network."""
    return {
        name: torch._weight_norm(module.weight_v.detach(), module.weight_g.detach(), 0)
        for name, module in network.named_modules()
        if hasattr(module, "weight_g")
    }


def test_train_goes_on_from_a_pair_and_then_from_its_own_folder(recordings: Path) -> None:
    save_official(train_official(official(), torch.float32), recordings)
    fastvoc.train(whole_run(recordings, steps=8), device="cpu")
    fastvoc.train(whole_run(recordings), device="cpu")
    lines = [line for line in read_log(recordings / "run" / "log.jsonl") if line["kind"] == "training"]
    assert [line["step"] for line in lines] == [7, 8, 9]
    assert {line["learning_rate"] for line in lines} == {2e-4 * 0.999}


def broken_pair(place: Path, edit: Callable[[dict[str, Any]], Any]) -> TrainConfig:
    path = save_official(train_official(official()), place)
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)
    return official(continue_from=str(path))


def refused(config: TrainConfig, sentence: str, *, strict: bool = True) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as raised:
        begin(GanTask(config, dtype=torch.float64), Place(), strict=strict)
    assert "\n" not in str(raised.value)


def lose_a_memory(content: dict[str, Any]) -> None:
    del content["optim_g"]["state"][3]


def lose_a_variable(content: dict[str, Any]) -> None:
    content["optim_d"]["param_groups"][0]["params"].pop()


def reverse(content: dict[str, Any]) -> None:
    state = content["optim_g"]["state"]
    content["optim_g"]["state"] = {len(state) - 1 - number: entry for number, entry in state.items()}


def use_momentum(content: dict[str, Any]) -> None:
    network = nn.Linear(1, 1)
    content["optim_g"] = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict()


def use_adam(content: dict[str, Any]) -> None:
    content["optim_g"]["param_groups"][0]["decoupled_weight_decay"] = False


def decay_otherwise(content: dict[str, Any]) -> None:
    content["optim_d"]["param_groups"][0]["weight_decay"] = 0.5


def diverge(content: dict[str, Any]) -> None:
    content["optim_d"]["state"][0]["exp_avg"].fill_(float("nan"))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            lose_a_memory,
            r"do_00000005: optimiser has no exp_avg and exp_avg_sq of trunk\.up\.0\.bias in the file; take",
        ),
        (lose_a_variable, r"adversary\.optimiser has 75 variables in the file, its network 76; take its weights alone"),
        (reverse, r"optimiser remembers another shape of trunk\.stem\.bias than \(8,\)"),
        (use_momentum, "optimiser is none of adam, adamw and radam in the file"),
        (use_adam, r"optimiser is adamw, in the file it is another kind \(adam\)"),
        (decay_otherwise, r"adversary\.optimiser\.weight_decay was 0\.5, is 0\.01; restore or allow changes"),
        (diverge, "exp_avg holds values that are not finite"),
        (lambda content: content.pop("optim_d"), "holds no optim_d; take its weights alone"),
        (lambda content: content.pop("msd"), "holds no 'msd'; needs the do_ file of an official HiFi-GAN"),
        (lambda content: content.update(optim_g=[1]), "optimiser is not what one of PyTorch saves"),
        (lambda content: content.update(epoch="two"), "its epoch is 'two'; expected a number of epochs"),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], sentence: str
) -> None:
    refused(broken_pair(tmp_path, edit), sentence)


def test_other_settings_of_an_optimiser_may_be_allowed(tmp_path: Path) -> None:
    task = GanTask(broken_pair(tmp_path, decay_otherwise), dtype=torch.float64)
    assert begin(task, Place(), strict=False) == 6
    assert task.adversary.learner.optimiser.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize("vector", ["weight_u", "weight_v"])
def test_discriminators_bring_what_their_spectral_norm_remembers(tmp_path: Path, vector: str) -> None:
    def lose(content: dict[str, Any]) -> None:
        names = [name for name in content["msd"] if name.startswith("discriminators.0.") and name.endswith(vector)]
        del content["msd"][names[0]]

    refused(broken_pair(tmp_path, lose), "the adversary is another one or has other norms, without ")


def test_what_cannot_be_gone_on_from_is_named(tmp_path: Path) -> None:
    path = save_official(train_official(official()), tmp_path)
    refused(official(continue_from=str(path), steps=6), "has made 6 updates already, and steps is 6; set more")
    refused(official(continue_from=str(path), weight_norm="none"), "the generator is another one or has other norms")
    refused(
        official(continue_from=str(path), generator__channels=16), "its generator is another one: generator.channels"
    )
    narrow = [DISCRIMINATORS[0], DISCRIMINATORS[1] | {"spectral": False}]
    refused(official(continue_from=str(path), adversary__discriminators=narrow), "has other norms")
    melgan = kan_bayashi_melgan("adam", continue_from=str(path))
    refused(melgan, "its generator is another one")
    (tmp_path / "g_00000005").rename(tmp_path / "g_00000006")
    refused(official(continue_from=str(path)), "needs the generator of the same step beside it, g_00000005")
    refused(official(continue_from=str(tmp_path / "g_00000006")), "g_00000006: needs the do_ file of the same step")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    refused(
        official(continue_from=str(tmp_path / "other.pt")), "is neither the do_ file .* nor a checkpoint of Parallel"
    )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refused(official(continue_from=str(tmp_path / "run")), "is a run of fastvoc; name it as the folder of the run")
    with pytest.raises(ValueError, match="continue_from brings all weights; leave out start_from"):
        official(continue_from=str(path), start_from=str(path))


def test_the_mel_of_a_converted_vocoder_has_its_statistics(tmp_path: Path) -> None:
    """Nobody writes 160 numbers into a recipe by hand."""
    trainer = train_kan_bayashi(kan_bayashi(), 2)
    path = save_kan_bayashi(trainer, tmp_path, 2, kan_bayashi_settings())
    fastvoc.Vocoder.from_pretrained(path).save_pretrained(tmp_path / "converted")
    config = kan_bayashi(mel=str(tmp_path / "converted" / "config.json"), continue_from=str(path))
    assert config.mel == kan_bayashi_mel()
    assert begin(GanTask(config, dtype=torch.float64), Place(), strict=True) == 1
    refused(kan_bayashi(mel=to_dict(MEL), continue_from=str(path)), "its mel is another one: mel.* …; use its own")
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(ValueError, match=r"empty\.json has no mel; expected the config\.json of a vocoder"):
        kan_bayashi(mel=str(tmp_path / "empty.json"))


def test_no_code_in_a_pair_is_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = save_official(train_official(official()), tmp_path, optim_g=Trap())
    refused(official(continue_from=str(path)), "wants to run .*; fastvoc reads tensors only")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("norms", [("spectral", "weight"), ("weight", "weight"), ("none", "none")])
def test_discriminators_of_kan_bayashi_are_taken(tmp_path: Path, norms: tuple[str, ...]) -> None:
    """In the three ways that its versions and settings have made them; without norms they are divided here."""
    trainer = train_kan_bayashi(kan_bayashi(), 2, norms)
    follow = norms[0] != "weight"
    path = save_kan_bayashi(trainer, tmp_path, 2, kan_bayashi_settings(follow_official_norm=follow))
    norms_of = [THEIRS[0], THEIRS[1] | {"spectral": norms[0] == "spectral"}]
    config = kan_bayashi(start_adversary_from=str(path), adversary__discriminators=norms_of)
    task = GanTask(config, dtype=torch.float64)
    assert begin(task, Place(), strict=True) == 0
    wave = waves(config, 1)[0]
    task.adversary.network.eval()
    with torch.no_grad():
        wanted = {name: network.eval()(wave[:, None]) for name, network in trainer.discriminators.items()}
        found = task.adversary.network(wave[:, None])
    for maps, theirs in zip(found, [*wanted["mpd"], *wanted["msd"]], strict=True):
        for x, y in zip(maps, theirs, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)
    if norms[0] == "none":
        both = kan_bayashi(continue_from=str(path), adversary__discriminators=norms_of)
        refused(both, "the adversary is another one or has other norms")
    wrong = [THEIRS[0], THEIRS[1] | {"spectral": norms[0] != "spectral"}]
    other = kan_bayashi(start_adversary_from=str(path), adversary__discriminators=wrong)
    refused(other, f"set spectral={str(norms[0] == 'spectral').lower()} of the scale discriminator")


def test_other_discriminators_of_kan_bayashi_are_named(tmp_path: Path) -> None:
    trainer = train_kan_bayashi(kan_bayashi(), 2)
    path = save_kan_bayashi(trainer, tmp_path, 2, kan_bayashi_settings())
    config = kan_bayashi(start_adversary_from=str(path), adversary__discriminators=DISCRIMINATORS)
    refused(config, r"has other discriminators than the settings: .*strides\.0 was 4, is 2; .*use its own")
    settings = yaml.safe_load((tmp_path / "config.yml").read_text())
    config = kan_bayashi(continue_from=str(path))
    for changes, sentence in (
        ({"discriminator_type": "StyleMelGANDiscriminator"}, "discriminator_type is StyleMelGANDiscriminator; fastvoc"),
        ({"generator_optimizer_type": "Lamb"}, "its optimizer is Lamb; fastvoc goes on with Adam, AdamW, RAdam"),
    ):
        (tmp_path / "config.yml").write_text(yaml.dump(settings | changes))
        refused(config, sentence)
