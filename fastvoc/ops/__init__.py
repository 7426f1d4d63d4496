"""The fused operators that the networks of the field are made of."""

from __future__ import annotations

from fastvoc.ops._backends import backends
from fastvoc.ops._op import OPS, explain, forced_backend, last_backends, use_backend
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.downsample import downsample
from fastvoc.ops.residual import residual
from fastvoc.ops.upsample import upsample

__all__ = [
    "OPS",
    "backends",
    "conv1d",
    "downsample",
    "explain",
    "forced_backend",
    "last_backends",
    "residual",
    "upsample",
    "use_backend",
]
