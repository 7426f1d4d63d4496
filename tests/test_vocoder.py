"""The vocoder that a user holds: what goes in comes out alike, wrong mels are refused, streaming is exact."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.audio import MelConfig, PqmfConfig, mel_spectrogram, resample
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import GriffinLimNetConfig, HiFiGANConfig, ISTFTNetConfig, MelGANConfig
from fastvoc.ops import backends, last_backends

BANDS = 6

SMALL = HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4))

# Kernel sizes, dilations and crops are those of the published models; widths and rates are smaller.
GENERATORS: dict[str, Any] = {
    "hifigan-v1": SMALL,
    "hifigan-v3": HiFiGANConfig(
        mel_bands=BANDS,
        channels=8,
        rates=(4, 2),
        rate_kernel_sizes=(8, 4),
        block="2",
        kernel_sizes=(3, 5, 7),
        dilations=((1, 2), (2, 6), (3, 12)),
    ),
    "hifigan with odd rates": HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(5, 3), rate_kernel_sizes=(11, 7)),
    "causal hifigan": HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4), causal=True),
    "melgan": MelGANConfig(mel_bands=BANDS, channels=8, rates=(8, 4), rate_kernel_sizes=(16, 8)),
    "multi-band melgan": MelGANConfig(
        mel_bands=BANDS, channels=16, rates=(8, 4, 2), rate_kernel_sizes=(16, 8, 4), units=4, pqmf=PqmfConfig()
    ),
    "istftnet": ISTFTNetConfig(trunk=SMALL),
    "griffin-lim-net": GriffinLimNetConfig(mel_bands=BANDS, channels=8, fft_size=64, hop=16, iterations=3),
}


def mel_config(hop: int) -> MelConfig:
    return MelConfig(sample_rate=16000, fft_size=1024, hop=hop, window_size=1024, bands=BANDS, low=0, high=8000)


@cache
def checkpoint(name: str) -> Checkpoint:
    generator = GENERATORS[name]
    torch.manual_seed(0)
    weights = generator.build().state_dict()
    # fresh convolutions hardly hear their input: larger weights let it through to the samples
    weights = {key: 2 * value if key.endswith("weight") else value for key, value in weights.items()}
    if "filters" in weights and name == "griffin-lim-net":
        weights["filters"] = torch.rand(weights["filters"].shape)
    return Checkpoint(VocoderConfig(generator=generator, mel=mel_config(generator.hop)), weights, "a test")


@cache
def vocoder(name: str = "hifigan-v1", dtype: torch.dtype = torch.float32) -> Vocoder:
    return Vocoder(checkpoint(name), dtype=dtype)


def random_mel(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A mel of noise, as wide as speech, so that nothing about it is suspicious."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 10 - 11).to(dtype)


AS_GIVEN: dict[str, Callable[[Tensor], Any]] = {"tensor": lambda x: x, "array": lambda x: x.numpy()}


@pytest.mark.parametrize("kind", AS_GIVEN)
@pytest.mark.parametrize("batch", [(), (1,), (3,), (0,)], ids=str)
def test_wave_is_of_the_kind_and_batch_of_the_mel(kind: str, batch: tuple[int, ...]) -> None:
    mel = AS_GIVEN[kind](random_mel(*batch, BANDS, 5))
    wave = vocoder()(mel)
    assert type(wave) is type(mel)
    assert tuple(wave.shape) == (*batch, 5 * 8)


def test_batch_is_its_rows() -> None:
    mels = random_mel(3, BANDS, 7, dtype=torch.float64)
    together = vocoder(dtype=torch.float64)(mels)
    alone = torch.stack([vocoder(dtype=torch.float64)(mel) for mel in mels])
    assert together.std() > 0.01
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_arithmetic_is_of_the_dtype_that_was_asked_for(dtype: torch.dtype) -> None:
    mel = random_mel(BANDS, 9, dtype=torch.float64)
    exact = vocoder(dtype=torch.float64)(mel)
    wave = vocoder(dtype=dtype)(mel)
    assert wave.dtype == dtype
    error = float((wave.double() - exact).abs().max() / exact.abs().max())
    # some 30 layers add their roundings: two of the next coarser and finer dtype are orders of magnitude away
    assert error <= 64 * torch.finfo(dtype).eps
    assert dtype == torch.float64 or error >= torch.finfo(dtype).eps / 64
    array = vocoder(dtype=dtype)(mel.numpy())
    assert array.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    np.testing.assert_array_equal(array, wave.to(torch.float32 if dtype == torch.bfloat16 else dtype).numpy())


def test_strided_and_reversed_mels_are_read_as_they_look() -> None:
    mel = random_mel(BANDS, 9)
    wide = torch.full((BANDS, 18), float("nan"))
    wide[:, ::2] = mel
    # another memory order may add in another order
    tolerance = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(vocoder()(wide[:, ::2]), vocoder()(mel), **tolerance)
    reversed_view = np.ascontiguousarray(mel.numpy()[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(vocoder()(reversed_view), vocoder()(mel).numpy(), **tolerance)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_saved_vocoder_is_the_same_to_the_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    before = vocoder(name, dtype)
    before.save_pretrained(tmp_path / "saved")
    after = Vocoder.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert after.config == before.config
    assert (after.hop, after.sample_rate, after.receptive_field) == (before.hop, 16000, before.receptive_field)
    states = before.generator.state_dict(), after.generator.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    mel = random_mel(BANDS, 6)
    assert torch.equal(after(mel), before(mel))


def test_weights_of_double_precision_are_kept() -> None:
    base = checkpoint("hifigan-v1")
    exact = {name: value.double() + 1e-12 for name, value in base.weights.items()}
    opened = Vocoder(Checkpoint(base.config, exact, "a test"), dtype=torch.float64)
    assert all(torch.equal(value, exact[name]) for name, value in opened.generator.state_dict().items())


def with_nan() -> Tensor:
    mel = random_mel(BANDS, 5)
    mel[2, 3] = float("nan")
    return mel


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "bands": (random_mel(BANDS + 1, 5), ValueError, r"shape \(7, 5\); it must be \(6, frames\)"),
    "transposed": (random_mel(5, BANDS), ValueError, "seems to be transposed"),
    "transposed batch": (random_mel(2, 5, BANDS), ValueError, "seems to be transposed"),
    "dimensions": (random_mel(1, 1, BANDS, 5), ValueError, r"shape \(1, 1, 6, 5\)"),
    "integers": (torch.zeros(BANDS, 5, dtype=torch.int16), TypeError, "type torch.int16; it must be floating point"),
    "complex": (torch.zeros(BANDS, 5, dtype=torch.complex64), TypeError, "must be floating point"),
    "NaN": (with_nan(), ValueError, "has 1 values that are NaN or infinite"),
    "infinity": (random_mel(BANDS, 5) * float("inf"), ValueError, "has 30 values that are NaN or infinite"),
    "no frames": (random_mel(BANDS, 0), ValueError, "has no frames"),
    "a list": ([[0.0] * 5] * BANDS, TypeError, "mel is a list; it must be a torch.Tensor or a numpy.ndarray"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("way", ["at once", "stream"])
def test_wrong_mel_is_refused_with_a_sentence(case: str, way: str) -> None:
    mel, kind, sentence = WRONG[case]
    with pytest.raises(kind, match=sentence):
        vocoder()(mel) if way == "at once" else list(vocoder().stream([mel]))


def test_error_names_the_convention() -> None:
    with pytest.raises(ValueError, match="6 bands, 0-8000 Hz, natural log of magnitude, hop 8 at 16000 Hz"):
        vocoder()(random_mel(3, 5))


def test_mel_in_decibels_is_suspicious_and_still_vocoded() -> None:
    with pytest.warns(UserWarning, match="decibels") as caught:
        wave = vocoder()(8.7 * random_mel(BANDS, 5))
    assert wave.shape == (40,)
    assert caught[0].filename == __file__  # the line that a user can change


def test_ordinary_mel_is_not_suspicious() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vocoder()(random_mel(BANDS, 50))
        vocoder()(random_mel(0, BANDS, 50))


def test_integer_dtype_cannot_hold_weights() -> None:
    with pytest.raises(TypeError, match=r"dtype torch\.int8 cannot hold weights"):
        Vocoder(checkpoint("hifigan-v1"), dtype=torch.int8)


def test_vocoder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Vocoder.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", AS_GIVEN)
def test_mel_is_of_the_own_convention_and_rate(kind: str) -> None:
    wave = torch.sin(torch.arange(24000) * 2 * torch.pi * 440 / 24000)
    give = AS_GIVEN[kind]
    mel = vocoder().mel(give(wave), 24000)
    assert type(mel) is type(give(wave))
    expected = mel_spectrogram(resample(wave, 24000, 16000), vocoder().config.mel)
    np.testing.assert_array_equal(np.asarray(mel), expected.numpy())
    same_rate = vocoder().mel(give(wave))
    np.testing.assert_array_equal(np.asarray(same_rate), mel_spectrogram(wave, vocoder().config.mel).numpy())
    np.testing.assert_array_equal(np.asarray(same_rate), np.asarray(vocoder().mel(give(wave), 16000)))


def test_mel_of_half_precision_is_computed_in_single() -> None:
    wave = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert torch.equal(vocoder().mel(wave), vocoder().mel(wave.float()))


def test_mel_of_integers_is_refused() -> None:
    with pytest.raises(TypeError, match="int16"):
        vocoder().mel(torch.ones(2000, dtype=torch.int16))


@cache
def whole(name: str, frames: int) -> tuple[Tensor, Tensor]:
    mel = random_mel(BANDS, frames, seed=frames, dtype=torch.float64)
    return mel, vocoder(name, torch.float64)(mel)


@pytest.mark.parametrize("name", GENERATORS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_stream_in_any_chunks_is_the_whole(name: str, data: st.DataObject) -> None:
    chunks = data.draw(st.lists(st.integers(1, 25), min_size=1, max_size=8))
    frames = max(4, sum(chunks))  # reflection needs four
    chunks[-1] += frames - sum(chunks)
    mel, wave = whole(name, frames)
    pieces = list(vocoder(name, torch.float64).stream(mel.split(chunks, dim=-1)))
    assert all(len(piece) for piece in pieces)
    assert wave.abs().max() > 1e-5
    # the order of additions may differ between lengths; nothing else may
    torch.testing.assert_close(torch.cat(pieces), wave, rtol=0, atol=1e-12)


def test_stream_gives_samples_as_soon_as_they_are_known() -> None:
    past, future = vocoder().receptive_field
    assert past >= 1
    assert future >= 1
    stream = vocoder().stream(iter([random_mel(BANDS, future + 1), random_mel(BANDS, 2)]))
    assert len(next(stream)) == 8  # one frame has all of its future
    assert len(next(stream)) == 16
    assert len(next(stream)) == 8 * future
    assert list(stream) == []


def test_causal_stream_never_waits() -> None:
    causal = vocoder("causal hifigan")
    assert causal.receptive_field[1] == 0
    assert [len(piece) for piece in causal.stream([random_mel(BANDS, 1)] * 3)] == [8, 8, 8]


def test_stream_remembers_no_more_than_its_receptive_field(monkeypatch: pytest.MonkeyPatch) -> None:
    streaming = Vocoder(checkpoint("hifigan-v1"))
    lengths = []
    run = streaming._run

    def watched(mel: Tensor, condition: Tensor | None = None) -> Tensor:
        lengths.append(mel.shape[-1])
        return run(mel, condition)

    monkeypatch.setattr(streaming, "_run", watched)
    for _ in streaming.stream(random_mel(BANDS, 3) for _ in range(30)):
        pass
    past, future = streaming.receptive_field
    assert max(lengths) <= past + future + 3


def test_stream_of_nothing_is_nothing() -> None:
    assert list(vocoder().stream([])) == []


def test_stream_of_arrays_gives_arrays() -> None:
    pieces = list(vocoder().stream([random_mel(BANDS, 40).numpy()]))
    assert {type(piece) for piece in pieces} == {np.ndarray}
    assert sum(map(len, pieces)) == 320


def test_stream_refuses_a_batch() -> None:
    with pytest.raises(ValueError, match=r"chunk has shape \(2, 6, 5\); it must be \(bands, frames\)"):
        list(vocoder().stream([random_mel(2, BANDS, 5)]))


def test_threads_share_a_vocoder() -> None:
    mels = [random_mel(BANDS, 20 + n, seed=n) for n in range(12)]
    alone = [vocoder()(mel) for mel in mels]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(vocoder(), mels))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_forced_reference_is_what_runs() -> None:
    forced = Vocoder(checkpoint("hifigan-v1"), backend="reference")
    mel = random_mel(BANDS, 9)
    wave = forced(mel)
    assert {last_backends()[name] for name in ("conv1d", "upsample", "residual")} == {"reference"}
    # float32 with sums of a hundred terms through some 30 layers
    torch.testing.assert_close(wave, vocoder()(mel), rtol=0, atol=64 * torch.finfo(torch.float32).eps)


def test_forced_backend_that_is_absent_says_why() -> None:
    absent = [(name, reason) for name, reason in backends().items() if reason is not None]
    if not absent:
        pytest.skip("every backend is usable here")
    name, reason = absent[0]
    with pytest.raises(NotImplementedError, match=f"backend '{name}' cannot run this call: {reason}"):
        Vocoder(checkpoint("hifigan-v1"), backend=name)(random_mel(BANDS, 5))


def test_forced_backend_that_refuses_says_why() -> None:
    if backends()["cpu"] is not None:
        pytest.skip(str(backends()["cpu"]))
    with pytest.raises(NotImplementedError, match=r"torch\.float64"):
        Vocoder(checkpoint("hifigan-v1"), dtype=torch.float64, backend="cpu")(random_mel(BANDS, 5))


def test_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match="'tpu' is not a backend"):
        Vocoder(checkpoint("hifigan-v1"), backend="tpu")(random_mel(BANDS, 5))


def test_returned_wave_may_be_differentiated_through() -> None:
    wave = vocoder()(random_mel(BANDS, 5))
    gain = torch.ones((), requires_grad=True)
    (gain * wave).square().sum().backward()
    torch.testing.assert_close(gain.grad, 2 * wave.square().sum())
    assert not wave.is_inference()
    wave += 1  # an inference tensor would refuse


def test_mel_that_requires_a_gradient_is_only_listened_to() -> None:
    wave = vocoder()(random_mel(BANDS, 5).requires_grad_())
    assert not wave.requires_grad


@pytest.mark.parametrize("kind", AS_GIVEN)
@pytest.mark.parametrize("batched", [False, True])
def test_conditioned_vocoder_takes_an_embedding(kind: str, batched: bool) -> None:
    generator = HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4), condition_channels=3)
    weights = generator.build().state_dict()
    speaking = Vocoder(Checkpoint(VocoderConfig(generator=generator, mel=mel_config(8)), weights, "a test"))
    give, leading = AS_GIVEN[kind], (2,) if batched else ()
    mel = give(random_mel(*leading, BANDS, 5))
    waves = [np.asarray(speaking(mel, condition=give(torch.full((*leading, 3), value)))) for value in (0.0, 1.0)]
    assert waves[0].shape == (*leading, 40)
    assert np.abs(waves[0] - waves[1]).max() > 1e-4
    with pytest.raises(ValueError, match="condition"):
        speaking(mel)
