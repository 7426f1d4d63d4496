"""Generators against the outputs that their original code computed from the same weights."""

from __future__ import annotations

import bisect
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import (
    MEL,
    NUMBERED_MEL,
    coqui_melgan,
    ends_and_middle,
    filled,
    foreign_shapes,
    hashed,
    istftnet,
    keras_values,
    named_values,
    nemo_hifigan,
    numbered_values,
    pwg_hifigan,
    pwg_melgan,
    samples,
    seungwonpark_melgan,
    speechbrain_hifigan,
    transformers_hifigan,
)
from torch.nn.utils.parametrizations import weight_norm

from fastvoc.audio import CONVENTIONS, PqmfConfig, mel_spectrogram, synthesis_weight
from fastvoc.blocks import Conv1d, Upsample, WaveHead
from fastvoc.checkpoints.formats import hifigan, melgan
from fastvoc.checkpoints.tensor_names import fold, to_native
from fastvoc.models import HiFiGANConfig, MelGANConfig
from fastvoc.models.bigvgan import BASE_24K, V2_24K
from fastvoc.models.hifigan import V1, V2, V3
from fastvoc.models.istftnet import C8C8I
from fastvoc.models.melgan import DESCRIPT, DESCRIPT_16K, FULL_BAND, KERAS, MULTI_BAND

PRINTED = 6e-7
"""Half of the last of the six printed decimals, and what float64 adds."""

PWG = replace(V1, crop_rule="output-padded")
PWG_24K = replace(PWG, rates=(5, 5, 4, 3), rate_kernel_sizes=(10, 10, 8, 6))
MULTI_BAND_24K = replace(MULTI_BAND, rates=(5, 5, 3), rate_kernel_sizes=(10, 10, 6))
SPEECHT5 = replace(V1, rates=(4, 4, 4, 4), rate_kernel_sizes=(8, 8, 8, 8), standardised=True)
NEMO_44K = replace(V1, rates=(8, 8, 4, 2), rate_kernel_sizes=(16, 16, 4, 4))
ODD = replace(V1, rates=(5, 3), rate_kernel_sizes=(11, 5))


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def matches(y: torch.Tensor, mean: float, deviation: float, listed: list[float]) -> None:
    found = [float(y.mean()), float(y.std(correction=0)), *ends_and_middle(y)]
    assert found == pytest.approx([mean, deviation, *listed], rel=0, abs=PRINTED)


# fmt: off
NAMED = {
    "ParallelWaveGAN melgan.v1": (
        DESCRIPT, pwg_melgan, "weight norm", 0, -0.420896, 0.209759,
        [0.133951, -0.638492, -0.055363, -0.012836, -0.652409, -0.340430, -0.633163]),
    "ParallelWaveGAN hifigan.v1": (
        PWG, pwg_hifigan, "weight norm", 0, -0.374192, 0.070063,
        [-0.188216, -0.193218, -0.151184, -0.260658, -0.359252, -0.144425, 0.071162]),
    "ParallelWaveGAN hifigan.v1 24 kHz": (
        PWG_24K, pwg_hifigan, "weight norm", 0, -0.167529, 0.087289,
        [-0.105382, -0.056171, -0.061549, -0.289710, -0.226444, 0.056404, 0.054184]),
    "ParallelWaveGAN causal HiFi-GAN": (
        replace(PWG, causal=True), pwg_hifigan, "weight norm", 0, -0.116900, 0.120592,
        [0.008772, -0.047025, -0.030205, -0.052698, -0.253902, 0.079247, -0.132486]),
    "ParallelWaveGAN causal MelGAN": (
        replace(DESCRIPT, causal=True), pwg_melgan, "weight norm", 0, -0.187050, 0.163862,
        [-0.403084, -0.319745, -0.139369, -0.200725, -0.359771, -0.193697, -0.260296]),
    "SpeechT5": (
        SPEECHT5, transformers_hifigan, "plain", 0, -0.142073, 0.074443,
        [-0.077898, -0.158002, -0.198026, -0.116543, -0.257546, -0.217234, -0.216341]),
    "FastSpeech2Conformer": (
        replace(V1, standardised=True), transformers_hifigan, "plain", 0, -0.209042, 0.070861,
        [-0.091355, -0.072343, -0.147776, -0.200714, -0.165593, -0.253261, -0.285124]),
    "SpeechBrain": (
        replace(V1, padding_mode="reflect"), speechbrain_hifigan, "weight norm", 0, 0.165530, 0.065536,
        [0.284893, 0.193589, 0.319597, 0.186628, 0.195832, 0.210394, 0.257537]),
    "SpeechBrain inference": (
        replace(V1, padding_mode="reflect"), speechbrain_hifigan, "weight norm", 5, 0.168125, 0.067191,
        [0.274182, 0.197081, 0.314742, 0.183466, 0.196259, 0.201861, 0.175007]),
    "Coqui HiFi-GAN": (
        V1, hifigan.table, "parametrized", 0, 0.060182, 0.059079,
        [-0.206222, -0.138929, -0.116802, 0.041133, 0.046195, 0.075060, -0.003406]),
    "Coqui HiFi-GAN inference": (
        V1, hifigan.table, "parametrized", 5, 0.060630, 0.060484,
        [-0.202578, -0.127735, -0.110191, 0.042885, 0.045637, 0.068897, -0.002706]),
    "Coqui MelGAN": (
        DESCRIPT, coqui_melgan, "parametrized", 0, -0.013151, 0.362637,
        [0.305244, -0.188022, -0.018538, -0.333287, -0.127416, 0.377058, 0.063676]),
    "Coqui MelGAN inference": (
        DESCRIPT, coqui_melgan, "parametrized", 2, -0.014772, 0.366555,
        [0.348702, -0.266763, 0.163791, -0.333287, -0.127416, 0.379703, 0.024232]),
    "NeMo": (
        V1, nemo_hifigan, "weight norm", 0, -0.196349, 0.055105,
        [-0.127447, -0.198309, -0.172439, -0.190108, -0.039050, -0.166680, -0.148745]),
    "NeMo 44.1 kHz": (
        NEMO_44K, nemo_hifigan, "weight norm", 0, -0.206115, 0.043095,
        [-0.123357, -0.239498, -0.170460, -0.195757, -0.211731, -0.212520, -0.104988]),
}
"""Configuration, names, spelling, frames repeated at both ends; mean, standard deviation and seven samples."""
# fmt: on


@pytest.mark.parametrize("name", NAMED)
def test_networks_of_other_projects_make_their_samples(name: str) -> None:
    config, layers, spelling, repeated, mean, deviation, listed = NAMED[name]
    network = filled(config, layers(config), named_values, spelling)
    mel = torch.nn.functional.pad(MEL, (repeated, repeated), "replicate")
    matches(network(mel), mean, deviation, listed)


def test_multi_band_melgan_makes_its_sub_bands_and_either_filter_bank_their_wave() -> None:
    """Trap: models from before ParallelWaveGAN 0.4.3 have a cutoff of 0.15, and no file says so."""
    network = filled(MULTI_BAND, pwg_melgan(MULTI_BAND), named_values, "weight norm")
    subbands = network.head.subbands(network.trunk(MEL))
    listed = [0.435491, 0.499275, 0.436636, -0.375125, -0.867934, 0.237405, -0.253263]
    matches(subbands, -0.214232, 0.456210, listed)

    listed = [-0.756005, 0.455544, 1.793258, -0.747379, 0.508612, -0.301136, -0.548972]
    matches(network(MEL), 0.309559, 0.958959, listed)

    network.head.filters.copy_(synthesis_weight(PqmfConfig(cutoff=0.15)))
    listed = [-0.717049, 0.463625, 1.854926, -0.797959, 0.582786, -0.174861, -0.561481]
    matches(network(MEL), 0.345808, 1.048484, listed)


def test_coqui_multi_band_melgan_makes_its_sub_bands() -> None:
    network = filled(MULTI_BAND, coqui_melgan(MULTI_BAND), named_values, "parametrized")
    listed = [-0.449669, -0.899940, -0.601576, -0.597896, -0.915176, 0.947693, 0.789841]
    matches(network.head.subbands(network.trunk(MEL)), -0.236326, 0.652693, listed)


def test_an_affine_map_of_the_mel_folds_into_a_stem_that_reflects() -> None:
    """seungwonpark/melgan feeds its first convolution (mel + 5) / 5; constants survive reflection."""
    table = seungwonpark_melgan(DESCRIPT)
    weights = to_native(named_values(foreign_shapes(DESCRIPT, table)), table, DESCRIPT, "test")
    stem = weights["trunk.stem.weight"]
    weights["trunk.stem.bias"] = weights["trunk.stem.bias"] + stem.sum(dim=(1, 2))
    weights["trunk.stem.weight"] = stem / 5
    network = DESCRIPT.build().double()
    network.load_state_dict(weights)
    listed = [-0.054642, 0.241990, 0.435713, -0.070487, 0.244469, 0.189574, 0.103749]
    matches(network(MEL), 0.163211, 0.163483, listed)


def test_istftnet_makes_its_magnitudes_and_phases() -> None:
    network = filled(C8C8I, istftnet(C8C8I), named_values, "weight norm")
    features = torch.nn.functional.pad(network.trunk(MEL), (1, 0), "reflect")
    magnitude, phase = network.head.conv(features, slope=0.01).chunk(2, dim=1)
    found = samples(magnitude.exp(), (0, 1, 2)) + samples(phase.sin(), (0, 1, 2))
    assert found == pytest.approx([0.946780, 0.972338, 1.001830, 0.081920, 0.319119, 0.073384], rel=0, abs=PRINTED)


# fmt: off
NUMBERED = {
    "MelGAN": (DESCRIPT, melgan.table, [
        0.122420035, 0.102126248, 0.141585548, 0.146490159, 0.104161407, 0.152756735]),
    "HiFi-GAN V1": (V1, hifigan.table, [
        -0.0466308704, -0.00136461626, -0.022700119, -0.0561556435, -0.0504775453, -0.0420914705]),
    "HiFi-GAN V2": (V2, hifigan.table, [
        -0.001739798, 0.00653238836, 0.00808513865, -0.00740417683, 0.00184616171, -0.0132561876]),
    "HiFi-GAN V3": (V3, hifigan.table, [
        -0.0409727525, -0.0259878281, -0.0486859091, -0.0431824725, -0.0452282449, -0.0292172891]),
    "multi-band MelGAN": (MULTI_BAND, pwg_melgan, [
        0.195259232, 0.386598363, 0.149880482, 0.257440273, 0.262231771, 0.0719228376]),
    "multi-band MelGAN 24 kHz": (MULTI_BAND_24K, pwg_melgan, [
        0.200979376, 0.427315259, 0.103118657, 0.284470661, 0.334707462, 0.0651417885]),
}
"""Configuration, names; the mean, and the samples 0, 1, 7, 100 and -1."""
# fmt: on


@pytest.mark.parametrize("name", NUMBERED)
def test_numbered_weights_make_the_reference_samples(name: str) -> None:
    config, layers, expected = NUMBERED[name]
    network = filled(config, layers(config), numbered_values, "weight norm")
    if isinstance(config, MelGANConfig) and config.pqmf:
        network.head.filters.copy_(synthesis_weight(config.pqmf, torch.float64))
        if config is MULTI_BAND:
            subbands = network.head.subbands(network.trunk(NUMBERED_MEL))
            listed = [0.0697156032, 0.197720787, 0.174640093, 0.178088014, 0.209734126, 0.0460126902]
            assert [float(subbands.mean()), *samples(subbands, (0, 1, 7, 100, -1))] == pytest.approx(listed, abs=1e-8)
    wave = network(NUMBERED_MEL)
    assert [float(wave.mean()), *samples(wave, (0, 1, 7, 100, -1))] == pytest.approx(expected, rel=0, abs=1e-8)


def test_the_hash_that_numbers_weights_is_the_reference_one() -> None:
    expected = [-0.12374738, -0.95199034, -0.96163375, -0.53273348, -0.33002579]
    assert hashed(5, 0).tolist() == pytest.approx(expected, abs=1e-8)


def test_keras_melgan_makes_the_reference_samples_in_float32() -> None:
    network = KERAS.build().eval()
    for layer, conv in enumerate(convolutions(network)):
        kernel, magnitude, _ = keras_values(tuple(conv.weight.shape), layer)
        # the first layer has no weight norm
        weight = kernel * math.sqrt(3 / (7 * 80)) if layer == 0 else fold(magnitude, kernel)
        conv.weight.copy_(weight)
        conv.bias.copy_(0.1 * hashed(len(conv.bias), 3 * layer + 2))
    mel = 20 * hashed(1280, 999).reshape(1, 16, 80).transpose(1, 2).float()
    wave = network(mel)
    expected = [0.1459426, -0.09007162, -0.1127059, -0.0446292, 0.2286566, 0.0707075]
    assert [float(wave.mean()), *samples(wave, (0, 1, 7, 100, -1))] == pytest.approx(expected, rel=1e-4)


PARAMETERS = {
    "MelGAN": (DESCRIPT, 4_266_050, 4_260_257),
    "full-band MelGAN": (FULL_BAND, 4_707_586, None),
    "multi-band MelGAN": (MULTI_BAND, 2_539_448, 2_534_356),
    "multi-band MelGAN 24 kHz": (MULTI_BAND_24K, 2_143_160, None),
    "multi-band MelGAN 44.1 kHz": (
        replace(MULTI_BAND, mel_bands=120, rates=(8, 4, 4), rate_kernel_sizes=(16, 8, 8)),
        2_665_400,
        None,
    ),
    "HiFi-GAN V1": (V1, 13_936_130, 13_926_017),
    "HiFi-GAN V2": (V2, 928_514, 925_985),
    "HiFi-GAN V3": (V3, 1_464_322, 1_462_273),
    "HiFi-GAN 24 kHz": (PWG_24K, 12_989_954, None),
}
"""Configuration, parameters under weight norm, parameters."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name: str) -> None:
    config, dressed, plain = PARAMETERS[name]
    with torch.device("meta"):
        network = config.build()
    if plain is not None:
        assert parameters(network) == plain
    for conv in convolutions(network):
        weight_norm(conv)
    assert parameters(network) == dressed


def test_number_of_parameters_as_keras_counts_them() -> None:
    """Keras counts a flag in each layer under weight norm, and the last layer twice, for its initialisation by data."""
    with torch.device("meta"):
        network = KERAS.build()
    _, *others = convolutions(network)
    for conv in others:
        weight_norm(conv)
    trainable = parameters(network)
    assert trainable == 4_646_658
    clone = others[-1].weight.numel() + others[-1].bias.numel()
    assert trainable + len(others) + clone == 4_646_912


REACH = {
    "MelGAN": (DESCRIPT, (6, 6)),
    "Keras MelGAN": (KERAS, None),
    "full-band MelGAN": (FULL_BAND, (10, 10)),
    "multi-band MelGAN": (MULTI_BAND, (11, 11)),
    "multi-band MelGAN 24 kHz": (MULTI_BAND_24K, None),
    "causal MelGAN": (replace(DESCRIPT, causal=True), None),
    "causal multi-band MelGAN": (replace(MULTI_BAND, causal=True), None),
    "HiFi-GAN V1": (V1, (13, 13)),
    "HiFi-GAN V2": (V2, (13, 13)),
    "HiFi-GAN V3": (V3, (11, 11)),
    "HiFi-GAN 24 kHz": (PWG_24K, (19, 19)),
    "HiFi-GAN 44.1 kHz": (NEMO_44K, None),
    "HiFi-GAN of odd rates": (ODD, None),
    "causal HiFi-GAN": (replace(PWG, causal=True), None),
    "BigVGAN base": (BASE_24K, (18, 18)),
    "BigVGAN": (V2_24K, (38, 38)),
    "iSTFTNet": (C8C8I, None),
    "iSTFTNet of odd rates": (replace(C8C8I, trunk=ODD, fft_size=20, istft_hop=5), None),
}
"""Configuration, and the frames on both sides that chunked inference of the original was measured to need."""


@pytest.mark.parametrize("name", REACH)
def test_receptive_field_is_what_a_frame_reaches(name: str) -> None:
    config, expected = REACH[name]
    network = narrow(config).build().double().eval()
    past, future = network.receptive_field
    assert expected in (None, (past, future))

    # Positive weights and no bias: silence makes silence, and nothing that a frame reaches cancels.
    torch.manual_seed(0)
    for key, parameter in network.named_parameters():
        _ = parameter.uniform_(0.5, 1.5) if key.endswith("weight") else parameter.zero_()
    frame, frames = past + future + 3, 2 * (past + future) + 7
    silence = torch.zeros(1, 1, frames, dtype=torch.float64)
    touched = silence.clone()
    # Small enough to keep tanh from saturation, but not under an exponential.
    touched[:, :, frame] = 1.0 if config.kind == "istftnet" else 1e-60
    changed = (network(touched) != network(silence)).flatten().nonzero().flatten().tolist()

    def reads(sample: int) -> tuple[int, int]:
        return network.needs(sample, sample)

    everything = range(frames * network.hop)
    first = bisect.bisect_left(everything, frame, key=lambda sample: reads(sample)[1])
    last = bisect.bisect_right(everything, frame, key=lambda sample: reads(sample)[0]) - 1
    assert changed == list(range(first, last + 1))
    assert (frame - first // network.hop, last // network.hop - frame) == (future, past)


def test_causal_generators_do_not_see_the_future() -> None:
    assert replace(PWG, causal=True).build().receptive_field[1] == 0
    assert replace(DESCRIPT, causal=True).build().receptive_field[1] == 0


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("name", [name for name in REACH if "MelGAN" not in name or "Keras" in name])
def test_length_is_frames_times_hop(name: str, frames: int) -> None:
    config = narrow(REACH[name][0])
    assert config.build()(torch.zeros(1, 1, frames)).shape == (1, 1, frames * config.hop)


@pytest.mark.parametrize("crop_rule", ["centred", "output-padded"])
@pytest.mark.parametrize("rate", [1, 2, 3, 5, 8])
def test_trap_odd_rates_multiply_the_length_exactly(rate: int, crop_rule: str) -> None:
    taps = 2 * rate + rate % 2 if crop_rule == "centred" else 2 * rate
    config = HiFiGANConfig(channels=2, rates=(rate,), rate_kernel_sizes=(taps,), mel_bands=1, crop_rule=crop_rule)
    assert config.build()(torch.zeros(1, 1, 7)).shape == (1, 1, 7 * rate)


def test_trap_odd_rates_are_cut_by_two_rules_that_agree_for_even_ones() -> None:
    """Trap: a centred cut of twice an odd rate would make one sample too many."""
    with pytest.raises(ValueError, match="does not multiply the length by 5 exactly"):
        replace(V1, rates=(5, 8, 2, 2), rate_kernel_sizes=(10, 16, 4, 4))
    assert Upsample(2, 1, 16, 8, crop_rule="centred").crop == Upsample(2, 1, 16, 8, crop_rule="output-padded").crop
    assert Upsample(2, 1, 10, 5, crop_rule="output-padded").crop == (3, 2)


def test_trap_the_last_leaky_relu_of_hifigan_has_the_default_slope() -> None:
    head = V1.build().head
    x = torch.randn(1, 32, 20, generator=torch.Generator().manual_seed(0))
    activated = torch.nn.functional.leaky_relu(x)  # 0.01
    expected = torch.nn.functional.conv1d(activated, head.conv.weight, head.conv.bias, padding=3).tanh()
    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-6)
    assert isinstance(head, WaveHead) and C8C8I.trunk.last_slope == 0.01 and DESCRIPT.slope == 0.2


@pytest.mark.parametrize(
    ("config", "frames", "needed"),
    [(DESCRIPT, 2, 4), (DESCRIPT, 3, 4), (MULTI_BAND, 3, 4), (replace(DESCRIPT, causal=True), 4, 7)],
    ids=["two", "three", "multi-band", "causal"],
)
def test_trap_reflection_needs_four_frames(config: MelGANConfig, frames: int, needed: int) -> None:
    network = narrow(config).build()
    with pytest.raises(ValueError, match=f"has {frames} frames; needs at least {needed} to reflect"):
        network(torch.zeros(1, 1, frames))
    assert network(torch.zeros(1, 1, needed)).shape[-1] == needed * 256


def test_trap_the_originals_initialisation_has_no_effect() -> None:
    """The originals ask for N(0, 0.02) and N(0, 0.01) under weight norm, which recomputes the weight."""
    torch.manual_seed(0)
    # The standard deviation of a uniform distribution up to 1 / sqrt(fan-in).
    for conv, fan_in in ((DESCRIPT.build().trunk.stem, 80 * 7), (V1.build().trunk.up[0], 256 * 16)):
        assert float(conv.weight.std()) == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.01)
    reference = weight_norm(torch.nn.Conv1d(80, 512, 7))
    reference.weight.data.normal_(0, 0.02)
    reference(torch.zeros(1, 80, 7))
    assert float(reference.weight.std()) == pytest.approx(1 / math.sqrt(3 * 80 * 7), rel=0.01)


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(network: Any) -> list[Conv1d | Upsample]:
    """In the order in which they are applied, which is the order of Keras' layers."""
    found = [network.trunk.stem]
    for up, residual in zip(network.trunk.up, network.trunk.residual, strict=True):
        found += [up, *(module for module in residual.modules() if isinstance(module, Conv1d))]
    return [*found, network.head.conv]


def narrow(config: Any) -> Any:
    """Make the network one channel wide where it is narrowest, for questions that its width does not answer."""
    if config.kind == "istftnet":
        return replace(config, trunk=narrow(config.trunk))
    return replace(config, mel_bands=1, channels=2 ** len(config.rates))


@pytest.mark.parametrize(("taps", "rate", "uneven"), [(16, 8, False), (10, 5, False), (11, 5, True), (13, 8, True)])
def test_uneven_overlap_leaves_a_checkerboard(taps: int, rate: int, uneven: bool) -> None:
    layer = Upsample(1, 1, taps, rate, crop_rule="centred").double()
    assert layer.uneven == uneven
    layer.weight.fill_(1 / taps)
    layer.bias.zero_()
    inside = layer(torch.ones(1, 1, 48).double())[0, 0, 8 * rate : 40 * rate]
    spectrum = torch.fft.rfft(inside).abs() / len(inside)
    tones = spectrum[32::32]  # multiples of the rate of the input
    assert (tones.max() > 1e-2) == uneven
    spectrum[::32] = 0
    assert spectrum.max() < 1e-12


def test_the_16_khz_preset_fits_its_mel() -> None:
    mel = CONVENTIONS["melgan-16k"]
    network = DESCRIPT_16K.build()
    assert network.hop == mel.hop == 200
    assert mel.window_size / mel.sample_rate == 0.05
    wave = torch.zeros(1, 16000)
    assert network(mel_spectrogram(wave, mel)).shape == (1, 1, 16000)
