"""`fastvoc train`: recordings become a vocoder, or notes an instrument."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fastvoc.cli.command import Command, UsageError, choose_device, rank
from fastvoc.cli.terminal import complain, show


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a vocoder on recordings, or go on with a run.

    Example: fastvoc train hifigan-v1 --data recordings --out run
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE", help_behavior_hint="(required)")]
    """Name of a recipe, such as hifigan-v1, or a .yaml or .json file; "list" shows the recipes."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATH...")] = ()
    """Recordings to train on: folders, quoted globs, lists, wav.scp files, JSON-lines manifests. An instrument learns
    from folders of notes, such as fastvoc notes render makes."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where the run is written, by default the recipe's, "run"; a run that is there goes on where it was."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Updates of the generator, instead of the recipe's."""
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Segments in an update over all processes, instead of the recipe's."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE...")] = ()
    """Other settings: precision=float32 data.trim=40 adversary.starts_at=50000."""
    smoke: bool = False
    """Make three steps on generated tones, to see that everything works."""
    allow_changes: bool = False
    """Go on with a run although its settings have changed."""
    device: str = "auto"
    """cpu, cuda or cuda:N; "auto" is a GPU where there is one (under torchrun the one of LOCAL_RANK)."""

    def run(self) -> int:
        """Train."""
        if self.recipe == "list":
            return _list()
        changes = self._changes()  # before PyTorch is loaded

        from fastvoc import Vocoder
        from fastvoc.train.health import RunFailed
        from fastvoc.train.run import train
        from fastvoc.train.state import SMOKE

        try:
            made = train(
                self.recipe,
                folder=self.out,
                changes=changes,
                smoke=self.smoke,
                allow_changes=self.allow_changes,
                device=choose_device(self.device),
            )
        except RunFailed as error:
            if self.debug:
                raise
            complain(f"fastvoc: {error} (--debug shows where)")
            return 1
        if rank("RANK", 0) == 0:
            told = f"a vocoder of {made.config.mel.describe()}" if isinstance(made, Vocoder) else f"an {made!r}"
            folder = Path(self.out or changes.get("folder", "run"))
            print(f"done: {folder / SMOKE if self.smoke else folder} holds {told}")
        return 0

    def _changes(self) -> dict[str, Any]:
        import yaml

        from fastvoc.config import parse_yaml

        changes: dict[str, Any] = {}
        for setting in self.set:
            name, sign, value = setting.partition("=")
            if not sign or not name:
                raise UsageError(f"--set {setting}: is not a setting; write NAME=VALUE, such as batch=8")
            try:
                changes[name] = parse_yaml(value)
            except yaml.YAMLError:
                raise UsageError(f"--set {setting}: its value is not YAML; quote it, such as '{name}=\"…\"'") from None
        named = {"data.recordings": self.data or None, "steps": self.steps, "batch": self.batch}
        return changes | {name: value for name, value in named.items() if value is not None}


def _list() -> int:
    from fastvoc.train.config import describe_recipes

    show("Recipes", ("name", "what it is"), list(describe_recipes().items()))
    return 0
