"""A run on disk, so that it can be killed at any moment and goes on as if it had not been.

::

    folder/config.json, model.safetensors       the vocoder of the latest checkpoint
          /best/…                               the vocoder with the least validation error
          /checkpoints/step-00005000/…          a vocoder, and
                                    /training.pt  everything else that the next step depends on
          /train.json                           the settings of the run

A checkpoint is a folder that gets its name when all of it is on the disk, and what lacks that name is swept away.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints import VocoderConfig, save_native

TRAINING = "training.pt"
SETTINGS = "train.json"
CHECKPOINTS = "checkpoints"
BEST = "best"

_PARTIAL = ".partial"

FREE = {
    *("folder", "steps", "report_every", "validate_every", "save_every", "keep_last", "milestone_every"),
    *("data.workers", "data.cache", "data.validation_clips"),
}
"""Settings that may change when a run goes on: no update depends on them."""


def save(
    folder: Path,
    step: int,
    training: dict[str, Any],
    config: VocoderConfig,
    weights: dict[str, Tensor],
    *,
    keep_last: int,
    milestone_every: int | None,
) -> None:
    """Write a checkpoint, then the vocoder of the run, then remove checkpoints that are no longer kept.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int
        Steps that are complete.
    training : dict
        Tensors and plain values.
    config : VocoderConfig
    weights : dict of str to Tensor
        Plain weights of the vocoder.
    keep_last, milestone_every
        As in `TrainConfig`.

    Raises
    ------
    OSError
        If the disk is full; earlier checkpoints are untouched.
    """
    final = folder / CHECKPOINTS / f"step-{step:08d}"
    partial = final.with_name(final.name + _PARTIAL)
    try:
        _sweep(partial)
        partial.mkdir(parents=True)
        save_native(partial, config, weights)
        torch.save(training, partial / TRAINING)
        for path in (*partial.iterdir(), partial):
            _to_disk(path)
        if final.exists():
            _sweep(final)  # of a run that ended here before
        partial.rename(final)
        _to_disk(final.parent)
        save_vocoder(folder, config, weights)
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"{final}: cannot be written ({' '.join(str(error).split())}); make room, then start the run again: "
            "it goes on from its last checkpoint"
        ) from None
    numbered = dict(checkpoints(folder))
    for old in sorted(numbered)[:-keep_last]:
        if milestone_every is None or old % milestone_every:
            _sweep(numbered[old])


def save_vocoder(folder: Path, config: VocoderConfig, weights: dict[str, Tensor]) -> None:
    """Write a vocoder, complete or not at all."""
    save_native(folder, config, weights)
    for path in (folder / "config.json", folder / "model.safetensors", folder):
        _to_disk(path)


def checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and folder of each complete checkpoint of a run."""
    for path in (folder / CHECKPOINTS).glob("step-*"):
        if match := re.fullmatch(r"step-(\d+)", path.name):
            yield int(match[1]), path


def sweep(folder: Path) -> None:
    """Remove what a killed process has left half written."""
    for path in (folder / CHECKPOINTS).glob(f"*{_PARTIAL}"):
        _sweep(path)


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None."""
    return max(checkpoints(folder), default=(0, None))[1]


def load(checkpoint: Path) -> dict[str, Any]:
    """Read what `save` was given as `training`, on the CPU.

    Raises
    ------
    ValueError
        If the file is damaged: no kill does that, but a disk may.
    """
    path = checkpoint / TRAINING
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; a checkpoint to go on from has one") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is damaged ({reason}); remove {checkpoint} to go on from the one before") from None
    return state


def random_state() -> dict[str, Any]:
    """Return the state of PyTorch's random numbers."""
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned; GPUs that are not there any more are left out."""
    torch.set_rng_state(state["cpu"])
    for device, numbers in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(numbers, device)


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Say what has changed from one plain configuration to another, but for what is `FREE`.

    Returns
    -------
    list of str
        Such as ``"optimiser.learning_rate was 0.0002, is 0.0001"``.
    """
    if name in FREE or before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [
            line
            for key in keys
            for line in differences(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [
            line
            for number, (a, b) in enumerate(zip(before, now, strict=True))
            for line in differences(a, b, f"{name}.{number}")
        ]
    return [f"{name} was {before}, is {now}"]


def check_space(folder: Path, needed: int) -> None:
    """Raise before any time is spent if a folder cannot be written or the disk has too little room.

    Parameters
    ----------
    folder : Path
        Made if absent.
    needed : int
        In bytes.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe{_PARTIAL}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror}); name another folder for the run") from None
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: its disk has {free / 1e9:.2f} GB left, but the checkpoints of this run need "
            f"{needed / 1e9:.2f} GB; make room, keep fewer (keep_last) or name another folder"
        )


def _sweep(folder: Path) -> None:
    """Remove a checkpoint so that no half of one keeps its name."""
    if folder.exists():
        doomed = folder if folder.name.endswith(_PARTIAL) else folder.with_name(f"{folder.name}.old{_PARTIAL}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
