"""The one place that opens foreign files: tensors and plain values come out, or one sentence; code never runs."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file

from fastvoc.checkpoints import _plain

# The first bytes of what people hand over instead of a checkpoint.
_NOT_WEIGHTS = (
    (b"version https://git-lfs", "is the pointer that Git LFS leaves in place of a large file; run: git lfs pull"),
    (
        b"\x89HDF",
        "is an HDF5 file, as Keras and TensorFlowTTS write for weights and ParallelWaveGAN for statistics; "
        "fastvoc opens the weights of PyTorch",
    ),
    (b"RIFF", "is a sound file, not weights"),
    (b"\x93NUMPY", "is a NumPy array, such as a mel or statistics, not weights"),
    (b"PAR1", "is a Parquet file, not weights"),
    (b"GGUF", "is a GGUF file; fastvoc opens the weights of PyTorch, before their conversion"),
    (b"\x1c\x00\x00\x00TFL3", "is a TensorFlow Lite program; fastvoc opens the weights of PyTorch"),
)

# A pickled number opens every PyTorch file that is not a zip archive.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"

# The number of a version, then the length of a producer's name: the first two fields of every ONNX exporter.
_ONNX = re.compile(rb"\x08[\x01-\x20]\x12[\x01-\x40][\w .-]", re.DOTALL)

SETTINGS, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
"""The members of a .nemo archive, and the names that `load` gives to what they hold."""


def load(path: Path) -> Any:
    """Read a file of PyTorch, of either of its layouts, of safetensors or of NeMo, told apart by content.

    Returns
    -------
    object
        Dictionaries, lists and scalars around tensors on the CPU; of NeMo's archive a dictionary of its two members.

    Raises
    ------
    ValueError
        One sentence, if the file is empty, cut short, of another kind, or would need code to run.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ValueError(f"{path}: is empty; it was probably not written to its end")
    for start, sentence in _NOT_WEIGHTS:
        if head.startswith(start):
            raise ValueError(f"{path}: {sentence}")
    if head.lstrip()[:1] == b"<":
        raise ValueError(f"{path}: is a web page, not weights; its download probably asked for a confirmation")
    if head[257:262] == b"ustar" or head.startswith(b"\x1f\x8b"):
        return _load_nemo(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return _load_safetensors(path)
    if head.startswith(b"PK"):
        _check_archive(path, str(path))
        return _load_torch(path, str(path), mmap=True)
    if head.startswith(_LEGACY):
        return _load_torch(path, str(path), mmap=False)
    if head.startswith(b"\x80"):
        raise ValueError(f"{path}: is a Python pickle that PyTorch did not write; opening it could run code")
    if _ONNX.match(head):
        raise ValueError(f"{path}: is an ONNX program; fastvoc opens the weights that it was exported from")
    raise ValueError(f"{path}: is neither a PyTorch nor a safetensors file")


def _load_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: is a safetensors file that is damaged or cut short ({reason}); fetch it again"
        ) from None


def _load_nemo(path: Path) -> dict[str, Any]:
    """Read the two members in memory: no name in the archive becomes a path."""
    content: dict[str, Any] = {}
    # a compressed archive can claim any size; no compression of gzip exceeds 1032 to 1
    largest = 1032 * path.stat().st_size
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name not in (SETTINGS, WEIGHTS) or not member.isfile() or member.size > largest:
                    continue
                file = archive.extractfile(member)
                if file is not None and name not in content:
                    content[name] = file.read()
    except Exception as error:  # whatever tarfile, gzip and zlib raise for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is an archive that is damaged or cut short ({reason}); fetch it again") from None
    missing = [name for name in (SETTINGS, WEIGHTS) if name not in content]
    if missing:
        raise ValueError(f"{path}: is an archive without {' and '.join(missing)}; of archives fastvoc opens .nemo only")
    settings, where = content[SETTINGS].decode("utf-8", "replace"), f"{path}: {WEIGHTS}"
    weights = io.BytesIO(content[WEIGHTS])
    if content[WEIGHTS].startswith(b"PK"):
        _check_archive(weights, where)
    elif not content[WEIGHTS].startswith(_LEGACY):
        raise ValueError(f"{where}: is not a PyTorch file")
    return {
        SETTINGS: _plain.parse(settings, f"{path}: {SETTINGS}"),
        WEIGHTS: _load_torch(weights, where, mmap=False),
    }


def _check_archive(file: Path | IO[bytes], where: str) -> None:
    try:
        whole = zipfile.is_zipfile(file)
        names = _names(file) if whole else []
    except Exception as error:  # whatever zipfile raises for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: is damaged or cut short ({reason}); fetch it again") from None
    if not whole:
        raise ValueError(f"{where}: is cut short; the end of its archive is missing, fetch it again")
    if isinstance(file, io.BytesIO):
        file.seek(0)
    if not any(name.endswith("/data.pkl") for name in names):
        first = names[0] if names else "nothing"
        raise ValueError(f"{where}: is a zip archive, of {first} and the like, not a PyTorch file")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{where}: is a TorchScript program; save the state_dict of its module and open that")


def _names(file: Path | IO[bytes]) -> list[str]:
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _load_torch(file: Path | IO[bytes], where: str, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, about what the owner of a file cannot change
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where}: {_reason(str(error))}") from None
    except Exception as error:  # whatever torch.load raises for bytes that end early or make no sense
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: is damaged or cut short ({reason}); fetch it again") from None


def _reason(error: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", error)
    if code is None and "nsupported" not in error:
        return f"is damaged ({error.splitlines()[-1] if error else 'no reason given'}); fetch it again"
    wish = f"wants to run {code[1]}" if code else "wants to run code"
    return f"{wish} while it is opened; fastvoc reads tensors only, save the state_dict of the generator alone"
