"""Generators run piece by piece: the whole mel's samples, while the mel is still being made.

A generator is compiled into a `Line`, in which every block has a counterpart that remembers what it still needs of the
past. A `Streamer` moves one stream, or a batch of them, along a line.
"""

from fastvoc.engine.line import Line
from fastvoc.engine.state import StreamState
from fastvoc.engine.streamer import Streamer

__all__ = ["Line", "StreamState", "Streamer"]
