"""fastvoc and what else can run the same weights: each starts from files, takes one mel, and is timed in turn.

An engine imports its packages when it starts, so that a process can tell what they cost, and so that one that is not
installed is a sentence and not an error. `benchmarks.peers.exports` makes the files of all of them from one generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Run = Callable[[], Any]
"""Makes the wave of the mel that an engine started with, shape (B, T · hop): a tensor or an array."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What engines that are compared have in common."""

    files: Path
    """Folder that `write_files` has filled."""
    mel: NDArray[np.float32]
    """Shape (B, bands, T)."""
    device: str = "cpu"
    precision: str = "float32"
    """float32, tf32, bfloat16 or float16."""
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Something that runs a generator.

    Parameters
    ----------
    start : callable
        Loads the weights and returns what makes the wave.
    precisions : mapping of str to sequence of str
        Device → precisions that it can be run in.
    files : sequence of str
        Of those that `write_files` makes, the ones that it starts from.
    needs : sequence of str
        Packages.
    refuses : callable
        Takes a device and returns why it cannot be used there, or None.
    patient : bool
        Whether it takes so long to start, tens of seconds, that only a thorough run waits for it.
    """

    start: Callable[[Setting], Run]
    precisions: Mapping[str, tuple[str, ...]]
    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    refuses: Callable[[str], str | None] = field(default=lambda device: None)
    patient: bool = False

    def absent(self, device: str) -> str | None:
        """Return why it cannot run any network here, as a sentence, or None."""
        if device not in self.precisions:
            return f"it does not run on {device}"
        absent = [name for name in self.needs if find_spec(name) is None]
        if absent:
            return f"{', '.join(absent)} not installed; pip install 'fastvoc[bench]'"
        return self.refuses(device)

    def missing(self, files: Path, device: str) -> str | None:
        """Return why it cannot run a network here, as a sentence, or None."""
        if reason := self.absent(device):
            return reason
        lacking = [name for name in self.files if not (files / name).exists()]
        return f"it has no form of this network ({', '.join(lacking)})" if lacking else None


def fastvoc(setting: Setting) -> Run:
    """Ours, as a user calls it."""
    import torch

    from fastvoc import Vocoder

    dtype = getattr(torch, "float32" if setting.precision == "tf32" else setting.precision)
    vocoder = Vocoder.from_pretrained(setting.files / "fastvoc", device=setting.device, dtype=dtype)
    mel = torch.from_numpy(setting.mel).to(setting.device)
    return lambda: vocoder(mel)


def eager(setting: Setting) -> Run:
    """PyTorch, one operator after another."""
    return _torch(setting, _load(setting, "plain.pt"))


def channels_last(setting: Setting) -> Run:
    """PyTorch on images of height 1 in channels-last memory; on a GPU with narrow weights, which is faster."""
    return _narrow_on_gpu(setting, _load(setting, "planar.pt"))


def narrow_weights(setting: Setting) -> Run:
    """PyTorch with weights and activations in half the bits, without autocast."""
    import torch

    dtype = getattr(torch, setting.precision)
    return _torch(setting, _load(setting, "plain.pt").to(dtype), dtype)


def compiled(setting: Setting, **options: Any) -> Run:
    """`torch.compile` for exactly this shape; on a GPU with narrow weights, which is faster."""
    import torch
    from torch import _dynamo

    # each network is compiled for itself; by default the ninth of one class is not compiled at all
    _dynamo.config.recompile_limit = 256
    return _narrow_on_gpu(setting, torch.compile(_load(setting, "plain.pt"), dynamic=False, **options))


def cuda_graph(setting: Setting) -> Run:
    """PyTorch's kernels, launched as one graph, with narrow weights."""
    import torch

    run = _narrow_on_gpu(setting, _load(setting, "plain.pt"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        wave = run()

    def replay() -> Any:
        graph.replay()
        return wave

    return replay


def onnx_runtime(setting: Setting, *, spins: bool = False) -> Run:
    """ONNX Runtime; its threads go on spinning behind a call only if they are to, as they do by default."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    options.log_severity_level = 3
    if not spins:  # while the next engine is timed
        options.add_session_config_entry("session.force_spinning_stop", "1")
    provider = "CPUExecutionProvider"
    settings: dict[str, Any] = {}
    if setting.device == "cuda":
        provider, settings = "CUDAExecutionProvider", {"use_tf32": int(setting.precision == "tf32")}
    session = onnxruntime.InferenceSession(str(setting.files / "plain.onnx"), options, [(provider, settings)])
    feed = {"mel": setting.mel}
    return lambda: session.run(None, feed)[0]


def openvino(setting: Setting) -> Run:
    """OpenVINO, compiled for exactly this shape."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(setting.files / "plain.onnx")
    model.reshape(list(setting.mel.shape))
    request = core.compile_model(
        model,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": setting.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if setting.precision == "bfloat16" else "f32",
        },
    ).create_infer_request()
    return lambda: request.infer([setting.mel])[0]


def transformers(setting: Setting) -> Run:
    """Hugging Face's own implementation of HiFi-GAN, as its users call it."""
    import torch
    from transformers import SpeechT5HifiGan

    network = SpeechT5HifiGan.from_pretrained(setting.files / "transformers").eval().to(setting.device)
    mel = torch.from_numpy(setting.mel).to(setting.device).transpose(1, 2)
    return _listening(setting, lambda: network(mel))


def forms(device: str, names: Iterable[str] | None = None) -> set[str]:
    """Return the files from which those engines start that can run on a device; of these names, or of all."""
    engines = [ENGINES[name] for name in (ENGINES if names is None else names)]
    return {name for engine in engines if engine.absent(device) is None for name in engine.files}


def _no_onnx_gpu(device: str) -> str | None:
    import onnxruntime

    if device == "cuda" and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA provider; pip install onnxruntime-gpu"
    return None


_SINGLE = {"cpu": ("float32",), "cuda": ("float32", "tf32")}
_HALF = {"cpu": ("bfloat16",), "cuda": ("bfloat16", "float16")}
_ALL = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16", "float16")}

ENGINES: dict[str, Engine] = {
    "fastvoc": Engine(start=fastvoc, precisions=_ALL, files=("fastvoc",)),
    "PyTorch": Engine(start=eager, precisions=_SINGLE, files=("plain.pt",)),
    "PyTorch, channels-last": Engine(start=channels_last, precisions=_ALL, files=("planar.pt",)),
    "PyTorch, autocast": Engine(start=eager, precisions=_HALF, files=("plain.pt",)),
    "PyTorch, narrow weights": Engine(start=narrow_weights, precisions=_HALF, files=("plain.pt",)),
    "PyTorch, CUDA graph": Engine(start=cuda_graph, precisions={"cuda": _ALL["cuda"]}, files=("plain.pt",)),
    "torch.compile": Engine(start=compiled, precisions=_ALL, files=("plain.pt",), patient=True),
    "torch.compile, freezing": Engine(
        start=lambda setting: compiled(setting, options={"freezing": True}),
        precisions={"cpu": _ALL["cpu"]},
        files=("plain.pt",),
        patient=True,
    ),
    "torch.compile, max-autotune": Engine(
        start=lambda setting: compiled(setting, mode="max-autotune"),
        precisions={"cuda": _ALL["cuda"]},
        files=("plain.pt",),
        patient=True,
    ),
    "ONNX Runtime": Engine(
        start=onnx_runtime,
        precisions=_SINGLE,
        files=("plain.onnx",),
        needs=("onnxruntime", "onnx", "onnxscript"),
        refuses=_no_onnx_gpu,
    ),
    "OpenVINO": Engine(
        start=openvino,
        precisions={"cpu": _ALL["cpu"]},
        files=("plain.onnx",),
        needs=("openvino", "onnx", "onnxscript"),
    ),
    "transformers": Engine(
        start=transformers, precisions=_ALL, files=("transformers",), needs=("transformers", "safetensors")
    ),
}
"""Name → engine, ours first."""


def _load(setting: Setting, name: str) -> Any:
    import torch

    # the file is our own, a moment old
    return torch.load(setting.files / name, weights_only=False).to(setting.device)


def _torch(setting: Setting, network: Callable[[Any], Any], dtype: Any = None) -> Run:
    import torch

    mel = torch.from_numpy(setting.mel).to(setting.device, dtype)
    return _listening(setting, lambda: network(mel), autocast=dtype is None)


def _narrow_on_gpu(setting: Setting, network: Any) -> Run:
    import torch

    if setting.device == "cpu" or setting.precision not in ("bfloat16", "float16"):
        return _torch(setting, network)
    dtype = getattr(torch, setting.precision)
    return _torch(setting, network.to(dtype), dtype)


def _listening(setting: Setting, run: Run, *, autocast: bool = True) -> Run:
    import torch

    narrow = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(setting.precision)

    def listen() -> Any:
        cast = torch.autocast(setting.device, narrow) if narrow and autocast else nullcontext()
        with torch.inference_mode(), cast:
            return run()

    return listen
