"""A family that only this file knows does everything that the package's own do, without a changed line in it.

Its generator has an activation that no kernel knows and a residual structure of its own, its recipe a loss and a
discriminator of its own, its checkpoints a format of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from pydantic import Field
from test_run import MEL, assert_equal, copy_of, final, folder, recordings, settings  # noqa: F401  two are fixtures
from torch import Tensor, nn

import fastvoc
from fastvoc import Vocoder
from fastvoc.audio import MelConfig
from fastvoc.blocks import Conv1d, Upsample
from fastvoc.checkpoints import FORMATS, Checkpoint, Format, Source, VocoderConfig, open_checkpoint
from fastvoc.checkpoints.format import each, write_torch
from fastvoc.checkpoints.tensor_names import from_native, to_native
from fastvoc.cli import main
from fastvoc.config import Kinds, config, from_dict
from fastvoc.export import write_onnx
from fastvoc.graph import Graph, Pointwise
from fastvoc.models import GENERATORS, Generator
from fastvoc.models.discriminators import DISCRIMINATORS, Maps
from fastvoc.ops import backends
from fastvoc.train.config import TrainConfig
from fastvoc.train.report.log import read_log
from fastvoc.train.tasks.losses import LOSSES, Loss

BANDS = 6


@config
class RippleNetConfig:
    """Settings of the family."""

    kind: Literal["ripplenet"] = "ripplenet"
    mel_bands: int = BANDS
    channels: int = Field(8, gt=0, le=64)
    rates: tuple[int, int] = (4, 2)

    @property
    def hop(self) -> int:
        return self.rates[0] * self.rates[1]

    def build(self) -> RippleNet:
        return RippleNet(self)


class Ripple(nn.Module):
    """x + sin(αx)/α: a function of rows that no kernel knows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.linspace(1, 3, channels)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) / self.alpha

    def lower(self, graph: Graph, x: int) -> int:
        return graph.add(Pointwise(self), x)


class GatedPair(nn.Module):
    """x + b · tanh(b), where b is made of x by two convolutions: a residual structure of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ripple = Ripple(channels)
        self.wide, self.narrow = Conv1d(channels, channels, 5, dilation=3), Conv1d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.narrow(self.wide(self.ripple(x)), slope=0.3))

    def lower(self, graph: Graph, x: int) -> int:
        b = graph.lower(self.narrow, graph.lower(self.wide, graph.lower(self.ripple, x)), slope=0.3)
        return graph.add(Pointwise(self.join), x, b)

    @staticmethod
    def join(x: Tensor, b: Tensor) -> Tensor:
        return x + b * torch.tanh(b)


class RippleNet(Generator):
    """Stem, and for each rate a ripple, an up-sampling and a gated pair; a convolution and tanh."""

    def __init__(self, settings: RippleNetConfig) -> None:
        super().__init__(mel_bands=settings.mel_bands)
        self.config = settings
        width = settings.channels
        self.stem = Conv1d(settings.mel_bands, width, 7)
        self.ripples = nn.ModuleList(Ripple(width) for _ in settings.rates)
        self.ups = nn.ModuleList(Upsample(width, width, 2 * rate, rate) for rate in settings.rates)
        self.pairs = nn.ModuleList(GatedPair(width) for _ in settings.rates)
        self.head = Conv1d(width, 1, 7)

    @property
    def hop(self) -> int:
        return self.config.hop

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self.stem(mel)
        for ripple, up, pair in zip(self.ripples, self.ups, self.pairs, strict=True):
            x = pair(up(ripple(x)))
        return self.head(x, tanh=True)  # type: ignore[no-any-return]

    def lower(self, graph: Graph, x: int) -> int:
        x = graph.lower(self.stem, x)
        for stage in zip(self.ripples, self.ups, self.pairs, strict=True):
            for block in stage:
                x = graph.lower(block, x)
        return graph.lower(self.head, x, tanh=True)


@config
class Crest(Loss):
    """Distance of the largest samples of frames."""

    kind: Literal["crest"] = "crest"
    frame: int = Field(32, gt=0)

    def distance(self, made: Tensor, wave: Tensor, run: TrainConfig) -> Tensor:
        largest = [x.unflatten(-1, (-1, self.frame)).abs().amax(dim=-1) for x in (made, wave)]
        return (largest[0] - largest[1]).abs().mean()


@config
class EnvelopeDiscriminatorConfig:
    kind: Literal["envelope"] = "envelope"
    channels: int = Field(4, gt=0)

    def build(self) -> EnvelopeDiscriminator:
        return EnvelopeDiscriminator(self)


class EnvelopeDiscriminator(nn.Module):
    """One sub-discriminator, of the magnitudes of a wave."""

    def __init__(self, settings: EnvelopeDiscriminatorConfig) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, settings.channels, 9, 4)
        self.last = nn.Conv1d(settings.channels, 1, 3)

    def forward(self, wave: Tensor) -> list[Maps]:
        x = torch.relu(self.first(wave.abs()))
        return [[x, self.last(x)]]


TABLE = [("input", "stem"), ("output", "head")] + [
    pair
    for n in range(2)
    for pair in (
        (f"act.{n}.a", f"ripples.{n}.alpha"),
        (f"up.{n}", f"ups.{n}"),
        (f"res.{n}.a", f"pairs.{n}.ripple.alpha"),
        (f"res.{n}.wide", f"pairs.{n}.wide"),
        (f"res.{n}.narrow", f"pairs.{n}.narrow"),
    )
]


def read_ripplenet(source: Source) -> Checkpoint:
    about = source.content["about"]
    generator = RippleNetConfig(channels=about["width"])
    vocoder: VocoderConfig = from_dict(VocoderConfig, {"generator": generator, "mel": MEL}, str(source.file))
    return Checkpoint(vocoder, to_native(source.state(), TABLE, generator, str(source.file)), "RippleNet")


def write_ripplenet(place: Path, config: VocoderConfig, weights: dict[str, Tensor]) -> None:
    content = {"net": from_native(weights, TABLE), "about": {"width": config.generator.channels}}  # type: ignore[attr-defined]
    write_torch(place, "ripple-1.pt", content, "about.txt", "made in a test")


RIPPLENET = Format(
    name="ripplenet",
    title="RippleNet",
    files=("ripple-*.pt",),
    places=("net",),
    read=read_ripplenet,
    write=write_ripplenet,
    layers=each("input", "output", "res.0.wide"),
)


@pytest.fixture(autouse=True, scope="module")
def _known() -> Iterator[None]:
    added: list[tuple[Kinds, Any]] = [
        (GENERATORS, RippleNetConfig),
        (LOSSES, Crest),
        (DISCRIMINATORS, EnvelopeDiscriminatorConfig),
    ]
    for kinds, cls in added:
        kinds.add(cls)
    FORMATS.add(RIPPLENET)
    yield
    FORMATS.remove("ripplenet")
    for kinds, cls in added:
        del kinds._classes[cls.kind]


def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    weights = {name: 1.5 * value for name, value in RippleNetConfig().build().state_dict().items()}
    mel: MelConfig = from_dict(MelConfig, MEL, "a test")
    return Checkpoint(VocoderConfig(generator=RippleNetConfig(), mel=mel), weights, "a test")


def mel_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (8 * values - 11).to(dtype)


def forward(vocoder: Vocoder, mel: Tensor) -> Tensor:
    with torch.inference_mode(), fastvoc.use_backend("reference"):
        return vocoder.generator(mel if mel.ndim == 3 else mel[None])[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_it_vocodes_alone_in_batches_and_of_different_lengths(dtype: torch.dtype) -> None:
    vocoder, mel = Vocoder(checkpoint(), dtype=dtype), mel_of(3, BANDS, 40, dtype=dtype)
    expected = forward(Vocoder(checkpoint(), dtype=torch.float64), mel.double())
    # ten layers, whose roundings a ripple makes up to four times as large
    tolerance = 40 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(vocoder(mel).double(), expected, rtol=0, atol=tolerance)
    for wave, length, item in zip(vocoder(mel, lengths=[40, 9, 23]), (40, 9, 23), mel, strict=True):
        assert torch.equal(wave, vocoder(item[:, :length]))


@examples(max_examples=15, deadline=None)
@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_its_streams_are_exact_and_compute_every_row_once(chunks: list[int]) -> None:
    vocoder = Vocoder(checkpoint(), dtype=torch.float64)
    mel = mel_of(BANDS, sum(chunks), dtype=torch.float64)
    assert not vocoder.streamer().recomputes
    pieces = torch.cat([*vocoder.stream(mel.split(chunks, dim=-1))])
    torch.testing.assert_close(pieces, forward(vocoder, mel)[0], rtol=0, atol=1e-12)


def test_it_says_how_far_it_looks_and_looks_no_farther() -> None:
    vocoder = Vocoder(checkpoint(), dtype=torch.float64)
    past, future = vocoder.receptive_field
    mel, at = mel_of(BANDS, 60, dtype=torch.float64), 30
    whole = vocoder(mel).unflatten(0, (-1, vocoder.hop))[at]
    reached = [
        frame
        for frame in range(60)
        if not torch.equal(whole, vocoder(changed(mel, frame)).unflatten(0, (-1, vocoder.hop))[at])
    ]
    assert reached == list(range(at - past, at + future + 1))


def changed(mel: Tensor, frame: int) -> Tensor:
    mel = mel.clone()
    mel[:, frame] += 0.5
    return mel


def test_it_explains_what_runs_it() -> None:
    ways = Vocoder(checkpoint()).explain()
    if backends()["cpu"] is None:
        assert ways["plan"] == "its GatedPair is made of more than the layers that a plan knows"
        assert ways["plan in parts"] is None
    assert ways["reference"] is None
    with pytest.raises(ValueError, match="RippleNet draws no random numbers"):
        Vocoder(checkpoint())(mel_of(BANDS, 4), seed=1)


def test_it_is_saved_and_opened_and_converted_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocoder, mel = Vocoder(checkpoint()), mel_of(BANDS, 30)
    vocoder.save_pretrained(tmp_path / "ours")
    opened = fastvoc.open(tmp_path / "ours")
    assert isinstance(opened, Vocoder) and torch.equal(opened(mel), vocoder(mel))
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "theirs"), "--to", "ripplenet"]) == 0
    assert open_checkpoint(tmp_path / "theirs").source == "RippleNet"
    assert torch.equal(Vocoder.from_pretrained(tmp_path / "theirs")(mel), vocoder(mel))
    assert main(["info", str(tmp_path / "theirs")]) == 0
    told = capsys.readouterr().out
    assert "RippleNet" in told and "8000 Hz" in told


def test_the_command_line_makes_its_sound(tmp_path: Path) -> None:
    vocoder, mel = Vocoder(checkpoint()), mel_of(BANDS, 30)
    vocoder.save_pretrained(tmp_path / "ours")
    np.save(tmp_path / "one.npy", mel.numpy())
    arguments = ["vocode", str(tmp_path / "one.npy"), "--out", str(tmp_path / "out"), "--subtype", "float"]
    assert main([*arguments, "--vocoder", str(tmp_path / "ours"), "--device", "cpu"]) == 0
    wave, rate = fastvoc.audio.read_audio(tmp_path / "out" / "one.wav")
    assert rate == 8000 and torch.equal(wave, vocoder(mel).clamp(-1, 1))


def test_it_becomes_onnx(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    vocoder, mel = Vocoder(checkpoint()), mel_of(2, BANDS, 33)
    write_onnx(vocoder, tmp_path / "ripple.onnx")
    session = runtime.InferenceSession(str(tmp_path / "ripple.onnx"), providers=["CPUExecutionProvider"])
    wave = torch.from_numpy(session.run(["wave"], {"mel": mel.numpy()})[0])
    expected = forward(Vocoder(checkpoint(), dtype=torch.float64), mel.double())
    tolerance = 40 * torch.finfo(torch.float32).eps * float(expected.abs().max())
    torch.testing.assert_close(wave.double(), expected, rtol=0, atol=tolerance)


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    values = settings(place) | {"generator": {"kind": "ripplenet"}}
    values["losses"] = {"mel": 45, "crest": {"weight": 2, "frame": 64}, "adversarial": 1, "features": 2}
    values["adversary"] = values["adversary"] | {"discriminators": [{"kind": "envelope", "channels": 2}]}
    return values | changes


def test_it_trains_by_a_recipe_and_resumes_to_the_bit(folder: Path) -> None:  # noqa: F811
    whole, parted = (copy_of(folder, name) for name in ("whole", "parted"))
    trained = fastvoc.train(recipe(whole, steps=4, report_every=1), device="cpu")
    fastvoc.train(recipe(parted, steps=2), device="cpu")
    torch.manual_seed(77)
    fastvoc.train(recipe(parted, steps=4), device="cpu")
    found, wanted = final(parted), final(whole)
    for name in (".config.report_every", ".best"):
        del found[name], wanted[name]
    assert_equal(found, wanted)
    line = [line for line in read_log(whole / "run" / "log.jsonl") if line["kind"] == "training"][-1]
    assert {"mel", "crest", "adversarial", "features"} <= set(line)
    run = fastvoc.open(whole / "run")  # the folder of a run is a vocoder
    assert isinstance(run.generator, RippleNet)
    assert torch.equal(run(mel_of(BANDS, 20)), trained(mel_of(BANDS, 20)))
