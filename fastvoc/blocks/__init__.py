"""The parts that papers share: convolutions that know their reach, residual blocks, the up-sampling trunk, heads.

Every part answers `needs(first, last)`: which rows of its input are read to make rows `first … last` of its output.
Chained from the head down to the mel, the answers are the receptive field, so nobody has to count it by hand.
"""

from fastvoc.blocks.conv import CausalUpsample, Conv1d, Upsample
from fastvoc.blocks.heads import IstftHead, PqmfHead, WaveHead
from fastvoc.blocks.residual import ResidualBlocks
from fastvoc.blocks.upsampler import Trunk

__all__ = ["CausalUpsample", "Conv1d", "IstftHead", "PqmfHead", "ResidualBlocks", "Trunk", "Upsample", "WaveHead"]
