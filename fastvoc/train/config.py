"""What a run is: a network, what it hears, what it minimises, and how. Recipes are ready ones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveInt, model_validator
from typing_extensions import Self

from fastvoc.audio import CONVENTIONS, MelConfig, Normalization
from fastvoc.checkpoints import VocoderConfig
from fastvoc.config import config, from_dict, nearest, read_plain, to_dict
from fastvoc.models import GeneratorConfig, GriffinLimNetConfig, MelGANConfig
from fastvoc.train.adversary import AdversaryConfig
from fastvoc.train.data import DataConfig
from fastvoc.train.optimisers import OptimiserConfig
from fastvoc.train.weight_norm import Dress


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


@config
class LossWeights:
    """Factors of the terms that the generator minimises together; one of zero is not computed."""

    adversarial: NonNegativeFloat = 0.0
    """To be taken for a recording by the discriminators."""
    features: NonNegativeFloat = 0.0
    """Distance of the discriminators' feature maps."""
    mel: NonNegativeFloat = 0.0
    """Distance of log-mels in the convention `loss_mel`."""
    multi_scale_mel: NonNegativeFloat = 0.0
    """Distance of log-mels at seven scales."""
    stft: NonNegativeFloat = 0.0
    """Multi-resolution STFT loss of the wave."""
    subband_stft: NonNegativeFloat = 0.0
    """Multi-resolution STFT loss of the sub-bands before the filter bank joins them."""
    magnitude: NonNegativeFloat = 0.0
    """Distance of the magnitudes that a Griffin-Lim network estimates; alone, it needs no wave to be made."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(vars(self).values()):
            raise ValueError("every weight is zero; a generator needs something to minimise")
        return self

    @property
    def of_waves(self) -> bool:
        """Whether there is a term that compares a generated wave with its recording."""
        return bool(self.mel or self.multi_scale_mel or self.stft or self.subband_stft)


@config
class TrainConfig:
    """A run, from recordings to a vocoder."""

    generator: GeneratorConfig
    """The network."""
    mel: Convention
    """What it is fed; stored with the vocoder."""
    data: DataConfig
    """What it hears."""
    losses: LossWeights
    """What it minimises."""
    loss_mel: Convention | None = None
    """Convention of the mel loss; None is `mel`."""
    optimiser: OptimiserConfig
    """Of the generator."""
    adversary: AdversaryConfig | None = None
    """Its discriminators."""
    weight_norm: Dress = "all"
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
    """Of the networks' arithmetic; weights and spectra stay in float32. "auto" is bfloat16 on CUDA, else float32."""
    compile: bool = False
    """Run the networks through torch.compile, which takes minutes before the first step."""
    graph: bool = False
    """Record a step as a CUDA graph: a step of HiFi-GAN launches thousands of kernels, for which a GPU waits. Every
    phase of the adversary takes the memory of a step."""
    recompute: bool = False
    """Keep only the inputs of the generator's residual blocks for the gradient, and run them again for the rest: less
    memory, a third more work in the generator."""
    seed: int = 1234
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
        VocoderConfig(generator=self.generator, mel=self.mel)
        if self.segment % self.mel.hop:
            lower = max(1, self.segment // self.mel.hop) * self.mel.hop
            raise ValueError(f"segment {self.segment} is not a multiple of the hop {self.mel.hop}; such as {lower}")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be divided into {self.accumulate} equal parts (accumulate)")
        if self.graph and self.precision == "float16":
            raise ValueError("graph needs precision bfloat16 or float32: the scale of float16 is decided on the host")
        kinds = [self.optimiser.kind, *([self.adversary.optimiser.kind] if self.adversary else [])]
        if self.graph and "radam" in kinds:
            raise ValueError("graph needs adam or adamw; PyTorch decides updates of radam on the host")
        if self.continue_from is not None and (self.start_from or self.start_adversary_from):
            raise ValueError("continue_from brings all weights; leave out start_from and start_adversary_from")
        weights = self.losses
        if bool(weights.adversarial or weights.features) != (self.adversary is not None):
            raise ValueError("losses.adversarial and losses.features need an adversary, and an adversary needs one")
        if self.adversary and self.adversary.starts_at and not (weights.of_waves or weights.magnitude):
            raise ValueError(f"before adversary.starts_at {self.adversary.starts_at} there is nothing to minimise")
        banded = isinstance(self.generator, MelGANConfig) and self.generator.pqmf is not None
        if weights.subband_stft and not banded:
            raise ValueError("losses.subband_stft needs a generator of sub-bands (generator.pqmf)")
        if isinstance(self.generator, GriffinLimNetConfig):
            _check_magnitudes(self.generator, self.mel)
        elif weights.magnitude:
            raise ValueError("losses.magnitude needs a generator that estimates magnitudes (griffin-lim-net)")
        if weights.magnitude and self.precision != "float32":
            raise ValueError(
                f"losses.magnitude needs precision float32, not {self.precision}: magnitudes span five decades"
            )
        return self


def _check_magnitudes(generator: GriffinLimNetConfig, mel: MelConfig) -> None:
    """Raise unless a mel is the logarithm of magnitudes of the network's own transform."""
    size = generator.fft_size
    needed = {"fft_size": size, "window_size": size, "padding": "same", "power": 1, "logarithm": "natural", "gain": 1}
    needed |= {"floor": generator.mel_floor, "floor_mode": "clamp", "normalization": Normalization()}
    for name, value in needed.items():
        if getattr(mel, name) != value:
            raise ValueError(f"generator griffin-lim-net needs mel.{name} {value}; it is {getattr(mel, name)}")


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
        numbers: ``"adversary.discriminators.0.channels"``.

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
        where, values = "config", _copy(source)
    else:
        path = _find(source)
        where, values = str(source), read_plain(path)
    if not isinstance(values, dict):
        raise ValueError(f"{where}: holds {type(values).__name__}, not the settings of a run")
    for name, value in (changes or {}).items():
        _put(values, name, value)
    data = values.setdefault("data", {})
    if isinstance(data, dict) and "recordings" not in data:
        raise ValueError(
            f"{where}: does not say what to train on; name a folder of recordings (data.recordings, or --data)"
        )
    result: TrainConfig = from_dict(TrainConfig, values, where)
    return result


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


def _copy(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _copy(value) for key, value in values.items()}
    return [_copy(value) for value in values] if isinstance(values, (list, tuple)) else values


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Set what a dotted name means, making the dictionaries on the way."""
    *way, last = name.split(".")
    place: Any = values
    for part in way:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
        else:
            raise ValueError(f"{name}: there is nothing called {part!r} to change")
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ValueError(f"{name}: there is nothing called {last!r} to change")
