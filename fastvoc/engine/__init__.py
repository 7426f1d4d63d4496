"""Generators as they run when they are only listened to.

A `Plan` is a generator as one native call on the CPU.

A generator is compiled into a `Line`, in which every block has a counterpart that remembers what it still needs of the
past. A `Streamer` moves one stream, or a batch of them, along a line.
"""

from fastvoc.engine.line import Line
from fastvoc.engine.plan import Plan
from fastvoc.engine.state import StreamState
from fastvoc.engine.streamer import Streamer

__all__ = ["Line", "Plan", "StreamState", "Streamer"]
