"""`torch.compile` around whatever calls a vocoder: its methods run as they are, between compiled pieces."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from test_autoencoder import autoencoder, wave_of
from test_instrument import CONFIG as NOTES
from test_streaming import BANDS, checkpoint, random_mel
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from voices import tiny_vits, write_voice

from fastvoc import Instrument, Vocoder
from fastvoc.checkpoints import Checkpoint
from fastvoc.engine import Streamer
from fastvoc.faces.voice import Voice

MEL = random_mel(BANDS, 40)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def through_a_streamer(vocoder: Vocoder, mel: Tensor) -> Tensor:
    streamer = vocoder.streamer()
    pieces = [streamer.push(mel[:, :15]), streamer.push(mel[:, 15:]), streamer.flush()]
    return torch.cat(pieces)


USES: dict[str, Callable[[Vocoder, Tensor], Tensor]] = {
    "at once": lambda v, mel: v(mel),
    "a batch of lengths": lambda v, mel: torch.cat(v(mel.expand(2, -1, -1), lengths=[9, 40])),
    "a streamer": through_a_streamer,
    "a stream": lambda v, mel: torch.cat(list(v.stream(mel.split(13, dim=-1)))),
    "a mel": lambda v, mel: v.mel(mel.flatten().repeat(4).sin()),
}


def surrounded(vocoder: Vocoder, use: str) -> Callable[[Tensor], Tensor]:
    return lambda mel: USES[use](vocoder, mel * 0.5 - 1) * 2


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["hifigan", "istftnet"])
def test_compiled_code_calls_a_vocoder(name: str, use: str) -> None:
    vocoder = Vocoder(checkpoint(name))
    plain = surrounded(vocoder, use)
    expected = plain(MEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as those of what a compiler cannot trace
        assert torch.equal(torch.compile(plain, backend="aot_eager")(MEL), expected)
    assert torch.equal(plain(MEL), expected)  # and the process is whole afterwards


def test_what_surrounds_a_vocoder_is_compiled_and_the_vocoder_is_not() -> None:
    vocoder, seen = Vocoder(checkpoint("hifigan")), []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    compiled = torch.compile(lambda mel: vocoder(mel * 0.5 - 1).sinh(), backend=backend)
    torch.testing.assert_close(compiled(MEL), vocoder(MEL * 0.5 - 1).sinh(), rtol=0, atol=0)
    assert any("mul" in name for name in seen) and any("sinh" in name for name in seen)
    assert not any("conv" in name or "fastvoc" in name or "isfinite" in name for name in seen)


def test_refusals_go_through_compiled_code() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    compiled = torch.compile(lambda mel: vocoder(mel + 1), backend="aot_eager")
    with pytest.raises(ValueError, match=r"it must be \(6, frames\)|mel has shape"):
        compiled(torch.zeros(3, 9))
    assert torch.equal(compiled(MEL), vocoder(MEL + 1))


def test_a_streamer_that_compiled_code_is_given_goes_on() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    streamer: Streamer = vocoder.streamer()
    step = torch.compile(lambda mel: streamer.push(mel * 1.0) * 1.0, backend="aot_eager")
    pieces = [step(chunk) for chunk in MEL.split(8, dim=-1)]
    torch.testing.assert_close(torch.cat([*pieces, streamer.flush()]), vocoder(MEL), rtol=0, atol=1e-6)


TRACERS: dict[str, Callable[[Callable[[Tensor], Tensor]], object]] = {
    "torch.jit.trace": lambda run: torch.jit.trace(run, MEL, check_trace=False),
    "make_fx": lambda run: make_fx(run)(MEL),
    "make_fx of fake tensors": lambda run: make_fx(run, tracing_mode="fake")(MEL),
    "vmap": lambda run: torch.vmap(run)(MEL[None]),
    "grad": lambda run: torch.func.grad(lambda mel: run(mel).sum())(MEL),
}


@pytest.mark.parametrize("tracer", TRACERS)
def test_tracers_are_told_that_they_see_nothing(tracer: str) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    if vocoder.explain()["plan"] is not None:
        pytest.skip("nothing native runs it here")
    expected = vocoder(MEL)
    streamed = torch.cat([*vocoder.stream([MEL])])
    for run in (lambda mel: vocoder(mel, check=False), lambda mel: vocoder.streamer(batch=1).push(mel)):
        with warnings.catch_warnings(), pytest.raises(RuntimeError, match="cannot be traced or transformed, since"):
            warnings.simplefilter("ignore")
            TRACERS[tracer](run)
    assert torch.equal(vocoder(MEL), expected) and torch.equal(torch.cat([*vocoder.stream([MEL])]), streamed)


def a_note() -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    instrument = Instrument(Checkpoint(NOTES, NOTES.generator.build().state_dict(), "test"))
    return lambda x: instrument(60, seed=3) * x


def a_decoded_code() -> Callable[[Tensor], Tensor]:
    coder = autoencoder()
    return lambda x: coder.decode(coder.encode(wave_of(2000) * x), seed=0)


def a_streamed_code() -> Callable[[Tensor], Tensor]:
    coder = autoencoder()
    code = coder.encode(wave_of(2000))
    return lambda x: torch.cat([*coder.stream((code * x).split(2), seed=0)])


def voice() -> Voice:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with tempfile.TemporaryDirectory() as folder:
        write_voice(Path(folder) / "voice.onnx", tiny_vits())
        return Voice.from_pretrained(Path(folder) / "voice.onnx")


def a_sentence() -> Callable[[Tensor], Tensor]:
    spoken = voice()
    return lambda x: spoken.speak([1, 2, 3], seed=1) * x


def a_streamed_sentence() -> Callable[[Tensor], Tensor]:
    spoken = voice()
    return lambda x: torch.cat([*spoken.stream([1, 2, 3], seed=1)]) * x


@pytest.mark.parametrize("use", [a_note, a_decoded_code, a_streamed_code, a_sentence, a_streamed_sentence])
def test_compiled_code_calls_other_networks(use: Callable[[], Callable[[Tensor], Tensor]]) -> None:
    """Nothing of theirs is traced: a compiler would follow random numbers without end."""
    plain, traced, two = use(), [], torch.tensor(2.0)

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Tensor]:
        traced.extend(node.target for node in graph.graph.nodes if node.op.startswith("call"))
        return graph.forward

    compiled = torch.compile(lambda x: plain(x + 1), backend=backend)
    assert torch.equal(compiled(two), plain(two + 1))
    assert len(traced) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("use", ["at once", "a streamer", "a mel"])
def test_by_default_too(use: str) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    plain = surrounded(vocoder, use)
    torch.testing.assert_close(torch.compile(plain)(MEL), plain(MEL), rtol=0, atol=1e-6)
    torch.testing.assert_close(vocoder(MEL), vocoder(MEL), rtol=0, atol=0)
