"""WaveGlow learns from likelihood, stays invertible while it does, and says which matrix is singular."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_likelihood import recipe
from test_run import assert_equal, copy_of, final, folder, recordings  # noqa: F401  two are fixtures
from torch import Tensor

import fastvoc
from fastvoc import Vocoder
from fastvoc.audio import mel_spectrogram
from fastvoc.models import WaveGlow
from fastvoc.train.config import load_config
from fastvoc.train.health import NotFinite
from fastvoc.train.report.log import read_log
from fastvoc.train.tasks.likelihood import TOTAL, LikelihoodTask

SMALL = {"kind": "waveglow", "mel_bands": 6, "hop": 8, "upsample_kernel_size": 32, "group": 4, "flows": 4}
SMALL |= {"channels": 16, "layers": 3, "early_every": 2}


def run(place: Path, **changes: Any) -> dict[str, Any]:
    return recipe(
        place, generator=SMALL, weight_norm="all", **{"optimiser": {"kind": "adam", "learning_rate": 1e-3}} | changes
    )


def error(network: WaveGlow, wave: Tensor, mel: Tensor) -> float:
    with torch.inference_mode():
        return float((network.inverse(network.transform(wave, mel).z, mel) - wave).abs().max())


def test_every_checkpoint_is_invertible_and_a_run_resumes_to_the_bit(folder: Path) -> None:  # noqa: F811
    whole, parted = (copy_of(folder, name) for name in ("whole", "parted"))
    fastvoc.train(run(whole, steps=6, save_every=2, keep_last=3, report_every=1), device="cpu")
    fastvoc.train(run(parted, steps=2, save_every=2, keep_last=3), device="cpu")
    fastvoc.train(run(parted, steps=6, save_every=2, keep_last=3), device="cpu")
    found, wanted = final(parted), final(whole)
    for name in (".config.report_every", ".best"):
        del found[name], wanted[name]
    assert_equal(found, wanted)
    checkpoints = sorted((whole / "run" / "checkpoints").iterdir())
    assert len(checkpoints) == 3
    wave = 0.5 * torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    for checkpoint in checkpoints:
        vocoder = Vocoder.from_pretrained(checkpoint)
        mel = mel_spectrogram(wave, vocoder.config.mel)[..., :50]
        assert error(vocoder.generator, wave, mel) <= 1e-5  # type: ignore[arg-type]
    line = [line for line in read_log(whole / "run" / "log.jsonl") if line["kind"] == "training"][-1]
    parts = line["noise"] + line["scales"] + line["determinants"]
    assert line[TOTAL] == pytest.approx(parts, rel=1e-5)


def test_tones_become_two_nats_more_likely_in_sixty_steps() -> None:
    config = load_config(run(Path("nowhere"), optimiser={"kind": "adam", "learning_rate": 3e-3, "clip": 10.0}, ema=0))
    task = LikelihoodTask(config)
    time = torch.arange(512) / 8000
    wave = torch.stack([0.3 * torch.sin(2 * math.pi * pitch * time) for pitch in (150, 220, 310, 470)])
    losses = [float(task.step(wave, step=step)[TOTAL]) for step in range(1, 61)]
    assert losses[0] == pytest.approx(float(wave.square().mean()) / 2, rel=1e-4)
    assert min(losses) < losses[0] - 2


def test_a_matrix_that_becomes_singular_is_named_and_the_last_good_state_kept(
    folder: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    update = LikelihoodTask.update

    def broken(task: LikelihoodTask, *arguments: Any) -> Any:
        if task.learner.updates == 3:
            with torch.no_grad():
                task.generator.flows[1].mix.zero_()  # type: ignore[index, union-attr, operator]
        return update(task, *arguments)

    monkeypatch.setattr(LikelihoodTask, "update", broken)
    with pytest.raises(
        NotFinite, match=r"step 3: .*1x1 convolution of flow 1 is singular .*; its weights are of no use"
    ):
        fastvoc.train(run(folder, steps=4), device="cpu")
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == ["step-00000002"]
    kept: Any = Vocoder.from_pretrained(folder / "run").generator
    assert kept.diagnosis() == "" and all(bool(weight.isfinite().all()) for weight in kept.parameters())
