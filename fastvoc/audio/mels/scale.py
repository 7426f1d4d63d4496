"""Mel scales: Slaney 1998, *Auditory Toolbox*, and the HTK book, § 5.6.

librosa has them too, but takes a second to load, which a vocoder that only makes sound need not wait for.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_STEP = math.log(6.4) / 27
"""Slaney's scale has 200/3 Hz per mel up to 1000 Hz, and from there 27 mel per factor of 6.4."""


def mel_of_hertz(hertz: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Map frequencies in Hz to mel, on the scale ``"slaney"`` or ``"htk"``."""
    if scale == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / _STEP
    return np.where(hertz < 1000, 3 * hertz / 200, above)


def hertz_of_mel(mel: NDArray[np.float64], scale: str) -> NDArray[np.float64]:
    """Map mel to frequencies in Hz, the inverse of `mel_of_hertz`."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(_STEP * (mel - 15)))
