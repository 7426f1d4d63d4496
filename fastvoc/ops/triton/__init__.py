"""What the Triton kernels of the operators share.

Importing triton takes a second, and it may be absent: only `kernels`, `gradients`, `branches`, `gate`, `normalise`
and `snake` import it, at the first launch. Whether kernels are interpreted is decided then, once for the process.
"""

from fastvoc.ops.availability import interpreted
from fastvoc.ops.triton.launch import Launch, Launches, precision, refuses

__all__ = ["Launch", "Launches", "interpreted", "precision", "refuses"]
