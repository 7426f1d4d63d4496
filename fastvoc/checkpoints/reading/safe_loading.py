"""The one place that opens foreign files: tensors and plain values come out, or one sentence; code never runs."""

from __future__ import annotations

import io
import pickle
import re
import shlex
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from safetensors.torch import load_file

from fastvoc.checkpoints import foreign_settings
from fastvoc.checkpoints.reading import legacy_modules, tensorflow_bundle
from fastvoc.checkpoints.reading.stand_ins import stand_ins, stands_in_for

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

_LONGEST_HEADER = 1 << 23
"""Bytes of the names and shapes in a safetensors file: those of a hundred thousand tensors."""

_SMALL = 1 << 26
"""Bytes that an archive may hold however small it is."""

_MOST_WISHES = 64
"""Names of objects in one file; a loss with its filter bank has five."""

SETTINGS, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
"""The members of a .nemo archive, and the names that `load` gives to what they hold."""


def load(path: Path) -> Any:
    """Read a file of PyTorch, of either of its layouts, of safetensors, NeMo or TensorFlow, told apart by content.

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
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < 1 << 32:
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path}: is a safetensors file with {length} bytes of names, more than a vocoder has")
        return _load_safetensors(path)
    if head.startswith(b"PK"):
        _check_archive(path, str(path))
        return _load_torch(path, str(path), mmap=True)
    if head.startswith(_LEGACY):
        return _load_torch(path, str(path), mmap=False)
    if tensorflow_bundle.is_index(path):
        return tensorflow_bundle.read(path)
    if head.startswith(b"\x80"):
        raise ValueError(f"{path}: is a Python pickle that PyTorch did not write; opening it could run code")
    if _ONNX.match(head):
        raise ValueError(
            f"{path}: is an ONNX program; fastvoc.open opens those of VITS voices, such as Piper's, and "
            "of others the weights that they were exported from"
        )
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
    bundle = ""
    # a compressed archive can claim any size, but weights hardly become smaller
    largest = max(_SMALL, 16 * path.stat().st_size)
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.offset_data > largest:
                    break
                name = member.name.rpartition("/")[2]
                bundle = bundle or (name if name.endswith(tensorflow_bundle.INDEX) else "")
                if name not in (SETTINGS, WEIGHTS) or not member.isfile() or member.size > largest:
                    continue
                file = archive.extractfile(member)
                if file is not None and name not in content:
                    content[name] = file.read()
    except Exception as error:  # whatever tarfile, gzip and zlib raise for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: is an archive that is damaged or cut short ({reason}); fetch it again") from None
    missing = [name for name in (SETTINGS, WEIGHTS) if name not in content]
    if missing and bundle:
        shown = "".join(character if character.isprintable() else "?" for character in bundle[:80])
        raise ValueError(f"{path}: is an archive of a checkpoint of TensorFlow; unpack it, and open its {shown}")
    if missing:
        raise ValueError(f"{path}: is an archive without {' and '.join(missing)}; of archives fastvoc opens .nemo only")
    settings, where = content[SETTINGS].decode("utf-8", "replace"), f"{path}: {WEIGHTS}"
    weights = io.BytesIO(content[WEIGHTS])
    if content[WEIGHTS].startswith(b"PK"):
        _check_archive(weights, where)
    elif not content[WEIGHTS].startswith(_LEGACY):
        raise ValueError(f"{where}: is not a PyTorch file")
    return {
        SETTINGS: foreign_settings.parse(settings, f"{path}: {SETTINGS}"),
        WEIGHTS: _load_torch(weights, where, mmap=False),
    }


def _check_archive(file: Path | IO[bytes], where: str) -> None:
    try:
        whole = zipfile.is_zipfile(file)
        members = _members(file) if whole else []
    except Exception as error:  # whatever zipfile raises for bytes that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: is damaged or cut short ({reason}); fetch it again") from None
    if not whole:
        raise ValueError(f"{where}: is cut short; the end of its archive is missing, fetch it again")
    names = [member.filename for member in members]
    if not any(name.endswith("/data.pkl") for name in names):
        first = names[0] if names else "nothing"
        raise ValueError(f"{where}: is a zip archive, of {first} and the like, not a PyTorch file")
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{where}: is a TorchScript program; save the state_dict of its module and open that")
    # PyTorch maps what is compressed into memory as it stands, which makes noise of weights
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{where}: is a compressed archive, as PyTorch writes none; save it again with torch.save")
    held = sum(member.file_size for member in members)
    if held > (file.stat().st_size if isinstance(file, Path) else file.seek(0, io.SEEK_END)):
        raise ValueError(f"{where}: is damaged: its members claim {held} bytes, more than the file has; fetch it again")
    if isinstance(file, io.BytesIO):
        file.seek(0)


def _members(file: Path | IO[bytes]) -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(file) as archive:
        return archive.infolist()


def _load_torch(file: Path | IO[bytes], where: str, *, mmap: bool) -> Any:
    """Read tensors and plain values; where other data stand beside them, with `stand_ins` for it."""
    try:
        try:
            return _read_torch(file, mmap=mmap)
        except pickle.UnpicklingError as error:
            wishes = _granted(error, [])
        while True:
            if isinstance(file, io.BytesIO):
                file.seek(0)
            try:
                with stand_ins(wishes):
                    return _read_torch(file, mmap=mmap)
            except pickle.UnpicklingError as error:
                if not mmap and isinstance(file, Path) and "Only persistent_load of storage" in str(error):
                    return legacy_modules.load(file)
                wishes = _granted(error, wishes)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{where}: {_reason(str(error), file)}") from None
    except Exception as error:  # whatever torch.load raises for bytes that end early or make no sense
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: is damaged or cut short ({reason}); fetch it again") from None


def _granted(error: pickle.UnpicklingError, wishes: list[str]) -> list[str]:
    """Return the names that a file may have stand-ins for after an error of PyTorch, or raise it."""
    wish = _wish(str(error))
    if wish is None or wish in wishes or len(wishes) == _MOST_WISHES or not stands_in_for(wish, wishes):
        raise error
    return [*wishes, wish]


def _read_torch(file: Path | IO[bytes], *, mmap: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of torch, about what the owner of a file cannot change
        if isinstance(file, Path) and file.suffix == ".safetensors":  # torch would go by the name, not by content
            return torch.load(io.BytesIO(file.read_bytes()), map_location="cpu", weights_only=True)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)


def _wish(error: str) -> str | None:
    """Name what a pickle wants to call, as the error of PyTorch does."""
    found = re.search(r"GLOBAL ([\w.]+)", error)
    return found[1] if found else None


def _reason(error: str, file: Path | IO[bytes]) -> str:
    wish = _wish(error)
    if wish is None and not any(word in error for word in ("nsupported", "Can only", "unrecognized function")):
        return f"is damaged ({error.splitlines()[-1] if error else 'no reason given'}); fetch it again"
    said = f"wants to run {wish or 'code'} while it is opened; fastvoc reads tensors only, and plain data beside them"
    if not isinstance(file, Path):
        return f"{said}, save the state_dict of the generator alone"
    names = [shlex.quote(name) for name in (file.name, f"plain-{file.stem}.pt")]
    return f"{said}. Where you trust it, run once where its code is installed: {RESAVE} {' '.join(names)}"


RESAVE = (
    'python -c "import sys, torch; k = lambda v: {n: k(w) for n, w in v.items() if isinstance(w, (dict, str, int, '
    "float, torch.Tensor))} if isinstance(v, dict) else v; c = torch.load(sys.argv[1], 'cpu', weights_only=False); "
    "torch.save(k(c.state_dict() if hasattr(c, 'state_dict') else c), sys.argv[2])\""
)
"""A command that keeps the tensors and plain values of a file; the names of the file and of the result follow."""
