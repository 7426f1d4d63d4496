"""The vocoder that a user holds: what goes in comes out alike, wrong mels are refused, streaming is exact."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastvoc.engine.synthesizer
from fastvoc import Vocoder
from fastvoc.audio import MelConfig, PqmfConfig, convert_mel, mel_spectrogram, resample
from fastvoc.checkpoints import Checkpoint, InferenceFrames, VocoderConfig
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


@pytest.mark.parametrize("name", GENERATORS)
def test_opening_takes_none_of_the_callers_random_numbers(name: str, tmp_path: Path) -> None:
    vocoder(name).save_pretrained(tmp_path)
    before = torch.random.get_rng_state()
    opened = Vocoder.from_pretrained(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(bool(tensor.isfinite().all()) for tensor in opened.generator.state_dict().values())


def test_vocoders_of_one_checkpoint_share_no_weights() -> None:
    opened = checkpoint("hifigan-v1")
    first, second = Vocoder(opened), Vocoder(opened)
    expected = second(mel := random_mel(BANDS, 6))
    with torch.no_grad():
        for weight in first.generator.parameters():
            weight.zero_()
    assert torch.equal(second(mel), expected)
    assert torch.equal(Vocoder(opened)(mel), expected)


def test_weights_do_not_follow_what_is_written_over_their_file(tmp_path: Path) -> None:
    vocoder().save_pretrained(tmp_path)
    opened, file = Vocoder.from_pretrained(tmp_path), tmp_path / "model.safetensors"
    with file.open("r+b") as content:  # in place, as `cp` writes
        content.write(bytes(file.stat().st_size))
        content.truncate(16)
    mel = random_mel(BANDS, 6)
    assert torch.equal(opened(mel), vocoder()(mel))


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


@pytest.mark.parametrize(
    ("case", "way"), [*((c, "at once") for c in WRONG), *((c, "stream") for c in WRONG if c != "no frames")]
)
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


def decimal(hop: int) -> MelConfig:
    return replace(mel_config(hop), logarithm="decimal", floor=1e-10)


@pytest.mark.parametrize("kind", AS_GIVEN)
def test_mel_of_another_convention_is_converted_first(kind: str) -> None:
    give = AS_GIVEN[kind]
    mel = random_mel(2, BANDS, 9)
    other = mel / np.log(10)
    expected = vocoder()(convert_mel(other, decimal(8), mel_config(8)))
    wave = vocoder()(give(other), convention=decimal(8))
    assert type(wave) is type(give(other))
    np.testing.assert_array_equal(np.asarray(wave), expected.numpy())
    # the logarithm is undone and done again in float32: some ulp of a number of 11, through some 30 layers
    torch.testing.assert_close(expected, vocoder()(mel), rtol=0, atol=11 * 64 * torch.finfo(torch.float32).eps)


def test_own_convention_changes_nothing() -> None:
    mel = random_mel(BANDS, 9)
    assert torch.equal(vocoder()(mel, convention=mel_config(8)), vocoder()(mel))


def test_suspicion_is_about_the_convention_that_was_named() -> None:
    decibels = replace(mel_config(8), logarithm="decimal", gain=20.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vocoder()(8.7 * random_mel(BANDS, 50), convention=decibels)
    with pytest.warns(UserWarning, match="20 x log10"):
        vocoder()(100 * random_mel(BANDS, 50), convention=decibels)


@pytest.mark.parametrize(
    ("convention", "sentence"),
    [
        (
            "hifigan",
            "cannot be converted exactly: the mel has sample rate of 22050 Hz against 16000, 80 bands against 6",
        ),
        ("hifigen", "convention: 'hifigen' is not a known name; did you mean 'hifigan'"),
        (mel_config(16), "hop of 16 samples against 8"),
    ],
)
def test_convention_that_does_not_convert_is_refused(convention: MelConfig | str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        vocoder()(random_mel(BANDS, 9), convention=convention)


LENGTHS = [7, 19, 4, 19, 12]

LENGTHS_AS: dict[str, Callable[[list[int]], Any]] = {
    "list": list,
    "tuple": tuple,
    "tensor": torch.tensor,
    "int32 array": lambda lengths: np.array(lengths, dtype=np.int32),
    "big-endian array": lambda lengths: np.array(lengths, dtype=">i8"),
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_batch_of_lengths_is_its_mels_one_by_one_to_the_bit(name: str, backend: str | None, dtype: torch.dtype) -> None:
    voice = Vocoder(checkpoint(name), backend=backend, dtype=dtype)
    mels = random_mel(len(LENGTHS), BANDS, 20)
    for mel, frames in zip(mels, LENGTHS, strict=True):
        mel[:, frames:] = float("nan")  # nobody looks there
    waves = voice(mels, lengths=LENGTHS)
    assert [len(wave) for wave in waves] == [frames * voice.hop for frames in LENGTHS]
    for wave, mel, frames in zip(waves, mels, LENGTHS, strict=True):
        assert wave.abs().max() > 0
        assert torch.equal(wave, voice(mel[:, :frames]))
        assert torch.equal(wave, voice(mel[:, :frames].contiguous()))


@pytest.mark.parametrize("kind", AS_GIVEN)
@pytest.mark.parametrize("spelling", LENGTHS_AS)
def test_lengths_may_be_of_any_kind_of_integers(kind: str, spelling: str) -> None:
    mels = random_mel(len(LENGTHS), BANDS, 20)
    waves = vocoder()(AS_GIVEN[kind](mels), lengths=LENGTHS_AS[spelling](LENGTHS))
    assert {type(wave) for wave in waves} == {type(AS_GIVEN[kind](mels))}
    assert [len(wave) for wave in waves] == [8 * frames for frames in LENGTHS]


def test_lengths_of_an_empty_batch_are_an_empty_list() -> None:
    assert vocoder()(random_mel(0, BANDS, 20), lengths=[]) == []


@pytest.mark.parametrize(
    ("shape", "lengths", "kind", "sentence"),
    [
        ((2, BANDS, 9), [9], ValueError, r"lengths have shape \(1,\); the batch needs \(2,\)"),
        ((2, BANDS, 9), [[9, 9]], ValueError, r"lengths have shape \(1, 2\)"),
        ((2, BANDS, 9), [9, 10], ValueError, r"lengths\[1\] is 10; it must be between 1 and the 9 frames"),
        ((2, BANDS, 9), [0, 9], ValueError, r"lengths\[0\] is 0; it must be between 1"),
        ((2, BANDS, 9), [9, -1], ValueError, r"lengths\[1\] is -1"),
        ((2, BANDS, 9), [9.0, 8.0], TypeError, r"lengths are of type torch\.float64; they must be integers"),
        ((2, BANDS, 9), [9, 2**70], TypeError, r"lengths are \[9, 1180591620717411303424\]; they must be integers"),
        ((2, BANDS, 9), [[9], [2, 1]], TypeError, r"lengths are \[\[9\], \[2, 1\]\]; they must be integers"),
        ((2, BANDS, 9), torch.tensor([True, True]), TypeError, r"lengths are of type torch\.bool"),
        ((BANDS, 9), [9], ValueError, r"lengths belong to a batch, \(batch, bands, frames\), not to a mel of \(6, 9\)"),
    ],
)
def test_wrong_lengths_are_refused_with_a_sentence(
    shape: tuple[int, ...], lengths: Any, kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        vocoder()(random_mel(*shape), lengths=lengths)


def test_what_is_not_finite_within_a_length_is_refused() -> None:
    mels = random_mel(2, BANDS, 9)
    mels[1, 0, 4] = float("nan")
    with pytest.raises(ValueError, match="has 1 values that are NaN or infinite"):
        vocoder()(mels, lengths=[9, 5])
    vocoder()(mels, lengths=[9, 4])


def test_batch_of_lengths_is_suspected_once() -> None:
    with pytest.warns(UserWarning, match="decibels") as caught:
        vocoder()(8.7 * random_mel(3, BANDS, 9), lengths=[5, 9, 7])
    assert [warning.filename for warning in caught] == [__file__]


def test_lengths_meet_conditions_and_conventions() -> None:
    generator = HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4), condition_channels=3)
    weights = generator.build().state_dict()
    speaking = Vocoder(Checkpoint(VocoderConfig(generator=generator, mel=mel_config(8)), weights, "a test"))
    mels, conditions = random_mel(2, BANDS, 9) / np.log(10), torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    each = speaking(mels, lengths=[9, 5], condition=conditions, convention=decimal(8))
    shared = speaking(mels, lengths=[9, 5], condition=conditions[1], convention=decimal(8))
    assert torch.equal(each[1], speaking(mels[1, :, :5], condition=conditions[1], convention=decimal(8)))
    assert torch.equal(each[1], shared[1])
    assert not torch.equal(each[0], shared[0])
    with pytest.raises(ValueError, match="condition has 3 rows; the batch needs 1 or 2"):
        speaking(mels, lengths=[9, 5], condition=torch.zeros(3, 3))


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("batch", [(), (2,)], ids=str)
@pytest.mark.parametrize("window", [1, 7, 64])
def test_long_mel_in_windows_is_the_whole(
    name: str, batch: tuple[int, ...], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel = random_mel(*batch, BANDS, 97, dtype=torch.float64)
    exact, single = vocoder(name, torch.float64), vocoder(name)
    whole, rounded = exact(mel), single(mel)
    monkeypatch.setattr(fastvoc.engine.synthesizer, "WINDOW", window)
    # the order of additions may differ between lengths; nothing else may
    torch.testing.assert_close(exact(mel), whole, rtol=0, atol=1e-12)
    if backends()["cpu"] is None and last_backends()["conv1d"] == "cpu":
        assert torch.equal(single(mel), rounded)  # a kernel of ours adds in one order, wherever a sample lies


def test_windows_hold_no_more_than_their_context(monkeypatch: pytest.MonkeyPatch) -> None:
    windowed = Vocoder(checkpoint("hifigan-v1"), backend="reference")  # a plan goes tile by tile instead
    frames = []
    windowed.generator.register_forward_pre_hook(lambda _, arguments: frames.append(arguments[0].shape[-1]))
    monkeypatch.setattr(fastvoc.engine.synthesizer, "WINDOW", 10)
    windowed(random_mel(BANDS, 95))
    assert len(frames) == 10
    assert max(frames) == 10 + sum(windowed.receptive_field)


# Peak memory of a process that vocodes a mel of so many frames with a small HiFi-GAN, 256 samples a frame.
PEAK = """
import resource, sys, torch
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.models import HiFiGANConfig

generator = HiFiGANConfig(channels=32, kernel_sizes=(3,), dilations=((1, 3),))
config = VocoderConfig(generator=generator, mel=CONVENTIONS["hifigan"])
vocoder = Vocoder(Checkpoint(config, generator.build().state_dict(), "a test"))
mel = torch.rand(80, int(sys.argv[1])) * 10 - 11
wave = vocoder(mel)
assert wave.shape == (256 * mel.shape[-1],)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_mel() -> None:
    pytest.importorskip("resource", reason="only Unix measures peak memory")
    short, long = 4096, 51680  # 48 s and 10 min
    peaks = []
    for frames in (short, long):
        command = [sys.executable, "-c", PEAK, str(frames)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout
        peaks.append(int(shown) / 1024)
    unit = 1 if sys.platform != "darwin" else 1 / 1024  # macOS counts bytes
    # the wave, the mel with its copies while it is made and looked at, and what an allocator keeps of a window or two
    allowed = (long - short) * (256 + 4 * 80) * 4 / 2**20 + 128
    assert (peaks[1] - peaks[0]) * unit < allowed  # 233 MB; at once it takes 420 MB


def with_habit(**habit: Any) -> Vocoder:
    base = checkpoint("hifigan-v1")
    config = replace(base.config, inference=InferenceFrames(**habit))
    return Vocoder(Checkpoint(config, base.weights, "a test"))


def test_frames_that_the_original_adds_are_added() -> None:
    mel = random_mel(BANDS, 9)
    wide = torch.cat([mel[:, :1].expand(-1, 5), mel, mel[:, -1:].expand(-1, 5)], dim=-1)
    assert torch.equal(with_habit(replicated_frames=5)(mel), vocoder()(wide))
    assert torch.equal(with_habit(replicated_frames=5, trimmed=True)(mel), vocoder()(wide)[40:-40])
    ended = torch.cat([mel, torch.full((BANDS, 3), -11.0)], dim=-1)
    habit = with_habit(appended_frames=3, appended_value=-11.0, trimmed=True)
    assert torch.equal(habit(mel), vocoder()(ended)[:-24])
    assert habit(random_mel(0, BANDS, 9)).shape == (0, 72)
    assert [len(wave) for wave in habit(random_mel(2, BANDS, 9), lengths=[4, 9])] == [32, 72]


def test_sound_needs_neither_a_compiler_nor_librosa() -> None:
    # each takes longer to load than all the rest of the first sound
    program = """
import sys
import torch
from fastvoc import Vocoder

vocoder = Vocoder.from_pretrained()
vocoder(torch.full((80, 9), -5.0))
print(sorted({"torch._dynamo", "numba", "scipy", "sklearn", "librosa", "soundfile", "soxr"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
