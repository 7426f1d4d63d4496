"""GANSynth's networks hold to numbers of the original, and its checkpoints become instruments."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden import hashed
from tensorflow_bundles import write
from torch import Tensor

import fastvoc
from fastvoc.audio.instantaneous_frequency import NoteSpectrum, denormalise, normalise
from fastvoc.checkpoints import InstrumentConfig, open_checkpoint
from fastvoc.models import GANSynth, GANSynthConfig
from fastvoc.models.discriminators.note import NoteDiscriminator
from fastvoc.models.gansynth import Convolution, doubled

SMALL = GANSynthConfig(latent=8, pitches=4, lowest_pitch=60, first=(2, 4), channels=(16, 8, 8, 4))

G = "Generator/progressive_gan_generator/progressive_gan_block_"
D = "Discriminator/progressive_gan_discriminator/progressive_gan_block_"
CLASSES = "Discriminator/discriminator_cond/classification_logits"


def layers(generator: GANSynth, discriminator: NoteDiscriminator) -> dict[str, Convolution]:
    """Our layers by the original's names."""
    found: dict[str, Convolution] = {}
    for n, block in enumerate(generator.blocks, start=1):
        found |= {f"{G}{n}/conv0": block.conv0, f"{G}{n}/conv1": block.conv1, f"{G}{n}/to_rgb": block.to_picture}
    for n, part in enumerate([discriminator.last, *discriminator.narrowing], start=1):
        found |= {f"{D}{n}/conv0": part.conv0, f"{D}{n}/conv1": part.conv1, f"{D}{n}/from_rgb": part.from_picture}
    return found | {f"{D}1/logits": discriminator.last.score, CLASSES: discriminator.last.pitch}


def variables(found: dict[str, Convolution]) -> dict[str, Tensor]:
    """Values of the original's variables, which their places among the sorted names fill."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in found.items():
        outputs, inputs, high, wide = layer.weight.shape
        dense = name.endswith("logits")
        shapes[f"{name}/{'dense' if dense else 'conv2d'}/kernel"] = (
            (inputs, outputs) if dense else (high, wide, inputs, outputs)
        )
        shapes[f"{name}/bias"] = (outputs,)
    values = {}
    for place, name in enumerate(sorted(f"{name}:0" for name in shapes)):
        shape = shapes[name.removesuffix(":0")]
        scale = 0.1 if name.endswith("bias:0") else math.sqrt(3)
        values[name.removesuffix(":0")] = (scale * hashed(math.prod(shape), place)).reshape(shape).float()
    return values


def fill(found: dict[str, Convolution], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, layer in found.items():
            kernel = values.get(f"{name}/conv2d/kernel", values.get(f"{name}/dense/kernel"))
            assert kernel is not None and layer.bias is not None
            kernel = kernel.reshape(*kernel.shape[:-2], *kernel.shape[-2:])
            kernel = kernel[None, None] if kernel.ndim == 2 else kernel
            layer.weight.copy_(kernel.permute(3, 2, 0, 1) * layer.deviation)
            layer.bias.copy_(values[f"{name}/bias"])


GOLDEN = {
    6.0: ((6.369635, 10.9407, 0.9626127, 0.3349333, 10.62543, 1.176967), (0.1298897, 0.132097)),
    4.3: ((-2.538916, -6.542371, 0.5715786, 0.5215265, -10.85057, -0.8481925), (0.09602839, 0.1009592)),
}


@pytest.mark.parametrize("progress", [6.0, 4.3])
def test_networks_make_the_originals_numbers(progress: float) -> None:
    config = GANSynthConfig(progress=progress)
    generator, discriminator = config.build(), NoteDiscriminator(config)
    found = layers(generator, discriminator)
    fill(found, variables(found))
    latent = (2 * hashed(512, 980)).reshape(2, 256).float()
    image = torch.stack([3 * hashed(262144, 981) - 5, hashed(262144, 982)], dim=-1).reshape(2, 128, 1024, 2).float()
    with torch.no_grad():
        made = denormalise(generator(latent, torch.tensor([3, 40])).permute(0, 2, 3, 1))
        scores, logits = discriminator(normalise(image).permute(0, 3, 1, 2))
    expected, judged = GOLDEN[progress]
    assert made.shape == (2, 128, 1024, 2) and logits.shape == (2, 61)
    flat = made.flatten()
    got = torch.stack([flat.mean(), *flat[[0, 1, 7, 100, -1]]])
    # float32 through 14 layers, whose errors denormalisation multiplies by 15
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores, torch.tensor(judged), rtol=1e-4, atol=0)


def test_the_networks_are_of_the_published_size() -> None:
    for first in ((2, 16), (4, 8)):
        config = GANSynthConfig(first=first)
        with torch.device("meta"):
            sizes = [sum(p.numel() for p in net.parameters()) for net in (config.build(), NoteDiscriminator(config))]
        assert sizes == [7_311_246, 6_831_230]
        assert (config.frames, config.bins) == {(2, 16): (128, 1024), (4, 8): (256, 512)}[first]


def test_progress_mixes_the_pictures_of_two_blocks() -> None:
    torch.manual_seed(0)
    generator, discriminator = SMALL.build().double(), NoteDiscriminator(SMALL).double()
    latent, pitch = torch.randn(3, 8, dtype=torch.float64), torch.tensor([0, 1, 3])
    low, mixed, high = (generator(latent, pitch, progress) for progress in (1.0, 1.25, 2.0))
    torch.testing.assert_close(mixed, 0.75 * low + 0.25 * high, rtol=0, atol=1e-14)
    # at a whole number, a picture is no finer than its block
    assert torch.equal(low[:, :, ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3), low)
    scores = [torch.stack([*discriminator(mixed, progress)[0]]) for progress in (1.0, 1.0 + 1e-9)]
    torch.testing.assert_close(*scores, rtol=0, atol=1e-6)
    part = replace(SMALL, progress=1.25)
    assert len(part.build().blocks) == 3
    grown = part.build().double()
    grown.load_state_dict({name: value for name, value in generator.state_dict().items() if name in grown.state_dict()})
    assert torch.equal(grown(latent, pitch), mixed)


def test_four_taps_do_what_nine_do_to_repeated_pixels() -> None:
    x, weight = torch.randn(2, 3, 5, 7, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = torch.nn.functional.conv2d(x.repeat_interleave(2, 2).repeat_interleave(2, 3), weight, padding=1)
    made = torch.nn.functional.conv_transpose2d(x, doubled(weight), stride=2, padding=1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-13)


def test_first_weights_make_outputs_of_one_variance() -> None:
    torch.manual_seed(1)
    conv = Convolution(64, 256, (3, 3))
    out = conv(torch.randn(1, 64, 64, 64))[..., 1:-1, 1:-1]
    assert float(out.detach().var()) == pytest.approx(2, rel=0.1)  # which a ReLU halves
    assert conv.bias is not None and not conv.bias.any()


def test_the_penalty_on_gradients_has_gradients() -> None:
    """Of second order, through every layer of the discriminator."""
    torch.manual_seed(2)
    config = replace(SMALL, channels=(4, 4), latent=4)
    discriminator = NoteDiscriminator(config).double()
    picture = torch.randn(2, 2, config.frames, config.bins, dtype=torch.float64, requires_grad=True)

    def penalty(picture: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(discriminator(picture, 0.6)[0].sum(), picture, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    assert torch.autograd.gradcheck(penalty, picture)


def saved(folder: Path, config: GANSynthConfig, *, averages: bool = True) -> dict[str, Tensor]:
    """Write a run of the original, and return the generator's values."""
    found = layers(config.build(), NoteDiscriminator(config))
    values = variables(found)
    generator = {name: value for name, value in values.items() if name.startswith("Generator")}
    everything = {name: value + 1 if averages and name in generator else value for name, value in values.items()}
    if averages:
        everything |= {f"{name}/ExponentialMovingAverage": value for name, value in generator.items()}
    everything["global_step"] = torch.tensor(11_000_000)
    (folder / "stage_00012").mkdir(parents=True)
    write(folder / "stage_00012" / "model.ckpt-11000000", everything)
    return generator


TINY = GANSynthConfig(latent=3, pitches=61, first=(2, 2), channels=(2, 2, 2, 2, 2, 2, 2))


def settings(folder: Path, **others: object) -> None:
    values = {"data_type": "linear", "latent_vector_size": 3, "audio_length": 6000} | others
    (folder / "experiment.json").write_text(json.dumps(values))


def test_a_run_of_the_original_becomes_an_instrument(tmp_path: Path) -> None:
    saved(tmp_path / "run", TINY)
    settings(tmp_path / "run")
    for place in ("run", "run/stage_00012", "run/stage_00012/model.ckpt-11000000"):
        instrument = fastvoc.open(tmp_path / place)
        assert type(instrument) is fastvoc.Instrument
        assert instrument.source == "GANSynth (Magenta)" and not instrument.config.mel
        assert "moving averages" in " ".join(instrument.notes) and "experiment.json" in " ".join(instrument.notes)
    generator = TINY.build()
    found = layers(generator, NoteDiscriminator(TINY))
    fill(found, variables(found))
    given = instrument.generator.state_dict()
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(given[name], value, rtol=1e-6, atol=0)
    instrument.save_pretrained(tmp_path / "ours")
    again = fastvoc.open(tmp_path / "ours")
    assert torch.equal(again(60), instrument(60)) and again.config == instrument.config


def test_runs_without_averages_or_settings_say_so(tmp_path: Path) -> None:
    saved(tmp_path, replace(TINY, latent=256), averages=False)
    with pytest.raises(ValueError, match="128 frames are too few for 64000 samples"):
        open_checkpoint(tmp_path)  # 128 frames of 128 bins are no 4 s
    settings(tmp_path, latent_vector_size=256, data_type="phase")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config.second == "phase" and "not averaged" in checkpoint.notes[0]
    settings(tmp_path, latent_vector_size=256, data_type="wave")
    with pytest.raises(ValueError, match="makes 'wave', not pictures of notes"):
        open_checkpoint(tmp_path)
    settings(tmp_path, latent_vector_size=400)
    with pytest.raises(ValueError, match="takes 317 numbers; with latent_vector_size 400 no pitches are left"):
        open_checkpoint(tmp_path)


def test_a_network_that_has_not_grown_yet_is_read(tmp_path: Path) -> None:
    saved(tmp_path, replace(TINY, progress=3.0))
    settings(tmp_path)
    config = open_checkpoint(tmp_path).config.generator
    assert config.progress == 3 and config.blocks == 4 and config.frames == 128


def test_what_is_cut_short_is_a_sentence(tmp_path: Path) -> None:
    values = saved(tmp_path / "whole", TINY)
    for name in (f"{G}3/conv0/conv2d/kernel", f"{G}7/conv1/bias", f"{G}1/to_rgb/conv2d/kernel"):
        folder = tmp_path / name.replace("/", "-")
        (folder / "stage_00012").mkdir(parents=True)
        settings(folder)
        write(folder / "stage_00012" / "model.ckpt-1", {key: value for key, value in values.items() if key != name})
        with pytest.raises(ValueError, match=r"cut short|missing|lacks|no block|has no"):
            open_checkpoint(folder)


def test_settings_that_fit_nothing_are_refused() -> None:
    spectrum = NoteSpectrum(samples=100, frames=65536, fft_size=2048, hop=512)
    with pytest.raises(ValueError, match="a picture of 65536 x 1024; no instrument has more than 8388608 pixels"):
        InstrumentConfig(generator=GANSynthConfig(first=(65536, 1024), channels=(1,)), spectrum=spectrum)
    with pytest.raises(ValueError, match="progress 7 is more than 7 blocks have"):
        GANSynthConfig(progress=7)
    with pytest.raises(ValueError, match="go beyond 127"):
        GANSynthConfig(lowest_pitch=100)
