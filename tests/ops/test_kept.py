"""What native code keeps of the weights of WaveNets, NSynth and WaveGlow, and what surrounds and changes these."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import test_nsynth
import test_waveglow
import test_wavenet
import torch
from test_changes import Wrapped
from test_surroundings import defaults
from torch import Tensor, nn
from torch.nn.utils import prune

from fastvoc import Autoencoder, ops
from fastvoc.checkpoints import AutoencoderConfig, Checkpoint
from fastvoc.faces.face import Face

pytestmark = pytest.mark.skipif(ops.backends()["cpu"] is not None, reason=f"no native code: {ops.backends()['cpu']}")


def nsynth() -> Autoencoder:
    config = AutoencoderConfig(generator=test_nsynth.TINY, sample_rate=16000)
    with torch.no_grad():
        weights = test_nsynth.tiny(torch.float32).state_dict()
    return Autoencoder(Checkpoint(config, weights, "a test"))


def mel_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 6 - 9


class Kind(NamedTuple):
    make: Callable[[], Any]
    given: Tensor
    head: str
    """The last matrix."""

    def call(self, face: Any) -> Tensor:
        made: Tensor = (face.decode if isinstance(face, Autoencoder) else face)(self.given, seed=1)
        return made


KINDS = {
    "wavenet": Kind(lambda: test_wavenet.vocoder("mu-law"), mel_of(6, 9), "output"),
    "nsynth": Kind(nsynth, mel_of(5, 4) / 9, "decoder.classes"),
    "waveglow": Kind(lambda: test_waveglow.vocoder(dtype=torch.float32), mel_of(5, 30), "flows.0.network.end"),
}


def head(kind: Kind, face: Any) -> Any:
    return face.generator.get_submodule(kind.head)


def native_reason(face: Any) -> str | None:
    ways: dict[str, str | None] = face.generator.explain_steps()
    return next(iter(ways.values()))


def anew(kind: Kind, face: Face[Any]) -> Tensor:
    """Return what a face of the same values makes, which has kept nothing."""
    weights = {name: value for name, value in face.generator.state_dict().items() if not name.startswith(kind.head)}
    own = head(kind, face)
    weights |= {f"{kind.head}.{name}": getattr(own, name).detach() for name in ("weight", "bias")}
    return kind.call(type(face)(Checkpoint(face.config, weights, "a test")))


@pytest.mark.parametrize("name", KINDS)
def test_a_second_pruning_is_noticed(name: str) -> None:
    """It changes a mask, which is no parameter, and the weight that follows from both, which is none either."""
    kind = KINDS[name]
    face = kind.make()
    waves = [kind.call(face)]
    for amount in (0.3, 0.5):
        prune.l1_unstructured(head(kind, face), "weight", amount)  # type: ignore[no-untyped-call]
        waves.append(kind.call(face))
        torch.testing.assert_close(waves[-1], anew(kind, face), rtol=0, atol=1e-5)
    assert not torch.equal(waves[1], waves[0]) and not torch.equal(waves[2], waves[1])


@pytest.mark.parametrize("name", KINDS)
def test_weights_whose_memory_was_given_back_are_refused(name: str) -> None:
    kind = KINDS[name]
    face = kind.make()
    expected, weight = kind.call(face), head(kind, face).weight
    values, storage = weight.detach().clone(), weight.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    with pytest.raises(ValueError, match=r"the memory of a weight of shape \(.*\) was given back"):
        kind.call(face)
    storage.resize_(size)
    weight.data.copy_(values)
    assert torch.equal(kind.call(face), expected)


@pytest.mark.parametrize("name", KINDS)
def test_weights_that_only_pytorch_reads_are_read_by_pytorch(name: str) -> None:
    kind = KINDS[name]
    face = kind.make()
    expected = kind.call(face)
    head(kind, face).weight = nn.Parameter(Wrapped(head(kind, face).weight.detach()), requires_grad=False)
    torch.testing.assert_close(kind.call(face), expected, rtol=0, atol=1e-5)
    reason = native_reason(face)
    assert reason is not None and "weight that is a Wrapped, whose values only PyTorch can read" in reason


@pytest.mark.parametrize(
    ("dtype", "device"), [(torch.float64, "cpu"), (torch.float16, "meta"), (torch.bfloat16, "meta")], ids=str
)
@pytest.mark.parametrize("name", KINDS)
def test_default_dtype_and_device_change_no_bit(name: str, dtype: torch.dtype, device: str) -> None:
    kind = KINDS[name]
    opened = kind.make()
    expected = kind.call(opened)
    with defaults(dtype, device):
        fresh = type(opened)(Checkpoint(opened.config, opened.generator.state_dict(), "a test"))
        assert torch.equal(kind.call(opened), expected) and torch.equal(kind.call(fresh), expected)


DETERMINISTIC = """
import torch
import test_kept

torch.set_num_threads(2)
for name, kind in test_kept.KINDS.items():
    face = kind.make()
    expected = kind.call(face)
    torch.use_deterministic_algorithms(True)
    assert torch.equal(kind.call(face), expected), name
    assert torch.equal(kind.call(kind.make()), expected), name
    torch.use_deterministic_algorithms(False)
print("done")
"""


def test_deterministic_algorithms_work_in_memory_that_is_still_there() -> None:
    """Each call then has memory of its own; whatever was given back is unmapped here, and no longer read in silence."""
    surroundings = os.environ | {"MALLOC_MMAP_THRESHOLD_": "4096", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", DETERMINISTIC],
        capture_output=True,
        text=True,
        env=surroundings,
        cwd=Path(__file__).parent,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
