"""A run's log is complete after any end, its curves are never doubled, and its pictures and sounds are there."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from fastvoc.audio import CONVENTIONS, read_audio
from fastvoc.train.config import TrainConfig
from fastvoc.train.data.config import DataConfig
from fastvoc.train.report.log import Log, read_log
from fastvoc.train.report.report import Report, pictures

MEL = CONVENTIONS["hifigan"]


class Settings:
    """What a report reads of a run's config."""

    mel = convention = MEL
    data = DataConfig(recordings=("wavs",))
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
from fastvoc.train.report.log import Log
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


NAMES = {
    "of 251 bytes": "x" * 251,
    "of another end": "x" * 250 + "y",
    "of two bytes a letter": "é" * 125,
    "no text": "caf\udce9",
    "of a line": "a\nb",
    "plain": "Ünï côdé $x$",
}


def test_samples_of_any_name_are_files(tmp_path, caplog):
    with report(tmp_path) as log:
        log.numbers(1, {"mel": 1.0})
        log.validation(1, {"mel_l1": 1.0}, {f"seen/{name}": (tone(220), tone(225)) for name in NAMES.values()})
    names = [path.name for path in (tmp_path / "samples").iterdir()]
    assert len(names) == len(NAMES)
    assert "seen-Ünï côdé $x$.wav" in names
    assert all(name.isprintable() and len(name.encode()) <= 255 for name in names)
    assert "samples" not in caplog.text


def full(*arguments: Any, **named: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("fastvoc.train.report.report.write_audio", "samples/a.wav"),
        ("fastvoc.train.report.pictures.save", "spectrograms.png"),
        ("fastvoc.train.report.pictures.spectrograms", "spectrograms.png"),
        ("fastvoc.train.report.pictures.curves", "curves.png"),
        ("fastvoc.train.report.log.Log.write", "log.jsonl"),
        ("pathlib.Path.write_text", "skipped.txt"),
        ("torch.utils.tensorboard.SummaryWriter.__init__", "tensorboard"),
        ("torch.utils.tensorboard.SummaryWriter.add_scalar", "tensorboard"),
        ("torch.utils.tensorboard.SummaryWriter.add_audio", "tensorboard"),
        ("tensorboard.summary.writer.record_writer.RecordWriter.write", "tensorboard"),
        ("rich.console.Console.print", None),
    ],
)
def test_what_cannot_be_reported_is_a_warning_by_name(tmp_path, monkeypatch, caplog, capfd, part, named):
    pytest.importorskip("tensorboard")
    hook = threading.excepthook
    with report(tmp_path) as log:
        monkeypatch.setattr(part, full)
        for step in (1, 2, 3):
            log.numbers(step, {"mel": 1.0})
            log.validation(step, {"mel_l1": 1.0}, {"a": (tone(220), tone(225))})
            log.skipped({"a.wav": "a.wav: is silent"})
            time.sleep(0.05)  # for a writer that has a thread
    if named is not None:
        sentence = f"{tmp_path / named}: cannot be written (No space left on device); make room; training goes on"
        assert caplog.text.count(sentence) == 1
    expected = {"log.jsonl", "curves.png", "spectrograms.png", "skipped.txt", "samples", "tensorboard"} - {named}
    if part.endswith("pictures.save"):
        expected -= {"curves.png"}
    if part.endswith("Log.write"):
        expected -= {"curves.png"}  # there is nothing to draw
    assert expected <= {path.name for path in tmp_path.iterdir()}
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is hook


def test_what_can_be_written_again_may_be_warned_of_again(tmp_path, monkeypatch, caplog):
    with report(tmp_path) as log:
        for step in (1, 2):
            with monkeypatch.context() as patched:
                patched.setattr(Log, "write", full)
                log.numbers(step, {"mel": 1.0})
            log.numbers(step, {"mel": 1.0})
    assert caplog.text.count("log.jsonl: cannot be written") == 2


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
    log = Log(tmp_path / "log.jsonl")
    log.write(1, "training", {"mel": 1.0})
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr("fastvoc.train.report.log.os.write", lambda handle, data: write(handle, data[:7]))
        with pytest.raises(OSError, match=r"7 of \d+ bytes of a line fit"):
            log.write(2, "training", {"mel": 1.0})
    log.write(3, "training", {"mel": 1.0})
    assert lines(tmp_path) == [(1, "training", 1.0), (3, "training", 1.0)]
    assert len((tmp_path / "log.jsonl").read_bytes().splitlines()) == 2


def test_names_that_are_no_text_are_listed_as_the_bytes_that_they_are(tmp_path):
    with report(tmp_path) as log:
        log.skipped({"caf\udce9.wav": "caf\udce9.wav: is silent"})
    assert (tmp_path / "skipped.txt").read_bytes() == b"caf\xe9.wav: is silent\n"


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


def test_progress_is_a_bar_on_a_terminal_and_else_a_line_for_each_report(tmp_path):
    written = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=200 if terminal else 80)
        with Report(tmp_path / str(terminal), CONFIG, console=console) as log:
            log.begin(20, 1234)
            for step in (40, 60):
                log.numbers(step, {"mel": 0.5} | {f"discriminators_{number}": 1.0 for number in range(9)})
        written[terminal] = cast(io.StringIO, console.file).getvalue()
    assert "60/100" in written[True]
    assert "mel 0.5" in written[True]
    assert "step 60/100: " not in written[True]
    for text in written.values():
        assert "training on 1234 recordings, from step 20 to 100" in text
    lines = [line for line in written[False].splitlines() if line.startswith("step ")]
    assert [line.split(", ")[0] for line in lines] == ["step 40/100: mel 0.5", "step 60/100: mel 0.5"]
    assert all("discriminators_8 1" in line for line in lines)


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
