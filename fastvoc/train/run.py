"""The loop: steps, and now and then a report, a validation, a checkpoint."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from fastvoc.device import read_device
from fastvoc.faces import opening
from fastvoc.faces.face import Face
from fastvoc.train.config import TrainConfig, load_config
from fastvoc.train.data.readers import refuse_unguarded
from fastvoc.train.health import Interruption, NotFinite, Numbers, RunFailed
from fastvoc.train.learning import parallel
from fastvoc.train.lock import locked
from fastvoc.train.report.report import Report
from fastvoc.train.smoke import prepare, smoke_config
from fastvoc.train.start import Run, start
from fastvoc.train.tasks.captured import CapturedStep
from fastvoc.train.tasks.task import own_defaults

_logger = logging.getLogger(__name__)


def train(
    config: str | Path | Mapping[str, Any] | TrainConfig,
    *,
    data: str | Path | Sequence[str | Path] | None = None,
    folder: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    smoke: bool = False,
    allow_changes: bool = False,
    device: str | torch.device | None = None,
) -> Face[Any]:
    """Train a vocoder, an autoencoder or an instrument, or go on with a run.

    Parameters
    ----------
    config : str, Path, mapping or TrainConfig
        The name of a recipe, a YAML or JSON file, plain values, or what `load_config` returns.
    data : str, Path or sequence of them, optional
        Recordings to train on (`data.recordings`): folders, globs, lists, sound files; for an instrument,
        folders of notes.
    folder : str or Path, optional
        Where the run is written. A run that is there goes on, as if it had never stopped.
    changes : mapping of str to object, optional
        Other values that replace the configuration's, as in `load_config`.
    smoke : bool
        Make three steps on generated tones, to see that everything works here; in the folder ``smoke`` within the
        run's, anew each time.
    allow_changes : bool
        Go on with a run although its configuration has changed.
    device : str or torch.device, optional
        By default a GPU where there is one; under torchrun that of `LOCAL_RANK`.

    Returns
    -------
    Vocoder, Autoencoder or Instrument
        Of the last step; it also lies in the folder, for `fastvoc.open`.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        One sentence, before any time is spent: a recipe or field that is not known, recordings that are not there, a
        run with another configuration or that is being trained already, a disk without room. Later, OSError is a
        checkpoint that cannot be written.
    RuntimeError
        If processes that read would run the script that calls this again.
    NotFinite
        If a loss is not finite; the last good state is saved then.
    RunFailed
        If anything else ends a run between its first step and its last one, such as too little memory; one sentence
        that says what is saved, and the error itself is its cause.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, once the state is saved.
    """
    named = {"data.recordings": "tones" if smoke else data, "folder": folder}
    given = {name: value for name, value in named.items() if value is not None}
    settings = load_config(config, given | dict(changes or {}))
    if smoke:
        settings = smoke_config(settings)
    refuse_unguarded(settings.data.workers)
    chosen = read_device("auto" if device is None else device, f"train: device {device}")
    if chosen.type == "meta":
        raise ValueError("train: device meta holds no numbers to train; use auto, cpu or cuda")
    with parallel.processes(chosen), locked(settings.folder), own_defaults():
        if smoke:
            prepare(settings)
        loop(start(settings, chosen, allow_changes=allow_changes))
        parallel.wait()  # for the process that writes
    return opening.open(settings.folder, device=chosen)


def loop(run: Run) -> None:
    """Train until `config.steps`; a run that is complete already trains no further."""
    config, task, loader = run.config, run.task, run.loader
    make_step = CapturedStep(task) if config.graph else task.step
    numbers = Numbers(gradients_may_overflow=task.precision == torch.float16)
    with ExitStack() as stack:
        stop = stack.enter_context(Interruption(told=run.main))
        stack.callback(loader.close)
        stack.enter_context(_chosen_convolutions(task.device))
        report = stack.enter_context(Report(config.folder, config)) if run.main else None
        if report:
            report.begin(run.step, loader.recordings)
        for step in range(run.step + 1, config.steps + 1):
            epoch = loader.epoch
            batch = _next_batch(run, stop, step)
            try:
                numbers.add(step, make_step(batch, step=step, epoch=epoch))
            except Exception as error:
                if _advice(error):
                    traceback.clear_frames(error.__traceback__)  # which hold what the step has made so far
                raise RunFailed(
                    f"train: step {step}: {_sentence(error)}; {run.rescue(step)}{_advice(error)}"
                ) from error
            last = step == config.steps
            told = last or step % config.report_every == 0
            stopped = stop.agreed(ask=told)
            saves = last or stopped or step % config.save_every == 0
            if told or saves or task.device.type == "cpu":  # elsewhere looking would mean waiting
                _check(run, numbers, step)
            means = numbers.take() if told else {}
            judged = None
            with numbers.paused():
                if report and (last or step % config.validate_every == 0):
                    judged = _validate(run, step)
                if saves:
                    if exploding := numbers.exploding():
                        run.doubt(step)
                        _logger.warning("%s; checkpoints so far are kept beside those of now", exploding)
                    run.save(step)
                # what only reports comes when there is nothing to lose by it
                if report and told:
                    report.numbers(step, means | {"learning_rate": task.learner.rate, "epoch": epoch})
                    report.skipped(loader.skipped)
                if report and judged:
                    report.validation(step, *judged)
            if stopped:
                raise KeyboardInterrupt


def _next_batch(run: Run, stop: Interruption, step: int) -> Any:
    """Return the batch of a step, or end the run as it was after the step before."""
    try:
        if run.loader.wait(stop.alone):
            return next(run.loader)
    except Exception as error:
        raise RunFailed(f"train: step {step}: {_sentence(error)}; {run.keep(step - 1)}") from error
    if step - 1 != run.saved:
        run.save(step - 1)
    raise KeyboardInterrupt


def _check(run: Run, numbers: Numbers, step: int) -> None:
    try:
        numbers.check()
    except NotFinite as error:
        # a run that has been rescued, and fails again before it has proved itself, is beyond it
        diagnosis = run.task.diagnosis()
        # and one whose network is broken, though all weights are finite, has nothing to rescue
        exploded = bool(numbers.exploding()) or step < run.probation or bool(diagnosis)
        diagnosis = f"; {diagnosis}" if diagnosis else ""
        advice = "a lower learning rate, a clip or precision float32 may help"
        raise NotFinite(f"{error}{diagnosis}; {run.rescue(step, exploded=exploded)}; {advice}") from None


def _validate(run: Run, step: int) -> Any:
    try:
        return run.validate()
    except Exception as error:
        _logger.warning("step %d: the validation failed (%s); training goes on", step, _sentence(error))
        return None


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    own = isinstance(error, (ValueError, OSError)) and not isinstance(error, UnicodeError)
    return text if own and text else f"{type(error).__name__}: {text}"


def _advice(error: Exception) -> str:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "; a smaller batch, a larger accumulate or recompute need less memory"
    return ""


@contextmanager
def _chosen_convolutions(device: torch.device) -> Iterator[None]:
    """Let cuDNN try its algorithms, which pays for segments of one length, and leave it as it was."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
