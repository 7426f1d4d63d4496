"""A run on disk, so that it can be killed at any moment and goes on as if it had not been.

::

    folder/config.json, model.safetensors       the vocoder of the latest checkpoint
          /best/…                               the vocoder with the least validation error
          /checkpoints/step-00005000/…          a vocoder, and
                                    /training.pt  everything else that the next step depends on
                     /rescue-00006123/…         the same of a run that had to stop and whose numbers are in doubt
          /train.json                           the settings of the run

A checkpoint is a folder that gets its name when all of it is on the disk, and what lacks that name is swept away.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc.checkpoints import save_native
from fastvoc.checkpoints.formats.native import refuse_foreign
from fastvoc.writing import PARTIAL

TRAINING = "training.pt"
SETTINGS = "train.json"
CHECKPOINTS = "checkpoints"
BEST = "best"

SAMPLES = "samples"
TENSORBOARD = "tensorboard"
SMOKE = "smoke"

OUTPUTS = {BEST, CHECKPOINTS, SAMPLES, TENSORBOARD, SMOKE}
"""Folders that a run makes in its own."""

_HALF = re.compile(rf"(^probe|^(step|rescue)-\d+(\.old)?|\.\d+-\d+){re.escape(PARTIAL)}$")
"""Names of what is not complete: a probe, checkpoints, and files as `fastvoc.writing.temporary_path` calls them."""

FREE = {
    *("folder", "steps", "report_every", "validate_every", "save_every", "keep_last", "milestone_every"),
    *("data.workers", "data.cache", "data.validation_clips"),
    *("data.recordings", "data.root", "data.validation", "data.unseen", "data.mels"),
}
"""Settings that may change when a run goes on: no update depends on them. Where recordings lie is one of them; their
names and order are part of the loader's state."""


def save(
    folder: Path,
    step: int,
    training: dict[str, Any],
    config: Any,
    weights: dict[str, Tensor],
    *,
    keep_last: int,
    milestone_every: int | None,
    doubtful: bool = False,
) -> None:
    """Write a checkpoint, then the vocoder of the run, then remove checkpoints that are no longer kept.

    A rescue, of numbers in doubt, takes the place of the rescue before it, and of nothing else.

    Parameters
    ----------
    folder : Path
        Of the run.
    step : int
        Steps that are complete.
    training : dict
        Tensors and plain values.
    config : VocoderConfig or AutoencoderConfig
    weights : dict of str to Tensor
        Plain weights of the vocoder.
    keep_last, milestone_every
        As in `TrainConfig`.
    doubtful : bool
        Write a rescue.

    Raises
    ------
    OSError
        If the disk is full; earlier checkpoints are untouched.
    """
    final = folder / CHECKPOINTS / f"{'rescue' if doubtful else 'step'}-{step:08d}"
    partial = final.with_name(final.name + PARTIAL)
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
        if not doubtful:
            save_vocoder(folder, config, weights)
    except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(
            f"{unwritable(final, error)}, then start the run again: it goes on from its last checkpoint"
        ) from None
    drop_rescues(folder, but=step if doubtful else None)
    if doubtful:
        return
    numbered = dict(checkpoints(folder))
    for old in sorted(numbered)[:-keep_last]:
        if milestone_every is None or old % milestone_every:
            _sweep(numbered[old])


def unwritable(path: Path, error: Exception) -> str:
    """Say that a file cannot be written, why, and what helps."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return f"{path}: cannot be written ({reason}); make room"


def save_vocoder(folder: Path, config: Any, weights: dict[str, Tensor]) -> None:
    """Write a vocoder, complete or not at all."""
    save_native(folder, config, weights)
    for path in (folder / "config.json", folder / "model.safetensors", folder):
        _to_disk(path)


def checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and folder of each complete checkpoint of a run."""
    return _numbered(folder, "step")


def rescues(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield step and folder of each complete rescue of a run."""
    return _numbered(folder, "rescue")


def drop_rescues(folder: Path, *, but: int | None = None) -> None:
    """Remove the rescues of a run, or all but the one of a step."""
    for step, path in list(rescues(folder)):
        if step != but:
            _sweep(path)


def sweep(folder: Path) -> None:
    """Remove what a killed process has left half written in a run that nobody else trains, and nothing of others.

    A run may lie in a folder with downloads, other runs or its own smoke test, whose files have such names too.
    """
    places = [folder, *(folder / name for name in sorted(OUTPUTS - {SMOKE}))]
    for path in [path for place in places for path in place.glob(f"*{PARTIAL}") if _HALF.search(path.name)]:
        if path.is_dir():
            _sweep(path)
        else:
            path.unlink(missing_ok=True)


def latest(folder: Path) -> Path | None:
    """Return what a run goes on from: its newest complete checkpoint or a newer rescue, or None."""
    # of equal steps the checkpoint: "step" sorts after "rescue"
    found = [*checkpoints(folder), *rescues(folder)]
    return max(found, key=lambda entry: (entry[0], entry[1].name))[1] if found else None


def load(checkpoint: Path) -> dict[str, Any]:
    """Read what `save` was given as `training`, on the CPU.

    Raises
    ------
    ValueError
        If the file is damaged, which no kill does, but a disk may; or if another version has written other things.
    """
    path = checkpoint / TRAINING
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such file; a checkpoint to go on from has one; "
            f"remove {checkpoint} to go on from the one before"
        ) from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is damaged ({reason}); remove {checkpoint} to go on from the one before") from None
    wanted = {"step": int, "config": dict, "task": dict, "loader": dict, "random": dict, "best": float}
    wrong = [name for name, kind in wanted.items() if not isinstance(state, dict) or type(state.get(name)) is not kind]
    if wrong:
        raise ValueError(
            f"{path}: has no {', '.join(wrong)} as this version writes it; use the version of fastvoc that has written "
            f"it, or remove {checkpoint} to go on from the one before"
        )
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
    """Raise before any time is spent if a folder cannot be written, is another project's, or has too little room.

    Parameters
    ----------
    folder : Path
        Made if absent.
    needed : int
        In bytes.
    """
    make_folder(folder)
    refuse_foreign(folder)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: its disk has {free / 1e9:.2f} GB left, but the checkpoints of this run need "
            f"{needed / 1e9:.2f} GB; make room, keep fewer (keep_last) or name another folder"
        )


def make_folder(folder: Path) -> None:
    """Make the folder of a run where it is not there, or raise one sentence if nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f"probe{PARTIAL}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror}); name another folder for the run") from None


def is_run(folder: str | Path) -> bool:
    """Whether a folder is that of a run, whose sounds are no recordings."""
    try:
        settings = json.loads((Path(folder) / SETTINGS).read_bytes())
    except (OSError, ValueError):  # a data set may have a train.json too
        return False
    return isinstance(settings, dict) and {"generator", "mel", "data", "steps", "folder"} <= settings.keys()


def made_by_runs(folder: str, names: Iterable[str]) -> set[str]:
    """Return which folders within a folder hold what runs have written, so that no run is trained on generated sound.

    Parameters
    ----------
    folder : str
    names : iterable of str
        Of folders in it.
    """
    own = OUTPUTS if is_run(folder) else set()
    return {name for name in names if name in own or is_run(Path(folder) / name)}


def _numbered(folder: Path, kind: str) -> Iterator[tuple[int, Path]]:
    for path in (folder / CHECKPOINTS).glob(f"{kind}-*"):
        if match := re.fullmatch(rf"{kind}-(\d+)", path.name):
            yield int(match[1]), path


def _sweep(folder: Path) -> None:
    """Remove a checkpoint so that no half of one keeps its name."""
    if folder.exists():
        doomed = folder if folder.name.endswith(PARTIAL) else folder.with_name(f"{folder.name}.old{PARTIAL}")
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _to_disk(path: Path) -> None:
    """Wait until a file or the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
