"""What can run a network, best first, and what does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastvoc import native, ops
from fastvoc.engine.cpu_plan import Plan
from fastvoc.engine.cuda_graphs import CudaGraphs, Operators, Pass
from fastvoc.engine.cuda_plan import CudaPlan, overflows
from fastvoc.engine.runs import outside
from fastvoc.engine.stream import EdgeFrames, Stream
from fastvoc.engine.surroundings import refuse_looks
from fastvoc.engine.weight_version import WeightVersion
from fastvoc.graph import Network
from fastvoc.ops.network import Quantization
from fastvoc.ops.op import Slower
from fastvoc.recurrence import is_explained


class Candidate(NamedTuple):
    """One way to run a network."""

    name: str
    reason: str | None
    """Why it cannot, as a sentence, or None."""
    make: Callable[..., Plan] | Callable[..., Pass]


@dataclass(frozen=True, eq=False)
class Choice:
    """What can run a network here and now.

    Parameters
    ----------
    network : Network
    backend : str, optional
        On which all of it is to run.
    precision : torch.dtype, optional
        In which a GPU multiplies. By default float16, or bfloat16 for weights whose values may become too large for it.
    int8 : mapping of int to Quantization
        For `Plan`, where the processor multiplies 8-bit integers.
    loud : callable
        Makes a mel, (1, bands, T), as loud as any that the network is likely to read, to see how large values become.
    """

    network: Network
    backend: str | None
    precision: torch.dtype | None
    int8: Mapping[int, Quantization]
    loud: Callable[[], Tensor]

    def forced(self) -> str | None:
        """Return the backend on which all of it is to run here and now, or None."""
        return self.backend or ops.forced_backend()

    def candidates(self, *, changed: bool) -> Iterator[Candidate]:
        """Yield what could run the network, best first; `changed` is whether int8 is of other weights."""
        yield from self.plans(changed=changed)
        yield from self.passes()

    def plans(self, *, changed: bool) -> Iterator[Candidate]:
        """Yield the candidates that are native calls on the CPU; what they are made by takes `in_order`."""
        reason = self.why_no_plan()
        parts = None if reason else outside(self.network)
        if self.int8:
            name = f"plan with {len(self.int8)} layers in int8"
            make = partial(Plan, self.network, int8=self.int8)
            yield Candidate(name, reason or self._why_no_int8(changed=changed), make)
        yield Candidate("plan", reason or parts, partial(Plan, self.network))
        if parts is not None:
            yield Candidate("plan in parts", None, partial(Plan, self.network))

    def passes(self) -> Iterator[Candidate]:
        """Yield the other candidates, with the weights as they are."""
        for precision, reason in self._cuda_plans():
            name = f"cuda plan in {_name(precision)}"
            yield Candidate(name, reason, partial(CudaPlan, self.network, precision=precision))
        forced = self.forced()
        unrecordable = self._unasked("triton") or Operators.refuses(self.network)
        yield Candidate("graphs", unrecordable, partial(Operators, self.network))
        make = partial(Operators, self.network, unrecordable=unrecordable)
        if forced == "cuda":
            make = partial(Operators, self.network, backend=forced)
        weight = next((weight for weight in self.network.parameters() if weight.ndim == 3), None)
        table: dict[str, str | None] = ops.backends()
        if weight is not None:
            frames = weight.shape[-1] + 63  # some that are results, however wide the kernel
            table = ops.explain("conv1d", weight.new_zeros(1, weight.shape[1], frames), weight)
        for name, reason in table.items():
            yield Candidate(name, reason if forced == name else reason or self._unasked(name), make)

    def best_pass(self, forced: str | None, network: Network) -> Pass:
        """Make the best of the candidates that are no plans for the CPU."""
        with ops.use_backend(forced):
            for candidate in replace(self, network=network).passes():
                if candidate.reason is None:
                    break
            return candidate.make()  # type: ignore[return-value]

    def why_no_plan(self) -> str | None:
        """Return why no part of the network is a native call on the CPU, or None."""
        return self._unasked("cpu") or Plan.refuses(self.network)

    def _why_no_int8(self, *, changed: bool) -> str | None:
        if changed:
            return "the generator has changed since the layers were chosen; quantise it again"
        return Plan.refuses_int8(self.network)

    def _cuda_plans(self) -> Iterator[tuple[torch.dtype, str | None]]:
        """Yield each precision that a GPU may multiply in, and why it cannot."""
        first = self.precision or torch.float16
        reason = self._why_no_cuda_plan(first)
        if reason is None and self.precision is None:
            reason = overflows(self.network, self.loud())
            yield first, reason
            if reason is not None:
                yield torch.bfloat16, self._why_no_cuda_plan(torch.bfloat16)
        else:
            yield first, reason

    def _why_no_cuda_plan(self, precision: torch.dtype) -> str | None:
        reason = self._unasked("cuda") or CudaPlan.refuses(self.network, precision)
        return None if self.forced() == "cuda" and isinstance(reason, Slower) else reason

    def _unasked(self, backend: str) -> str | None:
        """Return that another backend was asked for, if one was."""
        forced = self.forced()
        return None if forced in (None, backend) else f"backend {forced!r} was asked for"


class Runner:
    """A network by the best candidate that nothing speaks against, compiled once for its weights.

    Parameters
    ----------
    choice : Choice
    version : WeightVersion
        Of the network.
    """

    def __init__(self, choice: Choice, version: WeightVersion) -> None:
        self.choice = choice
        self.network = choice.network
        self.version = version
        self._plans: dict[bool, tuple[Any, Plan | None]] = {}
        self._graphs: dict[str | None, CudaGraphs] = {}
        self._stream: tuple[Any, Plan | None, Stream] | None = None
        self._begun = version.revision()

    @property
    def changed(self) -> bool:
        """Whether the network is another one than at the beginning."""
        return self.version.revision() != self._begun

    def explain(self) -> dict[str, str | None]:
        """Return each candidate, best first, with the reason why it cannot run; the first with None runs.

        Where CUDA graphs could not be recorded of it, which then runs without them, a last entry says so.
        """
        if is_explained(self.network):
            with ops.use_backend(self.choice.forced()):
                return self.network.explain_steps()
        table = {candidate.name: candidate.reason for candidate in self.choice.candidates(changed=self.changed)}
        graphs = self._graphs.get(self.choice.forced())
        failure = None if graphs is None else graphs.failure
        return table if failure is None else {**table, "recording": failure}

    @property
    def weight(self) -> Tensor:
        """A weight of the network, whose device and dtype are those of all."""
        return next(self.network.parameters())

    def fastest(self) -> Callable[..., Tensor]:
        """Return what makes waves of mels, (B, bands, T) → (B, 1, T·hop), with the weights as they are."""
        kind = self.weight.device.type
        if kind == "cpu" and (plan := self.plan()):
            refuse_looks("a vocoder")
            return plan
        if kind != "cuda" and native.hosted() is None:
            return self.network
        refuse_looks("a vocoder")
        forced = self.choice.forced()
        if forced not in self._graphs:
            # bound to the choice alone, since what refers to itself outlives its last user
            make = partial(self.choice.best_pass, forced)
            self._graphs[forced] = CudaGraphs(self.network, make, version=self.version)
        return self._graphs[forced]

    def stream(self, edge_frames: EdgeFrames | None) -> Stream:
        """Return the network as a stream, with its weights as they are."""
        plan, weight = self.plan(in_order=True), self.weight
        if plan is not None:
            refuse_looks("a stream")
        key = (self.version.revision(), weight.device, weight.dtype, edge_frames)
        if self._stream is None or self._stream[:2] != (key, plan):
            stream = Stream(
                self.network.graph() if plan is None else plan.graph,
                hop=self.network.hop,
                like=weight.new_empty(1, self.network.mel_bands, 0),
                condition_channels=self.network.condition_channels,
                edge_frames=edge_frames,
            )
            self._stream = key, plan, stream
        return self._stream[2]

    def plan(self, *, in_order: bool = False) -> Plan | None:
        """Return the network as native calls on the CPU, where it can run so."""
        isa = None if native.missing() else native.isa()
        key = (self.version.revision(), self.choice.forced(), isa)
        made, plan = self._plans.get(in_order, (None, None))
        if made != key:
            candidates = self.choice.plans(changed=self.changed)
            best = next((candidate for candidate in candidates if candidate.reason is None), None)
            plan = None if best is None else best.make(in_order=in_order)  # type: ignore[assignment]
            self._plans[in_order] = key, plan
            if plan is not None and not plan.whole:  # which sums in order anyway
                self._plans[not in_order] = key, plan
        return plan

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled belongs to this machine, and is made again from the weights
        return self.__dict__ | {"_plans": {}, "_graphs": {}, "_stream": None, "_begun": self.changed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begun = object() if state["_begun"] else self.version.revision()


def _name(precision: torch.dtype) -> str:
    return "TF32" if precision == torch.float32 else str(precision).removeprefix("torch.")
