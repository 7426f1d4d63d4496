"""Damaged files and settings end in one sentence, never in another exception, a hang, or a machine without memory."""

from __future__ import annotations

import json
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import foreign
import pytest
import torch
import yaml

from fastvoc.audio import MelConfig
from fastvoc.checkpoints import VocoderConfig, foreign_settings, open_checkpoint, save_native
from fastvoc.models import HiFiGANConfig, ISTFTNetConfig, MelGANConfig

MEL = MelConfig(sample_rate=16000, fft_size=8, hop=4, window_size=8, bands=2, low=0, high=8000)
HIFIGAN = HiFiGANConfig(
    mel_bands=2, channels=2, rates=(4,), rate_kernel_sizes=(8,), kernel_sizes=(1,), dilations=((1,),)
)
PWG = replace(HIFIGAN, crop_rule="output-padded")
MELGAN = MelGANConfig(mel_bands=2, channels=2, rates=(4,), rate_kernel_sizes=(8,), units=1)
DESCRIPT = MelGANConfig(mel_bands=2, channels=16, units=1)

SECONDS = 10
"""How long opening a file of a few kilobytes may take on a busy machine; it takes some milliseconds."""

MEGABYTES = 500
"""How much the process may grow at most."""


def native(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    save_native(folder, VocoderConfig(generator=config, mel=mel), config.build().state_dict())
    return folder


def legacy(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    foreign.official(folder, config, mel, **options)
    path = folder / "g_00000005"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    return folder


def compressed(folder: Path, config: HiFiGANConfig, mel: MelConfig, **options: Any) -> Path:
    return foreign.nemo(folder, config, mel, mode="w:gz", **options)


def in_hdf5(folder: Path, config: Any, mel: MelConfig, **options: Any) -> Path:
    return foreign.parallel_wavegan(folder, config, mel, statistics="h5", **options)


SEEDS: dict[str, tuple[Callable[..., Path], Any, str, str]] = {
    "PyTorch": (foreign.official, HIFIGAN, "g_00000005", "config.json"),
    "older PyTorch": (legacy, HIFIGAN, "g_00000005", "config.json"),
    "safetensors": (foreign.speecht5, replace(HIFIGAN, standardised=True), "model.safetensors", "config.json"),
    "native": (native, HIFIGAN, "model.safetensors", "config.json"),
    "tar": (foreign.nemo, HIFIGAN, "tts_hifigan.nemo", ""),
    "gzip": (compressed, HIFIGAN, "tts_hifigan.nemo", ""),
    "NumPy": (foreign.parallel_wavegan, PWG, "stats.npy", "config.yml"),
    "HDF5": (in_hdf5, MELGAN, "stats.h5", "config.yml"),
    "ESPnet": (foreign.espnet, PWG, "train.total_count.ave_5best.pth", "config.yaml"),
    "SpeechBrain": (foreign.speechbrain, replace(HIFIGAN, padding_mode="reflect"), "", "hyperparams.yaml"),
    "Coqui": (foreign.coqui, HIFIGAN, "", "config.json"),
    "descript": (foreign.descript, DESCRIPT, "", "args.yml"),
    "iSTFTNet": (
        foreign.official_istftnet,
        ISTFTNetConfig(trunk=replace(HIFIGAN, rates=(2,), rate_kernel_sizes=(4,)), fft_size=4, istft_hop=2),
        "",
        "config.json",
    ),
    "NVIDIA": (foreign.deep_learning_examples, HIFIGAN, "hifigan_gen_checkpoint_6500.pt", ""),
}
"""Writer, configuration, and which of its files to damage: weights or statistics, and settings."""

CONTAINERS = dict.fromkeys(("PyTorch", "older PyTorch", "safetensors", "native", "tar", "gzip", "NVIDIA"), 4)
"""Seeds whose weights are damaged this many times as often as settings."""

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 2**16, 2**31, 2**63, 10**30, -(2**63), 0.0, 0.5, -1.5, 1e308),
    *(float("nan"), float("inf"), "", "1", "x", "eight", "2001-99-99", "\x00", "<seed>", "${n_mels}", "a" * 10_000),
    *([], [0], [1], [2, 2], [-1], [None], ["x"], [[1]], [[[1]]], list(range(1000)), {}, {"a": 1}, {"": {}}, [{}]),
]
"""What takes the place of a setting."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, (writer, config, _, _) in SEEDS.items():
        folders[name] = tmp_path_factory.mktemp("seed")
        path = writer(folders[name], config, MEL, values=foreign.single)
        open_checkpoint(path)
        folders[name] = path
    return folders


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat, drop, move or overwrite, once to four times."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        start = chance.randrange(len(data))
        end = min(len(data), start + chance.choice((1, 2, 4, 8, 64, 512)))
        kind = chance.randrange(7)
        if kind == 0:
            data[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            data[start:start] = data[start:end]
        elif kind == 4:
            data[start:end] = chance.randbytes(end - start)
        elif kind == 5:
            data[start:end] = bytes([chance.choice((0, 255, 127, 128))]) * (end - start)
        else:
            other = chance.randrange(len(data))
            data[start:end] = data[other : other + end - start]
    return bytes(data)


def changed(settings: dict[str, Any], chance: random.Random) -> Any:
    """Change one or two values at any depth, or drop, rename or add one."""
    result = json.loads(json.dumps(settings))
    for _ in range(chance.choice((1, 1, 2))):
        place, value = result, result
        while True:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            if not keys:
                break
            place, key = value, chance.choice(keys)
            value = place[key]
            if not isinstance(value, dict | list) or chance.random() < 0.3:
                break
        if not place:
            break
        kind = chance.randrange(8)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, dict):
            place[f"{key}_"] = place.pop(key)
        else:
            place[key] = deepcopy(chance.choice(VALUES))
    return result


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise in code that does not come to an end."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def opens_or_says_why(path: Path, what: str) -> bool:
    """Whether a file opens; where not, the reason is one sentence that says where."""
    try:
        with within(SECONDS):
            open_checkpoint(path)
    except TimeoutError:
        pytest.fail(f"{what}: no end")
    except (ValueError, FileNotFoundError) as error:
        sentence = str(error)
        folder = path if path.is_dir() else path.parent
        assert sentence.startswith(str(folder)), f"{what}: {sentence!r} does not say where"
        assert "\n" not in sentence and len(sentence) < 1000, f"{what}: {sentence!r} is no sentence"
        return False
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    return True


def damage_everything(seeds: dict[str, Path], rounds: int, seed: int) -> int:
    """Damage each seed's files in turn, and return how many still opened; a failure leaves the damaged file."""
    chance = random.Random(seed)
    opened = 0
    targets = [
        (name, file, kind)
        for name, (_, _, weights, settings) in SEEDS.items()
        for file, kind in (*[(weights, "bytes")] * CONTAINERS.get(name, 1), (settings, "bytes"), (settings, "values"))
        if file
    ]
    folders = {name: path if path.is_dir() else path.parent for name, path in seeds.items()}
    originals = {(name, file): (folders[name] / file).read_bytes() for name, file, _ in targets}
    plain = {
        (name, file): foreign_settings.parse(originals[name, file].decode(), file)
        for name, file, kind in targets
        if kind == "values"
    }
    for number in range(rounds):
        name, file, kind = targets[number % len(targets)]
        target = folders[name] / file
        if kind == "bytes":
            content = damaged(originals[name, file], chance)
        else:
            settings = changed(plain[name, file], chance)
            written = json.dumps(settings) if chance.random() < 0.9 else yaml.safe_dump(settings)
            content = written.encode("utf-8", "replace")
        target.write_bytes(content)
        opened += opens_or_says_why(seeds[name], f"{name}, {file}, round {number} of seed {seed}")
        target.write_bytes(originals[name, file])
    return opened


def test_damaged_files_end_in_one_sentence(seeds: dict[str, Path]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds = 2000
    opened = damage_everything(seeds, rounds, seed=0)
    assert rounds / 10 < opened < rounds * 0.7, "the damage must neither be harmless nor always fatal"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


@pytest.mark.slow
def test_a_hundred_thousand_damaged_files_end_in_one_sentence(seeds: dict[str, Path]) -> None:
    """It takes 200 s of one core; each run has a seed of its own, which the message of a failure names."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    damage_everything(seeds, 100_000, seed=int(start))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024
