"""Makes the generator inside anybody's model run fastvoc's plans and kernels, in place."""

from __future__ import annotations

from types import TracebackType

from torch import nn
from typing_extensions import Self

from fastvoc import ops
from fastvoc.acceleration.counterpart import Counterpart
from fastvoc.acceleration.place import counterpart_of, put_back, put_in_place
from fastvoc.checkpoints.live import find_generator
from fastvoc.engine.surroundings import remember_threads

__all__ = ["Acceleration", "accelerate"]


def accelerate(module: nn.Module, *, backend: str | None = None) -> Acceleration:
    """Make the generator in a live model run fastvoc's plan or operators, in place.

    Its `forward` keeps signature, shapes, dtype and samples; it has passed a comparison in double precision on a
    random mel before anything is changed. Known are the HiFi-GAN of jik876/hifi-gan and what began from it,
    ParallelWaveGAN, ESPnet, Coqui, SpeechBrain and Hugging Face's transformers (`SpeechT5HifiGan`, and what
    `FastSpeech2ConformerWithHifiGan` has inside), and the MelGAN of ParallelWaveGAN and Coqui, with weight norm or
    without.

    Parameters
    ----------
    module : nn.Module
        The generator, or a model that has one inside, on any device and in any dtype.
    backend : {"cuda", "triton", "cpu", "reference"}, optional
        Run every operator on this one; by default the fastest that can.

    Returns
    -------
    Acceleration
        With `explain` and `undo`; in a ``with`` block it undoes itself at the end.

    Raises
    ------
    TypeError
        If `module` is no `torch.nn.Module`.
    ValueError
        If there is no generator in it that is known, or several; if something is put into it, such as hooks or
        adapters, that only its own `forward` runs; if its waves are not those of the network that it seems to be; if
        there is no backend of the name.

    Notes
    -----
    Weights that change afterwards are noticed as those of a `Vocoder` are: optimiser steps, `load_state_dict`, moves to
    another device or dtype, weight norm that is removed; and so are settings of the modules inside. The weights are
    copied, since plans pack them. Wherever the original is needed, its own `forward` runs, and `explain` says so: in
    training mode, where gradients are recorded, under autocast and function transforms, while it is exported or traced,
    and for inputs that do not fit. Copies and pickles of the module are plain ones, and so can be scripted.

    Examples
    --------
    >>> import torch, fastvoc
    >>> faster = fastvoc.accelerate(model)  # doctest: +SKIP
    >>> with torch.inference_mode():  # doctest: +SKIP
    ...     waves = model(inputs)
    >>> faster.explain()  # doctest: +SKIP
    >>> faster.undo()  # doctest: +SKIP
    """
    if backend is not None:
        ops.known_backend(backend, "accelerate")
    found = find_generator(module, "accelerate")
    if counterpart_of(found.module) is not None:
        put_back(found.module)
    if "forward" in vars(found.module):
        raise ValueError(
            f"accelerate: {type(found.module).__name__} has another forward than its class, which would no longer run; "
            "take it out first"
        )
    remember_threads()
    counterpart = Counterpart(found, backend)
    if reason := counterpart.made(found.module).reason:
        raise ValueError(f"accelerate: {reason}")
    put_in_place(found.module, counterpart)
    return Acceleration(found.module, found.name)


class Acceleration:
    """What `accelerate` has done to a module.

    Parameters
    ----------
    module : nn.Module
        The accelerated one.
    name : str
        Where it is in the model that was given; empty where it is that itself.

    Attributes
    ----------
    module, name
    """

    def __init__(self, module: nn.Module, name: str = "") -> None:
        self.module = module
        self.name = name

    @property
    def _counterpart(self) -> Counterpart | None:
        return counterpart_of(self.module)

    def explain(self) -> dict[str, str | None]:
        """Say what would run a call here and now, and why nothing faster does.

        Returns
        -------
        dict of str to (str or None)
            As `Vocoder.explain`, and last ``"original forward"``: the first with None is what runs. Where that is the
            original, each other comes with the reason.
        """
        counterpart = self._counterpart
        if counterpart is None:
            return {"original forward": None}
        return {**counterpart.explain(self.module), "original forward": None}

    @property
    def latest(self) -> str | None:
        """Why the latest call ran the original forward, as a sentence, or None if it did not, or there was none."""
        return None if self._counterpart is None else self._counterpart.latest

    def refresh(self) -> None:
        """Take the weights as changed, where nothing could have noticed it; see `Vocoder.generator`."""
        if self._counterpart is not None:
            self._counterpart.version.refresh()

    def undo(self) -> None:
        """Give the module its own forward back; nothing happens where it has it already.

        Raises
        ------
        RuntimeError
            If something else has changed the class of the module since.
        """
        if self._counterpart is not None:
            put_back(self.module)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        kind, counterpart = type(self.module).__name__, self._counterpart
        if counterpart is None:
            return f"Acceleration({kind}, undone)"
        running = next(name for name, reason in self.explain().items() if reason is None)
        return f"Acceleration({kind}{f' at {self.name!r}' if self.name else ''}, runs by {running})"
