"""Which kinds of data there are: `DATA` lists their settings, to which others can be added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fastvoc.config import Kinds

if TYPE_CHECKING:
    from fastvoc.train.config import TrainConfig

DATA = Kinds("data")


class DataSettings(Protocol):
    """What the settings of data offer: a class made by `fastvoc.config.config`.

    `fastvoc.train.material.MATERIALS` says what is done with those of each class.
    """

    @property
    def kind(self) -> str:
        """The name in configurations."""

    @property
    def recordings(self) -> tuple[str, ...]:
        """To train on."""

    @property
    def workers(self) -> int:
        """Processes that read ahead."""

    def check(self, run: TrainConfig) -> None:
        """Raise one sentence if the settings of a run do not fit the data."""


def usual(value: Any) -> Any:
    """Take a table that does not say its kind for recordings."""
    return {"kind": "recordings"} | value if isinstance(value, dict) else value
