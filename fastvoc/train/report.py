"""What a run shows while it goes on: progress, a log, curves, pictures and sound."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import write_audio
from fastvoc.train import pictures
from fastvoc.train.config import TrainConfig
from fastvoc.train.log import Kind, Log, read_log

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
CURVES = "curves.png"
SPECTROGRAMS = "spectrograms.png"
SAMPLES = "samples"
SKIPPED = "skipped.txt"
TENSORBOARD = "tensorboard"


class Report:
    """Writes a run's numbers and samples into its folder, and shows progress on a terminal.

    ::

        folder/log.jsonl          a line for each call
              /curves.png         all numbers over the steps
              /spectrograms.png   the last samples beside their recordings
              /samples/*.wav      the last samples
              /skipped.txt        recordings that could not be used, and why
              /tensorboard/       all of it over time, where TensorBoard is installed

    A run that resumes continues all of these: what was reported at the step of its first report or later is cut off,
    for it is about to be reported again.

    Parameters
    ----------
    folder : Path
        Of the run; made where it is not there.
    config : TrainConfig
    console : Console, optional
        Standard error by default.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, console: Console | None = None) -> None:
        self.folder = folder
        self._mel = config.mel
        self._console = Console(stderr=True) if console is None else console
        folder.mkdir(parents=True, exist_ok=True)
        self._log = Log(folder / LOG)
        self._drawn = True
        self._tensorboard: SummaryWriter | None = None
        self._heard: set[str] = set()
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=config.steps)
        self._begun = False
        self._skipped = 0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
        """Report the losses, gradient norms and rates of training.

        Parameters
        ----------
        step : int
            Steps that are complete; never less than before.
        numbers : mapping of str to float
            By name; `step`, `kind` and `time` are taken.
        """
        self._write(step, "training", numbers)
        text = "  ".join(f"{name} {value:.3g}" for name, value in list(numbers.items())[:4])
        self._progress.update(self._bar, completed=step, description=text)

    def validation(
        self, step: int, numbers: Mapping[str, float], samples: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        """Report how good the generator is, and let it be seen and heard.

        Parameters
        ----------
        step : int
            As in `numbers`.
        numbers : mapping of str to float
            Such as `fastvoc.train.validation.validate` returns; names of several validation sets share what follows
            the last `/`, as in ``unseen/mel_l1``.
        samples : mapping of str to (Tensor, Tensor), each of shape (T,), optional
            Recording and generated wave of a few clips, by name, on any device.
        """
        if not numbers:  # a run without validation sets
            return
        self._write(step, "validation", numbers)
        self._console.print(
            f"step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), highlight=False
        )
        if samples:
            self._show(step, samples)
        self._draw_curves()

    def skipped(self, reasons: Mapping[str, str]) -> None:
        """List recordings that cannot be used: a line of skipped.txt each; best called with every `numbers`.

        Parameters
        ----------
        reasons : mapping of str to str
            All so far, by path, as in `fastvoc.train.loader.Loader.skipped`.
        """
        if len(reasons) == self._skipped:
            return
        self._skipped = len(reasons)
        path = self.folder / SKIPPED
        temporary = path.with_name(path.name + ".partial")
        temporary.write_text("".join(f"{reason}\n" for reason in reasons.values()), encoding="utf-8")
        temporary.replace(path)

    def close(self) -> None:
        """Draw the last curves and end the progress display."""
        self._progress.stop()
        self._draw_curves()
        self._log.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _write(self, step: int, kind: Kind, numbers: Mapping[str, float]) -> None:
        if not self._begun:
            self._begun = True
            self._tensorboard = self._open_tensorboard(step)
        self._log.write(step, kind, numbers)
        self._drawn = False
        if self._tensorboard is not None:
            for name, value in numbers.items():
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def _open_tensorboard(self, step: int) -> SummaryWriter | None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._console.print(
                "TensorBoard is not installed; pip install 'fastvoc\\[train]' adds its curves and sound"
            )
            return None
        writer: SummaryWriter = SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step, flush_secs=30)
        return writer

    def _show(self, step: int, samples: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        rate = self._mel.sample_rate
        (self.folder / SAMPLES).mkdir(exist_ok=True)
        finite = {name: pair for name, pair in samples.items() if all(bool(wave.isfinite().all()) for wave in pair)}
        for name, (recorded, made) in finite.items():
            write_audio(self.folder / SAMPLES / f"{name.replace('/', '-')}.wav", made.float(), rate)
            if self._tensorboard is not None:
                if name not in self._heard:
                    self._tensorboard.add_audio(f"recording/{name}", recorded[None].cpu(), step, rate)
                self._tensorboard.add_audio(f"generated/{name}", made[None].float().cpu().clamp(-1, 1), step, rate)
            self._heard.add(name)
        picture = self.folder / SPECTROGRAMS
        pictures.save(pictures.spectrograms(finite, self._mel, title=f"step {step}"), picture)
        if self._tensorboard is not None:
            self._tensorboard.add_image("spectrograms", pictures.pixels(picture), step, dataformats="HWC")

    def _draw_curves(self) -> None:
        if not self._drawn:
            pictures.save(pictures.curves(read_log(self._log.path)), self.folder / CURVES)
            self._drawn = True
