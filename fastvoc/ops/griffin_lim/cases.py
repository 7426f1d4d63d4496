"""Calls of `griffin_lim`."""
from __future__ import annotations
from fastvoc.ops.case import Case
from fastvoc.ops.griffin_lim.call import GriffinLim


def forward() -> list[Case[GriffinLim]]:
    """Return the cases of the operator."""
    return []
