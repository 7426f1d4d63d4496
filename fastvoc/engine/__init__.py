"""What runs networks that only make sound: it knows graphs, and no model.

A `Runner` chooses what can run a network: a `Plan` is its convolutions as native calls on the CPU, a `CudaPlan` on a
GPU, and `CudaGraphs` record what a GPU does for a short mel. A `Synthesizer` makes waves of any mels with it, a
`Stream` takes a graph's input in pieces, and a `Streamer` moves one stream, or a batch of them, along it. `calibrate`
chooses the layers that a plan multiplies in 8 bits.
"""

from fastvoc.engine.cpu_plan import Plan
from fastvoc.engine.cuda_graphs import CudaGraphs
from fastvoc.engine.cuda_plan import CudaPlan
from fastvoc.engine.quantize import calibrate
from fastvoc.engine.runner import Choice, Runner
from fastvoc.engine.stream import EdgeFrames, Stream
from fastvoc.engine.streamer import Streamer, StreamState
from fastvoc.engine.synthesizer import Synthesizer
from fastvoc.engine.weight_version import WeightVersion
from fastvoc.ops.network import Quantization

__all__ = [
    "Choice",
    "CudaGraphs",
    "CudaPlan",
    "EdgeFrames",
    "Plan",
    "Quantization",
    "Runner",
    "Stream",
    "StreamState",
    "Streamer",
    "Synthesizer",
    "WeightVersion",
    "calibrate",
]
