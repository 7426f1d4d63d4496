"""What surrounds a vocoder changes nothing: default dtype and device, autocast, forks, signals, other owners."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_streaming import BANDS, GENERATORS, checkpoint, condition_of, random_mel
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, mel_spectrogram, suspicion
from fastvoc.audio.mels.spectrogram import loud_mel
from fastvoc.engine import Plan
from fastvoc.ops import backends

NAMES = [
    "hifigan",
    "hifigan, conditioned",
    "hifigan, standardised",
    "melgan, multi-band",
    "istftnet",
    "griffin-lim-net",
]
MEL = random_mel(BANDS, 40)


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


USES: dict[str, Callable[[Vocoder, Tensor | None], Any]] = {
    "at once": lambda v, c: v(MEL, condition=c),
    "a batch of lengths": lambda v, c: torch.cat(v(MEL.expand(3, -1, -1), lengths=[9, 40, 22], condition=c)),
    "a stream": lambda v, c: torch.cat(list(v.stream(MEL.split(7, dim=-1), condition=c))),
    "a mel": lambda v, c: v.mel(torch.linspace(-1, 1, 4000, dtype=torch.float32, device="cpu").sin()),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "device"),
    [
        (torch.float64, "cpu"),
        (torch.float16, "cpu"),
        (torch.bfloat16, "cpu"),
        (torch.float32, "meta"),
        (torch.bfloat16, "meta"),
    ],
    ids=str,
)
def test_default_dtype_and_device_change_no_bit(dtype: torch.dtype, device: str, name: str, use: str) -> None:
    condition = None if (c := condition_of(name, 1)) is None else c[0]
    expected = USES[use](Vocoder(checkpoint(name)), condition)
    with defaults(dtype, device):
        opened = Vocoder(checkpoint(name))
        made = [USES[use](opened, condition), USES[use](opened, condition)]
    assert all(torch.equal(wave, expected) for wave in made)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_a_vocoder_that_was_opened_before_is_unmoved_by_a_new_default(dtype: torch.dtype) -> None:
    opened, streamer = Vocoder(checkpoint("hifigan")), Vocoder(checkpoint("hifigan")).streamer()
    expected = opened(MEL)
    first = streamer.push(MEL[:, :20])
    with defaults(dtype, "meta"):
        assert torch.equal(opened(MEL), expected)
        wave = torch.cat([first, streamer.push(MEL[:, 20:]), streamer.flush()])
    torch.testing.assert_close(wave, expected, rtol=0, atol=1e-6)


def test_judgements_and_loud_mels_are_those_of_single_precision() -> None:
    config = CONVENTIONS["hifigan"]
    loud, strange = loud_mel(config), 8.7 * random_mel(80, 90)
    judged = suspicion(strange, config)
    assert judged is not None
    for dtype in (torch.float64, torch.bfloat16):
        with defaults(dtype, "meta"):
            assert torch.equal(loud_mel(config), loud)
            assert suspicion(strange, config) == judged


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_reach_into_a_vocoder(name: str, use: str) -> None:
    condition = None if (c := condition_of(name, 1)) is None else c[0]
    opened = Vocoder(checkpoint(name))
    expected = USES[use](opened, condition)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(USES[use](opened, condition), expected)
        assert torch.equal(USES[use](Vocoder(checkpoint(name)), condition), expected)
        assert torch.is_autocast_enabled("cpu")
    reference = Vocoder(checkpoint(name), backend="reference")
    expected = USES[use](reference, condition)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(USES[use](reference, condition), expected)


def test_a_negated_view_is_read_as_it_looks() -> None:
    opened = Vocoder(checkpoint("hifigan"))
    negated = torch._neg_view(-MEL)
    assert negated.is_neg()
    assert torch.equal(opened(negated), opened(MEL))
    assert torch.equal(torch.cat(list(opened.stream([negated]))), torch.cat(list(opened.stream([MEL]))))


OWNED: dict[str, Callable[[Vocoder], Any]] = {
    "a vocoder": lambda v: v,
    "its generator": lambda v: v.generator,
    "a streamer": lambda v: v.streamer(),
    "a plan": lambda v: v._runner.plan(),
    "its plan for streams": lambda v: v._runner.plan(in_order=True),
    "its synthesizer": lambda v: v._synthesizer,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("owned", OWNED)
def test_what_nobody_needs_is_freed_at_once(owned: str, name: str) -> None:
    opened = Vocoder(checkpoint(name))
    condition = None if (c := condition_of(name, 1)) is None else c[0]
    if owned == "a streamer":
        thing: Any = opened.streamer(condition=condition)
        thing.push(MEL)
    else:
        opened(MEL, condition=condition)
        thing = OWNED[owned](opened)
    if thing is None:
        assert "plan" in owned and opened.explain()["plan"] is not None
        return
    dead = weakref.ref(thing)
    gc.disable()
    try:
        del thing, opened
        assert dead() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["hifigan", "melgan", "griffin-lim-net"])
def test_copies_take_weights_along_and_nothing_compiled(name: str, copied: Callable[[Vocoder], Vocoder]) -> None:
    opened = Vocoder(checkpoint(name))
    fresh = len(pickle.dumps(opened))
    before = opened(MEL)
    streamer = opened.streamer()
    pieces = [streamer.push(MEL[:, :20])]
    assert len(pickle.dumps(opened)) <= fresh + 1000
    other = copied(opened)
    assert torch.equal(other(MEL), before)
    for parameter in other.generator.parameters():
        parameter.data.mul_(0.5)
    assert not torch.equal(other(MEL), before) and torch.equal(opened(MEL), before)
    moved = pickle.loads(pickle.dumps(streamer))
    rest = [torch.cat([s.push(MEL[:, 20:]), s.flush()]) for s in (streamer, moved)]
    assert torch.equal(*rest) and len(pieces[0]) + len(rest[0]) == len(before)


@pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")
@pytest.mark.parametrize("name", ["hifigan", "melgan", "istftnet"])
def test_windows_of_a_plan_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = Vocoder(checkpoint(name)).generator
    plan, mel = Plan(generator), random_mel(2, BANDS, 100)  # type: ignore[arg-type]
    with torch.inference_mode():
        whole = plan(mel)
        for window in (1, 7, 64, 99):
            monkeypatch.setattr("fastvoc.engine.cpu_plan.WINDOW", window)
            assert torch.equal(plan(mel), whole)


def run(script: str, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", textwrap.dedent(PREPARE) + textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout, check=False)


PREPARE = f"""
import sys
sys.path[:0] = {sys.path!r}
import torch
from test_streaming import BANDS, checkpoint, random_mel
from fastvoc import Vocoder
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_of_two_threads_makes_the_same_samples() -> None:
    done = run(
        """
        import multiprocessing
        torch.set_num_threads(2)
        vocoder, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 400)
        wave, whole = vocoder(mel), vocoder.mel(torch.zeros(400000))
        streamer = vocoder.streamer()
        def child(pipe):
            made = [vocoder(mel), vocoder.mel(torch.zeros(400000)), streamer.push(mel)]
            pipe.send((torch.equal(made[0], wave), torch.equal(made[1], whole), torch.get_num_threads()))
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
        print(ours.recv() if ours.poll(60) else "hangs")
        process.kill()
        """
    )
    assert done.stdout.strip() == "(True, True, 1)", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_threads_that_were_asked_for_after_opening_do_not_hang_a_forked_child() -> None:
    done = run(
        """
        import os, signal
        torch.set_num_threads(1)
        vocoder, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 400)
        torch.set_num_threads(2)
        wave = vocoder(mel)
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(0 if torch.equal(vocoder(mel), wave) else 1)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert done.stdout.strip() == "0", done.stderr


@pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")
def test_ctrl_c_is_heard_between_the_windows_of_a_long_mel() -> None:
    done = run(
        """
        import signal, threading
        from fastvoc.engine import cpu_plan
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
        windows = []
        run = cpu_plan.NativeRun._run
        def counted(self, *arguments, **options):
            windows.append(1)
            if len(windows) == 3:
                # to this thread: the process's signals may be given to any, and then come late
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return run(self, *arguments, **options)
        cpu_plan.NativeRun._run = counted
        try:
            Vocoder(checkpoint("hifigan"))(random_mel(BANDS, 20 * cpu_plan.WINDOW))
        except KeyboardInterrupt:
            print("interrupted after", len(windows))
        """
    )
    assert done.stdout.split() in (["interrupted", "after", "3"], ["interrupted", "after", "4"]), done.stderr


@pytest.mark.parametrize(("dtype", "of"), [("float64", torch.float64), ("bfloat16", torch.bfloat16)])
def test_dtypes_go_by_name_and_a_vocoder_moves(dtype: str, of: torch.dtype) -> None:
    opened = Vocoder(checkpoint("hifigan"), dtype=dtype)
    assert opened.dtype == of and opened(MEL).dtype == of
    moved = Vocoder(checkpoint("hifigan"))
    moved(MEL)
    assert moved.to(dtype=dtype) is moved and moved.dtype == of
    assert torch.equal(moved(MEL), opened(MEL))
    assert "on cpu" in repr(moved)


def test_a_vocoder_of_inference_mode_moves_outside_of_it_and_the_reverse() -> None:
    with torch.inference_mode():
        inside = Vocoder(checkpoint("hifigan"))
        inside(MEL)
    outside = Vocoder(checkpoint("hifigan"))
    inside.to(dtype="float64")
    with torch.inference_mode():
        outside.to(dtype="float64")
    assert torch.equal(inside(MEL), outside(MEL))
    assert not any(weight.is_inference() for v in (inside, outside) for weight in v.generator.parameters())


def test_a_move_that_is_refused_changes_nothing() -> None:
    opened = Vocoder(checkpoint("hifigan"))
    with pytest.raises(ValueError, match="torch sees"):
        opened.to("cuda:77", dtype="float64")
    assert opened.to("cpu").dtype == torch.float32


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("name", GENERATORS)
def test_every_streamer_is_pickled_in_the_middle(name: str, backend: str | None) -> None:
    streamer = Vocoder(checkpoint(name), backend=backend).streamer(condition=condition_of(name, 1))
    streamer.push(MEL[:, :20])
    moved = pickle.loads(pickle.dumps(streamer))
    assert torch.equal(*(torch.cat([s.push(MEL[:, 20:]), s.flush()]) for s in (streamer, moved)))


def test_a_moved_stream_does_not_take_a_change_for_one_that_it_has_heard() -> None:
    opened = Vocoder(checkpoint("hifigan"))
    opened.generator.mul = torch.ones(1)  # a change
    opened(MEL)
    streamer = opened.streamer()
    moved = pickle.loads(pickle.dumps((opened, streamer)))
    with torch.no_grad():
        next(moved[0].generator.parameters()).mul_(2)
    wave = moved[0](MEL)  # which notices it
    moved[1].reset()
    torch.testing.assert_close(torch.cat([moved[1].push(MEL), moved[1].flush()]), wave, rtol=0, atol=1e-6)


def test_a_conditioned_stream_begins_anew_where_the_vocoder_has_moved() -> None:
    name = "hifigan, conditioned"
    opened, condition = Vocoder(checkpoint(name)), condition_of(name, 1)
    streamer = opened.streamer(condition=condition)
    streamer.push(MEL)
    opened.to(dtype="float64")
    streamer.reset()
    wave = torch.cat([streamer.push(MEL), streamer.flush()])
    assert condition is not None and wave.dtype == torch.float64
    torch.testing.assert_close(wave, opened(MEL, condition=condition[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("way", ["half", "double", "bfloat16"])
def test_a_generator_in_another_dtype_is_followed(way: str) -> None:
    opened = Vocoder(checkpoint("hifigan"))
    opened(MEL)
    getattr(opened.generator, way)()
    wave = opened(MEL)
    with torch.inference_mode():
        expected = opened.generator(MEL[None].to(opened.dtype))[0, 0]
    assert wave.dtype == opened.dtype == expected.dtype
    torch.testing.assert_close(
        wave, expected, rtol=0, atol=2 * torch.finfo(wave.dtype).eps * float(expected.abs().max())
    )


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"dtype": "float33"}, TypeError, "dtype 'float33' is not a dtype; it must be one like 'float32'"),
    ({"dtype": "int8"}, TypeError, "dtype torch.int8 cannot hold weights"),
    ({"device": "gpu"}, ValueError, "Vocoder: device 'gpu': is not a device; known: auto, cpu, cuda, cuda:N"),
    ({"device": "cuda:77"}, ValueError, r"device 'cuda:77': torch sees \d CUDA devices; use auto or cpu"),
    ({"backend": "cudnn"}, ValueError, "Vocoder: 'cudnn' is not a backend; known: cuda, triton, cpu, reference"),
]


@pytest.mark.parametrize(("options", "kind", "sentence"), WRONG)
def test_what_is_not_there_is_refused_at_once(options: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        Vocoder(checkpoint("hifigan"), **options)


def test_a_device_without_an_index_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastvoc.device import read_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [str(read_device(name, "a test")) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]


def speechlike(frames: int) -> Tensor:
    torch.manual_seed(0)
    samples = torch.randn(frames * 256) * torch.linspace(0, 20, frames * 256).sin().square() * 0.1
    return mel_spectrogram(samples, CONVENTIONS["hifigan"])


def vocoder_of_speech() -> Vocoder:
    return Vocoder(checkpoint("hifigan", 80))


@pytest.mark.parametrize("sizes", [[200], [10] * 20, [59, 1, 140], [1, 199]], ids=str)
def test_streams_warn_once_of_another_convention(sizes: list[int]) -> None:
    opened, mel = vocoder_of_speech(), 8.7 * speechlike(200)
    with pytest.warns(UserWarning, match="is the mel") as caught:
        list(opened.stream(mel.split(sizes, dim=-1)))
    assert len(caught) == 1


def test_a_stream_that_begins_anew_is_judged_anew() -> None:
    opened, mel = vocoder_of_speech(), 8.7 * speechlike(80)
    streamer = opened.streamer()
    for _ in range(2):
        with pytest.warns(UserWarning, match="is the mel"):
            streamer.push(mel)
        streamer.reset()


def test_streams_convert_what_they_are_told() -> None:
    opened = Vocoder(checkpoint("hifigan"))
    config = opened.config.mel
    decimal = type(config)(**{f: getattr(config, f) for f in config.__dataclass_fields__} | {"logarithm": "decimal"})
    chunks = (MEL / 2.302585092994046).split(7, dim=-1)
    wave = torch.cat(list(opened.stream(chunks, convention=decimal)))
    torch.testing.assert_close(wave, opened(MEL / 2.302585092994046, convention=decimal), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"cannot be converted exactly: the mel has .*80 bands against 6"):
        opened.streamer(convention="hifigan")


def test_chunks_with_and_without_a_batch_of_one_follow_one_another() -> None:
    opened, mel = vocoder_of_speech(), speechlike(100)
    streamer = opened.streamer()
    with pytest.raises(ValueError, match="mel has shape"):
        streamer.push(mel[None].expand(2, -1, -1)[..., :10])
    pieces = [streamer.push(mel[:, :10]), streamer.push(mel[None, :, 10:])[0], streamer.flush()[0]]
    torch.testing.assert_close(torch.cat(pieces), opened(mel), rtol=0, atol=1e-6)
    copied = copy.copy(streamer)
    assert copied._read is not streamer._read  # each judges what it hears
