"""Whole runs: what they leave on the disk, and that stopping, killing or dividing one changes nothing."""

from __future__ import annotations

import contextlib
import errno
import inspect
import math
import multiprocessing
import os
import pydoc
import random
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import dress, dressed_shapes, numbered_values, period_discriminator, scale_discriminator

import fastvoc
import fastvoc.train.material
from fastvoc import Vocoder
from fastvoc.audio import MelConfig, mel_l1, write_audio
from fastvoc.checkpoints import VocoderConfig
from fastvoc.checkpoints.reading.source import Source
from fastvoc.config import from_dict
from fastvoc.models.discriminators import PeriodDiscriminatorConfig, ScaleDiscriminatorConfig
from fastvoc.train import state
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.foreign.hifigan import read_discriminators
from fastvoc.train.health import NotFinite, Numbers, RunFailed
from fastvoc.train.report.log import read_log
from fastvoc.train.report.report import Report, pictures
from fastvoc.train.run import loop
from fastvoc.train.start import start
from fastvoc.train.tasks.adversary import AdversaryConfig, Discriminators

RATE = 8000
MEL = {"sample_rate": RATE, "fft_size": 64, "hop": 8, "window_size": 64, "bands": 6, "low": 0, "high": 4000}
ADAM = {"kind": "adam", "learning_rate": 1e-3, "betas": [0.8, 0.99]}


def settings(place: Path, **changes: Any) -> dict[str, Any]:
    """A run of milliseconds per step, with everything that has a state: two networks, an average, epochs, draws."""
    decay = {"kind": "exponential", "per": "epoch", "decay": 0.9}
    return {
        "generator": {
            "kind": "hifigan",
            "mel_bands": 6,
            "channels": 8,
            "rates": [4, 2],
            "rate_kernel_sizes": [8, 4],
            "kernel_sizes": [3],
            "dilations": [[1, 2]],
        },
        "mel": MEL,
        "data": {
            "recordings": str(place / "wavs"),
            "held_out": 1,
            "gain": [-6, 0],
            "polarity": True,
            "short": "pad",
            "workers": 0,
        },
        "losses": {"mel": 45, "adversarial": 1, "features": 2},
        "optimiser": ADAM | {"schedule": decay},
        "adversary": {
            "discriminators": [
                {"kind": "period", "channels": 2, "periods": [2]},
                {"kind": "scale", "channels": 16, "scales": 1},
            ],
            "optimiser": ADAM | {"schedule": decay},
            "objective": "least-squares",
            "features_score": True,
            "starts_at": 3,
        },
        "ema": 0.9,
        "steps": 6,
        "batch": 2,
        "segment": 512,
        "seed": 1,
        "folder": str(place / "run"),
        "report_every": 2,
        "validate_every": 1000,
        "save_every": 2,
    } | changes


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "wavs").mkdir()
    for number in range(6):
        wave = 0.5 * torch.rand(2100 + 300 * number, generator=generator) - 0.25
        write_audio(tmp_path / "wavs" / f"{number}.wav", wave, RATE)
    return tmp_path


@pytest.fixture
def folder(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recordings, without what takes longer than a whole run: pictures, and perceptual measures."""
    hurry(monkeypatch.setattr)
    return recordings


def hurry(replace: Callable[[Any, str, Any], None]) -> None:
    for slow in ("_show", "_draw_curves"):
        replace(Report, slow, lambda *arguments: None)
    replace(Report, "_open_tensorboard", lambda *arguments: None)
    replace(fastvoc.train.material, "measure", mel_l1_of)


def mel_l1_of(pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], mel: MelConfig) -> dict[str, float]:
    return {"mel_l1": sum(float(mel_l1(made, recorded, mel)) for recorded, made in pairs.values())}


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for n, part in enumerate(value) for k, v in flat(part, f"{name}.{n}").items()}
    return {name: value}


def final(folder: Path) -> dict[str, Any]:
    """Everything that the latest checkpoint of a run holds, and the network beside it."""
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    weights = fastvoc.open(checkpoint).generator.state_dict()
    return flat(state.load(checkpoint)) | flat(weights, "vocoder")


def assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same or (name.startswith(".config.") and ("folder" in name or "recordings" in name)), name


def copy_of(folder: Path, name: str) -> Path:
    """The same recordings, but no run."""
    shutil.copytree(folder / "wavs", folder / name / "wavs")
    return folder / name


def test_what_a_run_leaves_in_its_folder(recordings: Path) -> None:
    vocoder = fastvoc.train(settings(recordings, steps=5, validate_every=4), device="cpu")
    run = recordings / "run"
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "model.safetensors",
        "train.json",
        "log.jsonl",
        "curves.png",
        "spectrograms.png",
        "best/config.json",
        "best/model.safetensors",
        "checkpoints/step-00000004/training.pt",
        "checkpoints/step-00000005/config.json",
        "checkpoints/step-00000005/model.safetensors",
        "checkpoints/step-00000005/training.pt",
    } <= names
    assert not [name for name in names if "partial" in name or "step-00000002" in name]
    lines = read_log(run / "log.jsonl")
    kinds = [(line["step"], line["kind"]) for line in lines]
    assert kinds == [(2, "training"), (4, "training"), (4, "validation"), (5, "training"), (5, "validation")]
    assert "adversarial" not in lines[0]
    assert {"mel", "adversarial", "features", "discriminators", "steps_per_second"} <= set(lines[3])
    # of five recordings two at a time: the third step begins the second epoch
    training = [line for line in lines if line["kind"] == "training"]
    assert [line["epoch"] for line in training] == [0, 1, 2]
    assert [line["learning_rate"] for line in training] == pytest.approx([1e-3, 0.9e-3, 0.81e-3])
    assert {"seen/mel_l1", "seen/mr_stft", "seen/periodicity", "seen/voiced_f1"} <= set(lines[4])

    mel = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).clamp(-1, 1) - 6
    for opened in (run, run / "checkpoints" / "step-00000005"):
        assert torch.equal(Vocoder.from_pretrained(opened)(mel), vocoder(mel))
    assert Vocoder.from_pretrained(run / "best").config == vocoder.config


def test_the_vocoder_has_the_plain_weights_of_the_average(folder: Path) -> None:
    run = start(from_dict(TrainConfig, settings(folder), "test"), torch.device("cpu"))
    loop(run)
    opened = Vocoder.from_pretrained(folder / "run").generator.state_dict()
    assert opened.keys() == run.config.generator.build().state_dict().keys()
    for name, value in run.task.plain_generator().state_dict().items():
        assert torch.equal(opened[name], value)


def test_a_run_that_stops_and_goes_on_is_the_same_run(folder: Path) -> None:
    whole, parted = copy_of(folder, "whole"), copy_of(folder, "parted")
    fastvoc.train(settings(whole), device="cpu")
    fastvoc.train(settings(parted, steps=3), device="cpu")
    torch.manual_seed(123)
    fastvoc.train(settings(parted), device="cpu")
    assert_equal(final(parted), final(whole))
    steps = [(line["step"], line["kind"]) for line in read_log(parted / "run" / "log.jsonl")]
    training = [(step, "training") for step in (2, 3, 4, 6)]  # the end of the first part was reported too
    assert steps == sorted([*training, (3, "validation"), (6, "validation")])


def test_a_complete_run_stays_as_it_is(folder: Path) -> None:
    fastvoc.train(settings(folder), device="cpu")
    before = final(folder)
    fastvoc.train(settings(folder), device="cpu")
    assert_equal(final(folder), before)


def test_a_vocoder_that_a_kill_has_left_out_is_written(folder: Path) -> None:
    fastvoc.train(settings(folder), device="cpu")
    weights = (folder / "run" / "model.safetensors").read_bytes()
    (folder / "run" / "model.safetensors").unlink()
    fastvoc.train(settings(folder), device="cpu")
    assert (folder / "run" / "model.safetensors").read_bytes() == weights


def test_an_interrupted_run_loses_no_step(folder: Path) -> None:
    whole = copy_of(folder, "whole")
    fastvoc.train(settings(whole, steps=20, save_every=1000), device="cpu")

    def interrupt() -> None:
        while not (folder / "run" / "log.jsonl").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fastvoc.train(settings(folder, steps=20, save_every=1000), device="cpu")
    thread.join()
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    assert 0 < state.load(checkpoint)["step"] < 20
    fastvoc.train(settings(folder, steps=20, save_every=1000), device="cpu")
    assert_equal(final(folder), final(whole))


def train_here(values: dict[str, Any]) -> None:
    """What a process does that may be killed."""
    torch.set_num_threads(1)
    hurry(setattr)
    fastvoc.train(values, device="cpu")


def killed(folder: Path, values: dict[str, Any], kills: int) -> tuple[int, list[int]]:
    """Kill a run at random moments and start it again until it is complete; count kills and name the steps reached."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fastvoc.train.run"])
    seconds, done, steps = 0.5, 0, [0]
    while True:
        process = processes.Process(target=train_here, args=(values,))
        process.start()
        process.join(random.uniform(0, seconds) if done < kills else None)
        if process.exitcode is not None:
            assert process.exitcode == 0
            return done, steps
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        done += 1
        if state.latest(folder / "run") is not None:
            steps.append(int(final(folder)[".step"]))  # what is there opens, whenever the kill came
        if len(steps) < 2 or steps[-1] == steps[-2]:
            seconds *= 1.3  # too short to get anywhere on this machine


def whole_run(folder: Path, values: dict[str, Any]) -> None:
    processes = multiprocessing.get_context("forkserver")
    process = processes.Process(target=train_here, args=(values,))
    process.start()
    process.join()
    assert process.exitcode == 0


def check_kills(folder: Path, *, steps: int, kills: int, least: int) -> None:
    whole, torn = copy_of(folder, "whole"), copy_of(folder, "torn")
    values = {"steps": steps, "save_every": 1}
    done, reached = killed(torn, settings(torn, **values), kills)
    whole_run(whole, settings(whole, **values))
    assert done >= least, f"the run was complete after {done} kills"
    assert reached == sorted(reached)
    assert_equal(final(torn), final(whole))
    assert not list((torn / "run").rglob("*.partial"))


def test_a_run_that_is_killed_goes_on_to_the_same_last_bit(folder: Path) -> None:
    check_kills(folder, steps=24, kills=2, least=1)


@pytest.mark.slow
def test_a_run_that_is_killed_thirty_times_goes_on_to_the_same_last_bit(folder: Path) -> None:
    check_kills(folder, steps=600, kills=30, least=10)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"optimiser": ADAM | {"learning_rate": 2e-3}}, "optimiser.learning_rate was 0.001, is 0.002"),
        ({"seed": 2}, "seed was 1, is 2"),
        ({"batch": 4, "ema": 0.0}, "ema was 0.9, is 0.0; batch was 2, is 4"),
    ],
)
def test_a_run_with_another_configuration_is_refused(folder: Path, changes: dict[str, Any], difference: str) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    with pytest.raises(ValueError, match=r"run: holds a run of 2 steps with another configuration") as raised:
        fastvoc.train(settings(folder, **changes), device="cpu")
    assert difference in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generator.slope": math.inf}, "generator.slope is inf; Input should be a finite number"),
        ({"mel.floor": math.nan}, "mel.floor is nan; Input should be a finite number"),
        ({"data.gain": [-6, math.inf]}, "data.gain.1 is inf; Input should be a finite number"),
        ({"mel.normalization.unknown": True}, "mel.normalization is not known, so no mel of a recording can be"),
        ({"data.recordings": ""}, 'data: "" names no folder'),
        ({"data.validation": ["  "]}, 'data: "" names no folder'),
        ({"data.workers": 10**9}, "data.workers is 1000000000; Input should be less than or equal to 256"),
        ({"seed": -1}, "seed is -1; Input should be greater than or equal to 0"),
        (
            {"losses.stft": 1},
            "losses.stft: an FFT of 1024 samples needs a segment of more than 512, not 512",
        ),
        ({"losses.stft.resolutions": []}, "losses.stft.resolutions is \\(?.*; .* at least 1 item"),
        ({"losses.stft.resolutions": [[64, 16, 128]]}, "a window of 128 samples is longer than its FFT of 64"),
    ],
)
def test_settings_that_no_step_can_use_are_refused_where_they_are_read(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        load_config(settings(tmp_path), changes)


def test_a_run_whose_first_step_fails_may_be_started_with_other_settings(folder: Path) -> None:
    with pytest.raises(RunFailed, match=r"needs at least 29 .*; no step has been made yet"):
        fastvoc.train(settings(folder, segment=8), device="cpu")
    fastvoc.train(settings(folder, steps=1), device="cpu")
    assert final(folder)[".step"] == 1


def test_a_generator_with_a_condition_is_refused(folder: Path) -> None:
    values = settings(folder)
    values["generator"]["condition_channels"] = 2
    with pytest.raises(ValueError, match="conditioned on 2 channels, and recordings come with none"):
        fastvoc.train(values, device="cpu")


@pytest.mark.parametrize(
    ("value", "what"), [(1.5, "a float"), (torch.ones(3), r"of shape \(3,\)"), (torch.ones(1), r"of shape \(1,\)")]
)
def test_what_a_task_returns_and_is_no_number_is_named(value: Any, what: str) -> None:
    with pytest.raises(TypeError, match=f"returns as 'level' is {what}; expected a tensor with one number"):
        Numbers().add(1, {"level": value})


def test_a_step_may_have_nothing_to_say() -> None:
    numbers = Numbers()
    numbers.add(1, {})
    numbers.check()
    assert set(numbers.take()) == {"steps_per_second"}


def test_changes_may_be_allowed(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    fastvoc.train(settings(folder, seed=2, batch=4), allow_changes=True, device="cpu")
    assert final(folder)[".step"] == 6
    assert final(folder)[".config.seed"] == 2


def test_networks_of_another_size_cannot_go_on(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    values = settings(folder)
    values["generator"]["channels"] = 16
    with pytest.raises(ValueError, match="networks and optimisers are not those of the changed configuration"):
        fastvoc.train(values, allow_changes=True, device="cpu")


def test_what_no_update_depends_on_may_change(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    moved = folder / "moved"
    (folder / "run").rename(moved)
    fastvoc.train(settings(folder, folder=str(moved), report_every=1, save_every=3, keep_last=5), device="cpu")
    assert [step for step, _ in sorted(state.checkpoints(moved))] == [2, 3, 6]


def test_other_recordings_are_refused_with_the_remedy(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    (folder / "wavs" / "0.wav").unlink()
    with pytest.raises(ValueError, match=r"run: the saved run .* were 5, are 4: 1 went \(0.wav\).*--allow-changes"):
        fastvoc.train(settings(folder), device="cpu")


def test_data_that_shrank_leaves_epoch_and_learning_rate_where_they_were(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2, report_every=1), device="cpu")
    for number in (1, 2, 4):
        (folder / "wavs" / f"{number}.wav").unlink()
    fastvoc.train(settings(folder, report_every=1), allow_changes=True, device="cpu")
    lines = [line for line in read_log(folder / "run" / "log.jsonl") if line["kind"] == "training"]
    # of 5 recordings in twos an epoch has 2 steps; then, of 2, one
    assert [line["epoch"] for line in lines] == [0, 0, 1, 2, 3, 4]
    assert [line["learning_rate"] for line in lines] == pytest.approx([1e-3 * 0.9**n for n in (0, 0, 1, 2, 3, 4)])


def test_the_same_recordings_may_be_named_in_another_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def go_on(name: str, steps: int) -> None:
        values = settings(folder, steps=steps)
        values["data"]["recordings"] = name
        fastvoc.train(values, device="cpu")
        assert final(folder)[".step"] == steps

    listed = folder / "list.txt"
    listed.write_text("\n".join(path.name for path in sorted((folder / "wavs").iterdir())))
    names = ["wavs", "wavs/", "./wavs", str(folder / "wavs"), "wavs/*.wav"]
    for steps, name in enumerate(names, start=1):
        go_on(name, steps)
    (folder / "wavs").rename(folder / "elsewhere")
    go_on("elsewhere", len(names) + 1)
    listed.rename(folder / "elsewhere" / "list.txt")
    go_on("elsewhere/list.txt", len(names) + 2)


def test_the_last_checkpoints_and_the_milestones_are_kept(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=8, save_every=1, keep_last=2, milestone_every=3), device="cpu")
    assert [step for step, _ in sorted(state.checkpoints(folder / "run"))] == [3, 6, 7, 8]


def test_the_best_is_the_one_with_the_least_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr("fastvoc.train.material.measure", lambda pairs, mel: {"mel_l1": next(errors)})
    fastvoc.train(settings(folder, validate_every=2, save_every=2, keep_last=9), device="cpu")
    best = (folder / "run" / "best" / "model.safetensors").read_bytes()
    checkpoints = dict(state.checkpoints(folder / "run"))
    assert best == (checkpoints[4] / "model.safetensors").read_bytes()
    assert best != (checkpoints[6] / "model.safetensors").read_bytes()
    assert [state.load(checkpoints[step])["best"] for step in (2, 4, 6)] == [3, 1, 1]


def test_the_best_is_remembered_by_a_run_that_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([1.0, 2.0])
    monkeypatch.setattr("fastvoc.train.material.measure", lambda pairs, mel: {"mel_l1": next(errors)})
    fastvoc.train(settings(folder, steps=2), device="cpu")
    best = (folder / "run" / "best" / "model.safetensors").read_bytes()
    fastvoc.train(settings(folder, steps=4), device="cpu")
    assert next(errors, None) is None
    assert (folder / "run" / "best" / "model.safetensors").read_bytes() == best
    assert (folder / "run" / "model.safetensors").read_bytes() != best
    assert final(folder)[".best"] == 1


def test_voices_that_were_trained_on_decide_what_is_best(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time the seen voices are judged first, then the unseen ones; here they move in opposite directions."""
    shutil.copytree(folder / "wavs", folder / "others")
    errors = iter([1.0, 6.0, 2.0, 5.0, 3.0, 4.0])
    monkeypatch.setattr("fastvoc.train.material.measure", lambda pairs, mel: {"mel_l1": next(errors)})
    values = settings(folder, validate_every=2, save_every=2, keep_last=9)
    values["data"]["unseen"] = [str(folder / "others")]
    fastvoc.train(values, device="cpu")
    assert next(errors, None) is None
    lines = [line for line in read_log(folder / "run" / "log.jsonl") if line["kind"] == "validation"]
    assert [(line["seen/mel_l1"], line["unseen/mel_l1"]) for line in lines] == [(1, 6), (2, 5), (3, 4)]
    first = dict(state.checkpoints(folder / "run"))[2]
    best = folder / "run" / "best"
    assert (best / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    assert final(folder)[".best"] == 1


def saved(folder: Path, step: int, **kept: Any) -> None:
    config = from_dict(TrainConfig, settings(folder), "test")
    torch.manual_seed(step)
    weights = config.generator.build().state_dict()
    kept = {"keep_last": 3, "milestone_every": None} | kept
    vocoder = VocoderConfig(generator=config.generator, mel=config.mel)
    state.save(folder / "run", step, {"step": step}, vocoder, weights, **kept)


def test_no_checkpoint_has_its_name_before_all_of_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves is what was synced: every file, then the folder, then its new name, then the vocoder."""
    events: list[tuple[str, int]] = []
    sync, rename = os.fsync, Path.rename

    def syncing(handle: int) -> None:
        sync(handle)
        events.append(("synced", os.fstat(handle).st_ino))

    def renaming(path: Path, target: Path) -> Path:
        events.append(("renamed", path.stat().st_ino))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "rename", renaming)
    saved(tmp_path, 7)
    run = tmp_path / "run"
    checkpoint = run / "checkpoints" / "step-00000007"
    named = events.index(("renamed", checkpoint.stat().st_ino))
    files = {path.stat().st_ino for path in checkpoint.iterdir()}
    assert len(files) == 3
    assert {number for kind, number in events[:named] if kind == "synced"} >= {*files, checkpoint.stat().st_ino}
    after = {number for kind, number in events[named:] if kind == "synced"}
    assert checkpoint.parent.stat().st_ino in after
    assert {path.stat().st_ino for path in (run / "config.json", run / "model.safetensors", run)} <= after


@pytest.mark.parametrize("again", [False, True], ids=["one that is no longer kept", "one of the same step"])
def test_a_checkpoint_that_is_half_removed_does_not_keep_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    saved(tmp_path, 1)

    def broken(folder: Path, **options: Any) -> None:
        next(path for path in sorted(Path(folder).iterdir()) if path.is_file()).unlink()
        raise OSError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", broken)
        with contextlib.suppress(OSError):
            saved(tmp_path, 1 if again else 2, keep_last=1)
    found = dict(state.checkpoints(tmp_path / "run"))
    assert set(found) == (set() if again else {2})
    for path in found.values():
        assert {each.name for each in path.iterdir()} == {"config.json", "model.safetensors", "training.pt"}
    state.sweep(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_loss_that_is_not_finite_is_named_and_the_last_good_state_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return mel_l1(*arguments) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr("fastvoc.train.tasks.losses.mel_l1", broken)
    with pytest.raises(NotFinite, match=r"step 4: the loss term 'mel' is nan; the update of the generator was left"):
        fastvoc.train(settings(folder), device="cpu")
    assert final(folder)[".step"] == 4
    assert all(bool(v.isfinite().all()) for v in final(folder).values() if isinstance(v, torch.Tensor))
    monkeypatch.setattr("fastvoc.train.tasks.losses.mel_l1", mel_l1)
    fastvoc.train(settings(folder), device="cpu")
    assert final(folder)[".step"] == 6


def test_gradients_that_overflow_in_half_precision_are_no_error() -> None:
    for may, names in ((True, {"mel": 1.0, "generator_gradient": math.inf}), (False, {"mel": 1.0})):
        numbers = Numbers(gradients_may_overflow=may)
        numbers.add(1, {name: torch.tensor(value) for name, value in names.items()})
        numbers.check()
    numbers.add(2, {"generator_gradient": torch.tensor(math.inf)})
    with pytest.raises(NotFinite, match="step 2: the norm of 'generator_gradient' is inf"):
        numbers.check()


def test_numbers_are_means_over_the_steps_in_which_they_are() -> None:
    numbers = Numbers()
    numbers.add(1, {"mel": torch.tensor(1.0)})
    numbers.add(2, {"mel": torch.tensor(3.0), "features": torch.tensor(5.0)})
    means = numbers.take()
    assert (means["mel"], means["features"]) == (2, 5)
    assert means["steps_per_second"] > 0


def test_a_full_disk_is_one_sentence_and_harms_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    before = final(folder)
    save = torch.save

    def full(value: Any, path: Path) -> None:
        save({}, path)
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos\n704 vs 598")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"step-00000004: cannot be written \(.*unexpected pos 704.*\); make room"):
            fastvoc.train(settings(folder), device="cpu")
    assert_equal(final(folder), before)
    assert not list((folder / "run").rglob("*.partial"))


def test_too_little_room_is_seen_before_the_first_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"its disk has 0\.00 GB left, but the checkpoints of this run need"):
        fastvoc.train(settings(folder), device="cpu")
    assert not (folder / "run" / "log.jsonl").exists()


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(OSError, match=r"file.run: cannot be written .*; name another folder"):
        fastvoc.train(settings(folder, folder=str(folder / "file" / "run")), device="cpu")


def test_no_recordings(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="names no recordings"):
        fastvoc.train(settings(folder), data=folder / "empty", device="cpu")
    with pytest.raises(FileNotFoundError):
        fastvoc.train(settings(folder), data=folder / "absent", device="cpu")


def test_what_a_killed_process_left_half_written_is_swept_away(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    half = folder / "run" / "checkpoints" / "step-00000009.partial"
    half.mkdir()
    (half / "training.pt").write_bytes(b"PK")
    for name in ("model.safetensors.1-1.partial", "samples/a.wav.1-1.partial"):  # each process has a name of its own
        (folder / "run" / name).parent.mkdir(exist_ok=True)
        (folder / "run" / name).write_bytes(b"half")
    fastvoc.train(settings(folder), device="cpu")
    assert final(folder)[".step"] == 6
    assert not list((folder / "run").rglob("*.partial"))


def test_what_others_have_not_completed_is_left_to_them(folder: Path) -> None:
    run = folder / "run"
    others = {
        "music.zip.partial",
        "downloads/corpus.tar.partial",
        "another-run/model.safetensors.1-1.partial",
        "smoke/model.safetensors.1-1.partial",
        "checkpoints/mine.partial/notes.txt",
    }
    for name in others:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"half")
    fastvoc.train(settings(folder, steps=2), device="cpu")
    assert {name for name in others if (run / name).read_bytes() == b"half"} == others


def test_a_checkpoint_that_lacks_its_training_is_named_with_the_remedy(folder: Path) -> None:
    fastvoc.train(settings(folder), device="cpu")
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    (checkpoint / "training.pt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"training\.pt: no such file; .* remove .*step-00000006 to go on from the"
    ):
        fastvoc.train(settings(folder, steps=8), device="cpu")
    shutil.rmtree(checkpoint)
    fastvoc.train(settings(folder, steps=8), device="cpu")
    assert final(folder)[".step"] == 8


def test_a_smoke_test_has_a_folder_of_its_own_and_is_made_anew_each_time(folder: Path) -> None:
    for channels in (8, 16):
        values = settings(folder)
        values["generator"]["channels"] = channels
        vocoder = fastvoc.train(values, smoke=True, device="cpu")
        assert vocoder.config.generator.channels == channels  # type: ignore[union-attr]
    assert [path.name for path in (folder / "run").iterdir()] == ["smoke"]
    fastvoc.train(settings(folder, steps=2), device="cpu")
    before = final(folder)
    fastvoc.train(settings(folder), smoke=True, device="cpu")
    assert_equal(final(folder), before)


def test_a_run_within_its_own_data_hears_none_of_its_samples(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Report, "_draw_curves", lambda *arguments: None)
    monkeypatch.setattr(pictures, "save", lambda *arguments: None)
    monkeypatch.setattr(Report, "_open_tensorboard", lambda *arguments: None)
    place = str(recordings / "wavs" / "run")
    fastvoc.train(settings(recordings, folder=place, steps=2), device="cpu")
    assert list((recordings / "wavs" / "run" / "samples").glob("*.wav"))
    fastvoc.train(settings(recordings, folder=place, steps=4), device="cpu")
    checkpoint = state.latest(recordings / "wavs" / "run")
    assert checkpoint is not None
    assert state.load(checkpoint)["step"] == 4


def test_what_is_worth_keeping_is_kept_before_anything_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(Report, "numbers", lambda self, step, numbers: seen.append(final(folder)[".step"]))
    monkeypatch.setattr(Report, "validation", lambda self, step, *arguments: seen.append(final(folder)[".step"]))
    fastvoc.train(settings(folder, steps=4, validate_every=2, save_every=2), device="cpu")
    assert seen == [2, 2, 4, 4]


def test_neither_a_failed_validation_nor_a_best_that_cannot_be_written_ends_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save, calls = state.save_vocoder, []

    def full(place: Path, *arguments: Any) -> None:
        if place.name == "best" and len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(place, *arguments)

    def judge(pairs: Any, mel: MelConfig) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no\nroom on the device")
        return {"mel_l1": float(len(calls))}

    monkeypatch.setattr(state, "save_vocoder", full)
    monkeypatch.setattr("fastvoc.train.material.measure", judge)
    fastvoc.train(settings(folder, validate_every=2, save_every=2), device="cpu")
    assert "best: cannot be written (No space left on device); make room; training goes on" in caplog.text
    assert "step 4: the validation failed (RuntimeError: no room on the device); training goes on" in caplog.text
    assert final(folder)[".step"] == 6
    # what was not written is not the best
    assert final(folder)[".best"] == 3
    assert (folder / "run" / "best" / "model.safetensors").is_file()


def test_a_damaged_checkpoint_is_named(folder: Path) -> None:
    fastvoc.train(settings(folder), device="cpu")
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    (checkpoint / "training.pt").write_bytes((checkpoint / "training.pt").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000006.training\.pt: is damaged .* to go on from the one before"):
        fastvoc.train(settings(folder, steps=8), device="cpu")
    shutil.rmtree(checkpoint)
    fastvoc.train(settings(folder, steps=8), device="cpu")
    assert final(folder)[".step"] == 8


def test_a_setting_that_a_version_before_did_not_have_is_no_change(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=1), device="cpu")
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    saved = state.load(checkpoint)
    del saved["config"]["continue_from"], saved["config"]["adversary"]["discriminators"][1]["strides"]
    torch.save(saved, checkpoint / state.TRAINING)
    fastvoc.train(settings(folder, steps=2), device="cpu")
    assert final(folder)[".step"] == 2


def test_starting_from_a_vocoder_and_the_discriminators_of_a_run(folder: Path) -> None:
    fastvoc.train(settings(folder), device="cpu")
    first = Vocoder.from_pretrained(folder / "run").generator
    values = settings(
        folder, folder=str(folder / "fine"), start_from=str(folder / "run"), start_adversary_from=str(folder / "run")
    )
    run = start(from_dict(TrainConfig, values, "test"), torch.device("cpu"))
    for name, value in run.task.plain_generator().state_dict().items():
        torch.testing.assert_close(value, first.state_dict()[name], rtol=1e-6, atol=1e-7)
    old = final(folder)
    assert run.task.adversary is not None
    for name, value in run.task.adversary.network.state_dict().items():
        assert torch.equal(value, old[f".task.discriminators.{name}"])
    assert run.step == 0


def test_a_vocoder_of_another_network_or_mel_is_no_beginning(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=1), device="cpu")
    for changes, difference in (
        ({"mel": MEL | {"high": 3000}}, "its mel is another one: mel.high was 4000"),
        ({"mel": MEL | {"sample_rate": 16000}}, "mel.sample_rate was 8000, is 16000"),
    ):
        values = settings(folder, folder=str(folder / "fine"), start_from=str(folder / "run"), **changes)
        with pytest.raises(ValueError, match="start_from") as raised:
            fastvoc.train(values, device="cpu")
        assert difference in str(raised.value)


def test_discriminators_that_do_not_fit_are_refused(folder: Path) -> None:
    fastvoc.train(settings(folder, steps=1), device="cpu")
    values = settings(folder, folder=str(folder / "fine"), start_adversary_from=str(folder / "run"))
    values["adversary"]["discriminators"][0]["channels"] = 4
    with pytest.raises(ValueError, match=r"start_adversary_from: its discriminators are others"):
        fastvoc.train(values, device="cpu")


def test_an_adversary_is_taken_only_where_there_are_two(folder: Path) -> None:
    alone: dict[str, Any] = {"adversary": None, "losses": {"mel": 45}}
    fastvoc.train(settings(folder, steps=1, **alone), device="cpu")
    fine = {"folder": str(folder / "fine"), "start_adversary_from": str(folder / "run")}
    with pytest.raises(ValueError, match=r"start_adversary_from .*run.*: that run has no discriminators"):
        fastvoc.train(settings(folder, **fine), device="cpu")
    with pytest.raises(ValueError, match=r"start_adversary_from .*run: the settings have no adversary"):
        fastvoc.train(settings(folder, **fine, **alone), device="cpu")
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"start_adversary_from .*empty: holds no checkpoint of a run"):
        fastvoc.train(settings(folder, **fine | {"start_adversary_from": str(folder / "empty")}), device="cpu")
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    (checkpoint / state.TRAINING).unlink()
    with pytest.raises(FileNotFoundError, match=r"training\.pt: no such file; a checkpoint to go on from has one"):
        state.load(checkpoint)


def test_official_discriminators_are_taken(tmp_path: Path) -> None:
    """Weights filled by a rule under the official names make the scores that they make in our own spelling."""
    networks = {
        "mpd": PeriodDiscriminatorConfig(channels=2).build(),
        "msd": ScaleDiscriminatorConfig(channels=16).build(),
    }
    tables = {"mpd": period_discriminator(), "msd": scale_discriminator()}
    tensors = {name: numbered_values(dressed_shapes(networks[name], tables[name])) for name in networks}
    torch.save({**tensors, "steps": 7, "epoch": 1}, tmp_path / "do_00000007")
    kinds = [{"kind": "scale", "channels": 16}, {"kind": "period", "channels": 2}]
    values = {"discriminators": kinds, "optimiser": ADAM, "objective": "least-squares"}
    config = from_dict(AdversaryConfig, values, "test")
    ours = Discriminators(config).double().eval()
    ours.load_state_dict(read_discriminators(Source.find(tmp_path / "do_00000007", None, ()), config))
    dressed = [dress(networks[name], tables[name], numbered_values) for name in ("msd", "mpd")]
    wave = torch.rand(1, 1, 1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    wanted = [maps[-1] for network in dressed for maps in network(wave)]
    for maps, score in zip(ours(wave), wanted, strict=True):
        assert torch.equal(maps[-1], score)


def test_another_file_is_no_official_pair(tmp_path: Path) -> None:
    torch.save({"generator": {"weight": torch.zeros(1)}}, tmp_path / "g_1")
    values = {"discriminators": [{"kind": "period"}], "optimiser": ADAM, "objective": "least-squares"}
    with pytest.raises(ValueError, match="g_1: holds no 'mpd'; needs the do_ file"):
        read_discriminators(Source.find(tmp_path / "g_1", None, ()), from_dict(AdversaryConfig, values, "test"))


def test_a_pair_has_no_discriminators_of_another_kind(tmp_path: Path) -> None:
    torch.save({"mpd": {}, "msd": {}}, tmp_path / "do_1")
    values = {"discriminators": [{"kind": "melgan"}], "optimiser": ADAM, "objective": "least-squares"}
    with pytest.raises(ValueError, match="do_1: holds no melgan discriminator; only scale and period"):
        read_discriminators(Source.find(tmp_path / "do_1", None, ()), from_dict(AdversaryConfig, values, "test"))


def train_apart(rank: int, port: int, values: dict[str, Any]) -> None:
    """One of two processes, as torchrun starts them."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2"
    )
    train_here(values)


def test_two_processes_train_like_one_with_the_whole_batch(folder: Path) -> None:
    """Sums in another order differ in the last bits, which Adam's first updates of tiny gradients enlarge."""
    whole, shared = copy_of(folder, "whole"), copy_of(folder, "shared")
    changes: dict[str, Any] = {"batch": 4, "report_every": 1, "steps": 5, "ema": 0.0}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = multiprocessing.get_context("forkserver")
    pair = [processes.Process(target=train_apart, args=(rank, port, settings(shared, **changes))) for rank in (0, 1)]
    for process in pair:
        process.start()
    fastvoc.train(settings(whole, **changes), device="cpu")
    for process in pair:
        process.join()
        assert process.exitcode == 0
    lines = [read_log(each / "run" / "log.jsonl") for each in (whole, shared)]
    assert len(lines[0]) == len(lines[1]) == 6
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"time", "steps_per_second", "kind"}:
            assert two[name] == pytest.approx(one[name], rel=1e-4), (one["step"], name)


def test_a_batch_that_cannot_be_divided_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvoc.train.learning.parallel.world_size", lambda: 4)
    with pytest.raises(ValueError, match="batch 6 cannot be divided among 4 processes in 1 parts; make it a multiple"):
        fastvoc.train(settings(folder, batch=6), device="cpu")


@pytest.mark.parametrize("form", [str, Path])
def test_recordings_may_be_several_strings_or_paths(folder: Path, form: Callable[[Path], Any]) -> None:
    (folder / "more").mkdir()
    (folder / "wavs" / "5.wav").rename(folder / "more" / "5.wav")
    sources = [form(folder / "wavs"), form(folder / "more")]
    values = settings(folder, steps=1, validate_every=1)
    fastvoc.train(values, data=sources, folder=form(folder / "one"), device="cpu")
    fastvoc.train(values, changes={"data.recordings": tuple(sources), "folder": form(folder / "two")}, device="cpu")
    for name in ("one", "two"):
        assert load_config(folder / name / "train.json").data.recordings == tuple(map(str, sources))
    config = load_config(values, {"data.recordings": form(folder), "data.root": form(folder), "data.mels": None})
    assert (config.data.recordings, config.data.root) == ((str(folder),), str(folder))
    assert load_config("hifigan-finetune", {"data.recordings": "x", "data.mels": form(folder)}).data.mels == str(folder)
    with pytest.raises(ValueError, match=r"^config: data: recordings is empty; name a folder"):
        fastvoc.train(values, data=[], device="cpu")
    with pytest.raises(ValueError, match=r"^config: data.recordings.1 is 3; Input should be a valid string$"):
        fastvoc.train(values, changes={"data.recordings": [form(folder), 3]}, device="cpu")


def test_help_shows_how_training_is_called() -> None:
    assert inspect.signature(fastvoc.train) == inspect.signature(fastvoc.train.run.train)
    text = pydoc.render_doc(fastvoc.train, renderer=pydoc.plaintext)
    assert "\n    train(config: " in text
    assert "data : str, Path or sequence of them, optional" in text


def test_a_batch_that_processes_cannot_divide_into_parts_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvoc.train.learning.parallel.world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"batch 6 cannot be divided among 2 processes in 2 parts; .* multiple of 4"):
        fastvoc.train(settings(folder, batch=6, accumulate=2), device="cpu")


def test_the_room_of_training_can_be_called_and_entered() -> None:
    import fastvoc.train.tasks.losses

    assert callable(fastvoc.train)
    assert fastvoc.train.tasks.losses.SCALES
    with pytest.raises(FileNotFoundError, match="is neither a recipe"):
        fastvoc.train("no-such-recipe")


@pytest.mark.parametrize(
    ("surrounding"),
    [torch.inference_mode, torch.no_grad, lambda: torch.autocast("cpu", dtype=torch.bfloat16)],
    ids=["inference mode", "without gradients", "autocast"],
)
def test_what_surrounds_a_run_changes_no_bit_of_it(folder: Path, surrounding: Callable[[], Any]) -> None:
    plain, surrounded = (copy_of(folder, name) for name in ("plain", "surrounded"))
    fastvoc.train(settings(plain, steps=4), device="cpu")
    with surrounding():
        fastvoc.train(settings(surrounded, steps=4), device="cpu")
    assert_equal(final(surrounded), final(plain))


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ("2", "WORLD_SIZE=2 says that a launcher has started processes, but environment variable RANK expected"),
        ("x", "WORLD_SIZE=x is no number of processes; use torchrun, or unset it"),
        ("0", "WORLD_SIZE=0 is no number of processes"),
    ],
)
def test_what_no_launcher_says_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: str, sentence: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=sentence):
        fastvoc.train(settings(folder), device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "potato", "meta"])
def test_a_device_that_is_not_there_is_refused_at_once(folder: Path, device: str) -> None:
    with pytest.raises(ValueError, match=device.split(":", maxsplit=1)[0]):
        fastvoc.train(settings(folder), device=device)
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("edit", "missing"),
    [
        (lambda saved: torch.zeros(2), "step, config, task, loader, random, best"),
        (lambda saved: {name: value for name, value in saved.items() if name != "loader"}, "loader"),
        (lambda saved: saved | {"step": "9"}, "step"),
    ],
)
def test_a_checkpoint_of_another_version_is_named(folder: Path, edit: Callable[[Any], Any], missing: str) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")
    checkpoint = state.latest(folder / "run")
    assert checkpoint is not None
    torch.save(edit(state.load(checkpoint)), checkpoint / state.TRAINING)
    with pytest.raises(ValueError, match=f"has no {missing} as this version writes it"):
        fastvoc.train(settings(folder, steps=3), device="cpu")
