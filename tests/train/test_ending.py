"""However a run ends, it ends: its state is saved, one sentence says what happened, and no process stays behind."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import folder, hurry, recordings, settings
from torch.nn.utils import parameters_to_vector

import fastvoc
from fastvoc.config import from_dict
from fastvoc.train import state
from fastvoc.train.config import TrainConfig
from fastvoc.train.data.batches import Batches
from fastvoc.train.health import Interruption, NotFinite, Numbers, RunFailed
from fastvoc.train.report.log import read_log
from fastvoc.train.run import _chosen_convolutions
from fastvoc.train.start import start
from fastvoc.train.tasks.gan import GanTask

__all__ = ["folder", "recordings"]  # fixtures

PATIENCE = 120
"""Seconds after which a run counts as one that never ends; each takes two on an idle machine."""


def reached(place: Path) -> int:
    checkpoint = state.latest(place / "run")
    return 0 if checkpoint is None else int(state.load(checkpoint)["step"])


def script(place: Path, method: str, what: Callable[..., None], values: dict[str, Any]) -> None:
    """What the process does that stands for a user's script; its exit code is that of one."""
    handle = os.open(place / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 2)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    multiprocessing.set_start_method(method, force=True)
    torch.set_num_threads(1)
    hurry(setattr)
    try:
        what(place, values)
        fastvoc.train(values, device="cpu")
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def end_of(place: Path, what: Callable[..., None], *, method: str = "fork", **changes: Any) -> tuple[int | None, str]:
    """Return the exit code of a run, and what it has said."""
    values = settings(place, steps=100_000, save_every=100_000, report_every=1)
    values["data"]["workers"] = changes.pop("workers", 2)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fastvoc.train.run"])
    process = processes.Process(target=script, args=(place, method, what, values | changes))
    process.start()
    process.join(PATIENCE)
    code = process.exitcode
    if code is None:
        os.kill(process.pid or 0, signal.SIGKILL)
    said = (place / "stderr").read_text()
    assert code is not None, f"it never ended: {said}"
    return code, said


def soon(place: Path, action: Callable[[], None], *, steps: int = 3) -> None:
    """Do something once the run has made some steps."""

    def wait() -> None:
        log = place / "run" / "log.jsonl"
        while not log.exists() or len(read_log(log)) < steps:
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def readers() -> list[int]:
    return [process.pid or 0 for process in multiprocessing.active_children()]


def fail_in_a_step(place: Path, values: dict[str, Any]) -> None:
    step = GanTask.step

    def failing(self: GanTask, batch: Any, *, step: int, epoch: int = 0, real: Any = step) -> Any:
        if step == 7:
            (place / "readers").write_text(" ".join(map(str, readers())))
            raise torch.OutOfMemoryError("CUDA out of memory.\n Tried to allocate 2.00 GiB")
        return real(self, batch, step=step, epoch=epoch)

    GanTask.step = failing  # type: ignore[method-assign]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(("method", "workers"), [("fork", 0), ("fork", 2), ("forkserver", 1), ("spawn", 1)])
def test_a_step_that_fails_ends_the_run_with_one_sentence_and_its_state(
    folder: Path, method: str, workers: int
) -> None:
    code, said = end_of(folder, fail_in_a_step, method=method, workers=workers)
    assert code == 1
    assert (
        "train: step 7: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB; the run is saved at step 7; "
        "started again it goes on with other data; a smaller batch, a larger accumulate or recompute need less memory"
    ) in said
    assert reached(folder) == 7
    pids = [int(pid) for pid in (folder / "readers").read_text().split()]
    assert len(pids) == workers
    assert gone(pids)
    assert not (folder / "run" / "lock.json").exists()


def kill_a_reader(place: Path, values: dict[str, Any]) -> None:
    soon(place, lambda: os.kill(readers()[0], signal.SIGKILL))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_that_is_killed_ends_the_run_with_one_sentence_and_its_state(folder: Path, method: str) -> None:
    code, said = end_of(folder, kill_a_reader, method=method)
    assert code == 1
    assert "reads recordings, was ended by SIGKILL" in said
    assert "fewer data.workers or a smaller data.cache need less; the run is saved at step " in said
    last = read_log(folder / "run" / "log.jsonl")[-1]["step"]
    assert reached(folder) == last


def lose_a_batch(place: Path, values: dict[str, Any]) -> None:
    read = Batches.__getitem__

    def losing(self: Batches, step: int) -> Any:
        if step == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/torch_1")
        return read(self, step)

    Batches.__getitem__ = losing  # type: ignore[method-assign]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_handed_over_ends_the_run_with_one_sentence_and_its_state(
    folder: Path, workers: int
) -> None:
    code, said = end_of(folder, lose_a_batch, workers=workers)
    assert code == 1
    assert "RunFailed: train: step 6: " in said
    assert "No space left on device: '/dev/shm/torch_1'; the run is saved at step 5, and the same command goes" in said
    assert reached(folder) == 5


def fill_the_disk(place: Path, values: dict[str, Any]) -> None:
    """Let no file grow beyond what a log needs: what is larger fails as on a full disk, in the middle of a write."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_disk_that_fills_while_a_run_goes_on_is_one_sentence_with_the_remedy(folder: Path) -> None:
    code, said = end_of(folder, fill_the_disk, save_every=5)
    assert code == 1
    # PyTorch hides the reason of the system
    assert f"OSError: {folder}/run/checkpoints/step-00000005: cannot be written (" in said
    assert "); make room, then start the run again: it goes on from its last checkpoint" in said
    assert not list((folder / "run" / "checkpoints").iterdir())


def wait_for_ever(place: Path, values: dict[str, Any]) -> None:
    read = Batches.__getitem__

    def waiting(self: Batches, step: int) -> Any:
        if step == 5:
            time.sleep(1e6)
        return read(self, step)

    Batches.__getitem__ = waiting  # type: ignore[method-assign]

    def stop() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    soon(place, stop, steps=5)


def test_the_wish_to_stop_is_heard_while_waiting_for_data(folder: Path) -> None:
    code, said = end_of(folder, wait_for_ever)
    assert code == 1
    assert "KeyboardInterrupt" in said
    assert reached(folder) == 5


SCRIPT = """
import os, signal, sys, threading, time
sys.path[:0] = {path!r}
from pathlib import Path
import torch
torch.set_num_threads(1)
import fastvoc
from test_run import hurry, settings

if __name__ == "__main__":
    hurry(setattr)
    place = Path({place!r})
    values = settings(place, steps=100_000, save_every=100_000, report_every=1)
    values["data"]["workers"] = 2
    fastvoc.train(values, device="cpu")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_script_that_gets_a_signal_twice_at_once_saves_its_state_and_ends(
    folder: Path, number: signal.Signals
) -> None:
    """As torchrun and its processes do under Slurm: each gets one, and hands it on."""
    path = folder / "script.py"
    path.write_text(SCRIPT.format(path=sys.path, place=str(folder)))
    process = subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE, start_new_session=True)
    log = folder / "run" / "log.jsonl"
    deadline = time.monotonic() + PATIENCE
    while (not log.exists() or len(read_log(log)) < 3) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, number)  # to the readers too
    time.sleep(0.03)
    if process.poll() is None:
        os.killpg(process.pid, number)
    try:
        _, said = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode != 0
    assert b"stopping as soon as a step is complete" in said
    assert b"KeyboardInterrupt" in said
    assert reached(folder) == read_log(log)[-1]["step"] >= 3
    assert gone([process.pid])


def test_several_signals_at_once_are_one_wish_and_ctrl_c_seconds_later_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr("fastvoc.train.health.time.monotonic", lambda: clock[0])
    with Interruption() as stop:
        assert not stop.wished
        for later in (0, 0.03, 1):
            clock[0] = 100 + later
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)
        assert stop.wished
        clock[0] = 110
        os.kill(os.getpid(), signal.SIGTERM)  # whoever means it more than once has SIGKILL
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("world", "heard"), [(1, [True, True]), (2, [False, True])])
def test_one_process_stops_at_any_step_and_several_where_all_ask(
    monkeypatch: pytest.MonkeyPatch, world: int, heard: list[bool]
) -> None:
    monkeypatch.setattr("fastvoc.train.learning.parallel.world_size", lambda: world)
    monkeypatch.setattr("fastvoc.train.learning.parallel.any_of", lambda wish: wish)
    stop = Interruption()
    assert not stop.agreed(ask=True)
    stop.wished = True
    assert [stop.agreed(ask=ask) for ask in (False, True)] == heard
    assert stop.alone() == (world == 1)


def spoil(monkeypatch: pytest.MonkeyPatch, numbers: Callable[[int], dict[str, float]]) -> None:
    """Let steps say other numbers than they have."""
    step = GanTask.step

    def spoilt(self: GanTask, batch: Any, *, step: int, epoch: int = 0, real: Any = step) -> Any:
        return real(self, batch, step=step, epoch=epoch) | {
            name: torch.tensor(value) for name, value in numbers(step).items()
        }

    monkeypatch.setattr(GanTask, "step", spoilt)


def kept(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "run" / "checkpoints").iterdir())


def test_restarts_of_a_run_that_explodes_keep_its_good_checkpoints_and_go_on_from_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step: {"mel": math.nan} if step >= 7 else {})
    good = ["step-00000004", "step-00000006"]
    for _ in range(2):
        for rescued, left in ((7, ["rescue-00000007", *good]), (6, good)):
            with pytest.raises(NotFinite, match="the loss term 'mel' is nan"):
                fastvoc.train(settings(folder, steps=20), device="cpu")
            assert kept(folder) == left
            assert reached(folder) == rescued
    # the vocoder beside them is that of a good one
    weights = (folder / "run" / "model.safetensors").read_bytes()
    assert weights == (folder / "run" / "checkpoints" / good[1] / "model.safetensors").read_bytes()


def test_a_rescued_run_makes_checkpoints_again_when_it_has_proved_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(folder, steps=16, save_every=4)
    with monkeypatch.context() as once:
        spoil(once, lambda step: {"mel": math.nan} if step == 9 else {})
        with pytest.raises(
            NotFinite, match="saved at step 9; started again it goes on with other data; a lower learning"
        ):
            fastvoc.train(values, device="cpu")
    assert kept(folder) == ["rescue-00000009", "step-00000004", "step-00000008"]
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as stopped:
        spoil(stopped, lambda step: os.kill(os.getpid(), signal.SIGTERM) or {} if step == 12 else {})  # type: ignore[func-returns-value]
        fastvoc.train(values, device="cpu")
    assert kept(folder) == ["rescue-00000012", "step-00000004", "step-00000008"]
    fastvoc.train(values, device="cpu")
    assert kept(folder) == ["step-00000008", "step-00000016"]


def test_a_checkpoint_of_losses_that_explode_displaces_none_and_is_not_gone_on_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(monkeypatch, lambda step: {"mel": math.nan if step == 13 else 1e9 if step >= 9 else 1.0})
    with pytest.raises(
        NotFinite, match=r"its weights are of no use; started again the run goes on from .*step-00000008"
    ):
        fastvoc.train(settings(folder, steps=20), device="cpu")
    assert kept(folder) == ["step-00000006", "step-00000008"]
    assert "step 9: the loss term 'mel' is 1e+09; checkpoints so far are kept beside those of now" in caplog.text


def test_a_last_step_in_doubt_is_a_checkpoint_that_displaces_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, lambda step: {"mel": 1e9} if step == 6 else {})
    fastvoc.train(settings(folder, keep_last=1), device="cpu")
    assert kept(folder) == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize(
    ("gradients", "said"),
    [
        ({"generator": math.nan}, "the update was left out"),
        ({"generator": 1.0, "discriminators": 1.0}, "the update was made"),
        ({"generator": math.nan, "discriminators": math.inf}, "the update was left out"),
        (
            {"generator": math.nan, "discriminators": 1.0},
            "the update of the generator was left out, not that of the discriminators",
        ),
    ],
)
def test_which_updates_a_step_has_made_is_said(gradients: dict[str, float], said: str) -> None:
    numbers = Numbers()
    values = {"mel": math.nan} | {f"{name}_gradient": value for name, value in gradients.items()}
    numbers.add(3, {name: torch.tensor(value) for name, value in values.items()})
    with pytest.raises(NotFinite, match=f"step 3: the loss term 'mel' is nan; {said}$"):
        numbers.check()


def test_what_is_said_of_the_updates_is_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step whose generator hears no number the discriminators, whose turn is the first, have learned."""
    run = start(from_dict(TrainConfig, settings(folder, steps=20), "test"), torch.device("cpu"))
    task = run.task
    assert task.adversary is not None
    batch = next(run.loader)
    assert isinstance(batch, torch.Tensor)
    task.step(batch, step=4)
    networks = {"generator": task.generator, "discriminators": task.adversary.network}
    before = {name: parameters_to_vector(network.parameters()) for name, network in networks.items()}
    monkeypatch.setattr("fastvoc.train.tasks.losses.mel_l1", lambda made, *_: made.sum() * math.nan)
    numbers = Numbers()
    numbers.add(5, task.step(batch, step=5))
    with pytest.raises(NotFinite, match="the update of the generator was left out, not that of the discriminators"):
        numbers.check()
    same = {name: torch.equal(parameters_to_vector(net.parameters()), before[name]) for name, net in networks.items()}
    assert same == {"generator": True, "discriminators": False}


def test_a_state_that_cannot_be_saved_is_said_with_what_ended_the_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fastvoc.train(settings(folder, steps=2), device="cpu")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(self: GanTask, batch: Any, *, step: int, epoch: int = 0) -> Any:
        monkeypatch.setattr(torch, "save", full)
        raise MemoryError("no more")

    monkeypatch.setattr(GanTask, "step", failing)
    with pytest.raises(
        RunFailed, match=r"step 3: MemoryError: no more; the run cannot be saved \(.*No space left"
    ) as raised:
        fastvoc.train(settings(folder), device="cpu")
    assert isinstance(raised.value.__cause__, MemoryError)
    assert "it goes on from" in str(raised.value) and kept(folder) == ["step-00000002"]


def test_the_choice_of_convolutions_is_left_as_it_was() -> None:
    """`cudnn.benchmark` is the process's, whatever device a run is on."""
    for before in (True, False):
        with torch.backends.cudnn.flags(benchmark=before):
            with pytest.raises(RuntimeError, match="in between"), _chosen_convolutions(torch.device("cuda")):
                assert torch.backends.cudnn.benchmark
                raise RuntimeError("in between")
            assert torch.backends.cudnn.benchmark is before
            with _chosen_convolutions(torch.device("cpu")):
                assert torch.backends.cudnn.benchmark is before
