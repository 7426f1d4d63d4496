"""Generators as they run when they are only listened to.

A `Plan` is a generator as one native call on the CPU; `calibrate` chooses the layers that it multiplies in 8 bits.

A generator is compiled into a `Line`, in which every block has a counterpart that remembers what it still needs of the
past. A `Streamer` moves one stream, or a batch of them, along a line.
"""

from fastvoc.engine.graphs import Graphs
from fastvoc.engine.layers import Steps
from fastvoc.engine.line import Line
from fastvoc.engine.plan import Plan
from fastvoc.engine.quantise import calibrate
from fastvoc.engine.state import StreamState
from fastvoc.engine.streamer import Streamer

__all__ = ["Graphs", "Line", "Plan", "Steps", "StreamState", "Streamer", "calibrate"]
