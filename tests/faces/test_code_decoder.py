"""Vocos of the codes of EnCodec: files of the original's layout, sums of vectors, bandwidths, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from golden import hashed
from test_vocos import filled, original_shapes, settings_of, values
from torch import Tensor

import fastvoc
from fastvoc import CodeDecoder, Vocoder
from fastvoc.checkpoints import open_checkpoint
from fastvoc.models import CodeVocosConfig, VocosConfig
from fastvoc.models.vocos import CODES_ENCODEC_24K

# the sizes that EnCodec gives: 10 bits a code, 75 frames a second
SMALL = VocosConfig(mel_bands=12, channels=32, hidden=96, blocks=3, fft_size=640, hop=320, padding="same", bandwidths=4)
BOOKS = hashed(16 * 1024 * 12, 990).reshape(16, 1024, 12)
CODES = (hashed(16 * 20, 989).reshape(16, 20) * 512 + 512).long()


def folder(place: Path, config: VocosConfig = SMALL, books: Tensor = BOOKS, **changes: Any) -> Path:
    settings = settings_of(config)
    settings["feature_extractor"] = {
        "class_path": "vocos.feature_extractors.EncodecFeatures",
        "init_args": {"encodec_model": "encodec_24khz", "bandwidths": [1.5, 3.0, 6.0, 12.0], "train_codebooks": True}
        | changes,
    }
    settings["backbone"]["init_args"]["adanorm_num_embeddings"] = 4
    state = {name: tensor.float() for name, tensor in values(original_shapes(config)).items()}
    state["head.istft.window"] = torch.hann_window(config.fft_size)
    state["feature_extractor.codebook_weights"] = books.float().flatten(0, 1)
    state["feature_extractor.encodec.decoder.model.0.conv.conv.bias"] = torch.zeros(3)
    torch.save(state, place / "pytorch_model.bin")
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    return place


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_codes_become_the_wave_of_the_sums_of_their_vectors(tmp_path: Path, count: int) -> None:
    decoder = fastvoc.open(folder(tmp_path))
    assert isinstance(decoder, CodeDecoder) and decoder.codebooks == (2, 4, 8, 16)
    codes = CODES[:count]
    sums = torch.stack([BOOKS[k, codes[k]] for k in range(count)]).sum(0).T  # (width, T)
    torch.testing.assert_close(decoder.features(codes).double(), sums, rtol=0, atol=1e-5)
    bandwidth = (2, 4, 8, 16).index(count)
    with torch.no_grad():
        expected = filled(replace(SMALL, bandwidth=bandwidth))(sums[None])[0, 0]
    wave = decoder(codes)
    assert wave.shape == (20 * 320,)
    torch.testing.assert_close(wave.double(), expected, rtol=0, atol=2e-5)
    if count > 2:
        other = filled(replace(SMALL, bandwidth=0))(sums[None])[0, 0]
        assert float((other - expected).abs().max()) > 1e-3  # each bandwidth has norms of its own


def test_batches_arrays_and_streams(tmp_path: Path) -> None:
    decoder = fastvoc.open(folder(tmp_path))
    batch = torch.stack([CODES[:8], CODES[8:]])
    waves = decoder(batch)
    for wave, codes in zip(waves, batch, strict=True):
        torch.testing.assert_close(decoder(codes), wave, rtol=0, atol=1e-6)
    for kind in (np.int16, np.uint16, np.uint64, ">u2"):  # files have them so
        array = decoder(CODES[:8].numpy().astype(kind))
        assert isinstance(array, np.ndarray) and np.array_equal(array, decoder(CODES[:8]).numpy())
    vocoder = decoder.vocoder(8)
    assert isinstance(vocoder, Vocoder) and decoder.vocoder(8) is vocoder
    sums = decoder.features(batch)
    for item, codes in zip(sums, batch, strict=True):
        parts = [decoder.features(part) for part in codes.split([3, 1, 16], dim=-1)]
        assert torch.equal(torch.cat(parts, dim=-1), item)
    streamer = vocoder.streamer()
    pieces = [streamer.push(part) for part in decoder.features(CODES[:8]).split(3, dim=-1)]
    whole = torch.cat([*pieces, streamer.flush()], dim=-1).flatten()
    torch.testing.assert_close(whole, decoder(CODES[:8]), rtol=0, atol=1e-6)


def test_it_is_saved_and_sees_new_weights(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    decoder = fastvoc.open(folder(tmp_path / "theirs"))
    decoder.save_pretrained(tmp_path / "ours")
    again = fastvoc.open(tmp_path / "ours")
    assert isinstance(again, CodeDecoder) and again.config == decoder.config
    before = again(CODES[:4])
    assert torch.equal(before, decoder(CODES[:4]))
    with torch.no_grad():
        again.generator.decoder.head.conv.bias.add_(0.5)
    assert float((again(CODES[:4]) - before).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="which is for CodeDecoder"):
        Vocoder.from_pretrained(tmp_path / "ours")


def test_the_published_size() -> None:
    network = CODES_ENCODEC_24K.build()
    assert network.codebooks.shape == (16, 1024, 128)
    assert sum(p.numel() for p in network.decoder.parameters()) == 7_984_258
    assert network.decoder.hop == CODES_ENCODEC_24K.hop == 320


# fmt: off
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "rows": (CODES[:3], ValueError, r"shape \(3, 20\); they must be .* with 2, 4, 8, 16 codebooks"),
    "one row": (CODES[0], ValueError, r"shape \(20,\)"),
    "no frames": (CODES[:2, :0], ValueError, "have no frames"),
    "too large": (CODES[:2] + 1000, ValueError, "they count from 0 to 1023"),
    "negative": (CODES[:2] - 2000, ValueError, r"codes hold -\d+; they count from 0"),
    "floats": (CODES[:2].float(), TypeError, r"codes are torch.float32; they must be integers"),
}
# fmt: on


def test_what_is_no_code_is_one_sentence(tmp_path: Path) -> None:
    decoder = fastvoc.open(folder(tmp_path))
    for codes, kind, sentence in REFUSED.values():
        with pytest.raises(kind, match=sentence):
            decoder(codes)
    with pytest.raises(ValueError, match="codes of 5 codebooks; of this network they have 2, 4, 8, 16"):
        decoder.vocoder(5)


def test_files_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes the codes of encodec_48khz; fastvoc decodes those of encodec_24khz"):
        open_checkpoint(folder(tmp_path, encodec_model="encodec_48khz"))
    with pytest.raises(ValueError, match=r"bandwidths \[1.5, 3.1, 6.0, 12.0\] are not of whole codebooks"):
        open_checkpoint(folder(tmp_path, bandwidths=[1.5, 3.1, 6.0, 12.0]))
    with pytest.raises(ValueError, match="are of 2 bandwidths but the decoder has norms of 4"):
        open_checkpoint(folder(tmp_path, bandwidths=[1.5, 12.0]))
    with pytest.raises(ValueError, match=r"codebook_weights has shape \(8192, 12\); the settings need \(16384, 12\)"):
        open_checkpoint(folder(tmp_path, books=BOOKS[:8]))
    with pytest.raises(ValueError, match=r"\(4, 2\) do not ascend"):
        CodeVocosConfig(decoder=replace(SMALL, bandwidths=2), codebooks=(4, 2))
    with pytest.raises(ValueError, match="the codes say it, so it is 0 here"):
        CodeVocosConfig(decoder=replace(SMALL, bandwidth=1))
