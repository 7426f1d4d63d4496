"""Call the registered operators with arguments that were mutated at random, as the programs of csrc/tests call C.

``python raw_calls.py BACKEND ROUNDS SEED`` prints each call before it is made, so that the last line of a process that
was killed is the call that did it. A call either raises one sentence, or keeps the contract of its op.
"""

from __future__ import annotations

import random
import resource
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastvoc import native
from fastvoc.ops import OPS, use_backend
from fastvoc.ops.contract import errors, results

REFUSALS = (ValueError, TypeError, NotImplementedError, RuntimeError)
INTEGERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 8, 2**31, 2**40, 2**63 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, -0.5, 1.0, 2.0, 1e-30, 1e30, 1e300)
NAMES = ("zero", "reflect", "replicate", "circular", "constant", "ZERO", "", "\x00", "count")
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)

LUCK = 16
"""Of a few sums, plain PyTorch's may be exact by chance; what was read elsewhere is off by much more than rounding."""

SPARE = 3 << 30
"""Bytes that a call may ask for: those of a size beyond all reason end in a sentence rather than in swapping."""


def mutated_tensor(x: Tensor, chance: random.Random) -> Any:
    """Return a tensor that is too short or too long, of another rank, kind or memory order, or the same in disguise."""
    dim = chance.randrange(x.dim()) if x.dim() else 0
    size = x.shape[dim] if x.dim() else 0
    kind = chance.randrange(14)
    if kind <= 2 and size:
        return x.narrow(dim, 0, chance.choice((size - 1, size // 2, 1, 0)))
    if kind == 3 and x.dim():
        return torch.cat([x, x], dim)
    if kind == 4:
        return chance.choice((x.unsqueeze(0), x.flatten(), x.new_ones(()), x.unsqueeze(-1)))
    if kind == 5:
        return x.to(chance.choice(DTYPES))
    if kind == 6:
        return chance.choice((x.to("meta"), x.to_sparse()))
    if kind == 7 and x.dim():
        return x.transpose(dim, -1)
    if kind == 8 and size:
        return x.repeat_interleave(2, dim).unfold(dim, 1, 2).squeeze(-1)  # the same values, further apart
    if kind == 9 and size:
        return x.narrow(dim, 0, 1).expand_as(x)
    if kind == 10:
        return torch._neg_view(x)
    if kind == 11 and x.numel():
        return torch.full_like(x, chance.choice((float("nan"), float("inf"), 0.0)))
    if kind == 12 and x.dim():
        return x.flip(dim)
    return torch.cat([x.flatten(), x.flatten()])[x.numel() :].view(x.shape)


def mutated(value: Any, chance: random.Random) -> Any:
    if isinstance(value, Tensor):
        return mutated_tensor(value, chance)
    if value is None:
        return chance.choice((None, torch.ones(1), torch.ones(5), torch.ones(2, 5, 17)))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((*INTEGERS, value + 1, value - 1, -value))
    if isinstance(value, float):
        return chance.choice(FLOATS)
    if isinstance(value, str):
        return chance.choice(NAMES)
    changed = list(value)
    place = chance.randrange(len(changed)) if changed else 0
    kind = chance.randrange(5)
    if kind == 0:
        return changed[:place]
    if kind == 1 and changed:
        return [*changed, changed[place]]
    if changed:
        changed[place] = mutated(changed[place], chance)
    return changed


def described(value: Any) -> str:
    if isinstance(value, Tensor):
        layout = "" if value.layout is torch.strided else f" {value.layout}"
        strides = f" by {value.stride()}" if value.layout is torch.strided else ""
        return f"<{tuple(value.shape)}{strides} {value.dtype} {value.device}{layout}>"
    return f"[{', '.join(map(described, value))}]" if isinstance(value, list) else repr(value)


def one_sentence(error: Exception) -> bool:
    """Whether the first line says what is wrong; PyTorch's dispatcher adds a table, and its allocator a stack."""
    first = str(error).splitlines()[0] if str(error) else ""
    return 10 < len(first) < 1200 and "\x00" not in first


def call(op: Any, args: list[Any], run: str, differentiate: bool) -> str:
    """Make a call, and return what came of it: "refused" or "right"."""
    backend, _, isa = run.partition(" ")
    tensors = [v for v in args if isinstance(v, Tensor) and v.is_floating_point()] if differentiate else []
    try:
        leaves = [v.detach().requires_grad_() for v in tensors]
        following = iter(leaves)
        given = [next(following) if any(v is t for t in tensors) else v for v in args]
        with use_backend(None if backend == "any" else backend), native.use_isa(isa) if isa else nullcontext():
            got = op.overload(*given)
            if leaves:
                torch.autograd.grad(got, leaves, torch.ones_like(got))
    except REFUSALS as error:
        assert one_sentence(error), f"{type(error).__name__}: {error}"
        return "refused"
    detached = tuple(result.detach() for result in results(got))
    if any(result.is_meta for result in detached):  # of an operator of one tensor, which may be there without values
        wanted = results(op.kind(*args).reference())
        assert [result.shape for result in detached] == [result.shape for result in wanted]
        return "right"
    for worst, allowed in errors(op.kind(*args), detached if len(detached) > 1 else detached[0]):
        finite = worst == worst and allowed == allowed and allowed != float("inf")
        assert not finite or worst <= LUCK * allowed, f"off by {worst}; {allowed} is allowed"
    return "right"


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(run: str, rounds: int, seed: int) -> None:
    limit_memory()
    chance, ends = random.Random(seed), {"refused": 0, "right": 0}
    cases = [(op, case) for op in OPS.values() for case in op.cases() if not case.model]
    for number in range(rounds):
        op, case = cases[number % len(cases)]
        # The CUDA kernels multiply float32 in TF32, which is less exact than plain PyTorch on a CPU.
        dtype = torch.float16 if run == "cuda" else torch.float32
        args = list(case.call(frames=min(case.frames, 19), seed=number, dtype=dtype))
        for place in chance.sample(range(len(args)), min(chance.choice((1, 1, 1, 2, 3)), len(args))):
            args[place] = mutated(args[place], chance)
        differentiate = op.has_formula and chance.random() < 0.3
        print(f"{number} of seed {seed} on {run}: {op.name}({', '.join(map(described, args))})", flush=True)
        ends[call(op, args, run, differentiate)] += 1
    assert rounds / 10 < ends["right"] < rounds * 0.8, f"mutations must be neither harmless nor always fatal: {ends}"
    print(ends)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
