"""Vocoders as files that other engines run: ONNX, in ordinary operators of real numbers."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastvoc import ops
from fastvoc.blocks import IstftHead
from fastvoc.blocks.spectral import SpectralHead
from fastvoc.config import to_dict
from fastvoc.models import Generator
from fastvoc.recurrence import is_recurrent
from fastvoc.writing import complete_file

if TYPE_CHECKING:
    from fastvoc.faces.vocoder import Vocoder

OPSET = 18
"""Of the operators that a file uses; ONNX Runtime has them since version 1.14 and OpenVINO since 2023.0."""


def write_onnx(vocoder: Vocoder, path: str | Path) -> None:
    """Write a vocoder as one ONNX file, which needs neither fastvoc nor PyTorch to run.

    The file has the input ``mel`` of shape (batch, bands, frames), for a conditioned generator also ``condition`` of
    shape (batch, channels), and the output ``wave`` of shape (batch, samples), all in float32; batch and frames are
    free. It computes what ``vocoder(mel)`` does in single precision, with the frames that the original's inference code
    puts around a mel. Its metadata hold ``sample_rate``, ``hop``, ``bands`` and, as JSON, the convention of its mels as
    ``mel``. Inverse transforms are transposed convolutions with sines and cosines, since not every engine has complex
    numbers.

    Parameters
    ----------
    vocoder : Vocoder
        Of any dtype; the file is in single precision, also where the vocoder multiplies in 8 bits.
    path : str or Path
        Replaced when the new file is complete; its folder is made if absent.

    Raises
    ------
    IsADirectoryError
        If there is a folder at `path`.
    ModuleNotFoundError
        Without the packages ``onnx`` and ``onnxscript`` (``pip install 'fastvoc[onnx]'``).
    ValueError
        If the generator has an operation for which there is no operator in ONNX, draws random numbers, or is recurrent.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"export: writing ONNX needs the package {error.name}; run `pip install 'fastvoc[onnx]'`"
        ) from None
    _refuse_unwritable(vocoder.generator)
    if Path(path).is_dir():
        raise IsADirectoryError(f"export: {path} is a folder; name a file in it, such as vocoder.onnx")
    with torch.device("cpu"), torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        model = _written(_Network(vocoder))
    mel_config = vocoder.config.mel
    for key, value in {
        "sample_rate": vocoder.sample_rate,
        "hop": vocoder.hop,
        "bands": mel_config.bands,
        "mel": json.dumps(to_dict(mel_config)),
    }.items():
        model.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(model, full_check=True)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with complete_file(Path(path)) as temporary:
        onnx.save(model, temporary)


def _written(network: _Network) -> Any:
    """Return a network as a program in ONNX, or raise one sentence."""
    generator, frames = network.generator, _FRAMES
    mel = torch.zeros(2, generator.mel_bands, frames, dtype=torch.float32)
    free = torch.export.Dim.DYNAMIC
    arguments: dict[str, Tensor] = {"mel": mel}
    shapes: dict[str, dict[int, Any]] = {"mel": {0: free, 2: free}}
    if generator.condition_channels:
        arguments["condition"] = mel.new_zeros(2, generator.condition_channels)
        shapes["condition"] = {0: free}
    with ops.use_backend("reference"), torch.no_grad(), _quiet():
        try:
            program = torch.onnx.export(
                network,
                kwargs=arguments,
                input_names=list(arguments),
                output_names=["wave"],
                dynamic_shapes=shapes,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
            )
        except Exception as error:  # of many kinds, all of which mean the same
            first: BaseException = error
            while first.__cause__ is not None:
                first = first.__cause__
            reason = next(iter(str(first).split("\n")), "").strip() or type(first).__name__
            raise ValueError(f"export: {type(generator).__name__} cannot be written as ONNX: {reason}") from error
    return program.model_proto  # type: ignore[union-attr]


def _refuse_unwritable(generator: Generator) -> None:
    """Raise one sentence if what `forward` makes of a mel is not what the vocoder makes of it."""
    reason = None
    if is_recurrent(generator):
        reason = "it is recurrent, and makes its waves by `advance`, from a state that the file would have to hand on"
    elif generator.draws is not None:
        reason = "it draws random numbers, of which the file would have to be given those that fastvoc draws"
    if reason is not None:
        raise ValueError(f"export: {type(generator).__name__} cannot be written as ONNX: {reason}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter silent, which warns of its own code, and logs and prints a whole program where it gives up."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_FRAMES = 64
"""Of the example; neither a size of a layer nor one that is treated differently, such as 1."""


class _Network(nn.Module):
    """A generator with the frames around its mels: (B, bands, T) → (B, samples)."""

    def __init__(self, vocoder: Vocoder) -> None:
        super().__init__()
        self.edges = vocoder.config.inference
        self.generator = copy.deepcopy(vocoder.generator).to("cpu", torch.float32).eval()
        for name, module in list(self.generator.named_modules()):
            if isinstance(module, (IstftHead, SpectralHead)):
                parent, _, last = name.rpartition(".")
                setattr(self.generator.get_submodule(parent), last, _RealIstftHead(module))

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        mel = self.edges.extend(mel)
        wave: Tensor = self.generator(mel) if condition is None else self.generator(mel, condition)
        return self.edges.cut(wave[:, 0], self.generator.hop) if self.edges.trimmed else wave[:, 0]


class _RealIstftHead(nn.Module):
    """A head whose inverse transform is a transposed convolution."""

    waves: Tensor
    squares: Tensor

    def __init__(self, head: IstftHead | SpectralHead) -> None:
        super().__init__()
        self.head = head
        self.rate = head.rate
        size = head.fft_size
        window = torch.hann_window(size, dtype=torch.float64)
        # the wave of each bin's real and of its imaginary part; all but the first and the last stand for two
        bins = torch.eye(size // 2 + 1, dtype=torch.complex128)
        waves = torch.cat([torch.fft.irfft(bins, size), torch.fft.irfft(1j * bins, size)]) * window
        self.register_buffer("waves", waves[:, None].float())
        self.register_buffer("squares", window.square()[None, None].float())

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.head.polar(x)
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        wave = F.conv_transpose1d(spectrum, self.waves, stride=self.rate)
        weight = F.conv_transpose1d(torch.ones_like(spectrum[:, :1]), self.squares, stride=self.rate)
        start = self.head.start
        end = wave.shape[-1] - start
        return wave[..., start:end] / weight[..., start:end]
