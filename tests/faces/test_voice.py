"""Voices of Piper and for sherpa-onnx: the samples of the whole graph, by its front and a plan for its decoder."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from voices import SYMBOLS, WIDTH, TinyVits, tiny_vits, write_voice

import fastvoc
from fastvoc import Vocoder, Voice
from fastvoc.audio import FeatureConfig, MelConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig
from fastvoc.cli import main
from fastvoc.config import from_dict, to_dict
from fastvoc.export import write_onnx
from fastvoc.faces.voice.voice import FIRST_FRAMES
from fastvoc.models import HiFiGANConfig
from fastvoc.noise import last_seeds, normal

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

IDS = [1, 0, 3, 0, 7, 0, 4, 0, 5, 0, 2]
KINDS: dict[str, dict[str, Any]] = {
    "piper": {},
    "piper, several speakers": {"block": "1", "speakers": 3},
    "sherpa-onnx": {"names": "sherpa", "block": "1"},
    "sherpa-onnx, several speakers": {"names": "sherpa", "speakers": 2},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("voices")


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, folder: Path) -> tuple[TinyVits, Path]:
    return written(folder, request.param)


def written(folder: Path, kind: str) -> tuple[TinyVits, Path]:
    network, path = tiny_vits(**KINDS[kind]), folder / f"{kind.replace(' ', '-')}.onnx"
    if not path.exists():
        write_voice(path, network)
    return network, path


@pytest.fixture
def voice(folder: Path) -> Voice:
    return opened(written(folder, "piper")[1])


def opened(path: Path, **options: Any) -> Voice:
    made = fastvoc.open(path, **options)
    assert type(made) is Voice
    return made


def drawn(seed: int, frames: int) -> list[Tensor]:
    """Return what a tiny voice draws: each operator has channels of its own, and the rows are those of its frames."""
    durations = normal(torch.tensor([seed]), 0, channels=2, rows=len(IDS))
    return [durations, normal(torch.tensor([seed]), 0, channels=2 + WIDTH, rows=frames)[:, 2:]]


def by_runtime(path: Path, noise: list[Tensor], scales: list[float], speaker: int | None) -> Tensor:
    """Run the whole graph, which is given its random numbers."""
    model = onnx.load(path)
    names = []
    for node in list(model.graph.node):
        if node.op_type == "RandomNormalLike":
            names.append(node.output[0])
            model.graph.node.remove(node)
            model.graph.input.append(onnx.helper.make_tensor_value_info(names[-1], onnx.TensorProto.FLOAT, None))
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    single = {name: np.array([value], np.float32) for name, value in zip(SCALES, scales, strict=True)}
    known: dict[str, Any] = dict.fromkeys(("input", "x"), np.array([IDS]))
    known |= dict.fromkeys(("input_lengths", "x_length"), np.array([len(IDS)]))
    known |= single | {"scales": np.array(scales, np.float32), "sid": np.array([speaker or 0])}
    known |= {name: numbers.numpy() for name, numbers in zip(names, noise, strict=True)}
    feeds = {value.name: known[value.name] for value in session.get_inputs()}
    return torch.from_numpy(session.run(None, feeds)[0]).flatten()


SCALES = ("noise_scale", "length_scale", "noise_scale_w")


def test_samples_are_those_of_the_whole_graph(case: tuple[TinyVits, Path]) -> None:
    network, path = case
    made, scales = opened(path), [0.6, 1.5, 0.9]
    speaker = network.speakers - 1 if network.speakers > 1 else None
    wave = made.speak(IDS, speaker=speaker, noise_scale=0.6, length_scale=1.5, noise_w=0.9, seed=5)
    noise = drawn(5, len(wave) // made.hop)
    theirs = by_runtime(path, noise, scales, speaker)
    exact_network = copy.deepcopy(network).double()
    exact: Tensor = (
        exact_network(
            torch.tensor([IDS]),
            torch.tensor([len(IDS)]),
            torch.tensor(scales, dtype=torch.float64),
            None if speaker is None else torch.tensor([speaker]),
            noise=[numbers.double() for numbers in noise],
        )
        .flatten()
        .detach()
    )
    assert len(wave) == len(theirs) == len(exact) and float(exact.std()) > 0.02
    allowed = 2 * float((theirs - exact).abs().max()) + torch.finfo(torch.float32).eps
    assert float((wave - exact).abs().max()) <= allowed < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_a_stream_is_the_whole_and_begins_after_a_few_frames(folder: Path, dtype: str) -> None:
    made = opened(written(folder, "piper, several speakers")[1], dtype=dtype)
    long = IDS[:-1] * 4 + IDS[-1:]
    pieces = [*made.stream(long, speaker="s1", length_scale=2, seed=1)]
    whole = made.speak(long, speaker=1, length_scale=2, seed=1)
    assert len(pieces[0]) == FIRST_FRAMES * made.hop < len(whole) / 8
    assert whole.dtype == made.dtype == pieces[0].dtype
    assert torch.cat(pieces).shape == whole.shape
    # forty layers in which a plan and a stream add up in other orders
    assert float((torch.cat(pieces) - whole).double().abs().max()) <= 40 * torch.finfo(whole.dtype).eps


def test_equal_seeds_make_equal_sounds(voice: Voice) -> None:
    first = voice.speak(IDS, seed=3)
    assert torch.equal(first, voice.speak(np.array(IDS), seed=3))
    assert torch.equal(first, voice.speak(torch.tensor([IDS]), seed=3))
    other = voice.speak(IDS, seed=4)
    assert first.shape != other.shape or not torch.equal(first, other)
    fresh = voice.speak(IDS)
    assert torch.equal(fresh, voice.speak(IDS, seed=last_seeds()[0]))
    silent = [voice.speak(IDS, noise_scale=0, noise_w=0, seed=seed) for seed in (1, 2)]
    assert torch.equal(*silent)
    longer = voice.speak(IDS, noise_scale=0, noise_w=0, length_scale=2 * voice.config.length_scale)
    assert len(silent[0]) < len(longer) <= 2 * len(silent[0]) + len(IDS) * voice.hop


def test_what_lies_beside_a_voice_is_read(folder: Path) -> None:
    made = opened(written(folder, "piper, several speakers")[1])
    config = made.config
    assert (config.sample_rate, config.noise_scale, config.length_scale, config.noise_w) == (8000, 0.5, 1.2, 0.7)
    assert config.speakers == 3 and config.speaker_names == {"s0": 0, "s1": 1, "s2": 2}
    assert repr(made) == "Voice(hifigan, 3 speakers, 8000 Hz, hop 8, torch.float32 on cpu)"
    waves = [made.speak(IDS, speaker=n, noise_w=0, seed=1) for n in range(3)]
    assert torch.equal(waves[0], made.speak(IDS, noise_w=0, seed=1))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in itertools.pairwise(waves))
    sherpa = opened(written(folder, "sherpa-onnx, several speakers")[1]).config
    assert (sherpa.sample_rate, sherpa.speakers, sherpa.noise_scale, sherpa.noise_w) == (8000, 2, 0.667, 0.8)


def test_the_decoder_is_a_vocoder_of_latents(voice: Voice, tmp_path: Path) -> None:
    latents, condition = voice.latents(IDS, seed=2)
    assert condition is None and latents.shape[0] == WIDTH == voice.decoder.config.mel.bands
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no mel is suspected in them
        assert torch.equal(voice.decoder(latents), voice.speak(IDS, seed=2))
        assert voice.decoder(100 * latents).isfinite().all()
    voice.decoder.save_pretrained(tmp_path / "decoder")
    again = fastvoc.open(tmp_path / "decoder")
    assert isinstance(again, Vocoder) and again.config.mel == voice.decoder.config.mel
    assert torch.equal(again(latents), voice.decoder(latents))
    voice.decoder = again
    assert torch.equal(voice.speak(IDS, seed=2), again(latents))
    pytest.importorskip("onnxscript")
    write_onnx(again, tmp_path / "decoder.onnx")
    session = runtime.InferenceSession(str(tmp_path / "decoder.onnx"), providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(["wave"], {"mel": latents[None].numpy()})[0])[0]
    assert float((theirs - again(latents)).abs().max()) <= 40 * torch.finfo(torch.float32).eps
    with pytest.raises(ValueError, match="Voice: decoder must be a Vocoder of latents of width 6, hop 8"):
        voice.decoder = Vocoder.from_pretrained()


def test_a_voice_moves_copies_travels_and_says_what_runs(folder: Path) -> None:
    made = opened(written(folder, "piper")[1])
    wave = made.speak(IDS, seed=1)
    explained = made.explain()
    assert next(iter(explained)) == "front" and "ONNX Runtime" in str(explained["front"])
    ran = next(name for name, reason in explained.items() if reason is None)
    assert ran == next(name for name, reason in made.decoder.explain().items() if reason is None)
    assert torch.equal(pickle.loads(pickle.dumps(made)).speak(IDS, seed=1), wave)
    copied = copy.copy(made)
    assert copied.to(dtype="float64") is copied and copied.speak(IDS, seed=1).dtype == torch.float64
    with torch.no_grad():
        made.generator.head.conv.weight.mul_(0.5)  # type: ignore[attr-defined]
    assert not torch.equal(made.speak(IDS, seed=1), wave)
    with pytest.raises(
        NotImplementedError, match=r"a voice is its file, .*piper\.onnx; voice\.decoder\.save_pretrained"
    ):
        made.save_pretrained(folder / "saved")


def test_several_speakers_run_as_one_does(folder: Path) -> None:
    made = opened(written(folder, "piper, several speakers")[1])
    single = opened(written(folder, "piper")[1])
    assert made.explain() == single.explain()
    latents, condition = made.latents(IDS, speaker=1, seed=1)
    before = made.speak(IDS, speaker=1, seed=1)
    for change in ("weights", "another"):  # what a speaker's decoder was made of is looked at
        if change == "weights":
            with torch.no_grad():
                made.generator.trunk.condition[0].weight.mul_(-2)  # type: ignore[union-attr, operator, index]
        else:
            made.decoder = Vocoder(
                Checkpoint(made.decoder.config, made.decoder.config.generator.build().state_dict(), "another")
            )
        wave = made.speak(IDS, speaker=1, seed=1)
        assert float((wave - before).abs().max()) > 1e-3
        assert float((wave - made.decoder(latents, condition=condition)).abs().max()) <= 4e-6
        before = wave
    inner = made.generator.head.register_forward_hook(lambda module, given, wave: 0.5 * wave)
    torch.testing.assert_close(made.speak(IDS, speaker=1, seed=1), 0.5 * before, rtol=0, atol=4e-6)
    inner.remove()
    torch.testing.assert_close(made.speak(IDS, speaker=1, seed=1), before, rtol=0, atol=4e-6)
    for number in range(20):
        made._speakers.decoder(made.decoder, torch.full((5,), float(number)))
    assert len(made._speakers._made) == 8


def test_threads_share_a_voice(voice: Voice) -> None:
    expected = [voice.speak(IDS, seed=seed) for seed in range(4)]
    found: dict[int, Tensor] = {}
    threads = [threading.Thread(target=lambda n=seed: found.update({n: voice.speak(IDS, seed=n)})) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[seed], wave) for seed, wave in enumerate(expected))


def test_what_surrounds_a_call_changes_nothing(voice: Voice) -> None:
    wave, streamed = voice.speak(IDS, seed=1), torch.cat([*voice.stream(IDS, seed=1)])
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        assert torch.equal(voice.speak(IDS, seed=1), wave)
        assert torch.equal(torch.cat([*voice.stream(IDS, seed=1)]), streamed)
        again = opened(voice.path)
        assert torch.equal(again.speak(IDS, seed=1), wave) and again.explain() == voice.explain()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
    with torch.inference_mode():
        assert torch.equal(voice.speak(IDS, seed=1), wave)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(voice.speak(IDS, seed=1), wave)


def test_quantising_is_that_of_the_decoder(folder: Path) -> None:
    made = opened(written(folder, "piper, several speakers")[1])
    with pytest.raises(NotImplementedError, match="is conditioned on speakers"):
        made.quantise([IDS])
    made = opened(written(folder, "piper")[1])
    if reason := made.decoder._runner.choice.why_no_plan() or made.decoder.explain().get("plan"):
        pytest.skip(f"no plan here: {reason}")
    try:
        fast = made.quantise([IDS, IDS[::-1]], smallest_snr=15)
    except NotImplementedError as error:
        pytest.skip(str(error))
    assert fast.decoder.config.int8 and not made.decoder.config.int8
    wave, other = made.speak(IDS, seed=9), fast.speak(IDS, seed=9)
    assert 10 * float(torch.log10(wave.square().sum() / (wave - other).square().sum())) > 10


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"ids": []}, ValueError, r"ids have shape \(0,\); they must be those of one sentence"),
        ({"ids": [[1, 2], [1, 2]]}, ValueError, r"ids have shape \(2, 2\)"),
        ({"ids": [1.5]}, TypeError, "ids are of type float64; they must be integers"),
        ({"ids": [1, -2]}, ValueError, "ids hold -2; they must not be negative"),
        ({"ids": [1, SYMBOLS + 7]}, ValueError, "ONNX Runtime does not run it for these ids"),
        ({"speaker": 3}, ValueError, "speaker is 3; this voice has the speakers 0 to 2"),
        ({"speaker": "s9"}, ValueError, "speaker 's9' is not known; known: s0, s1, s2"),
        ({"speaker": 1.0}, TypeError, "speaker is 1.0; it must be a number or a name"),
        ({"noise_scale": -1}, ValueError, "noise_scale is -1; it must be a finite number that is not negative"),
        ({"length_scale": 0}, ValueError, "length_scale is 0; it must be a finite number that is positive"),
        ({"noise_w": float("nan")}, ValueError, "noise_w is nan"),
        ({"noise_w": "1"}, ValueError, "noise_w is '1'"),
        ({"seed": -1}, ValueError, "seed -1 must be between"),
        ({"others": {"tones": [1]}}, ValueError, "the voice has no other input 'tones'; it has none"),
    ],
    ids=str,
)
def test_what_cannot_be_spoken_is_one_sentence(
    folder: Path, arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    made = opened(written(folder, "piper, several speakers")[1])
    with pytest.raises(error, match=sentence) as raised:
        made.speak(**({"ids": IDS} | arguments))
    assert "\n" not in str(raised.value)


def changed(path: Path, to: Path, change: Callable[[Any], None]) -> Path:
    """Write a voice of which something was changed, with its settings beside it."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, to)
    settings = path.with_name(f"{path.name}.json")
    to.with_name(f"{to.name}.json").write_bytes(settings.read_bytes())
    return to


def decoders(model: Any, kind: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == kind and node.name.startswith("/dec")]


def rename(model: Any) -> None:
    """Give all tensors and nodes names that say nothing."""
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {}

    def other(name: str) -> str:
        return name if name in kept or not name else names.setdefault(name, f"t{len(names)}")

    for tensor in model.graph.initializer:
        tensor.name = other(tensor.name)
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [other(name) for name in node.input]
        node.output[:] = [other(name) for name in node.output]
    del model.graph.value_info[:]


def constants(model: Any) -> None:
    """Make nodes of all stored tensors, and let the decoder's weights pass through a copy."""
    nodes = []
    for tensor in model.graph.initializer:
        nodes.append(onnx.helper.make_node("Constant", [], [f"{tensor.name}_stored"], value=tensor))
        nodes.append(onnx.helper.make_node("Identity", [f"{tensor.name}_stored"], [tensor.name]))
    del model.graph.initializer[:]
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + rest)


def multiplied(model: Any) -> None:
    """Multiply by a half instead of dividing by two, and swap what is added."""
    half = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "half")
    model.graph.initializer.append(half)
    for node in decoders(model, "Div"):
        node.op_type = "Mul"
        node.input[:] = ["half", node.input[0]]


def swapped(model: Any) -> None:
    for node in decoders(model, "Add"):
        if any("convs" in name for name in node.input):
            node.input[:] = [node.input[1], node.input[0]]


@pytest.mark.parametrize("change", [rename, constants, multiplied, swapped])
def test_the_decoder_is_found_by_what_it_computes(folder: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    _, path = written(folder, "piper")
    expected = opened(path).speak(IDS, seed=1)
    other = opened(changed(path, tmp_path / "other.onnx", change))
    torch.testing.assert_close(other.speak(IDS, seed=1), expected, rtol=0, atol=2e-6)


def halved(model: Any) -> None:
    """Store all weights of layers in half precision."""
    for tensor in [tensor for tensor in model.graph.initializer if tensor.data_type == 1 and len(tensor.dims) == 3]:
        narrow = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}16")
        widened = onnx.helper.make_node("Cast", [narrow.name], [tensor.name], to=onnx.TensorProto.FLOAT)
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(narrow)
        model.graph.node.insert(0, widened)


def test_weights_may_be_stored_in_half_precision(folder: Path, tmp_path: Path) -> None:
    _, path = written(folder, "piper")
    whole, made = opened(path), opened(changed(path, tmp_path / "half.onnx", halved))
    wave = made.speak(IDS, noise_w=0, seed=1)
    theirs = by_runtime(made.path, drawn(1, len(wave) // made.hop), [0.5, 1.2, 0], None)
    assert float((wave - theirs).abs().max()) <= 40 * torch.finfo(torch.float32).eps
    full = whole.speak(IDS, noise_w=0, seed=1)
    assert full.shape == wave.shape and 1e-5 < float((wave - full).abs().max()) < 1e-2


def activation(model: Any) -> None:
    node = decoders(model, "LeakyRelu")[3]
    node.op_type = "Sin"
    del node.attribute[:]


def slope(model: Any) -> None:
    decoders(model, "LeakyRelu")[1].attribute[0].f = 0.3


def strided(model: Any) -> None:
    node = decoders(model, "Conv")[2]
    next(a for a in node.attribute if a.name == "pads").ints[:] = [0, 0]


def third(model: Any) -> None:
    decoders(model, "Div")[0].op_type = "Mul"


def infinite(model: Any) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "dec.conv_post.weight")
    tensor.raw_data = np.full(tensor.dims, np.inf, np.float32).tobytes()


def bernoulli(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "RandomNormalLike")
    node.op_type = "Bernoulli"
    del node.attribute[:]


def computed(model: Any) -> None:
    node = decoders(model, "ConvTranspose")[0]
    model.graph.node.insert(0, onnx.helper.make_node("Abs", [node.input[1]], ["magnitude"]))
    node.input[1] = "magnitude"


def foreign(model: Any) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("someone", 1))
    node = next(node for node in model.graph.node if node.op_type == "Gather")
    node.op_type, node.domain = "Own", "someone"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (activation, "is made by Sin, where a decoder has"),
        (slope, r"its leaky ReLUs have the slopes \[0\.1, 0\.3\]"),
        (strided, "does not keep the length"),
        (third, "the sum of 2 residual blocks is divided by 0.5"),
        (infinite, "holds values that are NaN or infinite"),
        (bernoulli, "Bernoulli .* draws what nobody can give it"),
        (computed, "is computed, not stored; export the voice with its weight norm removed"),
        (foreign, "ONNX Runtime .* does not load it|nothing tells the type"),
    ],
)
def test_other_decoders_are_one_sentence(
    folder: Path, tmp_path: Path, change: Callable[[Any], None], sentence: str
) -> None:
    path = changed(written(folder, "piper")[1], tmp_path / "other.onnx", change)
    with pytest.raises(ValueError, match=sentence) as raised:
        fastvoc.open(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_cut_short_or_damaged_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    whole = written(folder, "piper")[1].read_bytes()
    path = tmp_path / "cut.onnx"
    for size in (0, 1, 7, 100, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.onnx: ") as raised:
            fastvoc.open(path)
        assert "\n" not in str(raised.value)
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = int(random.integers(256))
        path.write_bytes(bytes(damaged))
        path.with_name("cut.onnx.json").write_text('{"audio": {"sample_rate": 8000}}')
        try:
            fastvoc.open(path).speak(IDS)  # type: ignore[attr-defined]
        except (ValueError, TypeError) as error:
            assert "\n" not in str(error)


def test_what_is_no_voice_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    generator = HiFiGANConfig(mel_bands=6, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4))
    mel = MelConfig(sample_rate=16000, fft_size=64, hop=8, window_size=64, bands=6, low=0, high=8000)
    settings = VocoderConfig(generator=generator, mel=mel)
    vocoder = Vocoder(Checkpoint(settings, generator.build().state_dict(), "a test"))
    write_onnx(vocoder, tmp_path / "vocoder.onnx")
    with pytest.raises(ValueError, match=r"vocoder\.onnx: takes no text that fastvoc knows; its inputs are mel"):
        fastvoc.open(tmp_path / "vocoder.onnx")
    with pytest.raises(ValueError, match=r"is an ONNX program; fastvoc\.open opens those of VITS voices"):
        Vocoder.from_pretrained(tmp_path / "vocoder.onnx")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Abs", ["x"], ["y"])],
        "none",
        [onnx.helper.make_tensor_value_info("x", 1, [1, 2])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 2])],
    )
    onnx.save(onnx.helper.make_model(graph), tmp_path / "abs.onnx")
    with pytest.raises(
        ValueError, match=r"holds no HiFi-GAN behind latents .* is made by Abs, where a decoder has Tanh"
    ):
        fastvoc.open(tmp_path / "abs.onnx")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx: no such file"):
        fastvoc.open(tmp_path / "nowhere.onnx")
    with pytest.raises(ValueError, match=r"is no voice; expected a file whose name ends in \.onnx"):
        Voice.from_pretrained(tmp_path)  # which holds two


def test_settings_that_are_none_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "voice.onnx"
    path.write_bytes(written(folder, "piper")[1].read_bytes())
    with pytest.raises(ValueError, match=r"nothing says its sample rate; name Piper's settings as config="):
        fastvoc.open(path)
    for text, sentence in {
        "[]": "holds a list; Piper's settings are a dictionary",
        "{": "not a readable JSON file",
        "[" * 100_000: "is nested too deeply to be a file of settings",
        '{"audio": {"sample_rate": "fast"}}': "sample_rate is 'fast'",
        '{"audio": {"sample_rate": 8000}, "num_speakers": -1}': "speakers is -1",
        '{"audio": {"sample_rate": 8000}, "inference": {"length_scale": 0}}': "length_scale is 0",
    }.items():
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            fastvoc.open(path, config=tmp_path / "settings.json")
    (tmp_path / "settings.json").write_text('{"audio": {"sample_rate": 11025}}')
    assert opened(path, config=tmp_path / "settings.json").sample_rate == 11025
    folded = tmp_path / "folder"
    folded.mkdir()
    path.rename(folded / "voice.onnx")
    (tmp_path / "settings.json").rename(folded / "voice.onnx.json")
    assert opened(folded).path == folded / "voice.onnx"


def test_names_of_speakers_that_are_none_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    for kind, names, sentence in (
        ("piper, several speakers", '{"nobody": -1}', "speaker is -1; this voice has the speakers 0 to 2"),
        ("piper", "{}", "speaker 'nobody' is not known; the speakers of this voice have numbers only"),
    ):
        settings = tmp_path / "settings.json"
        count = 3 if "several" in kind else 1
        settings.write_text(f'{{"audio": {{"sample_rate": 8000}}, "num_speakers": {count}, "speaker_id_map": {names}}}')
        with pytest.raises(ValueError, match=sentence):
            opened(written(folder, kind)[1], config=settings).speak(IDS, speaker="nobody")


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_absent_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    _, path = written(folder, "piper")
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs the package {absent}; run `pip install 'fastvoc\[voice\]'`"):
        fastvoc.open(path)


def test_the_command_line_speaks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(written(folder, "piper, several speakers")[1])
    numbers = [str(number) for number in IDS]
    out = tmp_path / "new" / "said.flac"
    assert (
        main(
            [
                "piper",
                path,
                "--ids",
                *numbers,
                "-o",
                str(out),
                "--seed",
                "7",
                "--speaker",
                "s1",
                "--device",
                "cpu",
                "--no-normalise",
            ]
        )
        == 0
    )
    wave, rate = fastvoc.audio.read_audio(out)
    expected = opened(Path(path)).speak(IDS, speaker=1, seed=7)
    assert rate == 8000 and float((wave - expected).abs().max()) < 2**-14
    assert main(["piper", path, "--ids", *numbers, "-o", str(out), "--device", "cpu", "--speaker", "2"]) == 0
    told = capsys.readouterr().out
    assert "seed " in told and "first sound" in told
    wave, _ = fastvoc.audio.read_audio(out)
    assert float(wave.abs().max()) == pytest.approx(1, abs=2**-14)
    assert main(["piper", path, "--ids", "1", "--text", "a", "-o", str(out)]) == 2
    assert main(["piper", path, "--text", " ", "-o", str(out)]) == 2
    assert main(["piper", path, "--ids", "1", "--seed", "-1", "-o", str(out)]) == 2
    assert main(["piper", str(tmp_path / "nowhere.onnx"), "--ids", "1"]) == 1
    sherpa = str(written(folder, "sherpa-onnx")[1])
    assert main(["piper", sherpa, "--text", "abc", "-o", str(out)]) == 1
    assert "Piper's settings, sherpa-onnx.onnx.json, belong beside it" in capsys.readouterr().err


def test_convert_takes_the_decoder_of_a_voice(folder: Path, tmp_path: Path) -> None:
    path = written(folder, "piper, several speakers")[1]
    assert main(["convert", str(path), str(tmp_path / "decoder")]) == 0
    made, decoder = opened(path), Vocoder.from_pretrained(tmp_path / "decoder")
    latents, condition = made.latents(IDS, speaker=2, seed=1)
    # which adds the embedding to a bias, and so in another order
    difference = decoder(latents, condition=condition) - made.speak(IDS, speaker=2, seed=1)
    assert float(difference.abs().max()) <= 40 * torch.finfo(torch.float32).eps
    assert main(["convert", str(path), str(tmp_path / "theirs"), "--to", "hifigan"]) == 1  # which has mels alone


def test_text_needs_pipers_package(
    voice: Voice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "piper", None)
    with pytest.raises(ModuleNotFoundError, match="run `pip install piper-tts`, or give the numbers of the symbols"):
        voice.ids("abc")
    assert main(["piper", str(voice.path), "--text", "abc", "-o", str(tmp_path / "said.wav")]) == 1
    assert "pip install piper-tts" in capsys.readouterr().err and not (tmp_path / "said.wav").exists()


def test_text_becomes_numbers_by_pipers_package(voice: Voice) -> None:
    pytest.importorskip("piper", reason="piper-tts is not installed")
    assert voice.ids("ab c") == [[1, 0, 4, 0, 5, 0, 3, 0, 6, 0, 2]]


FEATURES = FeatureConfig(sample_rate=16000, hop=8, bands=6, meaning="linguistic features")


def test_features_are_a_convention_without_mels() -> None:
    generator = HiFiGANConfig(mel_bands=6, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4))
    config = VocoderConfig(generator=generator, mel=FEATURES)
    assert from_dict(VocoderConfig, to_dict(config), "a test") == config
    vocoder = Vocoder(Checkpoint(config, generator.build().state_dict(), "a test"))
    features = 50 + torch.arange(6 * 80, dtype=torch.float32).reshape(6, 80)  # no mel of anything
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wave = vocoder(features)
        streamed = torch.cat([*vocoder.stream(features.split(7, dim=-1))])
    torch.testing.assert_close(streamed, wave, rtol=0, atol=2e-6)
    assert repr(vocoder).startswith("Vocoder(hifigan, 6 bands, 16000 Hz, hop 8, torch.float32 on cpu")
    takes = "this vocoder takes linguistic features of width 6, hop 8 at 16000 Hz"
    with pytest.raises(ValueError, match=f"Vocoder.mel: {takes}, for which there are no mels"):
        vocoder.mel(wave)
    for call in (vocoder, vocoder.streamer):
        with pytest.raises(ValueError, match=f"cannot be converted exactly: {takes}"):
            call(convention="hifigan", **({"mel": features} if call is vocoder else {}))  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"mel has shape \(5, 80\); it must be \(6, frames\)"):
        vocoder(features[:5])
    with pytest.raises(ValueError, match="NaN or infinite"):
        vocoder(features / 0)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"kind": "features", "sample_rate": 16000, "hop": 8}, "bands is missing"),
        ({"kind": "features", "sample_rate": 16000, "hop": 8, "bands": 6, "fft_size": 64}, "fft_size is not a known"),
        ({"kind": "featured", "sample_rate": 16000, "hop": 8, "bands": 6}, "kind is not a known field"),
        ({"kind": "features", "sample_rate": 16000, "hop": 9, "bands": 6}, "both must be the same"),
        (3, "mel"),
    ],
)
def test_features_that_are_none_are_refused_where_settings_are_read(value: Any, sentence: str) -> None:
    generator = {"kind": "hifigan", "mel_bands": 6, "channels": 8, "rates": [4, 2], "rate_kernel_sizes": [8, 4]}
    with pytest.raises(ValueError, match=sentence):
        from_dict(VocoderConfig, {"generator": generator, "mel": value}, "a test")


REAL = os.environ.get("FASTVOC_PIPER", "")
real = pytest.mark.skipif(not REAL, reason="set FASTVOC_PIPER to a Piper voice, such as en_US-joe-medium.onnx")


@real
def test_a_real_voice_is_the_whole_graph() -> None:
    path = Path(REAL)
    made = opened(path)
    ids = [1, *[number for n in range(100) for number in (14 + 37 * n % 100, 0)], 2]
    scales = [made.config.noise_scale, made.config.length_scale, made.config.noise_w]
    wave = made.speak(ids, seed=5)
    channels = made.config.generator.mel_bands
    durations = normal(torch.tensor([5]), 0, channels=2, rows=len(ids))
    noise = [durations, normal(torch.tensor([5]), 0, channels=2 + channels, rows=len(wave) // made.hop)[:, 2:]]
    waves = []
    for level in (runtime.GraphOptimizationLevel.ORT_ENABLE_ALL, runtime.GraphOptimizationLevel.ORT_DISABLE_ALL):
        model = onnx.load(path)
        drawing = [node for node in model.graph.node if node.op_type == "RandomNormalLike"]
        for node in drawing:
            model.graph.node.remove(node)
            model.graph.input.append(onnx.helper.make_tensor_value_info(node.output[0], 1, None))
        options = runtime.SessionOptions()
        options.graph_optimization_level = level
        session = runtime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        feeds: dict[str, Any] = {"input": np.array([ids]), "input_lengths": np.array([len(ids)])}
        feeds |= {"scales": np.array(scales, np.float32), "sid": np.array([0])}
        feeds |= {node.output[0]: numbers.numpy() for node, numbers in zip(drawing, noise, strict=True)}
        names = {value.name for value in session.get_inputs()}
        output = session.run(None, {name: value for name, value in feeds.items() if name in names})[0]
        waves.append(torch.from_numpy(output).flatten())
    # ONNX Runtime's own rounding, by which its optimisations change the samples, is what there is to be near
    allowed = 4 * float((waves[0] - waves[1]).abs().max()) + torch.finfo(torch.float32).eps
    assert float((wave - waves[0]).abs().max()) <= allowed < 1e-3
    streamed = torch.cat([*made.stream(ids, seed=5)])
    assert float((streamed - wave).abs().max()) < 1e-5
