"""What stands beside weights in a pickle and is only data: numbers of NumPy, paths, arguments, dates.

Their classes are never touched: each name is given a stand-in of ours, which takes whatever it is called with and runs
nothing. Numbers keep their values, dictionaries and lists their content; all else becomes `Inert`.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_FORMATS = {
    **{f"i{size}": code for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))},
    **{f"u{size}": code for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))},
    **{f"f{size}": code for size, code in ((2, "e"), (4, "f"), (8, "d"))},
    "b1": "?",
}
"""Codes of NumPy's dtypes, and those of `struct`."""


class Inert:
    """Something that a pickle holds and fastvoc does not read."""

    def __init__(self, *ignored: Any, **more: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Take no state."""

    def __repr__(self) -> str:
        """Say that it is nothing that settings hold."""
        return "an object that is not read"


class Dtype(Inert):
    """The kind of a number of NumPy."""

    code, order = "", "<"

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.code = arguments[0] if arguments and isinstance(arguments[0], str) else ""

    def __setstate__(self, state: Any) -> None:
        """Take the order of bytes, and nothing else."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


_MOST_TENSORS = 1 << 16
"""In a module with all that are inside it."""


class Module(dict[str, Any]):
    """The tensors of a pickled module and of those inside it, by the names of its ``state_dict``."""

    dump_patches = False  # which ``torch.load`` asks of the class of a module in the older of its two layouts

    def __init__(self, *ignored: Any, **more: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Take tensors, and those of modules; nothing else, such as hooks."""
        if not isinstance(state, dict):
            return
        for place in ("_parameters", "_buffers"):
            tensors = state.get(place)
            for name, tensor in tensors.items() if isinstance(tensors, dict) else ():
                if isinstance(tensor, torch.Tensor):
                    self[str(name)] = tensor
        modules = state.get("_modules")
        for name, module in modules.items() if isinstance(modules, dict) else ():
            if isinstance(module, Module) and module is not self:
                if len(self) + len(module) > _MOST_TENSORS:  # a module within itself over and over
                    raise ValueError(f"a module holds more than {_MOST_TENSORS} tensors; no vocoder does")
                self.update({f"{name}.{inner}": tensor for inner, tensor in module.items()})


def scalar(*arguments: Any) -> Any:
    """Return a number of NumPy as one of Python, or `Inert`."""
    kind, data = arguments if len(arguments) == 2 else (None, None)
    code = _FORMATS.get(kind.code) if isinstance(kind, Dtype) else None
    if code is None or not isinstance(data, bytes) or len(data) != struct.calcsize(code):
        return Inert()
    return struct.unpack(f"{kind.order}{code}", data)[0]  # type: ignore[union-attr]


def dictionary(*ignored: Any) -> dict[Any, Any]:
    """Return an empty dictionary, whatever its default was to be."""
    return {}


def sequence(*arguments: Any) -> list[Any]:
    """Return the items of a list or a tuple as a list."""
    items = arguments[0] if arguments else ()
    return list(items) if type(items) in (list, tuple) else []


STAND_INS: dict[str, Callable[..., Any]] = {
    **{f"numpy.{core}.multiarray.scalar": scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": Inert for core in ("core", "_core")},
    "numpy.dtype": Dtype,
    "numpy.ndarray": Inert,
    "collections.defaultdict": dictionary,
    "collections.deque": sequence,
    # what a defaultdict is made with
    **{f"builtins.{name}": Inert for name in ("bool", "dict", "float", "int", "list", "str", "tuple")},
    # WaveGlow as NVIDIA/waveglow saves it, in the names of two versions of its code
    **{f"{file}.{name}": Module for file in ("glow", "glow_old") for name in ("WaveGlow", "WN", "Invertible1x1Conv")},
    **{f"torch.nn.modules.conv.{name}": Module for name in ("Conv1d", "ConvTranspose1d")},
    "torch.nn.modules.container.ModuleList": Module,
    # NVIDIA/nv-wavenet
    **{f"wavenet.{name}": Module for name in ("WaveNet", "Conv")},
    "torch.nn.modules.sparse.Embedding": Module,
    "torch.nn.utils.weight_norm.WeightNorm": Inert,
    "torch.nn.backends.thnn._get_thnn_function_backend": Inert,
    "argparse.Namespace": Inert,
    "types.SimpleNamespace": Inert,
    **{f"datetime.{name}": Inert for name in ("date", "datetime", "time", "timedelta", "timezone")},
    **{
        f"{module}.{flavour}{name}": Inert
        for module in ("pathlib", "pathlib._local")
        for flavour in ("", "Pure", "Posix", "PurePosix", "Windows", "PureWindows")
        for name in ("Path",)
    },
}
"""Names in a pickle, and what is called in their place."""

_lock = threading.Lock()


MODULES = ("vocos.", "torchaudio.transforms.", "torch.nn.modules.")
"""Beginnings of the names of networks that Lightning keeps as objects among the settings of a training, such as a loss
with its filter bank; those of the first two projects may hold the third's."""


def stands_in_for(name: str, others: Collection[str] = ()) -> bool:
    """Whether there is a stand-in for a name as errors of PyTorch write it, which leave out ``builtins``.

    Parameters
    ----------
    name : str
    others : collection of str
        Names that stand-ins were made for in the same file.
    """
    if name in STAND_INS or f"builtins.{name}" in STAND_INS or name.startswith(MODULES[:2]):
        return True
    # a network alone, as PyTorch pickles one that is saved whole, is no data beside weights
    return name.startswith(MODULES[2]) and any(other.startswith(MODULES[:2]) for other in others)


@contextmanager
def stand_ins(others: Collection[str] = ()) -> Iterator[None]:
    """Let ``torch.load`` with ``weights_only=True`` call the stand-ins.

    PyTorch knows such names for the whole process, so this is one thread at a time, and as short as it can be.

    Parameters
    ----------
    others : collection of str
        Names beyond those of `STAND_INS` for which there is to be something inert.
    """
    # names of classes that have to be different ones, since PyTorch looks names up by class too
    inert = [(type("Inert", (Inert,), {}), name) for name in others if name.startswith(MODULES)]
    known = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    with _lock, torch.serialization.safe_globals([*known, *inert]):
        yield
