"""Streams: any chunks give the samples of the whole, every row is computed once, and a state is a value."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvoc import Vocoder, ops
from fastvoc.audio import MelConfig, PqmfConfig, mel_spectrogram, read_audio
from fastvoc.blocks import Conv1d, Trunk, WaveHead
from fastvoc.checkpoints import Checkpoint, InferenceFrames, VocoderConfig
from fastvoc.engine import Stream, StreamState
from fastvoc.models import (
    BigVGANConfig,
    Generator,
    GriffinLimNetConfig,
    HiFiGANConfig,
    ISTFTNetConfig,
    MelGANConfig,
    VocosConfig,
    WaveGlowConfig,
)
from fastvoc.models.generator import TrunkGenerator
from fastvoc.ops import backends

BANDS = 6
CONDITION = 3


def hifigan(**changes: Any) -> HiFiGANConfig:
    settings: dict[str, Any] = {
        "mel_bands": BANDS,
        "channels": 8,
        "rates": (4, 2),
        "rate_kernel_sizes": (8, 4),
        "kernel_sizes": (3, 7),
        "dilations": ((1, 3), (1, 5)),
    }
    return HiFiGANConfig(**settings | changes)


def bigvgan(**changes: Any) -> BigVGANConfig:
    settings: dict[str, Any] = {
        "mel_bands": BANDS,
        "channels": 8,
        "rates": (4, 2),
        "rate_kernel_sizes": (8, 4),
        "kernel_sizes": (3, 7),
        "dilations": ((1, 3), (1, 5)),
    }
    return BigVGANConfig(**settings | changes)


def melgan(**changes: Any) -> MelGANConfig:
    settings: dict[str, Any] = {
        "mel_bands": BANDS,
        "channels": 8,
        "rates": (5, 2),
        "rate_kernel_sizes": (10, 4),
        "units": 2,
    }
    return MelGANConfig(**settings | changes)


def vocos(**changes: Any) -> VocosConfig:
    settings: dict[str, Any] = {"mel_bands": BANDS, "channels": 8, "hidden": 24, "blocks": 2, "fft_size": 32, "hop": 8}
    return VocosConfig(**settings | changes)


KERAS: dict[str, Any] = {
    "rates": (8, 2),
    "rate_kernel_sizes": (16, 16),
    "unit_kernel_sizes": (3, 3),
    "shortcut": False,
    "padding_mode": "zero",
    "crop_rule": "centred",
    "activated_stack": True,
}

GENERATORS: dict[str, Any] = {
    "hifigan": hifigan(),
    "hifigan, block 2": hifigan(block="2"),
    "hifigan, odd rates": hifigan(rates=(5, 3), rate_kernel_sizes=(11, 7)),
    "hifigan, no overlap": hifigan(rates=(4, 3), rate_kernel_sizes=(4, 3)),
    "hifigan, output-padded": hifigan(rates=(5, 3), rate_kernel_sizes=(10, 6), crop_rule="output-padded"),
    "hifigan, symmetric": hifigan(rates=(5, 3), rate_kernel_sizes=(8, 8), crop_rule="symmetric"),
    "hifigan, reflect": hifigan(padding_mode="reflect"),
    "hifigan, replicate": hifigan(padding_mode="replicate"),
    "hifigan, causal": hifigan(causal=True),
    "hifigan, causal, reflect": hifigan(causal=True, padding_mode="reflect"),
    "hifigan, standardised": hifigan(standardised=True),
    "hifigan, conditioned": hifigan(condition_channels=CONDITION),
    "hifigan, conditioned at each stage": hifigan(condition_channels=CONDITION, condition_each_stage=True),
    "melgan": melgan(),
    "melgan, keras": melgan(**KERAS),
    "melgan, multi-band": melgan(channels=16, rates=(4, 2), rate_kernel_sizes=(8, 4), pqmf=PqmfConfig()),
    "istftnet": ISTFTNetConfig(trunk=hifigan()),
    "istftnet, symmetric": ISTFTNetConfig(
        trunk=hifigan(rates=(5, 3), rate_kernel_sizes=(8, 8), crop_rule="symmetric"), fft_size=12, istft_hop=2
    ),
    "istftnet, angle": ISTFTNetConfig(trunk=hifigan(), fft_size=12, istft_hop=8, phase="angle"),
    "bigvgan": bigvgan(),
    "bigvgan, block 2, linear": bigvgan(block="2", activation="snake", logarithmic=False, final="tanh"),
    "griffin-lim-net": GriffinLimNetConfig(
        mel_bands=BANDS, channels=8, fft_size=64, hop=16, iterations=2, revisions=2, kernel_sizes=(3,), dilations=(1, 3)
    ),
    "vocos": vocos(),
    "vocos, same": vocos(padding="same", fft_size=36),
    "wavenext": vocos(head="samples"),
    "waveglow": WaveGlowConfig(
        mel_bands=BANDS, hop=12, upsample_kernel_size=30, group=6, flows=4, early_every=2, channels=6, layers=2
    ),
}
TRANSFORMED = [
    "istftnet",
    "istftnet, symmetric",
    "istftnet, angle",
    "vocos",
    "vocos, same",
    "wavenext",
]  # by PyTorch, whose rounding is its own affair
TO_THE_BIT = [name for name in GENERATORS if name not in TRANSFORMED]
REFLECTED = 8  # frames that have the 31 rows of which a causal convolution of 7 taps, 5 rows apart, reflects 30

native = pytest.mark.skipif(backends()["cpu"] is not None, reason=f"no native kernels: {backends()['cpu']}")


@cache
def checkpoint(name: str, bands: int = BANDS) -> Checkpoint:
    generator = GENERATORS[name]
    if bands != BANDS:
        changed = {"mel_bands": bands}
        generator = (
            copy_of(generator, trunk=copy_of(generator.trunk, **changed))
            if generator.kind == "istftnet"
            else copy_of(generator, **changed)
        )
    torch.manual_seed(0)
    weights = generator.build().state_dict()
    # fresh convolutions hardly hear their input, and much larger ones make the tanh saturate
    weights = {key: 1.5 * value if key.endswith("weight") else value for key, value in weights.items()}
    if name == "waveglow":  # whose couplings are fresh without weights
        weights |= {key: 0.1 * torch.randn_like(value) for key, value in weights.items() if "end." in key}
    if name == "griffin-lim-net":
        weights["filters"] = torch.rand(weights["filters"].shape)
    if name == "hifigan, standardised":
        weights |= {"mean": torch.linspace(-7, -5, bands), "scale": torch.linspace(2, 4, bands)}
    mel = MelConfig(
        sample_rate=16000, fft_size=1024, hop=generator.hop, window_size=1024, bands=bands, low=0, high=8000
    )
    return Checkpoint(VocoderConfig(generator=generator, mel=mel), weights, "a test")


def copy_of(config: Any, **changes: Any) -> Any:
    return type(config)(**{field: getattr(config, field) for field in config.__dataclass_fields__} | changes)


@cache
def vocoder(name: str = "hifigan", dtype: torch.dtype = torch.float32, bands: int = BANDS) -> Vocoder:
    return Vocoder(checkpoint(name, bands), dtype=dtype)


def random_mel(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 10 - 11).to(dtype)


def condition_of(name: str, batch: int) -> Tensor | None:
    return torch.linspace(-2, 2, batch * CONDITION).reshape(batch, CONDITION) if "conditioned" in name else None


def options_of(name: str, batch: int) -> dict[str, Any]:
    """What a call of a generator takes beside the mels."""
    options = {"condition": condition_of(name, batch), "seed": 5 if vocoder(name).draws else None}
    return {key: value for key, value in options.items() if value is not None}


def options_of_item(name: str, batch: int, item: int) -> dict[str, Any]:
    """What a call for one item of a batch takes."""
    options = options_of(name, batch)
    if "condition" in options:
        options["condition"] = options["condition"][item]
    if "seed" in options:
        options["seed"] += item
    return options


def streamed(vocoder: Vocoder, pieces: Any, **options: Any) -> Tensor:
    streamer = vocoder.streamer(**options)
    return torch.cat([*(streamer.push(piece) for piece in pieces), streamer.flush()], dim=-1)


def assert_alike(name: str, pieces: Tensor, whole: Tensor) -> None:
    """Compare waves of double precision."""
    assert whole.std() > 1e-4
    # Some thousand roundings of 1e-16 each. Griffin-Lim divides by magnitudes near zero, which amplifies them.
    tolerance = 1e-9 if name == "griffin-lim-net" else 1e-12
    torch.testing.assert_close(pieces, whole, rtol=0, atol=tolerance * float(whole.abs().max()))


def chunkings(fewest: int = 1) -> st.SearchStrategy[list[int]]:
    """Lengths of chunks that add up to at least so many frames."""
    lengths = st.lists(st.integers(1, 9) | st.just(1) | st.integers(20, 40), min_size=1, max_size=7)
    return lengths.map(lambda chunks: [*chunks[:-1], chunks[-1] + max(0, fewest - sum(chunks))])


@pytest.mark.parametrize("name", GENERATORS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_chunks_give_the_samples_of_the_whole(name: str, data: st.DataObject) -> None:
    chunks = data.draw(chunkings(REFLECTED))
    batch = data.draw(st.sampled_from([1, 2]))
    speaking = vocoder(name, torch.float64)
    mel = random_mel(batch, BANDS, sum(chunks), seed=sum(chunks), dtype=torch.float64)
    options = options_of(name, batch)
    whole = speaking(mel, **options)
    assert_alike(name, streamed(speaking, mel.split(chunks, dim=-1), batch=batch, **options), whole)


@native
@pytest.mark.parametrize("name", TO_THE_BIT)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_native_kernels_give_them_to_the_bit(name: str, data: st.DataObject) -> None:
    chunks = data.draw(chunkings(REFLECTED))
    speaking, options = vocoder(name), options_of(name, 1)
    mel = random_mel(1, BANDS, sum(chunks), seed=sum(chunks))
    whole = speaking(mel, **options)
    assert torch.equal(streamed(speaking, mel.split(chunks, dim=-1), **options), whole)


@pytest.mark.parametrize("name", ["hifigan", "melgan, multi-band", *TRANSFORMED[:2]])
@pytest.mark.parametrize(
    ("dtype", "backend"), [(torch.float32, None), (torch.float32, "reference"), (torch.bfloat16, "reference")], ids=str
)
def test_everything_else_gives_them_to_its_rounding(name: str, dtype: torch.dtype, backend: str | None) -> None:
    mel = random_mel(BANDS, 50, dtype=torch.float64)
    exact = vocoder(name, torch.float64)(mel)
    plain = Vocoder(checkpoint(name), dtype=dtype, backend=backend)
    pieces, whole = streamed(plain, mel.split(3, dim=-1)), plain(mel)
    assert pieces.dtype == dtype
    largest = float(exact.abs().max())
    errors = [float((wave.double() - exact).abs().max()) for wave in (pieces, whole)]
    assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps * largest


@pytest.mark.parametrize("name", GENERATORS)
def test_speech_in_frames_is_the_speech_at_once(name: str, speech: list[Path]) -> None:
    speaking = vocoder(name, torch.float64, 80)
    wave, rate = read_audio(speech[0])
    mel = speaking.mel(wave[rate : rate + rate // 3], rate).double()[:, :60]
    options = options_of(name, 1)
    whole = speaking(mel[None], **options)[0]
    assert_alike(name, streamed(speaking, mel.split(1, dim=-1), **options), whole)


@pytest.mark.parametrize("name", GENERATORS)
def test_behind_every_frame_all_but_the_latency_has_sounded(name: str) -> None:
    streamer = vocoder(name).streamer(condition=condition_of(name, 1))
    hop, latency = vocoder(name).hop, streamer.latency
    assert latency == vocoder(name).receptive_field[1]
    assert streamer.latency_seconds == pytest.approx(latency * hop / 16000)
    assert (latency == 0) == ("causal" in name)
    sounded = 0
    for heard in range(1, latency + 12):
        sounded += len(streamer.push(random_mel(BANDS, 1)))
        if name != "hifigan, causal, reflect" or heard >= REFLECTED:
            assert sounded == max(0, heard - latency) * hop
    assert len(streamer.flush()) == latency * hop + vocoder(name).generator.extra_samples


@contextmanager
def counted_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[int]]:
    """Count the rows that each weight makes, but for the second one beside a row that would be alone."""
    rows: Counter[int] = Counter()
    conv1d = ops.conv1d

    def counting(x: Tensor, weight: Tensor, *others: Any, **options: Any) -> Tensor:
        result = conv1d(x, weight, *others, **options)
        rows[id(weight)] += result.shape[-1]
        return result

    with monkeypatch.context() as patch:
        patch.setattr(ops, "conv1d", counting)
        yield rows


def test_every_row_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    speaking = Vocoder(checkpoint("hifigan"), backend="reference")  # operator by operator
    streamer = speaking.streamer()
    streamer.push(random_mel(BANDS, sum(speaking.receptive_field)))
    with counted_rows(monkeypatch) as rows:
        for _ in range(5):
            streamer.push(random_mel(BANDS, 2))
    trunk = speaking.generator.trunk
    expected = {id(trunk.stem.weight): 10, id(speaking.generator.head.conv.weight): 80}
    for residual, rate in zip(trunk.residual, (4, 8), strict=True):
        expected |= {id(weight): 10 * rate for weight in residual.parameters() if weight.dim() == 3}
    assert rows == expected


@pytest.mark.parametrize("name", GENERATORS)
def test_memory_does_not_grow(name: str) -> None:
    streamer = vocoder(name).streamer(condition=condition_of(name, 1))
    streamer.push(random_mel(BANDS, sum(vocoder(name).receptive_field) + 1))

    def size() -> int:
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in streamer.state().memory}
        return sum(storages.values())

    before = size()
    streamer.push(random_mel(BANDS, 200))
    after = size()
    for _ in range(3):
        streamer.push(random_mel(BANDS, 1))
    assert before == after == size() > 0


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("heard", [1, 8, 50])
def test_state_is_a_value(name: str, heard: int) -> None:
    options = options_of(name, 1)
    streamer = vocoder(name).streamer(**options)
    start, future = random_mel(BANDS, heard), random_mel(BANDS, 20, seed=1)
    streamer.push(start)
    state = streamer.state()

    def go_on(streamer: Any) -> Tensor:
        return torch.cat([*(streamer.push(piece) for piece in future.split(7, dim=-1)), streamer.flush()])

    copies = [copy.copy(streamer), copy.deepcopy(streamer)]
    expected = go_on(streamer)
    others = {"condition": torch.zeros(1, CONDITION)} if "condition" in options else {}
    restored = vocoder(name).streamer(**others)
    restored.restore(state)
    streamer.restore(state)
    for other in (*copies, restored, streamer):
        assert torch.equal(go_on(other), expected)


@pytest.mark.parametrize("name", GENERATORS)
def test_streams_that_began_apart_are_joined_and_parted(name: str) -> None:
    speaking = vocoder(name, torch.float64)
    past, future = speaking.receptive_field
    mels = [random_mel(BANDS, past + future + n, seed=n, dtype=torch.float64) for n in (1, 7, 30)]
    next_mels = random_mel(3, BANDS, 5, seed=9, dtype=torch.float64)
    streamers = []
    waves: list[list[Tensor]] = []
    for n, mel in enumerate(mels):
        streamers.append(speaking.streamer(**options_of_item(name, 3, n)))
        waves.append([streamers[-1].push(mel)])
    together = speaking.streamer(batch=3, **options_of(name, 3))
    together.restore(StreamState.join([streamer.state() for streamer in streamers]))
    for wave, new in zip(waves, together.push(next_mels), strict=True):
        wave.append(new)
    for n, (streamer, state) in enumerate(zip(streamers, together.state().split(), strict=True)):
        streamer.restore(state)
        expected = speaking(torch.cat([mels[n], next_mels[n]], dim=-1), **options_of_item(name, 3, n))
        assert_alike(name, torch.cat([*waves[n], streamer.flush()]), expected)


def test_streams_that_remember_different_amounts_are_not_joined() -> None:
    young, old = vocoder().streamer(), vocoder().streamer()
    young.push(random_mel(BANDS, 2))
    old.push(random_mel(BANDS, 60))
    with pytest.raises(ValueError, match="do not remember equally much"):
        StreamState.join([young.state(), old.state()])
    with pytest.raises(ValueError, match="there are no states"):
        StreamState.join([])


def test_state_has_to_fit() -> None:
    streamer = vocoder().streamer()
    with pytest.raises(ValueError, match="a batch of 2; it must be 1"):
        streamer.restore(vocoder().streamer(batch=2).state())
    for other in (vocoder("melgan"), vocoder(dtype=torch.float64)):
        with pytest.raises(ValueError, match="does not fit"):
            streamer.restore(other.streamer().state())


def test_a_state_has_to_be_of_the_same_dtype_also_where_nothing_else_differs() -> None:
    single, double = (
        Vocoder(checkpoint("hifigan"), dtype=dtype, backend="reference") for dtype in (torch.float32, torch.float64)
    )
    single.streamer().restore(single.streamer().state())
    for vocoder, other in ((single, double), (double, single)):
        with pytest.raises(ValueError, match="does not fit"):
            vocoder.streamer().restore(other.streamer().state())


def test_reset_begins_anew() -> None:
    streamer = vocoder("hifigan, conditioned").streamer(condition=torch.ones(CONDITION))
    mel = random_mel(BANDS, 40)
    waves = []
    for _ in range(3):
        waves.append(torch.cat([streamer.push(mel), streamer.flush()]))
        streamer.reset()
    assert torch.equal(waves[0], waves[1])
    streamer.push(mel[:, :11])
    streamer.reset()
    assert torch.equal(waves[0], torch.cat([streamer.push(mel), streamer.flush()]))


def test_flushed_stream_has_ended() -> None:
    streamer = vocoder().streamer()
    streamer.push(random_mel(BANDS, 30))
    assert len(streamer.flush()) == streamer.latency * vocoder().hop
    assert streamer.flush().shape == (0,)
    with pytest.raises(ValueError, match=r"has been flushed; reset\(\) begins a new one"):
        streamer.push(random_mel(BANDS, 1))
    streamer.reset()
    assert len(streamer.push(random_mel(BANDS, 30))) == (30 - streamer.latency) * vocoder().hop


@pytest.mark.parametrize("name", GENERATORS)
def test_a_chunk_without_frames_changes_nothing(name: str) -> None:
    speaking, mel, options = vocoder(name), random_mel(BANDS, 30), options_of(name, 1)
    none = mel[:, :0]
    chunks = [none, mel[:, :7], none, mel[:, 7:], none]
    whole = torch.cat(list(speaking.stream([mel[:, :7], mel[:, 7:]], **options)))
    assert torch.equal(torch.cat(list(speaking.stream(chunks, **options))), whole)
    assert list(speaking.stream([none, none], **options)) == []


def test_nothing_pushed_is_nothing_heard() -> None:
    assert vocoder().streamer().flush().shape == (0,)
    assert vocoder().streamer(batch=2).flush().shape == (2, 0)


def test_what_is_too_short_to_reflect_is_refused_as_at_once() -> None:
    short = random_mel(BANDS, 3)
    with pytest.raises(ValueError, match="needs at least 4 to reflect 3") as at_once:
        vocoder("melgan")(short)
    streamer = vocoder("melgan").streamer()
    assert len(streamer.push(short)) == 0
    with pytest.raises(ValueError) as in_pieces:
        streamer.flush()
    assert str(in_pieces.value) == str(at_once.value)
    # nothing has happened, and more may still come
    mel = random_mel(BANDS, 20, seed=1)
    rest = torch.cat([streamer.push(mel), streamer.flush()])
    torch.testing.assert_close(rest, vocoder("melgan")(torch.cat([short, mel], dim=-1)), rtol=0, atol=1e-5)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "bands": (random_mel(BANDS + 1, 5), ValueError, r"shape \(7, 5\)"),
    "transposed": (random_mel(5, BANDS), ValueError, "seems to be transposed"),
    "batch": (random_mel(3, BANDS, 5), ValueError, r"\(3, 6, 5\); it must be \(2, bands, frames\)"),
    "no batch": (random_mel(BANDS, 5), ValueError, r"\(6, 5\); it must be \(2, bands, frames\)"),
    "integers": (torch.zeros(2, BANDS, 5, dtype=torch.int16), TypeError, "must be floating point"),
    "NaN": (torch.full((2, BANDS, 5), float("nan")), ValueError, "has 60 values that are NaN"),
    "a list": ([[0.0]], TypeError, "mel is a list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_chunk_is_refused_and_the_stream_goes_on(case: str) -> None:
    wrong, kind, sentence = WRONG[case]
    mel = random_mel(2, BANDS, 40)
    streamer = vocoder().streamer(batch=2)
    first = streamer.push(mel[..., :25])
    with pytest.raises(kind, match=sentence):
        streamer.push(wrong)
    pieces = torch.cat([first, streamer.push(mel[..., 25:]), streamer.flush()], dim=-1)
    torch.testing.assert_close(pieces, vocoder()(mel), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("give", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_waves_are_of_the_kind_and_batch_of_the_mel(batch: int, give: Callable[[Tensor], Any]) -> None:
    streamer = vocoder().streamer(batch=batch)
    mel = give(random_mel(batch, BANDS, 50))
    for wave in (streamer.push(mel), streamer.push(mel), streamer.flush()):
        assert type(wave) is type(mel)
        assert wave.shape[0] == batch
        assert wave.dtype == mel.dtype
    if batch == 1:
        streamer.reset()
        assert streamer.push(mel[0]).ndim == 1


def test_batch_is_positive() -> None:
    with pytest.raises(ValueError, match="batch is 0; it must be at least 1"):
        vocoder().streamer(batch=0)


def test_condition_is_one_or_one_for_each_stream() -> None:
    speaking = vocoder("hifigan, conditioned", torch.float64)
    mel, conditions = random_mel(2, BANDS, 40, dtype=torch.float64), condition_of("conditioned", 2)
    assert conditions is not None
    whole = speaking(mel, condition=conditions)
    assert (whole[0] - speaking(mel[:1], condition=conditions[1:])[0]).abs().max() > 1e-3
    for given_condition in (conditions, conditions[0], conditions.numpy()):
        pieces = streamed(speaking, mel.split(9, dim=-1), batch=2, condition=given_condition)
        expected = whole if given_condition is not conditions[0] and given_condition.ndim == 2 else None
        if expected is None:
            expected = speaking(mel, condition=conditions[:1].expand(2, -1))
        torch.testing.assert_close(pieces, expected, rtol=0, atol=1e-12)
    together = torch.cat(list(speaking.stream(mel[0].split(9, dim=-1), condition=conditions[0])))
    torch.testing.assert_close(together, whole[0], rtol=0, atol=1e-12)


def test_wrong_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="no condition was given; this generator needs one"):
        vocoder("hifigan, conditioned").streamer()
    with pytest.raises(ValueError, match="a condition was given; this generator takes none"):
        vocoder().streamer(condition=torch.zeros(3))
    with pytest.raises(ValueError, match=r"condition has shape \(3, 3\); it must be \(3,\) or \(2, 3\)"):
        vocoder("hifigan, conditioned").streamer(2, torch.zeros(3, 3))


def test_threads_stream_from_one_vocoder() -> None:
    names = ["hifigan", "griffin-lim-net"]
    mels = [random_mel(BANDS, 40 + n, seed=n) for n in range(4)]
    for name in names:
        alone = [streamed(vocoder(name), mel.split(3, dim=-1)) for mel in mels]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda mel: streamed(vocoder(name), mel.split(3, dim=-1)), mels))  # noqa: B023
        assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_streams_of_a_vocoder_take_turns() -> None:
    mels = [random_mel(BANDS, 40, seed=n) for n in range(3)]
    streamers = [vocoder().streamer() for _ in mels]
    waves: list[list[Tensor]] = [[] for _ in mels]
    for begin, end in pairwise(range(0, 41, 8)):
        for mel, streamer, wave in zip(mels, streamers, waves, strict=True):
            wave.append(streamer.push(mel[:, begin:end]))
    for mel, streamer, wave in zip(mels, streamers, waves, strict=True):
        torch.testing.assert_close(torch.cat([*wave, streamer.flush()]), vocoder()(mel), rtol=0, atol=1e-5)


def test_wave_may_be_differentiated_through_and_written_into() -> None:
    wave = vocoder().streamer().push(random_mel(BANDS, 60).requires_grad_())
    assert not wave.requires_grad
    assert not wave.is_inference()
    wave += 1


HABITS = {
    "replicated": InferenceFrames(replicated_frames=3),
    "replicated, trimmed": InferenceFrames(replicated_frames=2, trimmed=True),
    "appended, trimmed": InferenceFrames(appended_frames=10, appended_value=-11.5, trimmed=True),
}


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("name", ["hifigan", "hifigan, causal", "melgan"])
@settings(max_examples=4, deadline=None)
@given(chunks=chunkings(2))
def test_frames_of_an_inference_habit_are_put_around_a_stream(name: str, habit: str, chunks: list[int]) -> None:
    plain = checkpoint(name)
    config = copy_of(plain.config, inference=HABITS[habit])
    speaking = Vocoder(Checkpoint(config, plain.weights, "a test"), dtype=torch.float64)
    mel = random_mel(BANDS, sum(chunks), dtype=torch.float64)
    assert_alike(name, streamed(speaking, mel.split(chunks, dim=-1)), speaking(mel))


def test_memory_order_of_a_chunk_does_not_matter() -> None:
    mel = random_mel(BANDS, 40)
    turned = [piece.mT.contiguous().mT for piece in mel.split(7, dim=-1)]
    assert torch.equal(streamed(vocoder(), turned), streamed(vocoder(), mel.split(7, dim=-1)))


class Smoothed(Generator):
    """A generator of one's own: the mean of a frame and its two neighbours, held for a hop of three samples."""

    def __init__(self) -> None:
        super().__init__(mel_bands=BANDS)
        self.gain = torch.nn.Parameter(torch.ones(1))

    @property
    def hop(self) -> int:
        return 3

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first // 3 - 1, last // 3 + 1

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        mean = torch.nn.functional.avg_pool1d(mel.mean(dim=1, keepdim=True), 3, 1, padding=1)
        return (self.gain * mean).repeat_interleave(3, dim=-1)


@settings(max_examples=20, deadline=None)
@given(chunks=chunkings())
def test_foreign_generator_streams_by_overlap(chunks: list[int]) -> None:
    generator = Smoothed().double().requires_grad_(False)
    stream = Stream(generator.graph(), hop=3, like=torch.empty(1, BANDS, 0, dtype=torch.float64))
    assert stream.recomputes
    mel = random_mel(2, BANDS, sum(chunks), dtype=torch.float64)
    memory = stream.start(2)
    pieces = []
    for piece in mel.split(chunks, dim=-1):
        pieces.append(stream.advance(memory, piece, ended=False))
        assert all(tensor.shape[-1] <= 2 for tensor in memory[1:])
    pieces.append(stream.advance(memory, stream.no_frames(2), ended=True))
    torch.testing.assert_close(torch.cat(pieces, dim=-1), generator(mel)[:, 0], rtol=0, atol=1e-12)


class Snake(torch.nn.Module):
    """x + sin²(αx)/α, an activation that no kernel knows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.linspace(0.5, 1.5, channels)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / self.alpha


class SnakeBlock(torch.nn.Module):
    """Residual units behind another activation, as in BigVGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.activation = Snake(channels)
        self.convs = torch.nn.ModuleList(Conv1d(channels, channels, 3, dilation=dilation) for dilation in (1, 3))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = x + conv(self.activation(x))
        return x

    def needs(self, first: int, last: int) -> tuple[int, int]:
        for conv in self.convs:
            first, last = conv.needs(first, last)  # type: ignore[operator]
        return first, last


def single_convolution(channels: int) -> torch.nn.Module:
    """A stage of nothing but blocks of the package, which is none itself."""
    return torch.nn.Sequential(Conv1d(channels, channels, 3))


@native
@pytest.mark.parametrize("stage", [SnakeBlock, single_convolution])
def test_a_trunk_of_foreign_blocks_plays_and_streams_and_says_why_it_has_no_plan(stage: Any) -> None:
    torch.manual_seed(0)
    trunk = Trunk(BANDS, 8, (4, 2), (8, 4), stage, slope=0.1)
    generator = TrunkGenerator(trunk, WaveHead(trunk.channels, slope=0.01), mel_bands=BANDS)
    speaking, mel = Vocoder(checkpoint("hifigan")), random_mel(BANDS, 40)
    speaking.generator = generator.requires_grad_(False)
    assert re.search(
        r"its (module|stage) 'trunk\.residual\.0' is a (SnakeBlock|Sequential)", str(speaking.explain()["plan"])
    )
    with torch.inference_mode():
        whole = generator(mel[None])[0, 0]
    assert torch.equal(speaking(mel), whole)
    assert torch.equal(streamed(speaking, mel.split(3, dim=-1)), whole)
    assert speaking.streamer().recomputes


def test_generators_of_the_package_recompute_nothing() -> None:
    assert not any(vocoder(name).streamer(condition=condition_of(name, 1)).recomputes for name in GENERATORS)


@native
def test_default_vocoder_speaks_the_same_in_frames(speech: list[Path]) -> None:
    speaking = Vocoder.from_pretrained()
    wave, rate = read_audio(speech[0])
    mel = speaking.mel(wave[: rate // 2], rate)
    whole, pieces = speaking(mel), streamed(speaking, mel.split(5, dim=-1))
    # In single precision Griffin-Lim may amplify a rounding until it is heard in a sample, but not in the sound.
    heard = [mel_spectrogram(wave, speaking.config.mel) for wave in (whole, pieces)]
    assert float((heard[0] - heard[1]).abs().mean()) < 0.02
    np.testing.assert_allclose(pieces.numpy(), whole.numpy(), rtol=0, atol=0.1 * float(whole.abs().max()))
