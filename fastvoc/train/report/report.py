"""What a run shows while it goes on: progress, a log, curves, pictures and sound."""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor
from typing_extensions import Self

from fastvoc.audio import write_audio
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.data.lists import shown
from fastvoc.train.material import material_of
from fastvoc.train.report import pictures
from fastvoc.train.report.log import Kind, Log, read_log
from fastvoc.writing import complete_file

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
CURVES = "curves.png"
SPECTROGRAMS = "spectrograms.png"
SKIPPED = "skipped.txt"


_logger = logging.getLogger(__name__)

_LONGEST_NAME = 120
"""Bytes of a sample's name; file systems take 255, and a temporary name is longer."""


class Report:
    """Writes a run's numbers and samples into its folder, and shows progress: a bar on a terminal, else lines.

    Nothing of it ends a run: what cannot be written is named in a warning, once until it can be written again.

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
        self._material = material_of(config)
        self._steps = config.steps
        self._console = Console(stderr=True) if console is None else console
        folder.mkdir(parents=True, exist_ok=True)
        self._log = Log(folder / LOG)
        self._drawn = True
        self._tensorboard: SummaryWriter | None = None
        self._played: set[str] = set()
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
        self._failing: set[tuple[Path, str]] = set()
        self._hook = threading.excepthook

    def __enter__(self) -> Self:
        self._progress.start()
        self._hook = threading.excepthook
        threading.excepthook = self._end_of_thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, step: int, recordings: int) -> None:
        """Say what begins.

        Parameters
        ----------
        step : int
            Steps that are complete.
        recordings : int
            How many there are to train on.
        """
        self._say(f"{self.folder}: training on {recordings} recordings, from step {step} to {self._steps}")

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
        if self._console.is_terminal:
            text = "  ".join(f"{name} {value:.3g}" for name, value in list(numbers.items())[:4])
            self._progress.update(self._bar, completed=step, description=text)
        else:
            self._say(f"step {step}/{self._steps}: {_listed(numbers)}")

    def validation(
        self, step: int, numbers: Mapping[str, float], samples: Mapping[str, tuple[Tensor, Tensor]] | None = None
    ) -> None:
        """Report how good the generator is, and let it be looked at and listened to.

        Parameters
        ----------
        step : int
            As in `numbers`.
        numbers : mapping of str to float
            Such as `fastvoc.train.report.validation.validate` returns; names of several validation sets share what
            follows the last `/`, as in ``unseen/mel_l1``.
        samples : mapping of str to (Tensor, Tensor), each of shape (T,), optional
            Recording and generated wave of a few clips, by name, on any device.
        """
        if not numbers:  # a run without validation sets
            return
        self._write(step, "validation", numbers)
        self._say(f"step {step}/{self._steps}: {_listed(numbers)}")
        if samples:
            self._show(step, samples)
        self._draw_curves()

    def skipped(self, reasons: Mapping[str, str]) -> None:
        """List recordings that cannot be used: a line of skipped.txt each; best called with every `numbers`.

        Parameters
        ----------
        reasons : mapping of str to str
            All so far, by path, as in `fastvoc.train.data.loader.Loader.skipped`.
        """
        if len(reasons) == self._skipped:
            return
        path = self.folder / SKIPPED
        text = "".join(f"{reason}\n" for reason in reasons.values())
        with self._writing(path):
            with complete_file(path) as temporary:
                # names that are not text go back to the bytes that they are
                temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
            self._skipped = len(reasons)

    def close(self) -> None:
        """Draw the last curves and end the progress display."""
        self._progress.stop()
        self._draw_curves()
        self._log.close()
        self._close_tensorboard()
        threading.excepthook = self._hook

    def _write(self, step: int, kind: Kind, numbers: Mapping[str, float]) -> None:
        if not self._begun:
            self._begun = True
            self._tensorboard = self._open_tensorboard(step)
        with self._writing(self._log.path):
            self._log.write(step, kind, numbers)
        self._drawn = False
        with self._writing(self.folder / state.TENSORBOARD):
            for name, value in numbers.items():
                if self._tensorboard is not None:
                    self._tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def _open_tensorboard(self, step: int) -> SummaryWriter | None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._say("TensorBoard is not installed; pip install 'fastvoc[train]' adds its curves and sound")
            return None
        with self._writing(self.folder / state.TENSORBOARD):
            writer: SummaryWriter = SummaryWriter(str(self.folder / state.TENSORBOARD), purge_step=step, flush_secs=30)
            return writer
        return None

    def _close_tensorboard(self) -> None:
        writer, self._tensorboard = self._tensorboard, None
        if writer is not None:
            with self._writing(self.folder / state.TENSORBOARD):
                writer.close()

    def _show(self, step: int, samples: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        rate = self._material.sample_rate
        finite = {name: pair for name, pair in samples.items() if all(bool(wave.isfinite().all()) for wave in pair)}
        for name, (recorded, made) in finite.items():
            path = self.folder / state.SAMPLES / f"{_file_name(name)}.wav"
            with self._writing(path):
                path.parent.mkdir(exist_ok=True)
                write_audio(path, made.float(), rate)
            with self._writing(self.folder / state.TENSORBOARD, "sound"):
                tag = shown(name)
                if self._tensorboard is not None and name not in self._played:
                    self._tensorboard.add_audio(f"recording/{tag}", recorded[None].cpu(), step, rate)
                if self._tensorboard is not None:
                    self._tensorboard.add_audio(f"generated/{tag}", made[None].float().cpu().clamp(-1, 1), step, rate)
            self._played.add(name)
        picture = self.folder / SPECTROGRAMS
        with self._writing(picture):
            texts = {shown(name): pair for name, pair in finite.items()}
            pictures.save(self._material.draw(texts, title=f"step {step}"), picture)
        with self._writing(self.folder / state.TENSORBOARD, "pictures"):
            if self._tensorboard is not None:
                self._tensorboard.add_image("spectrograms", pictures.pixels(picture), step, dataformats="HWC")

    def _draw_curves(self) -> None:
        if not self._drawn:
            with self._writing(self.folder / CURVES):
                pictures.save(pictures.curves(read_log(self._log.path)), self.folder / CURVES)
                self._drawn = True

    @contextmanager
    def _writing(self, path: Path, part: str = "") -> Iterator[None]:
        """Let a file that cannot be written, or a part of one, be a warning."""
        try:
            yield
            self._failing.discard((path, part))
        except Exception as error:
            if (path, part) not in self._failing:
                self._failing.add((path, part))
                _logger.warning("%s; training goes on without it", state.unwritable(path, error))

    def _end_of_thread(self, ended: threading.ExceptHookArgs) -> None:
        """Leave the error of TensorBoard's thread to the next call of its writer, which raises it again."""
        if not type(ended.thread).__module__.startswith("tensorboard."):
            self._hook(ended)

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):  # a closed or full standard error has nobody to tell
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _file_name(name: str) -> str:
    """Turn the name of a sample into one that every file system takes."""
    plain = name.replace("/", "-")
    encoded = plain.encode("utf-8", "surrogateescape")
    if len(encoded) <= _LONGEST_NAME and plain.isprintable():
        return plain
    readable = filter(str.isprintable, encoded[:_LONGEST_NAME].decode("utf-8", "ignore"))
    return f"{''.join(readable)}-{zlib.crc32(encoded):08x}"
