"""Tests of what is made once and kept: nothing of the call that needed it first stays in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fastvoc import ops
from fastvoc.audio import CONVENTIONS, mel_spectrogram, pqmf_analysis
from fastvoc.blocks.heads import overlap_of
from fastvoc.constants import kept
from fastvoc.models import Generator, VocosConfig


def spectral(hop: int) -> Generator:
    """A Vocos of sizes that no other test has, so that nothing of it is kept yet."""
    config = VocosConfig(mel_bands=4, channels=6, hidden=8, blocks=1, fft_size=4 * hop, hop=hop)
    return config.build().eval()


def test_an_inverse_that_ran_in_inference_mode_is_differentiated_afterwards() -> None:
    network, mel = spectral(hop=18), torch.randn(1, 4, 9)
    with torch.inference_mode():
        before = network(mel)
    wave = network(mel)
    wave.square().sum().backward()
    assert torch.equal(wave, before)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_an_export_leaves_nothing_behind() -> None:
    network, mel = spectral(hop=22).requires_grad_(False), torch.randn(1, 4, 9)
    exported = torch.export.export(network, (mel,), strict=False).module()
    wave = network(mel)
    assert type(wave) is Tensor
    torch.testing.assert_close(exported(mel), wave)


@pytest.mark.parametrize(
    "run",
    [
        lambda: overlap_of(104, 26, 5, False, torch.float32, torch.device("cpu")),
        lambda: mel_spectrogram(torch.ones(4000), CONVENTIONS["vocos"]),
        lambda: pqmf_analysis(torch.ones(4000)),
    ],
    ids=["overlap", "mel", "filter bank"],
)
def test_tensors_without_values_are_not_kept(run: Callable[[], Tensor]) -> None:
    with FakeTensorMode():
        shape = run().shape
    made = run()
    assert type(made.detach()) is Tensor
    assert made.shape == shape


def test_it_is_made_once() -> None:
    calls = []

    @kept(2)
    def make(size: int) -> Tensor:
        calls.append(size)
        return torch.ones(size)

    with torch.inference_mode():
        assert make(3) is make(3)
    assert not make(3).is_inference()
    assert calls == [3]


@pytest.mark.parametrize("padding", [(1.5, 1), "ab", (1, None)], ids=str)
def test_a_padding_is_two_whole_numbers(padding: object) -> None:
    ones = torch.ones(1, 2, 9), torch.ones(2, 2, 3)
    with pytest.raises(ValueError, match=r"conv1d: padding is .*; expected two whole numbers of frames"):
        ops.conv1d(*ones, padding=padding)
