"""Vocoders for other engines: the samples of an ONNX file in ONNX Runtime are those of the vocoder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_streaming import BANDS, checkpoint, condition_of, copy_of, random_mel

from fastvoc import Vocoder
from fastvoc.audio import MelConfig
from fastvoc.checkpoints import Checkpoint, InferenceFrames
from fastvoc.cli import main
from fastvoc.config import from_dict
from fastvoc.export import OPSET, write_onnx

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXPORTED = [
    *("hifigan", "hifigan, odd rates", "hifigan, output-padded", "hifigan, causal, reflect", "hifigan, standardised"),
    *("hifigan, conditioned at each stage", "melgan", "melgan, keras", "melgan, multi-band"),
    *("istftnet", "istftnet, symmetric", "istftnet, angle"),
    *("vocos", "vocos, same", "wavenext"),
    pytest.param("bigvgan, block 2, linear", marks=pytest.mark.slow),  # hundreds of nodes
]
EDGES = {
    "replicated": InferenceFrames(replicated_frames=3),
    "appended and trimmed": InferenceFrames(replicated_frames=1, appended_frames=4, appended_value=-11.5, trimmed=True),
}


def with_edges(name: str, edges: InferenceFrames) -> Checkpoint:
    plain = checkpoint(name)
    return Checkpoint(copy_of(plain.config, inference=edges), plain.weights, plain.source)


def run(path: Path, **inputs: Any) -> np.ndarray[Any, Any]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in inputs.items() if value is not None}
    result: np.ndarray[Any, Any] = session.run(["wave"], given)[0]
    return result


def assert_same_samples(vocoder: Vocoder, path: Path, name: str) -> None:
    for batch, frames in ((1, 17), (3, 64), (2, 131)):
        mel, condition = random_mel(batch, BANDS, frames), condition_of(name, batch)
        exact = Vocoder(vocoder_checkpoint(vocoder), dtype=torch.float64)(mel, condition=condition).numpy()
        got = run(path, mel=mel, condition=condition)
        assert got.shape == exact.shape
        # float32 against float64: as near as plain PyTorch comes, whose sums have other orders
        plain = Vocoder(vocoder_checkpoint(vocoder), backend="reference")(mel, condition=condition).numpy()
        allowed = 4 * np.abs(plain - exact).max() + 1e-6 * np.abs(exact).max()
        assert np.abs(got - exact).max() <= allowed


def vocoder_checkpoint(vocoder: Vocoder) -> Checkpoint:
    return Checkpoint(vocoder.config, vocoder.generator.state_dict(), vocoder.source)


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_runtime_gives_the_samples_of_the_vocoder(name: str, tmp_path: Path) -> None:
    vocoder = Vocoder(checkpoint(name))
    write_onnx(vocoder, tmp_path / "vocoder.onnx")
    assert_same_samples(vocoder, tmp_path / "vocoder.onnx", name)


@pytest.mark.parametrize("edges", EDGES)
def test_frames_around_a_mel_are_in_the_file(edges: str, tmp_path: Path) -> None:
    vocoder = Vocoder(with_edges("hifigan", EDGES[edges]))
    write_onnx(vocoder, tmp_path / "vocoder.onnx")
    assert_same_samples(vocoder, tmp_path / "vocoder.onnx", "hifigan")


def test_a_file_says_what_it_takes(tmp_path: Path) -> None:
    vocoder = Vocoder(checkpoint("istftnet"), dtype="bfloat16")
    write_onnx(vocoder, tmp_path / "vocoder.onnx")
    model = onnx.load(tmp_path / "vocoder.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["sample_rate"], told["bands"], told["hop"]) == ("16000", str(BANDS), str(vocoder.hop))
    assert from_dict(MelConfig, json.loads(told["mel"]), "a test") == vocoder.config.mel
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    assert {node.domain for node in model.graph.node} == {""}
    kinds = {node.op_type for node in model.graph.node}
    assert "ConvTranspose" in kinds and not kinds & {"DFT", "STFT", "Loop", "Scan"}
    (mel,), (wave,) = model.graph.input, model.graph.output
    sizes = [[axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in (mel, wave)]
    assert sizes[0][1] == BANDS and all(isinstance(size, str) for size in (*sizes[0][::2], *sizes[1]))


def test_what_surrounds_the_writing_is_not_in_the_file(tmp_path: Path) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            write_onnx(vocoder, tmp_path / "vocoder.onnx")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
    assert_same_samples(vocoder, tmp_path / "vocoder.onnx", "hifigan")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        write_onnx(vocoder, tmp_path)


def test_what_onnx_cannot_express_is_named_and_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disabled = logging.root.manager.disable
    with pytest.raises(ValueError, match=r"export: GriffinLimNet cannot be written as ONNX: (?!\().+$") as raised:
        write_onnx(Vocoder(checkpoint("griffin-lim-net")), tmp_path / "vocoder.onnx")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")  # the exporter would log the whole program
    assert logging.root.manager.disable == disabled
    assert not list(tmp_path.iterdir())


def test_without_the_packages_the_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package onnxscript; run `pip install 'fastvoc\[onnx\]'`"):
        write_onnx(Vocoder(checkpoint("hifigan")), tmp_path / "vocoder.onnx")


def test_the_command_line_writes_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    vocoder.save_pretrained(tmp_path / "folder")
    out = tmp_path / "new" / "folder" / "VOICE.ONNX"
    assert main(["convert", str(tmp_path / "folder"), str(out)]) == 0
    assert f"{out}: written" in capsys.readouterr().out
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    assert main(["convert", str(tmp_path / "folder"), str(out), "--overwrite"]) == 1
    error = capsys.readouterr().err
    assert error == "fastvoc: export: writing ONNX needs the package onnxscript; run `pip install 'fastvoc[onnx]'`\n"
    assert_same_samples(vocoder, out, "hifigan")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "exists; name another file, or replace it with --overwrite"),
        (["--overwrite", "--half"], "an ONNX file is in single precision; leave out --half and --to"),
        (["--overwrite", "--to", "hifigan"], "an ONNX file is in single precision; leave out --half and --to"),
    ],
)
def test_the_command_line_refuses_before_it_opens(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "voice.onnx"
    out.write_text("mine")
    assert main(["convert", "nowhere", str(out), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert out.read_text() == "mine"
