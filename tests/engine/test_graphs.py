"""CUDA graphs of a generator: which mel runs by which graph; the recording itself is played on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from test_streaming import checkpoint
from torch import Tensor

from fastvoc import Vocoder
from fastvoc.engine import cuda_graphs
from fastvoc.engine.cuda_graphs import LONGEST, UNRECORDED, CudaGraphs, Operators, Pass, bucket_of, key_of
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


def tiny(**changes: Any) -> tuple[CudaGraphs, Tape]:
    torch.manual_seed(0)
    tape = Tape()
    generator = TINY.build().requires_grad_(False)
    return CudaGraphs(generator, by_definition, capture=tape, **{"unrecorded": 0, **changes}), tape


def test_what_other_threads_ask_of_the_driver_does_not_end_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    order = MagicMock()  # the driver's part, which needs a GPU: what is asked of it, and when
    monkeypatch.setattr(cuda_graphs.torch, "cuda", order.cuda)
    record = cuda_graphs._Recorder()
    for _ in range(2):
        replay, wave = record(order.run)
        assert replay is order.cuda.CUDAGraph().replay and wave is order.run()
    pool = order.cuda.graph_pool_handle.return_value
    recordings = order.cuda.graph.call_args_list
    assert [one.kwargs for one in recordings] == [{"pool": pool, "capture_error_mode": "thread_local"}] * 2
    assert order.cuda.graph_pool_handle.call_count == 1
    names = [name for name, *_ in order.mock_calls if name in ("run", "cuda.graph", "cuda.graph().__enter__")]
    assert names[:4] == ["run", "cuda.graph", "cuda.graph().__enter__", "run"]


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


def test_a_shape_is_recorded_at_its_third_use() -> None:
    graphs, tape = tiny(unrecorded=UNRECORDED)
    for use, recorded in enumerate((0, 0, 1, 1), start=1):
        mel = torch.randn(1, 4, 40)
        torch.testing.assert_close(graphs(mel), graphs.generator(mel))
        assert tape.recorded == recorded
        reason = graphs.explain(1, 40)
        assert (
            reason is None if use >= UNRECORDED else f"came {use} times; the graph is recorded after 2" in str(reason)
        )


def test_batches_share_a_graph_of_a_power_of_two_and_hear_their_own() -> None:
    graphs, tape = tiny()
    assert [key_of(batch, 40)[0] for batch in (1, 2, 3, 4, 5, 16, 17)] == [1, 2, 4, 4, 8, 16, 32]
    for batch in (3, 4, 3):
        mel = torch.randn(batch, 4, 40)
        torch.testing.assert_close(graphs(mel), graphs.generator(mel))
    assert tape.recorded == 1
    mel, lengths = torch.randn(3, 4, 40), torch.tensor([40, 17, 33], dtype=torch.int32)
    assert graphs(mel, lengths=lengths).shape == (3, 1, 320)


def test_dynamic_batches_record_a_few_times_and_then_play() -> None:
    """Batches of 1 to 16 of up to 500 frames: at first sight of each shape, every second call was a recording."""
    graphs, tape = tiny(unrecorded=UNRECORDED)
    random = torch.Generator().manual_seed(0)
    calls = 400
    for _ in range(calls):
        batch, frames = (int(torch.randint(1, most + 1, (), generator=random)) for most in (16, 500))
        graphs(torch.zeros(batch, 4, frames))
    assert tape.recorded < 0.15 * calls and tape.played > 0.4 * calls


def test_a_graph_that_is_used_more_does_not_make_way_until_nobody_uses_it() -> None:
    graphs, tape = tiny(most=1)
    for _ in range(4):
        graphs(torch.randn(1, 4, 40))
    graphs(torch.randn(1, 4, 96))
    assert list(graphs.graphs) == [(1, 40)] and tape.recorded == 1
    for _ in range(3):
        graphs(torch.randn(1, 4, 96))
    assert list(graphs.graphs) == [(1, 96)] and tape.recorded == 2


def test_what_cannot_be_recorded_runs_as_it_is_and_says_why() -> None:
    def broken(run: Callable[[], Tensor]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs, _ = tiny()
    graphs.capture = broken
    mel = torch.randn(2, 4, 40)
    for _ in range(2):
        torch.testing.assert_close(graphs(mel), graphs.generator(mel))
    assert "could not be recorded: operation not permitted" in str(graphs.explain(2, 40))
    assert graphs.explain(1, 96) is None and "could not be recorded" in str(graphs.failure)


def test_a_vocoder_says_that_its_graphs_could_not_be_recorded() -> None:
    vocoder = Vocoder(checkpoint("hifigan"))
    graphs, _ = tiny()
    graphs._failed[1, 40] = "its graph could not be recorded: out of memory"
    assert "recording" not in vocoder.explain()
    vocoder._runner._graphs[None] = graphs
    assert vocoder.explain()["recording"] == "its graph could not be recorded: out of memory"


def test_changed_weights_are_recorded_anew() -> None:
    graphs, tape = tiny()
    mel = torch.randn(1, 4, 40)
    graphs(mel)
    graphs.generator.load_state_dict({name: 2 * value for name, value in graphs.generator.state_dict().items()})
    torch.testing.assert_close(graphs(mel), graphs.generator(mel))
    assert tape.recorded == 2 and len(graphs.graphs) == 1


def test_each_call_of_a_graph_hears_its_own_condition() -> None:
    torch.manual_seed(0)
    tape = Tape()
    generator = replace(TINY, condition_channels=3).build().requires_grad_(False)
    graphs = CudaGraphs(generator, by_definition, capture=tape, unrecorded=0)
    mel, waves = torch.randn(2, 4, 40), []
    for speakers in torch.randn(3, 2, 3):
        waves.append(graphs(mel, speakers))
        torch.testing.assert_close(waves[-1], generator(mel, speakers))
    assert tape.recorded == 1
    assert not torch.allclose(waves[0], waves[1], rtol=0.01, atol=1e-4)


def test_what_has_no_graph_runs_as_it_is_and_says_why() -> None:
    graphs, tape = tiny()
    assert graphs.explain(1, LONGEST) is None
    assert "graphs are recorded up to 2048" in str(graphs.explain(1, LONGEST + 1))
    assert graphs.explain(0, 5) == "the mel is empty"
    mel = torch.randn(0, 4, 5)
    assert graphs(mel).shape == (0, 1, 40) and tape.recorded == 0
    assert "its weights are on cpu; graphs run on a CUDA device" in str(Operators.refuses(graphs.generator))


def test_a_mel_that_has_no_graph_runs_with_its_lengths_or_without() -> None:
    told: list[Tensor] = []

    class Told(Operators):
        def padded(self, mel: Tensor, lengths: Tensor, condition: Tensor | None) -> Tensor:
            told.append(lengths)
            return super().padded(mel, lengths, condition)

    generator = TINY.build().requires_grad_(False)
    graphs = CudaGraphs(generator, lambda generator: Told(generator, backend="reference"), capture=Tape())
    mel, lengths = torch.randn(2, 4, LONGEST + 2), torch.tensor([LONGEST + 2, 50], dtype=torch.int32)
    torch.testing.assert_close(graphs(mel), generator(mel))
    assert not told
    torch.testing.assert_close(graphs(mel, lengths=lengths)[0], generator(mel)[0])
    assert len(told) == 1 and told[0] is lengths


def test_short_mels_of_reflecting_generators_run_as_they_are() -> None:
    config = melgan.MelGANConfig(mel_bands=4, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4), units=2)
    graphs = CudaGraphs(config.build(), by_definition, capture=Tape(), unrecorded=0)
    reach = max(graphs.generator.receptive_field)
    assert "layers that reflect need more" in str(graphs.explain(1, reach))
    assert graphs.explain(1, reach + 1) is None
    with pytest.raises(ValueError, match="to reflect"):
        graphs(torch.randn(1, 4, 2))


def test_heads_that_compute_outside_the_operators_are_refused() -> None:
    graphs = CudaGraphs(istftnet.ISTFTNetConfig().build(), by_definition, capture=Tape())
    assert "IstftHead computes outside the operators" in str(graphs.explain(1, 40))
