"""The one place that opens foreign files: tensors and plain values come out, or one sentence; code never runs."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file

# The first bytes of what people hand over instead of a checkpoint.
_NOT_WEIGHTS = (
    (b"version https://git-lfs", "is the pointer that Git LFS leaves in place of a large file; run: git lfs pull"),
    (b"\x89HDF", "is an HDF5 file, perhaps of Keras; fastvoc does not open those yet"),
    (b"\x1f\x8b", "is a compressed archive, perhaps a .nemo or .tar.gz; fastvoc does not open those yet"),
    (b"RIFF", "is a sound file, not weights"),
)


# A pickled number opens every PyTorch file that is not a zip archive.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


def load(path: Path) -> Any:
    """Read a file of PyTorch, of either of its layouts, or of safetensors, told apart by content.

    Returns
    -------
    object
        Dictionaries, lists and scalars around tensors on the CPU.

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
    if head[257:262] == b"ustar":
        raise ValueError(f"{path}: is a tar archive, perhaps a .nemo; fastvoc does not open those yet")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return _load_safetensors(path)
    if head.startswith(b"PK"):
        _check_archive(path)
        return _load_torch(path, mmap=True)
    if head.startswith(_LEGACY):
        return _load_torch(path, mmap=False)
    if head.startswith(b"\x80"):
        raise ValueError(f"{path}: is a Python pickle that PyTorch did not write; opening it could run code")
    raise ValueError(f"{path}: is neither a PyTorch nor a safetensors file")


def _load_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path}: is a safetensors file that is damaged or cut short ({error}); fetch it again"
        ) from None


def _check_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is cut short; the end of its archive is missing, fetch it again")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.endswith("/data.pkl") for name in names):
        first = names[0] if names else "nothing"
        raise ValueError(f"{path}: is a zip archive, of {first} and the like, not a PyTorch file")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{path}: is a TorchScript program; save the state_dict of its module and open that")


def _load_torch(path: Path, *, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {_reason(str(error))}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        # what torch.load raises for bytes that end early or make no sense
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: is damaged or cut short ({reason}); fetch it again") from None


def _reason(error: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", error)
    wish = f"wants to run {code[1]}" if code else "wants to run code"
    return f"{wish} while it is opened; fastvoc reads tensors only, save the state_dict of the generator alone"
