"""Graphs of other engines that multiply in 8 bits, made of a network's float32 graph as their own tools make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Run = Callable[["NDArray[np.float32]"], "NDArray[np.float32]"]
"""(bands, T) → (T · hop,)."""

CONVOLUTIONS = ("Conv", "ConvTranspose", "Convolution", "ConvolutionBackpropData")


class Peer(NamedTuple):
    """An engine with one graph."""

    run: Run
    layers_in_int8: int
    """Convolutions of whose operands both are 8-bit."""


def onnx_runtime(path: Path, *, threads: int = 1) -> Peer:
    """Start ONNX Runtime with a graph."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    nodes = onnx.load(str(path)).graph.node
    narrow = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in nodes if node.op_type in CONVOLUTIONS]
    return Peer(
        lambda mel: session.run(None, {"mel": mel[None]})[0].reshape(-1),
        sum({*node.input[:2]} <= narrow for node in convolutions),
    )


def openvino(path: Path, *, threads: int = 1) -> Peer:
    """Start OpenVINO with a graph, as `benchmarks.peers.engines` does."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    convolutions = [node for node in model.get_ops() if node.get_type_name() in CONVOLUTIONS]
    return Peer(
        lambda mel: request.infer([mel[None]])[0].reshape(-1).copy(),
        sum(node.input_value(0).get_node().get_type_name() == "FakeQuantize" for node in convolutions),
    )


def quantise_for_onnx_runtime(path: Path, heard: Sequence[NDArray[np.float32]], folder: Path) -> Path:
    """Write a graph with a scale for each output channel of a weight, by `quantize_static`, and return where.

    Activations are unsigned, which is what x86 multiplies.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Heard(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(heard)

        def get_next(self) -> Any:
            mel = next(self._left, None)
            return None if mel is None else {"mel": mel[None]}

    ready, made = folder / "ready.onnx", folder / "int8.onnx"
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(ready),
        str(made),
        Heard(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    return made


def quantise_for_openvino(path: Path, heard: Sequence[NDArray[np.float32]], folder: Path) -> Path:
    """Write a graph by NNCF, asymmetric where it likes, and return where.

    Raises
    ------
    ImportError
        Without the package ``nncf``.
    """
    import nncf
    import openvino as ov

    data = nncf.Dataset([mel[None] for mel in heard])
    preset = nncf.QuantizationPreset.MIXED
    quantised = nncf.quantize(ov.Core().read_model(path), data, subset_size=len(heard), preset=preset)
    made = folder / "int8.xml"
    ov.save_model(quantised, made, compress_to_fp16=False)
    return made
