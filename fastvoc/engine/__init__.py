"""Generators as they run when they are only listened to.

A `Plan` is a generator as one native call on the CPU, and a `CudaPlan` on a GPU; `Graphs` records what a GPU does for a
short mel. `Ways` chooses among them for a `Speaker`, and `calibrate` the layers that a `Plan` multiplies in 8 bits.

A generator is compiled into a `Line`, in which every block has a counterpart that remembers what it still needs of the
past. A `Streamer` moves one stream, or a batch of them, along a line.
"""

from fastvoc.engine.cuda_plan import CudaPlan
from fastvoc.engine.graphs import Graphs
from fastvoc.engine.line import Line
from fastvoc.engine.plan import Plan
from fastvoc.engine.quantise import calibrate
from fastvoc.engine.speaker import Speaker
from fastvoc.engine.state import StreamState
from fastvoc.engine.streamer import Streamer
from fastvoc.engine.ways import Ways
from fastvoc.ops._network import Steps

__all__ = ["CudaPlan", "Graphs", "Line", "Plan", "Speaker", "Steps", "StreamState", "Streamer", "Ways", "calibrate"]
