"""The face of autoencoders and its commands: lengths, chunks, batches, dtypes, files, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastvoc
from fastvoc import Autoencoder, Vocoder
from fastvoc.audio import read_audio, write_audio
from fastvoc.audio.picture import draw_code
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint
from fastvoc.cli import main
from fastvoc.models import NSynthConfig
from fastvoc.noise import last_seeds

TINY = NSynthConfig(
    code_channels=4, hop=40, encoder_channels=6, encoder_layers=6, channels=8, skip_channels=7, layers=5, cycle=3
)


def autoencoder(dtype: torch.dtype | None = torch.float64, **more: Any) -> Autoencoder:
    torch.manual_seed(0)
    weights = {name: 1.5 * value + 0.02 for name, value in TINY.build().state_dict().items()}
    return Autoencoder(Checkpoint(AutoencoderConfig(generator=TINY), weights, "a test"), dtype=dtype, **more)


def wave_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def code_of(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_code_has_a_row_for_each_whole_hop() -> None:
    published = NSynthConfig(encoder_channels=4, encoder_layers=10, channels=4, skip_channels=4, layers=1)
    made = Autoencoder(Checkpoint(AutoencoderConfig(generator=published), published.build().state_dict(), "a test"))
    assert made.encode(wave_of(40000)).shape == (78, 16)
    assert made.encode(wave_of(64000)).shape == (125, 16)
    assert made.encode(wave_of(2, 64000)).shape == (2, 125, 16)
    trimmed = made.encode(wave_of(40000)[:39936])
    assert torch.equal(made.encode(wave_of(40000)), trimmed)
    assert (made.channels, made.hop, made.sample_rate) == (16, 512, 16000)


def test_long_waves_are_encoded_in_windows_that_hear_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made, wave = autoencoder(), wave_of(2, 1240)
    whole = made.generator.encode(wave[:, None])
    assert made.encode(wave).shape == (2, 31, 4)
    monkeypatch.setattr("fastvoc.faces.autoencoder.WINDOW", 3)
    torch.testing.assert_close(made.encode(wave), whole.mT, rtol=0, atol=1e-13)


def test_padded_batches_are_what_their_items_are() -> None:
    made, wave, code = autoencoder(), wave_of(3, 400), code_of(3, 6)
    for row, length, found in zip(wave, (400, 41, 250), made.encode(wave, lengths=[400, 41, 250]), strict=True):
        assert torch.equal(found, made.encode(row[:length]))
    noisy = code.clone()
    noisy[1, 2:] = torch.nan  # what stands behind a length is not looked at
    waves = made.decode(noisy, lengths=[4, 2, 6], seed=[7, 8, 9])
    for row, length, seed, found in zip(code, (4, 2, 6), (7, 8, 9), waves, strict=True):
        alone = made.decode(row[:length], seed=seed)
        assert found.shape == (40 * length,) and torch.equal(found, alone)
    together = made.decode(code, seed=[7, 8, 9])
    assert torch.equal(together[2], waves[2]) and together.shape == (3, 240)


@settings(max_examples=10, deadline=None)
@given(chunks=st.lists(st.integers(0, 3), min_size=1, max_size=6), batch=st.sampled_from([None, 1, 2]))
def test_any_chunks_are_the_whole_to_the_bit(chunks: list[int], batch: int | None) -> None:
    made, rows = autoencoder(torch.float32), sum(chunks)
    code = code_of(rows).float() if batch is None else code_of(batch, rows).float()
    pieces = [*made.stream(code.split(chunks, dim=-2), seed=3, temperature=0.9)]
    assert len(pieces) == sum(count > 0 for count in chunks)
    if rows:
        assert torch.equal(torch.cat(pieces, dim=-1), made.decode(code, seed=3, temperature=0.9))


def test_seeds_and_temperatures() -> None:
    made, code = autoencoder(), code_of(5)
    first = made.decode(code)
    (seed,) = last_seeds()
    assert torch.equal(first, made.decode(code, seed=seed))
    assert not torch.equal(first, made.decode(code, seed=seed + 1))
    likeliest = made.decode(code, temperature=0)
    assert torch.equal(likeliest, made.decode(code, seed=1, temperature=0))
    assert torch.equal(made.decode(torch.stack([code, code]), seed=4)[1], made.decode(code, seed=5))


def test_arrays_dtypes_and_surroundings() -> None:
    made, wave = autoencoder(None), wave_of(400).float()
    code = made.encode(wave)
    assert isinstance(made.encode(wave.numpy()), np.ndarray)
    assert isinstance(made.decode(code.numpy(), seed=1), np.ndarray)
    exact = autoencoder().encode(wave)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        other = autoencoder(dtype)
        found = other.encode(wave)
        # fourteen layers in a row round
        tolerance = 16 * torch.finfo(dtype).eps * float(exact.abs().max())
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance)
        assert found.dtype == dtype and other.decode(found, seed=1).dtype == dtype
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(made.encode(wave), code) and made.encode(wave).dtype == torch.float32
        reference = made.decode(code, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(made.decode(code, seed=1), reference)
    with torch.autocast("cpu"), torch.inference_mode():
        assert torch.equal(made.encode(wave), code)
        assert torch.equal(made.decode(code, seed=1), reference)
    needing = code.clone().requires_grad_()
    assert not made.decode(needing, seed=1).requires_grad
    assert made.encode(wave.half()).shape == code.shape
    resampled = made.encode(wave, 8000)
    assert resampled.shape == (20, 4)


def test_codes_are_mixed_in_equal_parts() -> None:
    made, first, second = autoencoder(), code_of(3), code_of(3, seed=5)
    torch.testing.assert_close(made.interpolate(first, second), (first + second) / 2, rtol=0, atol=1e-15)
    assert torch.equal(made.interpolate(first, second, 0), first)
    assert torch.equal(made.interpolate(first, second, 1), second)
    assert isinstance(made.interpolate(first.numpy(), second.numpy(), 0.25), np.ndarray)


def test_it_is_saved_opened_and_moved(tmp_path: Path) -> None:
    made, code = autoencoder(torch.float32), code_of(3).float()
    made.save_pretrained(tmp_path)
    opened = fastvoc.open(tmp_path)
    assert type(opened) is Autoencoder and torch.equal(opened.decode(code, seed=1), made.decode(code, seed=1))
    assert type(Autoencoder.from_pretrained(tmp_path, dtype="float64")) is Autoencoder
    assert repr(opened) == "Autoencoder(nsynth, 16000 Hz, 4 numbers for 40 samples, torch.float32 on cpu)"
    with pytest.raises(ValueError, match=r"Vocoder: .* holds 'nsynth', which is for Autoencoder; fastvoc\.open opens"):
        Vocoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Autoencoder: default holds 'griffin-lim-net', which is for Vocoder"):
        Autoencoder.from_pretrained("default")
    other = copy.copy(opened)
    other.generator = TINY.build()
    assert not torch.equal(other.decode(code, seed=1), opened.decode(code, seed=1))
    with torch.no_grad():
        opened.generator.decoder.classes.bias[7] += 30
    assert opened.decode(code, seed=1).unique().numel() == 1
    with pytest.raises(TypeError, match=r"generator is a Linear; it must be a fastvoc\.models\.NSynth"):
        opened.generator = torch.nn.Linear(1, 1)
    assert autoencoder().explain()["decoder by steps in PyTorch"] is None


def test_codes_on_disk(tmp_path: Path) -> None:
    made, code = autoencoder(torch.float32), code_of(5).float()
    made.save(code, tmp_path / "a.npy")
    assert torch.equal(made.load(tmp_path / "a.npy"), code)
    assert np.load(tmp_path / "a.npy").shape == (5, 4)
    np.save(tmp_path / "batch.npy", code.numpy()[None])  # as the original's scripts leave a single one
    assert torch.equal(made.load(tmp_path / "batch.npy"), code)
    with pytest.raises(ValueError, match=r"suffix '\.txt' is not that of a code"):
        made.save(code, tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy: no such file"):
        made.load(tmp_path / "nothing.npy")
    contents = {
        "five numbers": (np.zeros((3, 5)), "holds codes of 5 numbers; this autoencoder's have 4"),
        "one axis": (np.zeros(4), r"holds an array of shape \(4,\)"),
        "no rows": (np.zeros((0, 4)), r"holds an array of shape \(0, 4\)"),
        "not finite": (np.full((2, 4), np.inf), "not finite"),
        "texts": (np.array([["a"]]), "is not an array of numbers"),
        "objects": (np.array([[None]]), r"is damaged, or not a \.npy"),
    }
    for name, (content, said) in contents.items():
        np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(ValueError, match=said):
            made.load(tmp_path / f"{name}.npy")
    whole = (tmp_path / "a.npy").read_bytes()
    for length in range(0, len(whole), 5):
        (tmp_path / "cut.npy").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.npy: "):
            made.load(tmp_path / "cut.npy")


REFUSED: dict[str, tuple[Any, str]] = {
    "wave of three axes": (lambda a: a.encode(torch.zeros(1, 1, 400)), r"wave has shape \(1, 1, 400\); it must be"),
    "short wave": (lambda a: a.encode(torch.zeros(39)), "wave has 39 samples at 16000 Hz; needs at least 40"),
    "no wave": (lambda a: a.encode(torch.zeros(0)), "needs at least 40"),
    "integers": (lambda a: a.encode(torch.zeros(400, dtype=torch.int16)), "divide by 32768"),
    "not finite": (lambda a: a.encode(torch.full((400,), torch.nan)), "wave holds values that are not finite"),
    "rate": (lambda a: a.encode(torch.zeros(400), 0.5), "whole number of Hz"),
    "lengths": (
        lambda a: a.encode(torch.zeros(2, 400), lengths=[400]),
        r"Autoencoder.encode: lengths have shape \(1,\)",
    ),
    "lengths of one": (lambda a: a.encode(torch.zeros(400), lengths=[400]), r"lengths belong to a batch, \(batch, sam"),
    "list": (lambda a: a.decode([1.0]), "code is a list"),
    "turned code": (lambda a: a.decode(torch.zeros(4, 9)), r"must be \(rows, 4\) .* it seems to be transposed"),
    "whole numbers": (lambda a: a.decode(torch.zeros(2, 4, dtype=torch.int64)), "code is of type torch.int64"),
    "no rows": (lambda a: a.decode(torch.zeros(0, 4)), "must have at least one row"),
    "infinite": (lambda a: a.decode(torch.full((2, 4), torch.inf)), "code holds values that are not finite"),
    "seed": (lambda a: a.decode(torch.zeros(2, 4), seed=-1), "Autoencoder.decode: seed -1 must be between 0"),
    "seeds": (lambda a: a.decode(torch.zeros(2, 4), seed=[1, 2]), "there are 2 seeds"),
    "cold": (lambda a: a.decode(torch.zeros(2, 4), temperature=-1), "Autoencoder.decode: temperature is -1"),
    "rows": (
        lambda a: a.decode(torch.zeros(2, 3, 4), lengths=[3, 4]),
        r"lengths\[1\] is 4; .* between 1 and the 3 rows",
    ),
    "other batch": (
        lambda a: [*a.stream([torch.zeros(1, 4), torch.zeros(2, 1, 4)])],
        r"chunk has shape \(2, 1, 4\); the first one was of another batch",
    ),
    "unlike": (lambda a: a.interpolate(torch.zeros(2, 4), torch.zeros(3, 4)), "must be alike: cut the longer one"),
    "fraction of a word": (lambda a: a.interpolate(torch.zeros(2, 4), torch.zeros(2, 4), "half"), "fraction is 'half'"),
    "fraction": (lambda a: a.interpolate(torch.zeros(2, 4), torch.zeros(2, 4), 1.5), "fraction is 1.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_a_sentence(name: str) -> None:
    call, said = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=said) as error:
        call(autoencoder(torch.float32))
    assert "\n" not in str(error.value)


def test_a_batch_of_no_waves_has_no_codes() -> None:
    assert autoencoder().encode(torch.zeros(0, 85)).shape == (0, 2, 4)


def test_loud_waves_are_a_warning() -> None:
    with pytest.warns(UserWarning, match="Autoencoder.encode: wave reaches 32767") as told:
        autoencoder().encode(torch.full((400,), 32767.0))
    assert told[0].filename == __file__


def test_absurd_settings_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    autoencoder(torch.float32).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    for before, after, said in (
        ('"channels": 8', '"channels": 99999999', "channels is 99999999; no vocoder has more than"),
        ('"channels": 8', '"channels": 65536', "the settings ask for .* values"),
        ('"layers": 5', '"layers": 300', "layers is 300"),
        ('"cycle": 3', '"cycle": 60', "cycle is 60"),
        ('"hop": 40', '"hop": 0', "hop is 0"),
        ('"kind": "nsynth"', '"kind": "nsynt"', "nsynt"),
    ):
        assert before in text
        (tmp_path / "config.json").write_text(text.replace(before, after))
        with pytest.raises(ValueError, match=said):
            fastvoc.open(tmp_path)


def test_a_picture_shows_a_code_under_its_wave(tmp_path: Path) -> None:
    from matplotlib.image import imread

    made, wave = autoencoder(torch.float32), wave_of(400)
    draw_code(tmp_path / "a.png", wave, made.encode(wave), 16000, title="a")
    image = imread(tmp_path / "a.png")
    assert image.shape[:2] == (600, 1080) and len(np.unique(image[..., :3].reshape(-1, 3), axis=0)) > 10
    with pytest.raises(ValueError, match="draw_code: wave and code have shapes"):
        draw_code(tmp_path / "b.png", wave, torch.zeros(4), 16000)
    with pytest.raises(ValueError, match=r"suffix '\.xyz' is not a known format"):
        draw_code(tmp_path / "b.xyz", wave, made.encode(wave), 16000)
    assert not (tmp_path / "b.xyz").exists()


def test_the_commands_encode_decode_and_morph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = autoencoder(torch.float32)
    made.save_pretrained(tmp_path / "net")
    (tmp_path / "notes").mkdir()
    for name, length in (("a", 400), ("b", 330)):
        write_audio(tmp_path / "notes" / f"{name}.wav", wave_of(length, seed=length), 16000, "float")
    options = ["--autoencoder", str(tmp_path / "net"), "--device", "cpu"]
    codes, waves, mixed = (str(tmp_path / name) for name in ("codes", "waves", "mixed"))
    assert main(["encode", str(tmp_path / "notes"), *options, "--out", codes, "--picture"]) == 0
    wave, _ = read_audio(tmp_path / "notes" / "a.wav")
    assert torch.equal(made.load(tmp_path / "codes" / "a.npy"), made.encode(wave))
    assert (tmp_path / "codes" / "b.png").stat().st_size > 1000
    assert main(["decode", codes, *options, "--out", waves, "--seed", "3", "--subtype", "float"]) == 0
    for wrong, said in (
        (["--seed", "-1"], "--seed -1: must be"),
        (["--temperature", "nan"], "--temperature nan: must be"),
    ):
        assert main(["decode", codes, *options, "--out", waves, *wrong]) == 2
        assert said in capsys.readouterr().err
    file = str(tmp_path / "notes" / "a.wav")
    assert main(["encode", file, *options, "--out", file]) == 2
    assert f"--out {file}: is a file; it must be a folder" in capsys.readouterr().err
    decoded, rate = read_audio(tmp_path / "waves" / "b.wav")
    assert rate == 16000 and torch.equal(decoded, made.decode(made.load(tmp_path / "codes" / "b.npy"), seed=3))
    pair = [str(tmp_path / "notes" / "a.wav"), str(tmp_path / "codes" / "b.npy")]
    assert main(["morph", *pair, *options, "--steps", "3", "--seed", "3", "--out", mixed, "--subtype", "float"]) == 0
    assert sorted(path.name for path in (tmp_path / "mixed").iterdir()) == [
        f"a-b-{n}.wav" for n in ("000", "050", "100")
    ]
    middle, _ = read_audio(tmp_path / "mixed" / "a-b-050.wav")
    one, other = (made.load(tmp_path / "codes" / f"{name}.npy")[:8] for name in ("a", "b"))
    batch = torch.stack([made.interpolate(one, other, fraction) for fraction in (0, 0.5, 1)])
    assert torch.equal(middle, made.decode(batch, seed=[3, 3, 3])[1])
    capsys.readouterr()
    assert main(["morph", *pair, *options, "--steps", "3", "--out", mixed]) == 0
    assert "3 skipped, complete already" in capsys.readouterr().out
    assert main(["morph", *pair, *options, "--steps", "1"]) == 2
    assert "--steps 1: must be between 2 and 101" in capsys.readouterr().err
    assert main(["decode", codes, "--autoencoder", "default", "--device", "cpu"]) == 2
    assert "holds 'griffin-lim-net', which is for Vocoder" in capsys.readouterr().err
    write_audio(tmp_path / "notes" / "c.wav", wave_of(20), 16000)
    assert main(["encode", str(tmp_path / "notes"), *options, "--out", codes]) == 1
    told = capsys.readouterr()
    assert "c.wav: Autoencoder.encode: wave has 20 samples" in told.err and "2 skipped" in told.out
