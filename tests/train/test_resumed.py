"""Every recipe goes on to the same last bit, whatever its networks, its task and its data have for a state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_recipes import tiny
from test_run import assert_equal, final, hurry

import fastvoc
from fastvoc.config import to_dict
from fastvoc.train.config import load_config, recipes
from fastvoc.train.material import material_of

SIZES = {"hifigan-v2", "hifigan-v3", "bigvgan-v1", "gansynth", "nsynth", "waveglow"}
"""Recipes that differ from others in sizes."""

RECIPES = [name for name in recipes() if name not in SIZES | {"hifigan-finetune"}]  # which starts from a vocoder

SMALL_NOTES: dict[str, Any] = {
    "generator.latent": 4,
    "generator.first": [1, 128],
    "generator.channels": [4, 4, 4, 4],
    "data.spectrum.frames": 8,
    "data.spectrum.samples": 4096,
    "data.spectrum.fft_size": 2048,
    "data.spectrum.hop": 512,
    # grown by two blocks and a half when the run ends
    "task.steady": 2,
    "task.growth": 2,
    "batch": 2,
}


def values(recipe: str, place: Path, **changes: Any) -> dict[str, Any]:
    """Return the settings of a run of tiny networks, of which every part has a state."""
    small = tiny(recipe) | {"data.held_out": 1, "data.validation_clips": 1, "data.workers": 0, "validate_every": 1000}
    if recipe.startswith("bigvgan"):
        small |= {"generator.kernel_sizes": [3], "generator.dilations": [[1, 3]]}
    small |= SMALL_NOTES if recipe.startswith("gansynth") else {"ema": 0.9}
    small |= {"report_every": 1, "save_every": 1000, "steps": 5, "data.recordings": str(place / "data")}
    return to_dict(load_config(recipe, small | {"folder": str(place / "run")} | changes))


def data_for(recipe: str, place: Path) -> Path:
    (place / "data").mkdir(parents=True)
    material_of(load_config(values(recipe, place))).write_tones(place / "data")
    return place


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_of_every_recipe_goes_on_to_the_same_last_bit(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry(monkeypatch.setattr)
    whole, parted = data_for(recipe, tmp_path / "whole"), data_for(recipe, tmp_path / "parted")
    fastvoc.train(values(recipe, whole), device="cpu")
    fastvoc.train(values(recipe, parted, steps=3), device="cpu")
    torch.manual_seed(123)
    fastvoc.train(values(recipe, parted), device="cpu")
    # the end of the first part was judged too, and may have been the best
    found, wanted = (final(place) for place in (parted, whole))
    assert_equal(found | {".best": 0}, wanted | {".best": 0})
