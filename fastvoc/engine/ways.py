"""The ways in which a generator can run when it is only listened to, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from fastvoc import ops
from fastvoc.engine.cuda_plan import CudaPlan, overflows
from fastvoc.engine.graphs import Graphs
from fastvoc.engine.passes import Operators, Pass
from fastvoc.engine.plan import Plan
from fastvoc.models import Generator
from fastvoc.ops import _native
from fastvoc.ops._network import Steps
from fastvoc.ops._op import Slower


class Ways:
    """A generator by the fastest way that nothing speaks against.

    Parameters
    ----------
    generator : Generator
    backend : str, optional
        On which all of it is to run.
    precision : torch.dtype, optional
        In which a GPU multiplies. By default float16, or bfloat16 for weights whose values may become too large for it.
    int8 : mapping of int to Steps
        For `Plan`, where the processor multiplies 8-bit integers.
    loud : callable
        Makes a mel, (1, bands, T), as loud as the generator is likely to hear, to see how large values become.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        backend: str | None,
        precision: torch.dtype | None,
        int8: Mapping[int, Steps],
        loud: Callable[[], Tensor],
    ) -> None:
        self.generator = generator
        self.backend = backend
        self.precision = precision
        self.int8 = int8
        self.loud = loud
        self._plans: dict[bool, Plan] = {}
        self._graphs: dict[str | None, Graphs] = {}

    def fastest(self) -> Callable[..., Tensor]:
        """Return what makes waves of mels, (B, bands, T) → (B, 1, T·hop), with the weights as they are."""
        if plan := self.plan():
            return plan
        if next(self.generator.parameters()).device.type != "cuda" and _native.hosted() is None:
            return self.generator
        forced = self._forced()
        if forced not in self._graphs:
            self._graphs[forced] = Graphs(self.generator, partial(self._pass, forced))
        return self._graphs[forced]

    def plan(self, *, in_order: bool = False) -> Plan | None:
        """Return the generator as one native call on the CPU, where it can run so; compiled once for its weights."""
        if self.why_no_plan() is not None:
            return None
        plan = self._plans.get(in_order)
        if plan is None or plan.stale:
            int8 = self.int8 if self.int8 and Plan.refuses_int8(self.generator) is None else None
            plan = self._plans[in_order] = Plan(self.generator, in_order=in_order, int8=int8)  # type: ignore[arg-type]
        return plan

    def why_no_plan(self) -> str | None:
        """Return why there is no plan for the CPU, or None."""
        return self._unasked("cpu") or Plan.refuses(self.generator)

    def explain(self) -> dict[str, str | None]:
        """Return each way, best first, with the reason why it cannot be taken; the first with None is taken."""
        reason = self.why_no_plan()
        table = {"plan": reason}
        if self.int8:
            table = {f"plan with {len(self.int8)} layers in int8": reason or Plan.refuses_int8(self.generator)} | table
        table |= {f"cuda plan in {_name(precision)}": reason for precision, reason in self._cuda_plans()}
        return table | {"graphs": self._why_no_graphs()} | self._operators()

    def _operators(self) -> dict[str, str | None]:
        stem = next((weight for weight in self.generator.parameters() if weight.ndim == 3), None)
        table: dict[str, str | None] = ops.backends()
        if stem is not None:
            table = ops.explain("conv1d", stem.new_zeros(1, stem.shape[1], 64), stem)
        return {
            name: reason if self._forced() == name else reason or self._unasked(name) for name, reason in table.items()
        }

    def _cuda_plans(self) -> Iterator[tuple[torch.dtype, str | None]]:
        """Yield each precision that a GPU may multiply in, and why it cannot."""
        first = self.precision or torch.float16
        reason = self._why_no_cuda_plan(first)
        if reason is None and self.precision is None:
            reason = overflows(self.generator, self.loud())  # type: ignore[arg-type]
            yield first, reason
            if reason is not None:
                yield torch.bfloat16, self._why_no_cuda_plan(torch.bfloat16)
        else:
            yield first, reason

    def _why_no_cuda_plan(self, precision: torch.dtype) -> str | None:
        reason = self._unasked("cuda") or CudaPlan.refuses(self.generator, precision)
        return None if self._forced() == "cuda" and isinstance(reason, Slower) else reason

    def _pass(self, forced: str | None, generator: Generator) -> Pass:
        """Return the best way but the CPU's plan."""
        with ops.use_backend(forced):
            for precision, reason in self._cuda_plans():
                if reason is None:
                    return CudaPlan(generator, precision=precision)  # type: ignore[arg-type]
            if forced == "cuda":
                return Operators(generator, backend=forced)
            return Operators(generator, unrecordable=self._why_no_graphs())

    def _why_no_graphs(self) -> str | None:
        return self._unasked("triton") or Operators.refuses(self.generator)

    def _forced(self) -> str | None:
        return self.backend or ops.forced_backend()

    def _unasked(self, backend: str) -> str | None:
        """Return that another backend was asked for, if one was."""
        forced = self._forced()
        return None if forced in (None, backend) else f"backend {forced!r} was asked for"


def _name(precision: torch.dtype) -> str:
    return "TF32" if precision == torch.float32 else str(precision).removeprefix("torch.")
