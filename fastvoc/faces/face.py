"""A network with its settings, held for one kind of use: what `Vocoder` is, and what faces of other networks are."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from typing_extensions import Self

from fastvoc import ops
from fastvoc.checkpoints import Checkpoint, save_native
from fastvoc.checkpoints.formats.native import SOURCE, open_native, settings_of
from fastvoc.checkpoints.reading import hub
from fastvoc.checkpoints.tensor_names import Undrawn
from fastvoc.config import Kinds
from fastvoc.device import read_device, read_dtype
from fastvoc.engine import WeightVersion
from fastvoc.engine.surroundings import remember_threads
from fastvoc.models import Generator

DEFAULT = "default"
"""The name of the vocoder that comes with the package."""

INSTRUMENT = "instrument"
"""The name of the instrument that comes with the package."""

INCLUDED = {DEFAULT: "assets", INSTRUMENT: "assets/instrument"}
"""Where in the package those lie that come with it, by their names."""


Network = TypeVar("Network", bound=torch.nn.Module)


class Face(Generic[Network]):
    """A network and its settings, on a device and in a dtype.

    A subclass adds what its networks are called with. It names the class of its settings and the networks that it
    serves, and is registered with `register`; `fastvoc.open` then returns it for a folder of one of them.

    Parameters
    ----------
    checkpoint : Checkpoint
        Settings and weights.
    device : str or torch.device
        As in `Vocoder`.
    dtype : torch.dtype or str, optional
        Of weights and arithmetic, or its name; by default torch.float32.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        On which every operator is to run; by default the fastest that can.

    Attributes
    ----------
    config : object
        The settings; of the class that the subclass names.
    source : str
        The format of the file that it came from.
    notes : tuple of str
        What a reader of the original should know.
    """

    CONFIG: ClassVar[Any]
    """Class of its settings, made by `fastvoc.config.config`, with a field `generator`."""

    GENERATORS: ClassVar[Kinds]
    """Settings that this field may hold, each with `kind` and `build()`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> None:
        name = type(self).__name__
        self.config: Any = checkpoint.config
        self.source = checkpoint.source
        self.notes = checkpoint.notes
        self.backend = None if backend is None else ops.known_backend(backend, name)
        self._asked = None if dtype is None else read_dtype(dtype, name)
        remember_threads()
        # weights made in inference mode could never be moved or trained outside of it
        with torch.inference_mode(False):
            with torch.device("cpu"), Undrawn():
                generator: Any = checkpoint.config.generator.build()
            # the dtype comes first, so that no weight passes through a narrower one
            if checkpoint.owned:
                generator.load_state_dict(checkpoint.weights, assign=True)
            generator.to(self._read_device(device), self._asked or torch.float32)
            if not checkpoint.owned:
                generator.load_state_dict(checkpoint.weights)
        self._version = WeightVersion(generator, exposed=False)
        self._take(generator.requires_grad_(False).eval())

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        backend: str | None = None,
    ) -> Self:
        """Open a folder that `save_pretrained` has written.

        Parameters
        ----------
        path : str or Path
            The folder, or the file of weights in it.
        config : str or Path, optional
            The settings, where they do not lie beside the weights.
        device, dtype, backend
            As in the class.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ValueError
            If it holds something else; the message says what.
        """
        where, settings = locate(path), None if config is None else Path(config)
        right, kind = face_of(where, settings), _kind(where, settings)
        if right is not None and kind in right.GENERATORS:
            cls._refuse(path, kind, right)
        with torch.inference_mode(False):
            checkpoint = cls._open(where, settings)
        if (right := face_for(checkpoint)) is not None:
            cls._refuse(path, checkpoint.config.generator.kind, right)
        # a format that somebody has added may hand over what is mapped or kept elsewhere
        checkpoint = replace(checkpoint, owned=checkpoint.source == SOURCE)
        return cls(checkpoint, device=device, dtype=dtype, backend=backend)

    @classmethod
    def _refuse(cls, path: str | Path, kind: Any, right: type[Face[Any]]) -> None:
        """Raise if a network is for another face."""
        if not issubclass(cls, right):
            raise ValueError(
                f"{cls.__name__}: {path} holds {kind!r}, which is for {right.__name__}; fastvoc.open opens it"
            )

    @classmethod
    def opens(cls, path: Path, config: Path | None = None) -> bool:
        """Whether what is at a path is for this face; by default, a folder of fastvoc says so by its `kind`."""
        return _kind(path, config) in cls.GENERATORS

    @classmethod
    def _open(cls, path: Path, config: Path | None) -> Checkpoint:
        return open_native(path, config, kind=cls.CONFIG)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, from which `from_pretrained` makes an equal one.

        Each file is written under a temporary name and renamed when complete.

        Raises
        ------
        ValueError
            If the folder holds a `config.json` of another project, without which its weights cannot be opened.
        """
        where = f"{type(self).__name__}.save_pretrained"
        self._check_described(where)
        weights = {name: value.cpu() for name, value in self._generator.state_dict().items()}
        with torch.device("meta"):
            expected = self.config.generator.build().state_dict()
        if {name: value.shape for name, value in weights.items()} != {n: v.shape for n, v in expected.items()}:
            raise ValueError(
                f"{where}: the generator's weights are not those of config.generator; remove what was put into it, "
                "such as weight norm, or save its state_dict yourself"
            )
        save_native(Path(folder), self._saved_config(), weights)

    def _saved_config(self) -> Any:
        return self.config

    def _check_described(self, where: str) -> None:
        """Raise if what is built from the configuration would be another network, though weights of it may fit."""
        if getattr(self._generator, "config", None) != self.config.generator:
            raise ValueError(
                f"{where}: the generator is another network than config.generator describes; make a "
                f"{type(self).__name__} of a Checkpoint with its configuration and weights"
            )

    def _take(self, generator: Network) -> None:
        """Hold a network that is new, or elsewhere than before; subclasses prepare here how it is run."""
        self._generator = generator

    def _check_fits(self, generator: Any) -> None:
        """Raise if a network cannot be put in the place of the present one."""
        if not isinstance(generator, torch.nn.Module):
            raise TypeError(
                f"{type(self).__name__}: generator is a {type(generator).__name__}; it must be a torch.nn.Module"
            )

    @property
    def generator(self) -> Network:
        """The network, whose weights and modules may be changed; the next call runs it as it is then.

        What PyTorch counts is noticed, and so are steps of optimisers, other modules, hooks, and on a CPU most of what
        is written through ``.data``. Call `refresh` after anything else: single values written through ``.data``, any
        write through it on a GPU, a CUDA graph of a training step, another setting of a module.

        Another network that is called alike may be put in its place; of a vocoder, one of the same bands and hop.
        """
        self._version.expose()
        return self._generator

    @generator.setter
    def generator(self, generator: Network) -> None:
        self._check_fits(generator)
        self._take(generator)
        self._version.replace(generator)
        self._version.expose()

    def refresh(self) -> None:
        """Take the weights as changed, where nothing could have noticed it; see `generator`."""
        self._version.refresh()
        if isinstance(self._generator, Generator):
            self._generator.forget()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._weight.dtype

    @property
    def _weight(self) -> torch.Tensor:
        weight: torch.Tensor = next(self._generator.parameters())
        return weight

    @property
    def _changed(self) -> bool:
        """Whether the network is another one than that of the checkpoint."""
        return False

    def to(
        self, device: str | torch.device | torch.dtype | None = None, dtype: torch.dtype | str | None = None
    ) -> Self:
        """Move to another device or dtype, in place.

        Parameters
        ----------
        device : str, torch.device or torch.dtype, optional
            A dtype alone may stand in its place, as in ``module.to(torch.float16)``.
        dtype : torch.dtype or str, optional
            As in the class.

        Returns
        -------
        Face
            This one.
        """
        if isinstance(device, torch.dtype) and dtype is None:
            device, dtype = None, device
        where = self.device if device is None else self._read_device(device)
        if dtype is not None:
            self._asked = read_dtype(dtype, type(self).__name__)
        changed = self._changed
        with torch.inference_mode(False):
            self.generator = self.generator.to(where, self._asked or self.dtype)
        if not changed:
            self._take(self._generator)  # the same one, elsewhere
        return self

    def half(self) -> Self:
        """Move to torch.float16, in place, as `to` does."""
        return self.to(dtype=torch.float16)

    def float(self) -> Self:
        """Move to torch.float32, in place, as `to` does."""
        return self.to(dtype=torch.float32)

    def eval(self) -> Self:
        """Put the network into the mode in which it is run, which it is in unless somebody trains it."""
        self._generator.eval()
        return self

    def _read_device(self, device: Any) -> torch.device:
        return read_device(device, f"{type(self).__name__}: device {str(device)!r}")

    def __copy__(self) -> Self:
        """Return one of the same network, in which another may be put in its place."""
        self._version.expose()
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._version = WeightVersion(self._generator)
        other._take(self._generator)
        return other

    def __repr__(self) -> str:
        facts = [self.config.generator.kind, *self._facts(), f"{self.dtype} on {self.device}"]
        described = ", ".join([*facts, *([f"runs by {runs}"] if (runs := self._runs()) else [])])
        return f"{type(self).__name__}({described})"

    def _facts(self) -> list[str]:
        """Say what it takes and makes, for `repr`."""
        return []

    def _runs(self) -> str | None:
        """Say what runs it, for `repr`, or None where there is no choice."""
        return None


AnyFace = TypeVar("AnyFace", bound="type[Face[Any]]")

_FACES: list[type[Face[Any]]] = []


def register(face: AnyFace) -> AnyFace:
    """Let `fastvoc.open` return a subclass of `Face` for the networks that its `GENERATORS` list, now or later."""
    _FACES.append(face)
    return face


def locate(path: str | Path) -> Path:
    """Return where a network lies: a path itself, what the hub has of its name, or one that comes with the package."""
    if (included := INCLUDED.get(str(path))) is not None and not Path(path).exists():
        return Path(str(files("fastvoc") / included))
    return hub.fetch(str(path)) if hub.is_name(path) else Path(path)


def face_of(path: Path, config: Path | None = None) -> type[Face[Any]] | None:
    """Return the face that opens what is at a path, or None where there is none that says so.

    Parameters
    ----------
    path : Path
        A folder, or a file of weights with its settings beside it.
    config : Path, optional
        The settings, where they do not lie beside the weights.
    """
    return next((face for face in _FACES if face.opens(path, config)), None)


def face_for(checkpoint: Checkpoint) -> type[Face[Any]] | None:
    """Return the face of the network of a checkpoint of any format, or None where there is none that is known."""
    kind = getattr(checkpoint.config.generator, "kind", None)
    return next((face for face in _FACES if kind in face.GENERATORS), None)


def _kind(path: Path, config: Path | None) -> Any:
    generator = settings_of(path, config).get("generator")
    kind = generator.get("kind") if isinstance(generator, dict) else None
    return kind if isinstance(kind, str) else None
