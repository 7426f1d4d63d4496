"""The fused operators that every generator of the field is made of."""

from __future__ import annotations

from fastvoc.ops._backends import backends
from fastvoc.ops._op import OPS, explain, forced_backend, last_backends, use_backend
from fastvoc.ops.conv1d import conv1d
from fastvoc.ops.residual import residual
from fastvoc.ops.upsample import upsample

__all__ = [
    "OPS",
    "backends",
    "conv1d",
    "explain",
    "forced_backend",
    "last_backends",
    "residual",
    "upsample",
    "use_backend",
]
