"""A plan as a part of a line: streams that run a generator as one native call."""

from __future__ import annotations

import torch
from torch import Tensor

from fastvoc.engine.parts import Memory, Shapes, reserve
from fastvoc.engine.plan import Plan


class Compiled:
    """A trunk, and a head of convolutions, in pieces: what streams remember is the plan's state.

    Parameters
    ----------
    shapes : list
        Of the line's memory.
    plan : Plan
        In order, so that the samples are those of the operators.
    """

    def __init__(self, shapes: Shapes, plan: Plan) -> None:
        self.plan = plan
        # The states of any two streams are equally long, but streams that are still young do not fit together.
        self.young = sum(plan.generator.receptive_field) + 1
        self.heard = reserve(shapes, 1, 0)
        self.slot = reserve(shapes, plan.begin(1).shape[1] // plan.generator.trunk.stem.weight.element_size())

    def __call__(self, memory: Memory, rows: Tensor, last: bool) -> Tensor:
        """(B, bands, n) → (B, C, m)."""
        heard = memory[self.heard].shape[-1] + rows.shape[-1]
        begun = memory[self.heard].shape[-1] > 0
        states = memory[self.slot].clone().view(torch.uint8) if begun else self.plan.begin(len(rows))
        result = self.plan.advance(states, rows, last=last, frames=heard)
        memory[self.slot] = states.view(memory[self.slot].dtype)
        memory[self.heard] = rows.new_zeros(len(rows), 1, min(heard, self.young))
        return result
