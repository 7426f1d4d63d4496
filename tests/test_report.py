"""A run's log is complete after any end, its curves are never doubled, and its pictures and sounds are there."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from fastvoc.audio import CONVENTIONS, read_audio
from fastvoc.train import pictures
from fastvoc.train.config import TrainConfig
from fastvoc.train.log import Log, read_log
from fastvoc.train.report import Report

MEL = CONVENTIONS["hifigan"]


class Settings:
    """What a report reads of a run's config."""

    mel = MEL
    steps = 100


CONFIG = cast(TrainConfig, Settings())


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def report(folder: Path) -> Report:
    return Report(folder, CONFIG, console=quiet())


def tone(hertz: float, seconds: float = 0.3) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(22050 * seconds)) / 22050)


def lines(folder: Path) -> list[tuple[Any, ...]]:
    return [(entry["step"], entry["kind"], entry.get("mel")) for entry in read_log(folder / "log.jsonl")]


def test_each_call_is_a_line_of_json(tmp_path):
    with report(tmp_path / "run") as log:
        log.numbers(10, {"mel": 0.5, "gradient": math.inf})
        log.validation(10, {"seen/mel_l1": 0.25})
        text = (tmp_path / "run" / "log.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert abs(entries[0].pop("time") - time.time()) < 60
    assert entries[0] == {"step": 10, "kind": "training", "mel": 0.5, "gradient": None}
    assert (entries[1]["kind"], entries[1]["seen/mel_l1"]) == ("validation", 0.25)


def test_a_resumed_run_cuts_what_it_will_report_again(tmp_path):
    with report(tmp_path) as log:
        for step in (10, 20, 30, 40):
            log.numbers(step, {"mel": 1.0})
    with report(tmp_path):  # which ends before it reports: nothing is lost
        pass
    assert len(lines(tmp_path)) == 4
    with report(tmp_path) as log:
        for step in (30, 40, 50):
            log.numbers(step, {"mel": 2.0})
            if step == 40:
                log.validation(step, {"mel": 3.0})
    assert lines(tmp_path) == [
        (10, "training", 1.0),
        (20, "training", 1.0),
        (30, "training", 2.0),
        (40, "training", 2.0),
        (40, "validation", 3.0),
        (50, "training", 2.0),
    ]


@pytest.mark.parametrize("torn", [b'{"step": 30, "kind": "trai', b"\0\0\0\n", b'["no entry"]\n'])
def test_a_line_that_was_torn_or_broken_hides_no_other(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    with report(tmp_path) as log:
        log.numbers(10, {"mel": 1.0})
    with path.open("ab") as file:
        file.write(torn)
    assert lines(tmp_path) == [(10, "training", 1.0)]
    with report(tmp_path) as log:
        log.numbers(20, {"mel": 1.0})
    assert lines(tmp_path) == [(10, "training", 1.0), (20, "training", 1.0)]


KILLED = """
import sys
from pathlib import Path
from fastvoc.train.log import Log
log, step = Log(Path(sys.argv[1])), int(sys.argv[2])
print(flush=True)
while True:
    log.write(step, "training", {"number": step, "ballast" * 500: 1.0})
    step += 1
"""


def test_a_log_survives_kill_9(tmp_path):
    path = tmp_path / "log.jsonl"
    step = 0
    for moment in (0.02, 0.05, 0.08):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(step)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        steps = [entry["step"] for entry in read_log(path)]
        assert steps == list(range(len(steps)))
        assert len(steps) > step
        step = len(steps) - 5  # as if the last checkpoint were older


def test_a_full_disk_is_an_error(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a file that is always full")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    log = Log(tmp_path / "log.jsonl")
    log._cut = lambda step: None  # type: ignore[method-assign]  # a device has no lines
    with pytest.raises(OSError, match="No space left"):
        log.write(1, "training", {"mel": 1.0})


def test_pictures_and_sounds_of_a_validation_are_in_the_folder(tmp_path):
    with report(tmp_path) as log:
        log.numbers(10, {"mel": 0.5})
        samples = {"seen/a": (tone(220), tone(225)), "unseen/a": (tone(440), tone(400))}
        log.validation(10, {"mel_l1": 0.25}, samples)
        assert {path.name for path in tmp_path.iterdir()} >= {"log.jsonl", "curves.png", "spectrograms.png", "samples"}
    assert not list(tmp_path.rglob("*.partial"))
    made, rate = read_audio(tmp_path / "samples" / "unseen-a.wav")
    assert rate == 22050
    torch.testing.assert_close(made, tone(400), atol=2**-15, rtol=0)
    height, width, _ = imread(tmp_path / "spectrograms.png").shape
    assert width > height > 300


def test_a_generator_that_makes_no_numbers_does_not_end_the_report(tmp_path):
    with report(tmp_path) as log:
        log.validation(1, {"mel_l1": math.nan}, {"a": (tone(220), torch.full((6615,), math.nan))})
    assert read_log(tmp_path / "log.jsonl")[0]["mel_l1"] is None
    assert (tmp_path / "spectrograms.png").is_file()


def test_tensorboard_holds_numbers_pictures_and_sound_once_for_each_step(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((10, 20, 30), (20, 30, 40)):
        with report(tmp_path) as log:
            for step in steps:
                log.numbers(step, {"mel": float(step), "gradient_norm": 1.0})
            log.validation(steps[-1], {"mel_l1": 0.25}, {"a": (tone(220), tone(225))})
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/mel")] == [10, 20, 30, 40]
    assert [event.step for event in events.Scalars("validation/mel_l1")] == [40]
    assert [event.step for event in events.Images("spectrograms")] == [40]
    assert set(events.Tags()["audio"]) == {"generated/a", "recording/a"}


def test_skipped_recordings_are_listed_as_they_are_found(tmp_path):
    with report(tmp_path) as log:
        log.skipped({})
        assert not (tmp_path / "skipped.txt").exists()
        for count in (1, 3, 3):
            log.skipped({f"{number}.wav": f"{number}.wav: is silent" for number in range(count)})
            assert (tmp_path / "skipped.txt").read_text().splitlines()[-1] == f"{count - 1}.wav: is silent"


def test_a_run_without_validation_sets_reports_none(tmp_path):
    with report(tmp_path) as log:
        log.validation(10, {}, {})
    assert not (tmp_path / "log.jsonl").exists()


def test_without_tensorboard_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    console = quiet()
    with Report(tmp_path, CONFIG, console=console) as log:
        log.numbers(1, {"mel": 1.0})
        log.numbers(2, {"mel": 1.0})
    printed = cast(io.StringIO, console.file).getvalue()
    assert printed.count("pip install 'fastvoc[train]'") == 1
    assert not (tmp_path / "tensorboard").exists()
    assert len(lines(tmp_path)) == 2


def test_progress_is_for_terminals_only(tmp_path):
    written = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
        with Report(tmp_path / str(terminal), CONFIG, console=console) as log:
            log.numbers(40, {"mel": 0.5})
        written[terminal] = cast(io.StringIO, console.file).getvalue()
    assert "40/100" in written[True]
    assert "mel 0.5" in written[True]
    assert "40" not in written[False]


def test_curves_of_several_sets_share_a_panel_and_long_ones_are_thinned():
    entries = [
        {"step": step, "kind": "training", "time": 0.0, "mel": 1 / step, "failed": None} for step in range(1, 5001)
    ]
    entries += [{"step": 5000, "kind": "validation", "time": 0.0, "seen/mel_l1": 0.2, "unseen/mel_l1": 0.3}]
    figure = pictures.curves(entries)
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert list(panels) == ["mel (training)", "mel_l1 (validation)"]
    (line,) = panels["mel (training)"].lines
    assert len(line.get_xdata()) == 1000
    assert np.mean(line.get_ydata()) == pytest.approx(np.mean(1 / np.arange(1, 5001)))
    assert [text.get_text() for text in panels["mel_l1 (validation)"].get_legend().get_texts()] == ["seen", "unseen"]


def test_a_picture_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    pictures.save(pictures.curves([]), path)
    before = path.read_bytes()
    figure = pictures.curves([])

    def fail(target: Path, **_: Any) -> None:
        target.write_bytes(b"half a picture")
        raise OSError("No space left on device")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        pictures.save(figure, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
