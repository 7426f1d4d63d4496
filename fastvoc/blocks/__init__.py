"""The parts that papers share: convolutions that know their reach, residual blocks, the up-sampling trunk, heads.

Every part says what it is made of: ``lower(graph, x)`` adds the calls that `forward` makes to a `fastvoc.graph.Graph`.
The receptive field, streams and native plans follow from that, so nobody has to count or to write them by hand.
"""

from fastvoc.blocks.conv import CausalUpsample, Conv1d, Upsample
from fastvoc.blocks.gated_stack import GatedStack
from fastvoc.blocks.heads import IstftHead, PqmfHead, WaveHead
from fastvoc.blocks.residual import ResidualBlocks
from fastvoc.blocks.smooth import SmoothHead, SmoothResidualBlocks, SmoothSnake
from fastvoc.blocks.taps import Taps, draw_class
from fastvoc.blocks.upsampler import Trunk

__all__ = [
    "CausalUpsample",
    "Conv1d",
    "GatedStack",
    "IstftHead",
    "PqmfHead",
    "ResidualBlocks",
    "SmoothHead",
    "SmoothResidualBlocks",
    "SmoothSnake",
    "Taps",
    "Trunk",
    "Upsample",
    "WaveHead",
    "draw_class",
]
