"""CUDA graphs of a generator: which mel runs by which graph; the recording itself is played on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastvoc.engine.graphs import LONGEST, Graphs, bucket_of
from fastvoc.engine.passes import Operators, Pass
from fastvoc.models import Generator, hifigan, istftnet, melgan

TINY = hifigan.HiFiGANConfig(
    mel_bands=4,
    channels=8,
    rates=(4, 2),
    rate_kernel_sizes=(8, 4),
    block="2",
    kernel_sizes=(3,),
    dilations=((1, 2),),
)


class Tape:
    """Plays a run again, as a CUDA graph does: the result lies where it lay at first."""

    def __init__(self) -> None:
        self.recorded, self.played = 0, 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], Any], Tensor]:
        self.recorded += 1
        wave = run()

        def replay() -> None:
            self.played += 1
            wave.copy_(run())

        return replay, wave


def by_definition(generator: Generator) -> Pass:
    return Operators(generator, backend="reference")


def tiny(**changes: Any) -> tuple[Graphs, Tape]:
    torch.manual_seed(0)
    tape = Tape()
    generator = TINY.build().requires_grad_(False)
    return Graphs(generator, by_definition, capture=tape, **changes), tape


def test_buckets_are_few_and_near() -> None:
    buckets = [bucket_of(frames) for frames in range(1, LONGEST + 1)]
    assert buckets == sorted(buckets) and len(set(buckets)) == 28
    assert all(frames <= bucket < frames + max(8, 0.25 * frames) for frames, bucket in enumerate(buckets, start=1))


def test_a_bucket_is_recorded_once_and_played_for_every_length_in_it() -> None:
    graphs, tape = tiny()
    for frames in (33, 40, 36):
        assert graphs(torch.randn(1, 4, frames)).shape == (1, 1, 8 * frames)
    assert (tape.recorded, tape.played) == (1, 3)
    graphs(torch.randn(1, 4, 41))
    graphs(torch.randn(2, 4, 40))
    assert tape.recorded == 3


def test_a_whole_bucket_gives_the_samples_of_the_generator() -> None:
    graphs, _ = tiny()
    for seed in (0, 1):
        mel = torch.randn(2, 4, 40, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(graphs(mel), graphs.generator(mel))


def test_a_result_outlives_the_next_call() -> None:
    graphs, _ = tiny()
    first = graphs(torch.randn(1, 4, 40))
    kept = first.clone()
    graphs(torch.randn(1, 4, 40))
    assert torch.equal(first, kept)


def test_the_graph_that_was_used_longest_ago_makes_way() -> None:
    graphs, tape = tiny(most=2)
    for frames in (40, 64, 40, 96):
        graphs(torch.randn(1, 4, frames))
    assert list(graphs.graphs) == [(1, 40), (1, 96)] and tape.recorded == 3


def test_changed_weights_are_recorded_anew() -> None:
    graphs, tape = tiny()
    mel = torch.randn(1, 4, 40)
    graphs(mel)
    graphs.generator.load_state_dict({name: 2 * value for name, value in graphs.generator.state_dict().items()})
    torch.testing.assert_close(graphs(mel), graphs.generator(mel))
    assert tape.recorded == 2 and len(graphs.graphs) == 1


def test_what_has_no_graph_runs_as_it_is_and_says_why() -> None:
    graphs, tape = tiny()
    assert graphs.explain(1, LONGEST) is None
    assert "graphs are recorded up to 2048" in str(graphs.explain(1, LONGEST + 1))
    assert graphs.explain(0, 5) == "the mel is empty"
    mel = torch.randn(0, 4, 5)
    assert graphs(mel).shape == (0, 1, 40) and tape.recorded == 0
    assert "its weights are on cpu; graphs run on a CUDA device" in str(Operators.refuses(graphs.generator))


def test_short_mels_of_reflecting_generators_run_as_they_are() -> None:
    config = melgan.MelGANConfig(mel_bands=4, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4), units=2)
    graphs = Graphs(config.build(), by_definition, capture=Tape())
    reach = max(graphs.generator.receptive_field)
    assert "layers that reflect need more" in str(graphs.explain(1, reach))
    assert graphs.explain(1, reach + 1) is None
    with pytest.raises(ValueError, match="to reflect"):
        graphs(torch.randn(1, 4, 2))


def test_heads_that_compute_outside_the_operators_are_refused() -> None:
    graphs = Graphs(istftnet.ISTFTNetConfig().build(), by_definition, capture=Tape())
    assert "IstftHead computes outside the operators" in str(graphs.explain(1, 40))
