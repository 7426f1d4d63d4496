"""Fast neural vocoders: mel spectrograms to sound, and the training of the networks that do it."""

from importlib.metadata import version

from fastvoc.ops import explain, use_backend
from fastvoc.vocoder import Vocoder

__version__ = version("fastvoc")
__all__ = ["Vocoder", "__version__", "explain", "use_backend"]
