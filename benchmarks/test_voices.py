"""A voice of Piper: by fastvoc, by ONNX Runtime and by Piper's own package; and what is heard of each precision.

::

    pip install piper-tts distillmos nncf
    FASTVOC_PIPER=en_US-joe-medium.onnx pytest benchmarks/test_voices.py --threads 1 --results benchmarks/results

All are given the same numbers of symbols and draw no noise for durations, so that they say the same in the same time.
What counts on one thread is the processor time of the whole process, which other work on the machine hardly changes. On
several it says nothing of what they do side by side, and the clock counts, of makers in turn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fastvoc
from benchmarks.peers.exports import write_onnx
from benchmarks.peers.plain import PlainGenerator
from benchmarks.peers.quantised_engines import onnx_runtime, openvino, quantise_for_onnx_runtime, quantise_for_openvino
from benchmarks.test_quantised import snr
from fastvoc.audio import pesq, resample
from fastvoc.faces.voice import Voice

VOICE = os.environ.get("FASTVOC_PIPER", "")
TEXT = "The birch canoe slid on the smooth planks, and four hours of steady work faced us before the evening came."
HEARD = (
    "Glue the sheet to the dark blue background; it is easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish, and so is fresh fish.",
)
"""What 8 bits are calibrated on."""
JUDGED = (
    TEXT,
    "Rice is often served in round bowls, while the juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck, and nobody came back for it.",
    "Large size in stockings is hard to sell, said the man who had sold them for thirty years.",
)
FIXED = {"noise_w": 0.0}

pytestmark = pytest.mark.skipif(not VOICE, reason="set FASTVOC_PIPER to a voice of Piper")


def makers(voice: Voice, ids: list[int], threads: int) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return what each maker does for the whole of a sentence, and until it has the first samples."""
    scales = np.array([voice.config.noise_scale, voice.config.length_scale, 0], np.float32)
    session = session_of(VOICE, threads)
    feeds = {"input": np.array([ids]), "input_lengths": np.array([len(ids)]), "scales": scales}
    if "sid" in {value.name for value in session.get_inputs()}:
        feeds["sid"] = np.array([0])

    def by_runtime() -> Any:
        return session.run(None, feeds)[0]

    def ours(precision: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
        one = voice if precision == "float32" else fastvoc.open(VOICE, dtype=precision)
        assert isinstance(one, Voice)
        return lambda: one.speak(ids, seed=1, **FIXED), lambda: next(one.stream(ids, seed=1, **FIXED))

    made = {f"fastvoc, {precision}": ours(precision) for precision in ("float32", "bfloat16")}
    made["ONNX Runtime"] = by_runtime, by_runtime
    from piper import PiperVoice
    from piper.config import PiperConfig, SynthesisConfig

    piper = PiperVoice(
        session=session, config=PiperConfig.from_dict(json.loads(Path(f"{VOICE}.json").read_text(encoding="utf-8")))
    )
    settings = SynthesisConfig(noise_w_scale=0.0)

    def by_piper() -> Any:
        return piper.phoneme_ids_to_audio(ids, settings)

    return made | {"Piper": (by_piper, by_piper)}


def session_of(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def took(run: Callable[[], Any]) -> tuple[float, float]:
    """Return the processor's seconds and the clock's."""
    clock, begin = time.perf_counter(), time.process_time()
    run()
    return time.process_time() - begin, time.perf_counter() - clock


def test_a_voice_beside_its_peers(
    device: str, voice_threads: int, request: pytest.FixtureRequest, rows: list[dict[str, Any]]
) -> None:
    pytest.importorskip("piper", reason="pip install piper-tts")
    if device != "cpu":
        pytest.skip("what is before the decoder runs on the CPU")
    before, threads = torch.get_num_threads(), voice_threads
    torch.set_num_threads(threads)
    try:
        voice = fastvoc.open(VOICE)
        assert isinstance(voice, Voice)
        (ids,) = voice.ids(TEXT)
        made = makers(voice, ids, threads)
        samples = {
            name: np.asarray(whole().float() if isinstance(whole(), Tensor) else whole()).size
            for name, (whole, _) in made.items()
        }
        assert len(set(samples.values())) == 1, f"no number for sounds of different lengths: {samples}"
        times: dict[str, list[list[tuple[float, float]]]] = {name: [[], []] for name in made}
        for _ in range(request.config.getoption("--rounds")):
            for name, runs in made.items():
                for place, run in enumerate(runs):
                    times[name][place].append(took(run))
    finally:
        torch.set_num_threads(before)
    seconds = samples["Piper"] / voice.sample_rate
    for name, (whole, first) in times.items():
        processor, clock = (median(column) for column in zip(*whole, strict=True))
        rows.append(
            {
                "suite": "voices",
                "voice": Path(VOICE).stem,
                "maker": name,
                "threads": threads,
                "seconds": round(seconds, 2),
                "processor_milliseconds": round(1e3 * processor, 1),
                "milliseconds": round(1e3 * clock, 1),
                "times_real_time": round(seconds / (processor if threads == 1 else clock), 1),
                "first_processor_milliseconds": round(1e3 * median(one for one, _ in first), 1),
                "first_milliseconds": round(1e3 * median(clock for _, clock in first), 1),
                "megabytes": memory(name, ids, threads),
            }
        )


_MEMORY = r"""
import json, re, sys
import numpy as np, onnx, onnxruntime, torch
import fastvoc
from fastvoc.faces.voice import Voice
name, path, ids, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) / 1024
before = peak()
if name.startswith("fastvoc"):
    voice = fastvoc.open(path, dtype=name.split(", ")[1])
    for _ in range(3):
        voice.speak(ids, noise_w=0)
else:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {"input": np.array([ids]), "input_lengths": np.array([len(ids)])}
    feeds["scales"] = np.array([0.667, 1, 0], np.float32)
    if "sid" in {value.name for value in session.get_inputs()}:
        feeds["sid"] = np.array([0])
    for _ in range(3):
        session.run(None, feeds)
print(peak() - before)
"""


def memory(name: str, ids: list[int], threads: int) -> int:
    """Return the most memory that opening a voice and speaking takes beyond the imports, in MB."""
    argument = json.dumps([name, VOICE, ids, threads])
    done = subprocess.run([sys.executable, "-c", _MEMORY, argument], capture_output=True, text=True, check=True)
    return round(float(done.stdout))


def test_what_is_heard_of_each_precision(
    device: str, rows: list[dict[str, Any]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if device != "cpu":
        pytest.skip("layers multiply in 8 bits on the CPU")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows += _heard(request.config.getoption("--rounds"), tmp_path)
    finally:
        torch.set_num_threads(before)


def _heard(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Return a row for each decoder: how near, how good and, by the processor's time of one thread, how fast."""
    exact = fastvoc.open(VOICE)
    assert isinstance(exact, Voice)
    judged, heard = (
        [exact.latents(ids, seed=n)[0] for n, ids in enumerate(ids for text in texts for ids in exact.ids(text))]
        for texts in (JUDGED, HEARD)
    )
    rate, narrow = exact.sample_rate, fastvoc.open(VOICE, dtype="bfloat16")
    assert isinstance(narrow, Voice)
    decoders: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
        "float32": (exact.decoder, 0),
        "bfloat16": (narrow.decoder, 0),
    }
    made, left = [], []
    for least in (35.0, 30.0, 25.0, 15.0):
        name = f"smallest_snr={least:g}"
        try:
            one = exact.decoder.quantise(heard, smallest_snr=least)
        except (NotImplementedError, ValueError) as reason:
            left.append((name, str(reason)))
            continue
        decoders[name] = one, len(one.config.int8)
    examples, graph = [latents.numpy() for latents in heard], folder / "plain.onnx"
    write_onnx(graph, PlainGenerator(exact.decoder.generator), exact.decoder.config.mel.bands)
    for name, start, quantise in PEERS:
        try:
            for precision, path in (("float32", graph), ("int8", quantise(graph, examples, folder))):
                peer = start(path)
                # the peer of this turn, not of the last
                run = partial(lambda peer, latents: torch.from_numpy(peer.run(latents.numpy())), peer)
                decoders[f"{name}, {precision}"] = run, peer.layers_in_int8
        except ImportError as reason:
            left.append((f"{name}, int8", f"{reason.name} not installed"))
    waves = [exact.decoder(latents) for latents in judged]
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(rounds):
        for name, (decoder, _) in decoders.items():
            times[name].append(took(partial(decoder, judged[0]))[0])
    for name, (decoder, layers) in decoders.items():
        own = [decoder(latents).float() for latents in judged]
        pairs, opinions = list(zip(own, waves, strict=True)), [opinion(wave, rate) for wave in own]
        made.append(
            {
                "precision": name,
                "layers_in_int8": layers,
                "snr_to_float32": None if name == "float32" else round(min(snr(a, b) for a, b in pairs), 1),
                "pesq_to_float32": round(mean(pesq(a, b, rate) for a, b in pairs), 3),
                "distill_mos": None if None in opinions else round(mean(opinions), 3),  # type: ignore[type-var]
                "times_real_time": round(len(waves[0]) / rate / median(times[name]), 1),
            }
        )
    said = [{"precision": name, "left_out": reason} for name, reason in left]
    return [{"suite": "voice-quality", "voice": Path(VOICE).stem} | row for row in (*made, *said)]


PEERS = (
    ("ONNX Runtime", onnx_runtime, quantise_for_onnx_runtime),
    ("OpenVINO", openvino, quantise_for_openvino),
)


def opinion(wave: Tensor, sample_rate: int) -> float | None:
    """Return what DistillMOS (of the package of this name, which ships its weights) thinks of a wave, from 1 to 5."""
    try:
        from distillmos import ConvTransformerSQAModel
    except (ImportError, OSError):
        return None
    model = _MODELS.setdefault("distillmos", None) or ConvTransformerSQAModel().eval()
    _MODELS["distillmos"] = model
    with torch.inference_mode():
        return float(model(resample(wave, sample_rate, 16000)[None]))


_MODELS: dict[str, Any] = {}
