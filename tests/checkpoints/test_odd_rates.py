"""HiFi-GANs whose taps minus rate are odd: waves as long as their mels in one project, longer in the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import foreign
import pytest
import torch
from golden import draw
from originals import OfficialGenerator
from torch import Tensor

import fastvoc.engine.synthesizer
from fastvoc import Vocoder
from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.checkpoints import Checkpoint, VocoderConfig, open_checkpoint
from fastvoc.checkpoints.formats import hifigan
from fastvoc.checkpoints.tensor_names import from_native
from fastvoc.cli import main
from fastvoc.engine.cuda_graphs import Operators
from fastvoc.engine.runs import outside_operators
from fastvoc.models import HiFiGAN, HiFiGANConfig, ISTFTNetConfig
from fastvoc.train.config import load_config
from fastvoc.train.tasks.gan import GanTask

CENTRED = HiFiGANConfig(channels=64, kernel_sizes=(3, 5), dilations=((1, 3), (1, 2)))
MOCKINGBIRD = replace(CENTRED, rates=(5, 5, 4, 2), rate_kernel_sizes=(10, 10, 8, 4), crop_rule="output-padded")
AUDIOLDM = replace(
    CENTRED, rates=(5, 4, 2, 2, 2), rate_kernel_sizes=(16, 16, 8, 4, 4), mel_bands=64, crop_rule="symmetric"
)
SEVERAL = replace(CENTRED, rates=(5, 3, 3), rate_kernel_sizes=(8, 6, 10), crop_rule="symmetric")
AT_16K = replace(CONVENTIONS["hifigan"], sample_rate=16000)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with torch.no_grad():
        yield


def mel_of(config: HiFiGANConfig) -> MelConfig:
    return replace(AT_16K, hop=config.hop, bands=config.mel_bands)


CASES: dict[str, tuple[Any, HiFiGANConfig, int]] = {
    "MockingBird": (foreign.official, MOCKINGBIRD, 0),
    "AudioLDM": (foreign.official, AUDIOLDM, 32),
    "AudioLDM in transformers": (foreign.speecht5, AUDIOLDM, 32),
    "two stages": (foreign.official, SEVERAL, 9 + 3 + 1),
    "Coqui": (foreign.coqui, SEVERAL, 9 + 3 + 1),
    "SpeechBrain": (foreign.speechbrain, replace(SEVERAL, padding_mode="reflect"), 9 + 3 + 1),
    "NeMo": (foreign.nemo, SEVERAL, 9 + 3 + 1),
    "NVIDIA": (foreign.deep_learning_examples, SEVERAL, 9 + 3 + 1),
}
"""Layout, configuration, and the samples beyond the hop of each frame."""


def opened(name: str, folder: Path) -> Checkpoint:
    writer, config, _ = CASES[name]
    mel = replace(CONVENTIONS["coqui"], hop=config.hop, sample_rate=16000) if name == "Coqui" else mel_of(config)
    path = writer(folder, replace(config, standardised=writer is foreign.speecht5), mel)
    if writer is foreign.speecht5:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(settings | {"normalize_before": False}))
    return open_checkpoint(path)


@pytest.mark.parametrize("name", CASES)
def test_odd_rates_make_the_samples_of_the_original(tmp_path: Path, name: str) -> None:
    _, config, extra = CASES[name]
    checkpoint = opened(name, tmp_path)
    assert checkpoint.config.generator == config
    assert checkpoint.config.generator.extra_samples == extra
    network = config.build().double()
    network.load_state_dict(checkpoint.weights)
    assert (network.hop, network.extra_samples) == (config.hop, extra)
    mel = draw(0, 2, config.mel_bands, 9)
    wave = network(mel)
    assert wave.shape == (2, 1, 9 * config.hop + extra) == (2, 1, network.samples(9))
    said = [note for note in checkpoint.notes if "samples" in note]
    assert len(said) == 1 and (f"T · {config.hop} + {extra}" in said[0] if extra else "MockingBird" in said[0])
    if config.padding_mode == "zero":  # the original has no other; what reflects is the same at the convolutions
        original = OfficialGenerator(config, output_padded=name == "MockingBird").double()
        original.load_state_dict(from_native(checkpoint.weights, hifigan.table(config), weight_norm=True))
        # a thousand roundings of 1e-16 in waves of 0.1
        torch.testing.assert_close(wave, original(mel), rtol=0, atol=1e-13)


def test_the_vocoder_of_audioldm_has_the_mel_of_audioldm(tmp_path: Path) -> None:
    checkpoint = opened("AudioLDM in transformers", tmp_path)
    expected = replace(CONVENTIONS["tacotron2"], sample_rate=16000, hop=160, bands=64, low=0, high=8000)
    assert checkpoint.config.mel == expected
    assert any("that of AudioLDM is assumed" in note for note in checkpoint.notes)


@cache
def vocoder(dtype: torch.dtype = torch.float32) -> Vocoder:
    torch.manual_seed(0)
    config = replace(SEVERAL, channels=16)
    weights = {name: 1.5 * tensor for name, tensor in config.build().state_dict().items()}
    return Vocoder(Checkpoint(VocoderConfig(generator=config, mel=mel_of(config)), weights, "a test"), dtype=dtype)


EXTRA = 13
MEL = draw(1, 80, 100) - 5


def test_a_plan_and_a_batch_of_lengths_keep_the_extra_samples() -> None:
    mel, hop = MEL.float(), vocoder().hop
    whole = vocoder()(mel)
    assert whole.shape == (100 * hop + EXTRA,)
    torch.testing.assert_close(whole, vocoder().generator(mel[None])[0, 0], rtol=0, atol=1e-5)
    padded = torch.stack([mel, mel.flip(0)])
    for wave, item, length in zip(vocoder()(padded, lengths=[37, 100]), padded, (37, 100), strict=True):
        assert wave.shape == (length * hop + EXTRA,)
        assert torch.equal(wave, vocoder()(item[:, :length]))


@pytest.mark.parametrize("window", [1, 7, 50, 99])
def test_long_mels_in_pieces_keep_the_extra_samples(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    expected = vocoder(torch.float64)(MEL)
    monkeypatch.setattr(fastvoc.engine.synthesizer, "WINDOW", window)
    torch.testing.assert_close(vocoder(torch.float64)(MEL), expected, rtol=0, atol=1e-13)


def test_a_generator_that_streams_by_overlap_keeps_the_extra_samples() -> None:
    class Another(HiFiGAN):
        def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
            return super().forward(mel, condition)

    own = vocoder(torch.float64)
    another = Vocoder(Checkpoint(own.config, own.generator.state_dict(), "a test"), dtype=torch.float64)
    network = Another(own.config.generator).double()
    network.load_state_dict(own.generator.state_dict())
    another.generator = another._runner.network = network
    streamer = another.streamer()
    assert streamer.recomputes
    pieces = [*(streamer.push(piece) for piece in MEL.split(11, dim=-1)), streamer.flush()]
    torch.testing.assert_close(torch.cat(pieces), own(MEL), rtol=0, atol=1e-13)


def test_padded_mels_are_not_run_together_where_waves_are_longer() -> None:
    assert "13 samples more" in str(outside_operators(vocoder().generator))
    assert Operators(vocoder().generator).unrecordable == outside_operators(vocoder().generator)


def test_training_refuses_waves_that_are_longer_than_recordings() -> None:
    longer = {"generator.rate_kernel_sizes": [15, 16, 4, 4], "generator.crop_rule": "symmetric"}
    config = load_config("hifigan-v2", {"data.recordings": "nowhere"} | longer)
    with pytest.raises(ValueError, match="32 samples more than the recordings"):
        GanTask(config)


@pytest.mark.parametrize("generator", [MOCKINGBIRD, AUDIOLDM, SEVERAL, ISTFTNetConfig(trunk=SEVERAL)])
def test_settings_and_network_have_equally_many_extra_samples(generator: Any) -> None:
    network = generator.build()
    assert network.extra_samples == generator.extra_samples
    assert network(torch.zeros(1, generator.mel_bands, 8)).shape[-1] == network.samples(8)
    assert network.samples(0) == 0


def test_longer_waves_survive_saving_and_are_named_by_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocoder().save_pretrained(tmp_path / "ours")
    back = Vocoder.from_pretrained(tmp_path / "ours")
    assert torch.equal(back(MEL.float()), vocoder()(MEL.float()))
    assert main(["info", str(tmp_path / "ours")]) == 0
    assert "13, at the end of a wave" in capsys.readouterr().out


def test_what_the_original_cuts_symmetrically_is_written_for_it(tmp_path: Path) -> None:
    weights = SEVERAL.build().state_dict()
    hifigan.save(tmp_path, VocoderConfig(generator=SEVERAL, mel=mel_of(SEVERAL)), weights)
    assert open_checkpoint(tmp_path).config.generator == SEVERAL
    with pytest.raises(ValueError, match=r"cuts the transposed convolutions of rates \(5, 5, 4, 2\) elsewhere"):
        hifigan.write(MOCKINGBIRD, {})


def test_taps_fewer_than_the_rate_are_refused_with_either_rule() -> None:
    for rule in ("centred", "symmetric"):
        with pytest.raises(ValueError, match="a transposed convolution of 4 taps"):
            replace(CENTRED, rates=(5, 4), rate_kernel_sizes=(4, 8), crop_rule=rule)
