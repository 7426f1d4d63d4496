"""The fused operators that the networks of the field are made of."""

from __future__ import annotations

from fastvoc.ops import flops
from fastvoc.ops.availability import backends
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.convnext import convnext
from fastvoc.ops.gate import gate
from fastvoc.ops.gated import gated
from fastvoc.ops.griffin_lim import griffin_lim
from fastvoc.ops.op import OPS, Op, explain, forced_backend, known_backend, last_backends, use_backend
from fastvoc.ops.residual import residual
from fastvoc.ops.smooth_snake import smooth_snake
from fastvoc.ops.strided_conv1d import strided_conv1d
from fastvoc.ops.upsample import upsample

__all__ = [
    "OPS",
    "Op",
    "backends",
    "conv1d",
    "convnext",
    "explain",
    "forced_backend",
    "gate",
    "gated",
    "griffin_lim",
    "known_backend",
    "last_backends",
    "residual",
    "smooth_snake",
    "strided_conv1d",
    "upsample",
    "use_backend",
]

flops.register()
