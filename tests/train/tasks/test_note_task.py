"""GANSynth's step: its losses, its growth, what it learns, and that it goes on to the same bits."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import assert_equal, flat
from torch import Tensor

import fastvoc
from fastvoc.audio import write_audio
from fastvoc.audio.instantaneous_frequency import normalise
from fastvoc.config import to_dict
from fastvoc.models.gansynth import Convolution
from fastvoc.noise import normal, uniform
from fastvoc.train import state
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.data.note_batches import split_notes
from fastvoc.train.data.notes import NoteDataConfig, NoteFile, seed_of_instrument, write_examples
from fastvoc.train.learning.optimisers import Learner, OptimiserConfig
from fastvoc.train.material import material_of
from fastvoc.train.report.log import read_log
from fastvoc.train.start import begin
from fastvoc.train.tasks.notes import SILENT, NoteConfig, NoteTask, audible, blurred, growth, sizes

GENERATOR = {"kind": "gansynth", "latent": 8, "pitches": 4, "lowest_pitch": 60, "first": [2, 8]}
GENERATOR |= {"channels": [32, 32, 16, 8]}
SPECTRUM = {"samples": 500, "frames": 16, "fft_size": 128, "hop": 32, "sample_rate": 1000}
GROWN = {"task.steady": 0, "task.growth": 0}
SEED = seed_of_instrument("flute_acoustic_000")


def config(changes: dict[str, Any] = GROWN, recipe: str = "gansynth") -> TrainConfig:
    """The published recipe on a picture of 1024 pixels, or the small one."""
    small = {"generator": GENERATOR, "data.spectrum": SPECTRUM, "data.bands": "linear", "data.recordings": "none"}
    return load_config(recipe, small | changes)


def four_notes() -> tuple[Tensor, Tensor]:
    """Two notes of each of four tones of three partials that fade, and their pitches, of one instrument."""
    time = torch.arange(500) / 1000
    pitches = [80 * 2 ** (pitch / 3) for pitch in range(4)]
    waves = [sum(torch.sin(2 * math.pi * f * k * time) / k for k in (1, 2, 3)) * torch.exp(-2 * time) for f in pitches]
    notes = torch.stack([torch.arange(4), torch.full((4,), SEED)], dim=1)
    return 0.3 * torch.stack(waves).repeat(2, 1), notes.repeat(2, 1)


def test_pitches_are_learned_in_150_steps() -> None:
    task, (waves, notes) = NoteTask(config()), four_notes()
    pictures = task.pictures(waves)
    latent = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))

    def profile_error() -> float:
        """How far the mean spectra of made notes are from those of the real ones."""
        with torch.no_grad():
            made = task.generator(latent, notes[:4, 0])[:, 0].mean(dim=1)
        return float((made - pictures[:4, 0].mean(dim=1)).abs().mean())

    before = profile_error()
    numbers = [task.step((waves, notes), step=step) for step in range(1, 151)]
    assert float(numbers[0]["real_pitch"]) == pytest.approx(math.log(4), abs=0.05)
    assert float(numbers[-1]["real_pitch"]) < 0.1
    assert profile_error() < 0.75 * before
    assert all(bool(value.isfinite()) for step in numbers for value in step.values())
    assert float(numbers[-1]["penalty"]) < 0.2 * float(numbers[0]["penalty"])


REGRESSION = GROWN | {"task.regression": 10.0, "task.starts_at": 1000, "ema": 0.9}


def test_notes_of_an_instrument_are_met_at_its_own_point() -> None:
    """By regression alone, before the discriminator takes part: their pictures, and the waves of these."""
    fast = {"optimiser.learning_rate": 0.02, "optimiser.betas": [0.9, 0.99], "task.closeness": 1.0}
    task, (waves, notes) = NoteTask(config(REGRESSION | fast)), four_notes()
    before = copy.deepcopy(task.discriminator.state_dict())
    numbers = [task.step((waves, notes), step=step) for step in range(1, 151)]
    assert set(numbers[0]) == {"progress", "generator", "level", "turn", "wave_level", "generator_gradient"}
    for name in ("level", "turn", "wave_level"):
        assert float(numbers[-1][name]) < 0.5 * float(numbers[0][name]), name
    assert all(torch.equal(value, before[name]) for name, value in task.discriminator.state_dict().items())
    generator = task.plain_generator()
    with torch.no_grad():
        made = task.waves(generator(timbre(SEED).expand(4, -1), notes[:4, 0]))
    spectra = [torch.fft.rfft(some[:, 100:400] * torch.hann_window(300)).abs() for some in (made, waves[:4])]
    likeness = torch.nn.functional.cosine_similarity(spectra[0][:, None], spectra[1][None], dim=-1)
    assert torch.equal(likeness.argmax(dim=1), torch.arange(4)) and float(likeness.diagonal().min()) > 0.6


def test_what_regression_measures() -> None:
    """Nothing where the network makes the notes themselves, and by how far it misses them else."""
    settings = config(REGRESSION | {"task.closeness": 1.0})
    task, (waves, notes) = NoteTask(settings), four_notes()
    pictures, (pitch, instrument) = task.pictures(waves), notes.unbind(dim=1)
    asked: list[Tensor] = []

    class Knowing(torch.nn.Module):
        """Makes what it is told, whatever it is asked for."""

        config = task.generator.config

        def forward(self, point: Tensor, pitch: Tensor, progress: float) -> Tensor:
            asked.append(point)
            return picture

    known = Knowing()
    known.weight = torch.nn.Parameter(torch.zeros(()))
    task.generator = known  # type: ignore[assignment]
    heard = audible(pictures)
    assert float(heard.max()) == 1 and float(heard.min()) == 0

    def mean(values: Tensor, weight: Tensor) -> float:
        return float((values * weight).sum() / weight.sum())

    picture = pictures
    found = task.regression(pictures, pitch, instrument, task.turn(1))
    assert float(found["level"]) == 0 and float(found["turn"]) == 0
    # the last samples of a note lie under fewer frames, so that even its own picture does not quite give it back
    again = task.pictures(task.waves(pictures))
    own = mean((again - pictures)[:, 0].abs(), heard + SILENT)
    assert float(found["wave_level"]) == pytest.approx(own)
    # its own point, whatever is drawn, at a closeness of 1
    assert torch.equal(asked[0], timbre(SEED).expand(8, -1))
    picture = pictures + torch.tensor([0.1, 0.8 * 0.5]).reshape(1, 2, 1, 1)  # half of a half turn
    found = task.regression(pictures, pitch, instrument, task.turn(1))
    assert float(found["level"]) == pytest.approx(0.1) and float(found["turn"]) == pytest.approx(math.sqrt(0.5))
    picture = pictures + torch.tensor([0.0, 0.8 * 2]).reshape(1, 2, 1, 1)  # a whole turn
    found = task.regression(pictures, pitch, instrument, task.turn(1))
    assert float(found["turn"]) == pytest.approx(0, abs=1e-5)
    # what lies where nothing is heard counts a little in levels, and not at all in turns
    silent = (heard == 0).float()
    picture = pictures + torch.stack([0.2 * silent, 0.4 * silent], dim=1)
    found = task.regression(pictures, pitch, instrument, task.turn(1))
    assert float(found["level"]) == pytest.approx(mean(0.2 * silent, heard + SILENT))
    assert float(found["turn"]) == pytest.approx(0, abs=1e-5)
    # near points are as probable as all others, and correlated with the instrument's
    task.settings = config(REGRESSION).task  # type: ignore[assignment]
    asked.clear()
    for step in range(1, 251):
        task.regression(pictures, pitch, instrument, task.turn(step))
    away = torch.cat(asked) - 0.8 * timbre(SEED)
    assert float(away.mean()) == pytest.approx(0, abs=0.03) and float(away.std()) == pytest.approx(0.6, abs=0.02)


def timbre(seed: int) -> Tensor:
    """The point that an instrument of eight numbers draws."""
    return normal(torch.tensor([seed]), 0, channels=8, rows=1)[..., 0]


def test_what_is_heard_of_a_note_is_by_decibels() -> None:
    """Of magnitudes, and of the powers of mel bands."""
    decibels = torch.tensor([0.0, -25.0, -50.0, -80.0])
    for power, nats in ((False, math.log(10) / 20), (True, math.log(10) / 10)):
        levels = normalise(torch.stack([decibels * nats - 1, torch.zeros(4)], dim=-1)[None, None])
        heard = audible(levels.permute(0, 3, 1, 2), power=power)
        torch.testing.assert_close(heard, torch.tensor([[[1, 0.5, 0, 0]]]), rtol=0, atol=1e-5)


def test_the_discriminator_takes_part_later() -> None:
    task, batch = NoteTask(config(REGRESSION | {"task.starts_at": 2})), four_notes()
    shown = [set(task.step(batch, step=step)) for step in range(1, 5)]
    assert "penalty" not in shown[0] | shown[1] and "penalty" in shown[2] & shown[3]
    assert shown[3] == shown[0] | {
        *("fake_pitch", "real_pitch", "distance", "penalty", "discriminator", "discriminator_gradient")
    }


def test_a_task_goes_on_to_the_same_bits_through_its_growth() -> None:
    settings, batch = config({"task.steady": 16, "task.growth": 24}), four_notes()
    one = NoteTask(settings)
    expected = []
    for step in range(1, 10):
        if step == 5:
            state = copy.deepcopy(one.state_dict())
            played = one.plain_generator()
        expected.append(one.step(batch, step=step))
    reached = [float(numbers["progress"]) for numbers in expected]
    assert reached == pytest.approx([0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1, 4 / 3])
    # what is played half-grown is what the average plays at that progress, without blocks that have learned nothing
    assert played.config.progress == pytest.approx(1 / 3) and len(played.blocks) == 2
    torch.manual_seed(99)
    other = NoteTask(settings)
    other.load_state_dict(state)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = [other.step(batch, step=step) for step in range(5, 10)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert again == expected[4:]
    for name, network in one.networks().items():
        states = (found.state_dict() for found in (network, other.networks()[name]))
        assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))


def test_growth_waits_and_then_goes_on_evenly() -> None:
    steps = NoteConfig()
    shown = [growth(n * 400_000, steps, 7) for n in (0, 1, 2, 3, 4, 6, 7, 24, 25, 40)]
    assert shown == [0, 0, 0, 0.5, 1, 1, 1.5, 6, 6, 6]
    assert growth(0, NoteConfig(steady=0, growth=0), 7) == 6


def test_real_notes_are_seen_as_coarsely_as_others_are_made() -> None:
    picture = torch.randn(2, 2, 16, 64, dtype=torch.float64)
    torch.testing.assert_close(blurred(picture, 3, 4), picture, rtol=0, atol=0)
    coarse = picture.reshape(2, 2, 8, 2, 32, 2).mean(dim=(3, 5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(blurred(picture, 2, 4), coarse, rtol=0, atol=1e-12)
    torch.testing.assert_close(blurred(picture, 2.25, 4), 0.75 * coarse + 0.25 * picture, rtol=0, atol=1e-12)


def test_learning_rates_are_equalised() -> None:
    """A weight that is stored divided by its deviation, and multiplied when it is used, comes to the same."""
    torch.manual_seed(3)
    layer = Convolution(6, 5, (3, 3)).double()
    stored = (layer.weight.detach() / layer.deviation).requires_grad_(True)
    bias = layer.bias.detach().clone().requires_grad_(True)  # type: ignore[union-attr]
    adam = OptimiserConfig(kind="adam", learning_rate=8e-4, betas=(0.0, 0.99))
    ours = Learner(torch.nn.Sequential(layer), adam, sizes=sizes(layer))
    theirs = torch.optim.Adam([stored, bias], lr=8e-4, betas=(0.0, 0.99), eps=1e-8)
    for n in range(20):
        x = torch.randn(2, 6, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        outputs = layer(x), torch.nn.functional.conv2d(x, stored * layer.deviation, bias, padding=1)
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
        losses = [(made.tanh() - 0.3).square().sum() for made in outputs]
        ours.backward(losses[0])
        ours.schedule(0)
        ours.update()
        theirs.zero_grad()
        losses[1].backward()
        theirs.step()


def test_the_penalty_is_that_of_the_paper() -> None:
    task, (waves, _) = NoteTask(config()), four_notes()
    pictures, moment = task.pictures(waves), task.turn(1)
    fake = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(4)).clamp(-1, 1)
    penalty = float(task.penalty(pictures, fake, moment).detach())
    # by differences in the direction of the gradient, for points that lie on the same lines
    share = uniform(torch.tensor([task.config.seed]), 0, channels=1, rows=8).reshape(8, 1, 1, 1).double()
    mixed = (share * fake + (1 - share) * pictures).requires_grad_(True)
    network = task.discriminator.double()
    (gradient,) = torch.autograd.grad(network(mixed, 3.0)[0].sum(), mixed)
    length = gradient.flatten(1).norm(dim=1).reshape(8, 1, 1, 1)
    with torch.no_grad():
        there, back = (network(mixed + sign * 1e-5 * gradient / length, 3.0)[0].sum() for sign in (1, -1))
    assert float((there - back) / 2e-5) == pytest.approx(float(length.sum()), rel=1e-3)
    assert penalty == pytest.approx(float((length - 1).square().mean()), rel=1e-4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four tones as NSynth lays out notes, of two instruments, at another rate than they are learned at."""
    waves, pitch = four_notes()
    notes = []
    (tmp_path / "notes" / "audio").mkdir(parents=True)
    for number, (wave, place) in enumerate(zip(waves, pitch[:, 0].tolist(), strict=True)):
        name = f"flute_acoustic_{number // 4:03d}"
        note = NoteFile(
            tmp_path / "notes" / "audio" / f"{name}-{60 + place:03d}-100.wav",
            60 + place,
            100,
            name,
            "flute",
            "acoustic",
        )
        write_audio(note.path, wave.repeat_interleave(2), 2000)
        notes.append(note)
    write_examples(tmp_path / "notes", notes, sample_rate=2000)
    return tmp_path


def run(folder: Path, name: str, **changes: Any) -> TrainConfig:
    small = {"data.recordings": str(folder / "notes"), "data.workers": 0, "data.held_out": 2, "batch": 3}
    small |= {"report_every": 1, "save_every": 2, "validate_every": 100, "folder": str(folder / name)}
    return config(small | {"task.steady": 3, "task.growth": 6} | changes)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_stops_goes_on_to_the_same_bits_and_is_an_instrument(folder: Path, workers: int) -> None:
    whole = fastvoc.train(run(folder, "whole", steps=6), device="cpu")
    fastvoc.train(run(folder, "parted", steps=2), device="cpu")
    torch.manual_seed(77)
    parted = fastvoc.train(run(folder, "parted", steps=6, **{"data.workers": workers}), device="cpu")
    assert isinstance(whole, fastvoc.Instrument) and whole.config == parted.config
    assert whole.config.generator.progress == 1.5  # after nine notes and three, three of six more
    states = [state.load(state.latest(folder / name)) for name in ("whole", "parted")]
    found, wanted = (flat({key: saved[key] for key in ("step", "task", "loader", "random")}) for saved in states)
    assert_equal(found, wanted)
    assert torch.equal(whole(61), parted(61)) and whole(61).shape == (500,)
    lines = read_log(folder / "whole" / "log.jsonl")
    assert {"real_pitch", "penalty", "distance", "generator_gradient", "progress"} <= set(lines[0])
    judged = next(line for line in lines if line["kind"] == "validation")
    assert {"seen/profile", "seen/real_pitch_accuracy", "seen/fake_pitch_accuracy"} <= set(judged)
    assert (folder / "whole" / "spectrograms.png").is_file()
    sounds = sorted(path.name for path in (folder / "whole" / "samples").iterdir())
    assert sounds == ["seen-flute_acoustic_000-062-100.wav", "seen-flute_acoustic_001-062-100.wav"]
    best = fastvoc.open(folder / "whole" / "best")
    assert best.config == whole.config and torch.equal(best(60), whole(60))


def test_notes_of_several_folders_may_have_the_same_names(folder: Path) -> None:
    """Each is judged by; and a name that looks like a formula is none."""
    examples = json.loads((folder / "notes" / "examples.json").read_text())
    for name in ("a", "b"):
        shutil.copytree(folder / "notes", folder / name)
        named = {key: {**entry, "instrument_str": r"../$\frac{$"} for key, entry in examples.items()}
        (folder / name / "examples.json").write_text(json.dumps(named))
    judged = {"data.validation": [str(folder / name) for name in ("a", "b")], "data.validation_clips": 16}
    settings = run(folder, "run", steps=1, **GROWN, **judged)
    clips = material_of(settings).clips()["seen"]
    assert len(clips) == 16 and {name.split("-")[-2] for name in clips} <= {"060", "061", "062", "063"}
    fastvoc.train(settings, device="cpu")
    lines = read_log(folder / "run" / "log.jsonl")
    assert any("seen/real_pitch_accuracy" in line for line in lines)
    assert (folder / "run" / "spectrograms.png").is_file()
    assert len(list((folder / "run" / "samples").iterdir())) == 4


def test_no_note_is_trained_on_that_is_judged_by(folder: Path) -> None:
    """Neither where a folder is named twice, nor through a link."""
    (folder / "link").symlink_to(folder / "notes")
    both = [str(folder / name) for name in ("notes", "link", "notes")]

    def split(**changes: Any) -> tuple[set[str], set[str]]:
        data, pitches = run(folder, "run", **{"data.recordings": both} | changes).data, range(60, 64)
        assert isinstance(data, NoteDataConfig)
        training, judged = (Counter(str(note.path.resolve()) for note in part) for part in split_notes(data, pitches))
        assert set(training.values()) == {3}
        return set(training), set(judged)

    training, judged = split()
    assert not training & judged and len(training | judged) == 8 and len(judged) == 2
    examples = json.loads((folder / "notes" / "examples.json").read_text())
    (folder / "some").mkdir()
    (folder / "some" / "audio").symlink_to(folder / "notes" / "audio")
    (folder / "some" / "examples.json").write_text(json.dumps(dict(list(examples.items())[:3])))
    training, judged = split(**{"data.validation": str(folder / "some")})
    assert not training & judged and (len(training), len(judged)) == (5, 3)
    with pytest.raises(ValueError, match="all 24 notes are set aside for validation"):
        split(**{"data.validation": str(folder / "notes")})


def test_a_run_begins_with_the_weights_of_another(folder: Path) -> None:
    grown = {"task.steady": 0, "task.growth": 0, "steps": 1}
    first = fastvoc.train(run(folder, "first", **grown), device="cpu")
    begun = run(folder, "begun", start_from=str(folder / "first"), **grown)
    task = begun.task.build(begun, torch.device("cpu"))
    begin(task, material_of(begun).loader(), strict=True)
    assert torch.equal(task.generator.blocks[3].conv1.weight, first.generator.blocks[3].conv1.weight)
    half = fastvoc.train(run(folder, "half", steps=3), device="cpu")
    assert half.config.generator.progress == 0.5
    with pytest.raises(ValueError, match=r"half: its network had grown to 0\.5 when it was saved"):
        fastvoc.train(run(folder, "begun", start_from=str(folder / "half"), **grown), device="cpu")
    with pytest.raises(ValueError, match=r"its spectrum is another one: spectrum\.samples was 500, is 490"):
        changed = run(folder, "begun", start_from=str(folder / "first"), **grown, **{"data.spectrum.samples": 490})
        fastvoc.train(changed, device="cpu")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data.kind": "recordings", "data.spectrum": None}, "data.spectrum is not a known field"),
        ({"data": {"recordings": "x"}}, "generator gansynth learns from notes, not from recordings"),
        ({"mel": "hifigan"}, "what learns from notes is fed pitches; leave out mel and loss_mel"),
        ({"task": {"kind": "gan"}}, "losses: every weight is zero"),
        ({"weight_norm": "all"}, "weight_norm is all; task notes equalises learning rates: set none"),
        ({"precision": "bfloat16"}, "task notes needs second derivatives: set float32"),
        ({"task.starts_at": 5}, "task.starts_at is 5 and task.regression 0, so that nothing is learned before"),
        ({"accumulate": 2}, "compares the notes of a batch: set 1"),
        ({"compile": True}, "task notes does not compile; leave it out"),
        ({"losses": {"mel": 1}}, "losses of its own; leave out mel"),
        ({"continue_from": "x"}, "one adversary, the mirror of its generator; leave out continue_from"),
        (
            {"generator.progress": 1.5},
            "generator.progress: what task notes trains grows by task.steady and task.growth",
        ),
        ({"data.families": ["flutes"]}, "'flutes' is no family of instruments; did you mean 'flute'?"),
        (
            {"data.spectrum.frames": 64},
            "the generator makes pictures of 32 frames and 1024 bins but the spectrum has 64",
        ),
        ({"generator": {"kind": "hifigan"}}, "generator hifigan does not play notes"),
    ],
)
def test_what_does_not_fit_notes_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        load_config("gansynth-small", {"data.recordings": "x"} | changes)


def test_a_vocoder_needs_a_mel_and_recordings() -> None:
    values = to_dict(load_config("hifigan-v1", {"data.recordings": "x"}))
    with pytest.raises(ValueError, match="mel is missing; name the convention"):
        load_config(values | {"mel": None})
    notes = {"kind": "notes", "recordings": "x"}
    with pytest.raises(ValueError, match="generator hifigan does not play notes; data of kind notes trains gansynth"):
        load_config(values | {"data": notes, "mel": None})
    with pytest.raises(ValueError, match="task notes learns from notes, and data is of kind recordings"):
        load_config("hifigan-v1", {"data.recordings": "x", "task": {"kind": "notes"}})
