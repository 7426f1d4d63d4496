"""Batches are a function of seed, step and recordings, whoever reads them; what cannot be used is named and skipped."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import fastvoc
from fastvoc.audio import CONVENTIONS, mel_spectrogram
from fastvoc.train.data.batches import Batches
from fastvoc.train.data.config import DataConfig
from fastvoc.train.data.lists import Recording
from fastvoc.train.data.loader import Loader, make_loader
from fastvoc.train.data.readers import refuse_unguarded
from fastvoc.train.data.recordings import Recordings

RATE = 8000
SEGMENT = 512
MEL = replace(CONVENTIONS["hifigan"], sample_rate=RATE, fft_size=256, hop=64, window_size=256, bands=20, high=4000)


def ramp(path: Path, number: int, samples: int = 2000) -> None:
    """Write a recording whose samples tell its number and their own place in it."""
    soundfile.write(path, number / 16 + np.arange(1, samples + 1) / 2**16, RATE, subtype="FLOAT")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "wavs").mkdir()
    for number in range(12):
        ramp(tmp_path / "wavs" / f"{number:02d}.wav", number)
    return tmp_path / "wavs"


def loader(folder: Path, *, batch: int = 4, seed: int = 1, **settings: Any) -> Loader:
    keywords = {name: settings.pop(name) for name in ("rank", "world_size", "mel", "segment") if name in settings}
    config = DataConfig(**{"recordings": str(folder), "held_out": 0, "workers": 0, **settings})
    return make_loader(config, **{"sample_rate": RATE, "segment": SEGMENT, **keywords}, batch=batch, seed=seed)


def take(supply: Loader, count: int) -> torch.Tensor:
    return torch.stack([batch for batch in islice(supply, count) if isinstance(batch, torch.Tensor)])


def numbers(waves: torch.Tensor) -> list[int]:
    """Tell which recordings segments were cut from."""
    return (waves[..., 0] * 16).int().flatten().tolist()


def test_a_batch_has_the_shape_and_type_that_was_agreed(folder):
    batch = next(loader(folder))
    assert batch.shape == (4, SEGMENT)
    assert batch.dtype == torch.float32


def test_each_recording_is_drawn_once_per_epoch_in_another_order(folder):
    supply = loader(folder)
    assert supply.steps_per_epoch == 3
    epochs = []
    for epoch in range(3):
        assert supply.epoch == epoch
        epochs.append(numbers(take(supply, 3)))
    assert supply.epoch == 3
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_of_an_epoch_is_that_of_its_seed_and_number(folder):
    """A run goes on with the order that it began with, also with a later version."""
    drawn = numbers(take(loader(folder, seed=7), 6))
    for epoch in range(2):
        order = np.arange(12, dtype=np.uint32)
        np.random.default_rng((7, epoch, 0)).shuffle(order)
        assert drawn[12 * epoch :][:12] == order.tolist()


def test_fewer_recordings_than_a_batch_fill_it_in_turn(folder):
    supply = loader(folder, batch=30)
    assert supply.steps_per_epoch == 1
    batch = next(supply)
    assert set(np.bincount(numbers(batch), minlength=12)) == {2, 3}
    assert len({float(row[0]) for row in batch}) > 25  # other crops of the same recordings


def test_segments_are_cut_from_every_place_of_a_recording(folder):
    starts = [float(start) for start in take(loader(folder, batch=12), 400)[..., 0].flatten()]
    places = np.round((np.array(starts) * 2**16) % 4096).astype(int) - 1
    assert places.min() == 0
    assert places.max() == 2000 - SEGMENT
    # 4800 draws of 1489 places: each decile is as full as the others to within five standard deviations
    deciles, _ = np.histogram(places, 10, (0, 2000 - SEGMENT))
    assert abs(deciles - 480).max() < 5 * np.sqrt(480)


def test_sources_are_drawn_as_often_as_their_weights_say(folder, tmp_path):
    (tmp_path / "other").mkdir()
    for number in range(4):
        (folder / f"{number:02d}.wav").rename(tmp_path / "other" / f"{number}.wav")
    sources = {"recordings": (str(folder), str(tmp_path / "other")), "weights": (0.5, 3)}
    supply = loader(folder, batch=4, **sources)
    assert supply.steps_per_epoch == (8 // 2 + 4 * 3) // 4
    halves = []
    for _ in range(6):
        epoch = numbers(take(supply, 4))
        assert [epoch.count(number) for number in range(4)] == [3] * 4
        halves.append({number for number in epoch if number >= 4})
        assert len(halves[-1]) == 4  # each at most once
    assert set().union(*halves) == set(range(4, 12))
    ranks = [take(loader(folder, batch=2, rank=rank, world_size=2, **sources), 9) for rank in range(2)]
    assert torch.equal(torch.cat(ranks, dim=1), take(loader(folder, batch=4, **sources), 9))


def slow_ramps(folder: Path, slope: float) -> None:
    for path in folder.iterdir():
        path.unlink()
    for number in range(4):  # resampling rounds off a ramp's ends, so these begin and end in silence
        wave = np.concatenate([np.zeros(200), slope * np.arange(-1000, 1000), np.zeros(200)])
        soundfile.write(folder / f"{number}.wav", wave, RATE, subtype="FLOAT")


def test_segments_are_played_at_the_speeds_that_are_named(folder):
    slope = 1 / 2**12
    slow_ramps(folder, slope)
    speeds = (1.0, 1.0, 0.5, 1.25)
    waves = take(loader(folder, speeds=speeds), 200).flatten(0, 1).double()
    rises = waves.diff(dim=1).median(dim=1).values / slope
    counts = {speed: int(((rises - speed).abs() < 0.01).sum()) for speed in speeds}
    assert sum(counts.values()) > 0.98 * len(waves)  # a few segments lie where a ramp breaks off
    # 800 draws: to within five standard deviations
    assert abs(counts[1.0] - 400) < 5 * np.sqrt(200) + 16
    assert abs(counts[0.5] - 200) < 5 * np.sqrt(150) + 16


@pytest.mark.parametrize("cache", [0, 1])
def test_neither_workers_nor_cache_change_the_speeds(folder, cache):
    ramp(folder / "12.wav", 12, samples=round(1.1 * SEGMENT))  # too short where it is played faster
    ramp(folder / "13.wav", 13, samples=round(0.4 * SEGMENT))  # too short at every speed
    settings = {"speeds": (1.0, 0.5, 1.25), "cache": cache}
    here, there = loader(folder, **settings), loader(folder, workers=2, **settings)
    expected = take(here, 20)
    assert torch.equal(take(there, 20), expected)
    there.close()
    resumed = loader(folder, **settings)
    resumed.load_state_dict(here.state_dict() | {"step": 11})
    assert torch.equal(take(resumed, 9), expected[11:])
    assert "at speed 1.25, a segment 512" in here.skipped[str(folder / "12.wav")]
    assert set(here.skipped) == {str(folder / "12.wav"), str(folder / "13.wav")}


def test_equal_seeds_give_equal_batches_and_other_seeds_others(folder):
    first, same, other = (take(loader(folder, seed=seed), 5) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_ranks_together_read_what_one_would(folder):
    whole = take(loader(folder, batch=6), 5)
    parts = [take(loader(folder, batch=2, rank=rank, world_size=3), 5) for rank in range(3)]
    assert torch.equal(torch.cat(parts, dim=1), whole)


def test_a_cache_holds_no_piece_of_a_long_recording(folder, monkeypatch):
    """Another piece is read in each epoch."""
    monkeypatch.setattr("fastvoc.train.data.batches.LONGEST", 800 / RATE)
    plain, kept = (take(loader(folder, cache=cache), 9) for cache in (0, 1))
    assert torch.equal(kept, plain)
    places = np.round((plain[..., 0].flatten().numpy() * 2**16) % 4096).astype(int) - 1
    assert places.max() > 800  # beyond what one piece at the beginning has


@pytest.mark.parametrize("cache", [0, 1e-5, 1])
def test_neither_workers_nor_cache_change_a_sample(folder, cache):
    (folder / "05.wav").write_bytes(b"broken")
    settings = {"gain": (-6.0, 0.0), "polarity": True, "peak": 0.95, "cache": cache}
    here, there = loader(folder, **settings), loader(folder, workers=2, **settings)
    assert torch.equal(take(here, 8), take(there, 8))
    assert here.skipped == there.skipped == {str(folder / "05.wav"): here.skipped[str(folder / "05.wav")]}
    there.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_resumes_anywhere_reads_the_same_batches(folder, workers):
    settings = {"gain": (-6.0, 0.0), "polarity": True, "workers": workers}
    supply = loader(folder, **settings)
    batches, states = [], [supply.state_dict()]
    for batch in islice(supply, 7):
        batches.append(batch)
        states.append(supply.state_dict())
    for step in (0, 1, 3, 6) if workers == 0 else (4,):
        resumed = loader(folder, **settings)
        resumed.load_state_dict(pickle.loads(pickle.dumps(states[step])))
        assert resumed.epoch == step // 3
        assert torch.equal(take(resumed, 7 - step), torch.stack(batches[step:]))
        resumed.close()
    supply.load_state_dict(states[2])  # also one that has already begun, and read ahead
    assert torch.equal(next(supply), batches[2])
    supply.close()


def test_reading_leaves_the_global_random_numbers_alone(folder):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for workers in (0, 1):
        supply = loader(folder, workers=workers, polarity=True)
        next(supply)
        supply.close()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_readers_outlast_the_signals_that_end_a_run_and_end_with_it(folder):
    supply, expected = loader(folder, workers=1), take(loader(folder), 12)
    first = next(supply)
    (reader,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(reader.pid, number)
    assert torch.equal(torch.stack([first, *take(supply, 11)]), expected)
    supply.close()
    reader.join(timeout=5)
    assert not reader.is_alive()


def test_readers_need_no_shared_memory(folder, monkeypatch):
    """A container may have 64 MB of it, in which a batch is lost when it is full."""
    for way in ("_share_filename_cpu_", "_share_fd_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, way, None)  # in the forked ones too
    supply = loader(folder, workers=2)
    batch = next(supply)
    assert torch.equal(batch, next(loader(folder)))
    assert not batch.is_shared()
    supply.close()


UNGUARDED = "import fastvoc\nfastvoc.train('melgan', data='wavs')\n"
GUARDED = "import fastvoc\nif __name__ == '__main__':\n    fastvoc.train('melgan', data='wavs')\n"


@pytest.mark.parametrize(
    ("text", "method", "workers", "refused"),
    [
        (UNGUARDED, "spawn", 2, True),
        (UNGUARDED, "forkserver", 1, True),
        (UNGUARDED + "logger = logging.getLogger(__name__)\n", "spawn", 2, True),
        (UNGUARDED, "fork", 2, False),
        (UNGUARDED, "spawn", 0, False),
        (GUARDED, "spawn", 2, False),
        ("this is no Python", "spawn", 2, False),
        (None, "spawn", 2, False),  # an interactive session
    ],
)
def test_a_script_that_its_readers_would_run_again_is_refused(tmp_path, monkeypatch, text, method, workers, refused):
    main = ModuleType("__main__")
    if text is not None:
        main.__file__ = str(tmp_path / "script.py")
        (tmp_path / "script.py").write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    if not refused:
        refuse_unguarded(workers)
        return
    with pytest.raises(
        RuntimeError, match=rf'script.py: .* by {method} .* `if __name__ == "__main__":`, or set data.w'
    ):
        refuse_unguarded(workers)
    with pytest.raises(RuntimeError, match=r"script.py: calls training with data.workers="):  # before anything is read
        fastvoc.train("melgan", data="wavs", folder=tmp_path / "run", changes={"data.workers": workers})
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_guard_that_guards_nothing_is_one_sentence_too(folder, tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        f"multiprocessing.set_start_method({method!r}, force=True)\n"
        "from fastvoc.train.data.config import DataConfig\n"
        "from fastvoc.train.data.loader import make_loader\n"
        "if __name__ == 'another':\n"
        "    pass\n"
        f"config = DataConfig(recordings={str(folder)!r}, workers=2)\n"
        f"next(make_loader(config, sample_rate={RATE}, segment={SEGMENT}, batch=2, seed=0))\n"
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("ChildProcessError: the call of training is unguarded; where proc")
    assert ended.stderr.count("Traceback") == 1


def test_another_data_set_is_refused_with_the_remedy_unless_said_so(folder, caplog):
    supply = loader(folder)
    take(supply, 4)
    state = supply.state_dict()
    ramp(folder / "12.wav", 12)
    grown = loader(folder, batch=2, seed=5)
    with pytest.raises(ValueError, match="seed was 1, is 5; batch was 4, is 2; recordings were 12, are 13") as error:
        grown.load_state_dict(state)
    assert "13: 1 came (12.wav); restore it to continue exactly, or go on with what there is now" in str(error.value)
    assert "--allow-changes" in str(error.value)
    grown.load_state_dict(state, strict=False)
    assert "1 came (12.wav); the run goes on in epoch 1" in caplog.text
    assert grown.state_dict()["step"] == 6 + 6 // 3  # of the epoch of 3 batches, now 6, the first was heard
    (folder / "12.wav").unlink()
    (folder / "00.wav").rename(folder / "99.wav")
    with pytest.raises(ValueError, match=r"are 12: 1 came \(99.wav\) and 1 went \(00.wav\);"):
        loader(folder).load_state_dict(state)


def test_what_came_and_went_is_counted_over_all_and_two_are_named(folder):
    state = loader(folder, held_out=3).state_dict()
    for number in range(4):
        ramp(folder / f"2{number}.wav", 12)
    (folder / "03.wav").unlink()
    with pytest.raises(ValueError, match=r"were 9, are 12: 4 came \(20.wav, 21.wav, …\) and 1 went \(03.wav\);"):
        loader(folder, held_out=3).load_state_dict(state)


def test_another_order_and_another_validation_set_are_other_data(folder, tmp_path):
    lists = {"one": ["00", "01", "02"], "turned": ["02", "01", "00"]}
    for name, numbers in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(f"wavs/{number}.wav" for number in numbers))
    one = {"recordings": str(tmp_path / "one.txt"), "validation": str(folder / "05.wav")}
    state = loader(folder, **one).state_dict()
    loader(folder, **one).load_state_dict(state)
    with pytest.raises(ValueError, match="are 3: in another order;"):
        loader(folder, **one | {"recordings": str(tmp_path / "turned.txt")}).load_state_dict(state)
    with pytest.raises(ValueError, match="other recordings are validated on;"):
        loader(folder, **one | {"validation": str(folder / "06.wav")}).load_state_dict(state)


def test_a_recording_that_moves_to_a_source_of_another_weight_is_other_data(folder, tmp_path):
    (tmp_path / "other").mkdir()
    sources = {"recordings": (str(folder), str(tmp_path / "other")), "weights": (1, 3)}
    for number in ("10", "11"):
        (folder / f"{number}.wav").rename(tmp_path / "other" / f"{number}.wav")
    state = loader(folder, **sources).state_dict()
    (tmp_path / "other" / "10.wav").rename(folder / "10.wav")
    with pytest.raises(ValueError, match=r"\(data.weights\) were \[10, 2\], are \[11, 1\];"):
        loader(folder, **sources).load_state_dict(state)


@pytest.mark.parametrize(("recordings", "batch"), [(4, 4), (12, 2), (12, 4), (40, 4), (40, 16)])
def test_an_epoch_goes_on_where_it_was_with_data_of_any_size(folder, recordings, batch):
    """Whatever its length is: its number, which learning rates follow, and the share that was heard."""
    supply = loader(folder)
    supply.load_state_dict(supply.state_dict() | {"step": 3 * 100 + 1})
    for number in range(recordings, 12):
        (folder / f"{number:02d}.wav").unlink()
    for number in range(12, recordings):
        ramp(folder / f"{number:02d}.wav", number % 12)
    changed = loader(folder, batch=batch)
    changed.load_state_dict(supply.state_dict(), strict=False)
    assert changed.epoch == 100
    length = changed.steps_per_epoch
    assert length == max(1, recordings // batch)
    assert changed.state_dict()["step"] == 100 * length + length // 3


def test_a_moved_data_set_is_the_same_one(folder, tmp_path):
    supply = loader(folder)
    expected = take(supply, 4)
    first = loader(folder)
    take(first, 2)
    folder.rename(tmp_path / "elsewhere")
    moved = loader(tmp_path / "elsewhere")
    moved.load_state_dict(first.state_dict())
    assert torch.equal(take(moved, 2), expected[2:])


def spoil(folder: Path) -> list[str]:
    (folder / "01.wav").write_bytes(b"not a sound")
    soundfile.write(folder / "03.wav", np.zeros(2000), RATE)
    soundfile.write(folder / "05.wav", np.full(2000, np.nan), RATE, subtype="FLOAT")
    ramp(folder / "07.wav", 7, samples=SEGMENT - 1)
    return [str(folder / f"{number}.wav") for number in ("01", "03", "05", "07")]


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_recordings_are_named_counted_and_replaced(folder, caplog, workers):
    bad = spoil(folder)
    with caplog.at_level(logging.WARNING):
        supply = loader(folder, workers=workers)
        waves = take(supply, 6)
    supply.close()
    assert sorted(supply.skipped) == bad
    assert waves.isfinite().all()
    assert set(numbers(waves)) == set(range(12)) - {1, 3, 5, 7}
    text = caplog.text
    for path, reason in zip(
        bad, ["not a readable", "is silent", "2000 values", "511 samples, a segment 512"], strict=True
    ):
        assert text.count(path) == 1
        assert reason in supply.skipped[path]


def test_a_recording_that_breaks_during_the_run_is_found_where_it_is_drawn(folder):
    batches = Batches(
        Recordings(Recording(str(path)) for path in sorted(folder.iterdir())),
        DataConfig(recordings=str(folder), cache=0),
        sample_rate=RATE,
        segment=SEGMENT,
        seed=0,
        rows=range(4),
        whole_batch=4,
    )
    assert batches.try_out() == {}
    (folder / "04.wav").unlink()
    news = [batches[step].unusable for step in range(6)]
    assert [list(part) for part in news if part] == [[str(folder / "04.wav")]]


@pytest.mark.parametrize("workers", [0, 1])
def test_no_exception_of_a_single_recording_ends_the_supply(folder, monkeypatch, workers):
    cut = Batches._cut

    def fail(self: Batches, wave: torch.Tensor, *others: Any) -> Any:
        if int(wave[0] * 16) == 7:
            raise RuntimeError("not this\none")
        return cut(self, wave, *others)

    monkeypatch.setattr(Batches, "_cut", fail)
    supply = loader(folder, workers=workers)
    assert set(numbers(take(supply, 6))) == set(range(12)) - {7}
    supply.close()
    assert supply.skipped == {str(folder / "07.wav"): f"{folder}/07.wav: cannot be used: RuntimeError: not this one"}


@pytest.mark.parametrize("workers", [0, 1])
def test_names_in_any_bytes_are_drawn_and_reported_like_others(folder, caplog, workers):
    names = [os.fsdecode(os.fsencode(folder) + b"/\xe9" + number) for number in (b"05.wav", b"06.wav")]
    (folder / "05.wav").rename(names[0])
    (folder / "06.wav").rename(names[1])
    Path(names[1]).write_bytes(b"broken")
    supply = loader(folder, workers=workers)
    assert set(numbers(take(supply, 6))) == set(range(12)) - {6}
    supply.close()
    assert list(supply.skipped) == [names[1]]
    assert supply.skipped[names[1]].encode("utf-8").startswith(os.fsencode(folder) + b"/\\xe906.wav: not a readable")
    state = pickle.loads(pickle.dumps(supply.state_dict()))
    loader(folder).load_state_dict(state)
    Path(names[1]).unlink()
    with pytest.raises(ValueError, match=r"1 went \(\\xe906.wav\)"):
        loader(folder).load_state_dict(state)


def test_a_thousand_bad_ones_are_not_a_thousand_lines(folder, caplog):
    with caplog.at_level(logging.WARNING):
        supply = loader(folder)
        supply.skip({f"{number}.wav": f"{number}.wav: no such file" for number in range(1000)})
    assert len(caplog.records) == 21
    assert len(supply.skipped) == 1000


def test_all_bad_is_one_error_before_any_time_is_spent(folder):
    for path in folder.iterdir():
        path.write_bytes(b"not a sound")
    with pytest.raises(ValueError, match=r"none of the 12 that were tried can be used: .*00.wav: not a readable"):
        loader(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_all_bad_during_the_run_is_one_sentence_from_any_process(folder, workers):
    supply = loader(folder, workers=workers, cache=0)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"^data.recordings: 12 in a row .*the last .*wav: no such file"):
        next(supply)
    assert len(supply.skipped) == 12
    supply.close()


def test_a_recording_that_breaks_off_is_named_and_skipped(folder):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000)
    soundfile.write(folder / "05.flac", noise, RATE)
    content = (folder / "05.flac").read_bytes()
    (folder / "05.flac").write_bytes(content[: len(content) // 2])  # its header promises all of it
    supply = loader(folder)
    assert set(numbers(take(supply, 6))) == set(range(12))
    assert set(supply.skipped) == {str(folder / "05.flac")}
    assert "05.flac: breaks off: " in supply.skipped[str(folder / "05.flac")]


def test_short_recordings_may_be_followed_by_silence(folder):
    for path in folder.iterdir():
        path.unlink()
    ramp(folder / "1.wav", 1, samples=100)
    (row,) = next(loader(folder, batch=1, short="pad"))
    assert (row[:100] > 0).all()
    assert not row[100:].any()


def test_a_recording_of_exactly_a_segment_is_used(folder):
    for path in folder.iterdir():
        path.unlink()
    ramp(folder / "1.wav", 1, samples=SEGMENT)
    (row,) = next(loader(folder, batch=1))
    assert torch.equal(row, torch.from_numpy(soundfile.read(folder / "1.wav", dtype="float32")[0]))


def test_level_and_polarity_are_drawn_for_each_segment(tmp_path):
    soundfile.write(tmp_path / "1.wav", np.full(SEGMENT, 0.25), RATE, subtype="FLOAT")
    waves = take(loader(tmp_path, peak=0.5, gain=(-6.0, 2.0), polarity=True), 100)[..., 0].flatten()
    decibels = 20 * np.log10(waves.abs().numpy() / 0.5)
    assert -6 <= decibels.min() < -5.5
    assert 1.5 < decibels.max() <= 2
    positive = int((waves > 0).sum())
    assert abs(positive - 200) < 5 * 10  # 400 fair coins have a standard deviation of 10


def test_recordings_of_another_rate_are_resampled(tmp_path):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / (3 * RATE))
    soundfile.write(tmp_path / "1.wav", wave, 3 * RATE, subtype="FLOAT")
    (row,) = next(loader(tmp_path, batch=1, segment=RATE))
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(row[500:-500], expected[500:-500], atol=1e-4)


@pytest.mark.parametrize("rank", [0, 1])
def test_recordings_that_end_below_the_rate_of_the_run_are_named(folder, caplog, rank):
    soundfile.write(folder / "05.wav", np.full(2000, 0.5), RATE // 2, subtype="FLOAT")
    soundfile.write(folder / "06.wav", np.full(2000, 0.5), RATE // 4, subtype="FLOAT")
    soundfile.write(folder / "07.wav", np.full(4000, 0.5), RATE * 2, subtype="FLOAT")
    (folder / "08.wav").unlink()
    loader(folder, rank=rank, world_size=2)
    sentence = (
        f"2 of 11 recordings that were tried have a lower sample rate than 8000 Hz, such as {folder}/06.wav of 2000 Hz"
    )
    assert caplog.text.count(f"{sentence}: they end at 1000 Hz") == (rank == 0)


def predict(folder: Path, mels: Path, *, change: int = 0, names: Sequence[str] | None = None) -> None:
    """Write mels as another network would: the true ones, longer or shorter by some frames."""
    mels.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.wav")):
        if names is None or path.stem in names:
            wave, _ = soundfile.read(path, dtype="float32")
            mel = mel_spectrogram(torch.from_numpy(wave), MEL).numpy()
            frames = mel.shape[1] + change
            mel = mel[:, :frames] if change < 0 else np.pad(mel, ((0, 0), (0, change)), "edge")
            np.save(mels / f"{path.stem}.npy", mel)


@pytest.mark.parametrize("change", [-2, 0, 1, 3])
def test_mels_and_segments_are_cut_at_the_same_frames(folder, tmp_path, change):
    mels = tmp_path / "mels"
    predict(folder, mels, change=change)
    supply = loader(folder, mels=str(mels), mel=MEL, batch=12)
    for waves, cut in islice(supply, 10):
        assert waves.shape == (12, SEGMENT)
        assert cut.shape == (12, 20, SEGMENT // 64)
        assert cut.dtype == torch.float32
        # frames 2 … -2 of a segment's own mel see nothing beyond its ends: they equal those of the whole recording
        inner = slice(2, -2)
        own = mel_spectrogram(waves, MEL)
        whole = waves.min(dim=1).values > 0  # but not where the recording was followed by silence
        torch.testing.assert_close(cut[whole][..., inner], own[whole][..., inner], atol=1e-4, rtol=1e-4)
    assert supply.skipped == {}


def test_lengths_that_differ_by_more_than_the_tolerance_are_one_clear_error(folder, tmp_path):
    mels = tmp_path / "mels"
    predict(folder, mels, change=4)
    with pytest.raises(ValueError, match=r"00.npy: has 35 frames, and .*00.wav has 31.2 .*12 of 12 mels are wrong"):
        loader(folder, mels=str(mels), mel=MEL)
    assert next(loader(folder, mels=str(mels), mel=MEL, mel_tolerance=4))[1].shape[0] == 4


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((31, 20), np.float32), r"has shape \(31, 20\), which is transposed; write it as \(bands, frames\)"),
        (np.zeros((80, 31), np.float32), r"has shape \(80, 31\); needs \(20, frames\)"),
        (np.zeros((20, 31), np.int16), "holds int16; a mel is floating point"),
    ],
)
def test_a_mel_of_another_kind_is_an_error_at_once(folder, tmp_path, array, reason):
    mels = tmp_path / "mels"
    predict(folder, mels)
    np.save(mels / "07.npy", array)
    with pytest.raises(ValueError, match=f"07.npy: {reason}"):
        loader(folder, mels=str(mels), mel=MEL)


def test_a_batch_of_one_mel_is_its_only_one(folder, tmp_path):
    mels = tmp_path / "mels"
    predict(folder, mels)
    np.save(mels / "07.npy", np.load(mels / "07.npy")[None])
    assert loader(folder, mels=str(mels), mel=MEL).skipped == {}


def test_recordings_without_a_usable_mel_are_named_and_skipped(folder, tmp_path):
    mels = tmp_path / "mels"
    predict(folder, mels)
    (mels / "02.npy").unlink()
    (mels / "03.npy").write_bytes(b"damaged")
    np.save(mels / "04.npy", np.full((20, 31), np.nan, np.float32))
    supply = loader(folder, mels=str(mels), mel=MEL)
    waves = torch.stack([waves for waves, _ in islice(supply, 6)])
    assert set(numbers(waves)) == set(range(12)) - {2, 3, 4}
    assert [reason.split(": ", 1)[1][:17] for _, reason in sorted(supply.skipped.items())] == [
        "no such file; a r",
        "not a readable .n",
        "holds values that",
    ]
    for path in mels.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no recording has a usable mel; .*00.npy: no such file"):
        loader(folder, mels=str(mels), mel=MEL)


def test_mels_may_lie_in_folders_like_those_of_their_recordings(folder, tmp_path):
    for speaker, chosen in (("a", range(6)), ("b", range(6, 12))):
        (folder / speaker).mkdir()
        for number in chosen:
            (folder / f"{number:02d}.wav").rename(folder / speaker / f"{number % 6}.wav")
        predict(folder / speaker, tmp_path / "mels" / speaker)
    for depth in (tmp_path / "mels", tmp_path / "deeper"):
        supply = loader(folder, mels=str(depth), mel=MEL, batch=12)
        waves, mels = next(supply)
        inner = slice(2, -2)
        torch.testing.assert_close(mels[..., inner], mel_spectrogram(waves, MEL)[..., inner], atol=1e-4, rtol=1e-4)
        assert supply.skipped == {}
        (tmp_path / "deeper").mkdir(exist_ok=True)
        if depth.name == "mels":
            depth.rename(tmp_path / "deeper" / folder.name)  # as deep as the recordings' own folder
    flat = tmp_path / "flat"
    predict(folder / "a", flat)
    with pytest.raises(
        ValueError, match=r"0.npy would be the mel of both .*a/0.wav and .*b/0.wav; .*folders like theirs"
    ):
        loader(folder, mels=str(flat), mel=MEL)


def test_a_recording_that_is_listed_twice_has_one_mel(folder, tmp_path):
    predict(folder, tmp_path / "mels")
    (tmp_path / "list.txt").write_text("wavs/00.wav\nwavs/01.wav\nwavs/00.wav\n")
    settings = {"mels": str(tmp_path / "mels"), "mel": MEL}
    supply = loader(folder, recordings=[str(tmp_path / "list.txt")], **settings, batch=3)
    assert sorted(numbers(next(supply)[0])) == [0, 0, 1]
    lines = [{"path": "wavs/00.wav", "offset": start, "duration": 0.1} for start in (0.0, 0.1)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"00.npy would be the mel of both .*00.wav and .*00.wav from 0.1 s on;"):
        loader(folder, recordings=str(tmp_path / "m.jsonl"), **settings)


def test_the_mels_that_a_manifest_names_are_read(folder, tmp_path, caplog):
    predict(folder, tmp_path / "mels")
    lines = []
    for number, path in enumerate(sorted(folder.iterdir())):
        (tmp_path / "mels" / f"{path.stem}.npy").rename(tmp_path / "mels" / f"mel_{number}.npy")
        lines.append(
            {"audio_filepath": f"wavs/{path.name}", "mel_filepath": f"mels/mel_{number}.npy", "duration": 0.25}
        )
    manifest = tmp_path / "m.json"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    supply = loader(folder, recordings=str(manifest), mels=str(tmp_path / "mels"), mel=MEL, batch=12, held_out=1)
    waves, mels = next(supply)
    inner = slice(2, -2)
    torch.testing.assert_close(mels[..., inner], mel_spectrogram(waves, MEL)[..., inner], atol=1e-4, rtol=1e-4)
    assert supply.skipped == {}
    assert caplog.text == ""
    loader(folder, recordings=str(manifest))
    assert "the mels that the recordings' list names are not used; to fine-tune on them, set data.mels" in caplog.text


def test_an_utterance_of_exactly_a_segment_can_be_tuned_on(tmp_path):
    wavs, mels = tmp_path / "wavs", tmp_path / "mels"
    wavs.mkdir()
    ramp(wavs / "1.wav", 1, samples=SEGMENT)
    predict(wavs, mels)
    wave, mel = next(loader(wavs, mels=str(mels), mel=MEL, batch=2))
    assert wave.shape == (2, SEGMENT)
    np.testing.assert_array_equal(mel[1], np.load(mels / "1.npy"))


def test_what_cannot_be_paired_is_refused(folder, tmp_path):
    mels = tmp_path / "mels"
    predict(folder, mels)
    soundfile.write(folder / "01.flac", np.full(2000, 0.5), RATE)
    with pytest.raises(ValueError, match=r"01.npy would be the mel of both .*01.flac and .*01.wav"):
        loader(folder, mels=str(mels), mel=MEL)
    with pytest.raises(FileNotFoundError, match=r"data.mels: .*nowhere: no such folder"):
        loader(folder, mels=str(tmp_path / "nowhere"), mel=MEL)
    with pytest.raises(ValueError, match="segments of 500 samples at 8000 Hz are not whole frames of 64 samples"):
        loader(folder, mels=str(mels), mel=MEL, segment=500)
    with pytest.raises(ValueError, match="mel; pass the generator's convention"):
        loader(folder, mels=str(mels))


@pytest.mark.parametrize("workers", [0, 2])
def test_how_far_mels_are_smoothed_is_drawn_for_each_segment(folder, workers):
    settings = {"batch": 12, "gain": (-6.0, 2.0), "polarity": True}
    plain = take(loader(folder, **settings), 10)
    supply = loader(folder, **settings, smoothing=2, workers=workers)
    waves, reaches = zip(*islice(supply, 10), strict=True)
    supply.close()
    assert torch.equal(torch.stack(waves), plain)  # the same segments as without
    assert {reach.dtype for reach in reaches} == {torch.int64} and {reach.shape for reach in reaches} == {(12, 2)}
    kinds, counts = torch.cat(reaches).unique(dim=0, return_counts=True)
    # nine that are equally likely, of 120: 13.3 each, with a standard deviation of 3.4
    assert len(kinds) == 9 and kinds.max() == 2 and counts.max() < 13.3 + 5 * 3.4


def test_mels_of_another_network_are_not_smoothed(folder):
    with pytest.raises(ValueError, match="smoothing is of mels of recordings, and those of 'tts' are smooth"):
        loader(folder, mels="tts", smoothing=1)
