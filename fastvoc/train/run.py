"""The loop: steps, and now and then a report, a validation, a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from fastvoc.train import parallel
from fastvoc.train.captured import CapturedStep
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.report import Report
from fastvoc.train.smoke import smoke_config
from fastvoc.train.start import Run, start
from fastvoc.train.watch import Interruption, NotFinite, Numbers
from fastvoc.vocoder import Vocoder


def train(
    config: str | Path | Mapping[str, Any] | TrainConfig,
    *,
    data: str | Path | None = None,
    folder: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    smoke: bool = False,
    allow_changes: bool = False,
    device: str | torch.device | None = None,
) -> Vocoder:
    """Train a vocoder, or go on with a run.

    Parameters
    ----------
    config : str, Path, mapping or TrainConfig
        The name of a recipe, a YAML or JSON file, plain values, or what `load_config` returns.
    data : str or Path, optional
        Recordings to train on (`data.recordings`): a folder, a glob, a list.
    folder : str or Path, optional
        Where the run is written. A run that is there goes on, as if it had never stopped.
    changes : mapping of str to object, optional
        Other values that replace the configuration's, as in `load_config`.
    smoke : bool
        Make three steps on generated tones, to see that everything works here.
    allow_changes : bool
        Go on with a run although its configuration has changed.
    device : str or torch.device, optional
        By default a GPU where there is one; under torchrun that of `LOCAL_RANK`.

    Returns
    -------
    Vocoder
        Of the last step; it also lies in the folder, for `Vocoder.from_pretrained`.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        One sentence, before any time is spent: a recipe or field that is not known, recordings that are not there, a
        run with another configuration, a disk without room.
    NotFinite
        If a loss is not finite; the last good state is saved then.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, once the state is saved.
    """
    named = {"data.recordings": "tones" if smoke else data, "folder": folder}
    given = {name: str(value) for name, value in named.items() if value is not None}
    settings = load_config(config, given | dict(changes or {}))
    chosen = _device(device)
    with parallel.processes(chosen):
        if smoke:
            settings = smoke_config(settings)
        loop(start(settings, chosen, allow_changes=allow_changes))
        parallel.wait()  # for the process that writes
    return Vocoder.from_pretrained(settings.folder, device=chosen)


def loop(run: Run) -> None:
    """Train until `config.steps`; a run that is complete already trains no further."""
    config, task, loader = run.config, run.task, run.loader
    make_step = CapturedStep(task) if config.graph else task.step
    numbers = Numbers(gradients_may_overflow=task.precision == torch.float16)
    with ExitStack() as stack:
        stop = stack.enter_context(Interruption())
        report = stack.enter_context(Report(config.folder, config)) if run.main else None
        for step in range(run.step + 1, config.steps + 1):
            epoch = loader.epoch
            numbers.add(step, make_step(next(loader), step=step, epoch=epoch))
            last = step == config.steps
            told = last or step % config.report_every == 0
            if told or task.device.type == "cpu":  # elsewhere looking would mean waiting
                try:
                    numbers.check()
                except NotFinite as error:
                    raise NotFinite(f"{error}; {run.rescue(step)}") from None
            if told:
                means = numbers.take()
                if report:
                    report.numbers(step, means | {"learning_rate": task.learner.rate, "epoch": epoch})
                    report.skipped(loader.skipped)
            stopped = stop.agreed(ask=told)
            with numbers.paused():
                if report and (last or step % config.validate_every == 0):
                    report.validation(step, *run.validate())
                if last or stopped or step % config.save_every == 0:
                    run.save(step)
            if stopped:
                raise KeyboardInterrupt


def _device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # with more processes than GPUs, they share
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())
