"""What a run is: a network, what it learns from, what it minimises, and how. Recipes are ready ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator
from typing_extensions import Self

from fastvoc.audio import CONVENTIONS, MelConfig
from fastvoc.config import config, from_dict, nearest, read_plain, to_dict
from fastvoc.models import Trainable
from fastvoc.train.data.config import DataConfig as DataConfig  # imports add both kinds to DATA
from fastvoc.train.data.kinds import DATA, DataSettings, usual
from fastvoc.train.data.notes import NoteDataConfig as NoteDataConfig
from fastvoc.train.learning.optimisers import OptimiserConfig
from fastvoc.train.learning.weight_norm import WeightNorm
from fastvoc.train.tasks.adversary import AdversaryConfig
from fastvoc.train.tasks.gan import GanConfig
from fastvoc.train.tasks.likelihood import LikelihoodConfig as LikelihoodConfig  # imports add them to TASKS
from fastvoc.train.tasks.losses import LOSSES, Loss
from fastvoc.train.tasks.notes import NoteConfig as NoteConfig
from fastvoc.train.tasks.task import TASKS, TaskSettings


def _convention(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.endswith(".json"):
        settings = read_plain(Path(value))
        if not isinstance(settings, dict) or "mel" not in settings:
            raise ValueError(f"{value} has no mel; expected the config.json of a vocoder that fastvoc has written")
        return settings["mel"]
    if value not in CONVENTIONS:
        raise ValueError(f"{value!r} is not a mel convention; {nearest(value, list(CONVENTIONS))}")
    return CONVENTIONS[value]


Convention = Annotated[MelConfig, BeforeValidator(_convention)]
"""A mel convention: its fields, the name of a public project's, or the config.json of a vocoder."""


def _named(values: Any) -> Any:
    """Write ``{mel: 45}`` out as ``{mel: {kind: mel, weight: 45}}``; a table without a kind is of that of its name."""
    if not isinstance(values, Mapping):
        return values
    tables = {
        name: {"weight": value} if isinstance(value, (int, float, str)) else value for name, value in values.items()
    }
    return {name: {"kind": name} | value if isinstance(value, dict) else value for name, value in tables.items()}


def _in_order(losses: dict[str, Loss]) -> dict[str, Loss]:
    """Leave out what weighs nothing, and sum the others in an order that no file changes: that of their kinds."""
    kinds = list(LOSSES)
    weighing = [(kinds.index(type(loss)), name) for name, loss in losses.items() if loss.weight]
    return {name: losses[name] for _, name in sorted(weighing)}


Losses = Annotated[dict[str, Annotated[Loss, LOSSES]], BeforeValidator(_named), AfterValidator(_in_order)]


@config
class TrainConfig:
    """A run, from recordings to a vocoder, or from notes to an instrument."""

    generator: Trainable
    """The network, of a vocoder, an autoencoder or an instrument."""
    task: Annotated[TaskSettings, TASKS] = GanConfig()
    """What a step does: which networks learn, and from what."""
    mel: Convention | None = None
    """What the generator is fed; stored with the vocoder. An autoencoder is fed waves, and its own are judged by it.
    What learns from notes has none."""
    data: Annotated[DataSettings, DATA, BeforeValidator(usual)]
    """What it learns from."""
    losses: Losses = Field(default_factory=dict)
    """What it minimises, by names of your own: a weight of the loss whose kind the name is, or all of its settings."""
    loss_mel: Convention | None = None
    """Convention of the mel loss; None is `mel`."""
    optimiser: OptimiserConfig
    """Of the generator."""
    adversary: AdversaryConfig | None = None
    """Its discriminators."""
    weight_norm: WeightNorm = "all"
    """Which of the generator's convolutions learn magnitude and direction apart; a saved vocoder has plain weights."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay per update of the moving average of the weights, which is validated and saved then; 0 is none."""
    start_from: Path | None = None
    """A vocoder of the same network, in any format, whose weights are the first ones."""
    start_adversary_from: Path | None = None
    """A checkpoint folder of an earlier run, an official `do_` file, or a checkpoint of ParallelWaveGAN, whose
    discriminators are the first ones."""
    continue_from: Path | None = None
    """A `do_` file with its `g_` beside it, or a checkpoint of ParallelWaveGAN, that the run goes on from: with its
    weights, what its optimisers remember, its step and epoch."""

    steps: PositiveInt
    """Updates of the generator."""
    batch: PositiveInt = 16
    """Segments in one update, over all processes."""
    segment: PositiveInt = 8192
    """Length of a segment, in samples; a multiple of the hop."""
    accumulate: PositiveInt = 1
    """Parts in which each process takes its share of a batch, to need less memory."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the networks' arithmetic; weights and spectra stay in float32. "auto" is bfloat16 on
    CUDA, or float16 on GPUs of capability 7 that have no bfloat16, else float32."""
    compile: bool = False
    """Run the networks through torch.compile, which takes minutes before the first step."""
    graph: bool = False
    """Record a step as a CUDA graph: a step of HiFi-GAN launches thousands of kernels, for which a GPU waits. Every
    phase of the adversary takes the memory of a step."""
    recompute: bool = False
    """Keep only the inputs of the generator's residual blocks for the gradient, and run them again for the rest: less
    memory, a third more work in the generator."""
    seed: int = Field(1234, ge=0, lt=1 << 63)
    """Of first weights and data."""

    folder: Path = Path("run")
    """Where everything of the run is written; a run that is there already goes on."""
    report_every: PositiveInt = 25
    """Steps over which reported numbers are averaged."""
    validate_every: PositiveInt = 1000
    """Steps."""
    save_every: PositiveInt = 5000
    """Steps; a run that is killed loses at most so many, one that is interrupted none."""
    keep_last: PositiveInt = 2
    """Checkpoints that are kept."""
    milestone_every: PositiveInt | None = None
    """Checkpoints of multiples of so many steps are kept too."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.data.check(self)
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be divided into {self.accumulate} equal parts (accumulate)")
        if self.graph and self.precision == "float16":
            raise ValueError("graph needs precision bfloat16 or float32: the scale of float16 is decided on the host")
        kinds = [self.optimiser.kind, *([self.adversary.optimiser.kind] if self.adversary else [])]
        if self.graph and "radam" in kinds:
            raise ValueError("graph needs adam or adamw; PyTorch decides updates of radam on the host")
        if self.continue_from is not None and (self.start_from or self.start_adversary_from):
            raise ValueError("continue_from brings all weights; leave out start_from and start_adversary_from")
        outputs: tuple[str, ...] = getattr(self.generator, "outputs", ("wave",))
        for name, loss in self.losses.items():
            if loss.of not in outputs:
                raise ValueError(
                    f"losses.{name} reads {loss.of}, but the generator {self.generator.kind} gives {', '.join(outputs)}"
                )
            loss.check(self)
        self.task.check(self)
        return self

    @property
    def convention(self) -> MelConfig:
        """The mel, of a run that needs one."""
        if self.mel is None:
            raise ValueError("mel is missing; name the convention of what the generator is fed")
        return self.mel


def recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.name.removesuffix(".yaml") for path in _recipe_folder().iterdir() if path.suffix == ".yaml")


def describe_recipes() -> dict[str, str]:
    """Return what each recipe says of itself in its first line."""
    texts = {name: (_recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8") for name in recipes()}
    return {name: text.splitlines()[0].removeprefix("# ") for name, text in texts.items()}


def load_config(
    source: str | Path | Mapping[str, Any] | TrainConfig, changes: Mapping[str, Any] | None = None
) -> TrainConfig:
    """Read what a run is.

    Parameters
    ----------
    source : str, Path, mapping or TrainConfig
        The name of a recipe, a YAML or JSON file, plain values, or what is returned.
    changes : mapping of str to object, optional
        Values that replace others: ``{"generator.channels": 256, "data.recordings": "wavs"}``. Items of lists have
        numbers: ``"adversary.discriminators.0.channels"``. A convention that has a name is changed by its fields:
        ``"mel.high"``.

    Raises
    ------
    FileNotFoundError
        If there is neither such a recipe nor such a file.
    ValueError
        One sentence: what is unknown, missing or wrong, and where.
    """
    if isinstance(source, TrainConfig):
        where, values = "TrainConfig", to_dict(source)
    elif isinstance(source, Mapping):
        where, values = "config", _plain(source)
    else:
        path = _find(source)
        # a YAML anchor gives two names one dictionary, and each is changed alone
        where, values = str(source), _plain(read_plain(path))
    for keys, what in _FOREIGN:
        if isinstance(values, dict) and keys <= values.keys() and not {"losses", "optimiser"} & values.keys():
            raise ValueError(
                f"{where}: is {what}, not the settings of a run; name a recipe, such as one of fastvoc train list, and "
                "give it the weights as start_from, or the run to go on with as continue_from"
            )
    if not isinstance(values, dict):
        raise ValueError(f"{where}: holds {type(values).__name__}, not the settings of a run")
    for name, value in sorted((changes or {}).items(), key=_breadth):
        _put(values, name, value)
    data = values.setdefault("data", {})
    if isinstance(data, dict) and "recordings" not in data:
        raise ValueError(
            f"{where}: does not say what to train on; name a folder of recordings (data.recordings, or --data)"
        )
    result: TrainConfig = from_dict(TrainConfig, values, where)
    return result


_FOREIGN = (
    ({"resblock", "upsample_rates"}, "a configuration of HiFi-GAN"),
    ({"generator_params"}, "a configuration of ParallelWaveGAN"),
    ({"generator", "mel"}, "the config.json of a vocoder"),
)
"""Keys of other configurations, and what these are."""


def _recipe_folder() -> Path:
    return Path(str(files("fastvoc") / "recipes"))


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.suffix in (".yaml", ".yml", ".json"):
        return path
    if str(source) not in recipes():
        raise FileNotFoundError(
            f"{source}: is neither a recipe nor a .yaml or .json file; {nearest(str(source), recipes())}"
        )
    return _recipe_folder() / f"{source}.yaml"


def _plain(values: Any) -> Any:
    """Return dictionaries, lists and scalars that share nothing with what is given, nor among themselves."""
    if isinstance(values, Mapping):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    return to_dict(values) if is_dataclass(values) else values


def _breadth(change: tuple[str, Any]) -> tuple[bool, int]:
    """Order changes so that a part follows the whole that it is of, and `loss_mel` the `mel` that it may start from."""
    first, *way = change[0].split(".")
    return first == "loss_mel", len(way)


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set what a dotted name means, making the dictionaries on the way."""
    way = name.split(".")
    if way[0] in ("mel", "loss_mel") and len(way) > 1:
        # without a convention of its own, the mel loss has that of the network
        named = values.get(way[0]) or values.get("mel")
        values[way[0]] = _plain(_convention(named)) if named else {}
    if way[0] == "losses" and len(way) > 1 and isinstance(values.get("losses"), dict):
        loss = values["losses"].get(way[1])
        if len(way) > 2 and isinstance(loss, (int, float)):
            values["losses"][way[1]] = {"weight": loss}
        elif len(way) == 2 and isinstance(loss, dict) and not isinstance(value, Mapping):
            way.append("weight")  # and the loss keeps its other settings
    place: Any = values
    for part, following in zip(way, [*way[1:], None], strict=True):
        number = isinstance(place, list) and part.isdigit() and int(part) < len(place)
        if not (number or isinstance(place, dict)):
            raise ValueError(f"{name}: there is nothing called {part!r} to change")
        key = int(part) if number else part
        if following is None:
            place[key] = _plain(value)
            return
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
