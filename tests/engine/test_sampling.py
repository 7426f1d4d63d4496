"""Generators that draw random numbers, and recurrent ones: stream, whole and item of a batch are equal to the bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import fastvoc
import fastvoc.engine.synthesizer
from fastvoc import Vocoder, noise
from fastvoc.audio import MelConfig, read_audio
from fastvoc.blocks.conditioning import StretchedConfig
from fastvoc.checkpoints import Checkpoint, InferenceFrames, VocoderConfig
from fastvoc.cli import main
from fastvoc.config import config
from fastvoc.engine import StreamState
from fastvoc.export import write_onnx
from fastvoc.models import GENERATORS, Generator, HiFiGANConfig, WaveNetConfig
from fastvoc.noise import Draws
from fastvoc.recurrence import State

BANDS, HOP = 6, 8


@config
class BreathConfig:
    kind: Literal["breath"] = "breath"
    mel_bands: int = BANDS
    hop: int = HOP
    condition_channels: int = 0

    def build(self) -> Breath:
        return Breath(self)


class Breath(Generator):
    """Draws two numbers for each pair of samples, and looks at the frames on both sides of one."""

    def __init__(self, config: BreathConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.gain = nn.Parameter(torch.full((), 0.05))

    @property
    def hop(self) -> int:
        return self.config.hop

    @property
    def condition_channels(self) -> int:
        return self.config.condition_channels

    @property
    def draws(self) -> Draws:
        return Draws(channels=2, rows_per_frame=HOP // 2, temperature=0.6)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first // HOP - 1, last // HOP + 1

    def forward(  # type: ignore[override]
        self, mel: Tensor, condition: Tensor | None = None, *, noise: Tensor, temperature: Tensor
    ) -> Tensor:
        assert noise.shape == (len(mel), 2, mel.shape[-1] * HOP // 2)
        assert noise.dtype == temperature.dtype == mel.dtype
        x = self.gain * mel[:, :1]
        x = 0.25 * F.pad(x, (1, 0))[..., :-1] + 0.5 * x + 0.25 * F.pad(x, (0, 1))[..., 1:]
        x = x.repeat_interleave(HOP, dim=-1)
        if condition is not None:
            x = x + condition[:, :1, None]
        drawn = temperature[:, None, None] * (noise[:, :1] + 0.5 * noise[:, 1:])
        return x + 0.1 * drawn.repeat_interleave(2, dim=-1)


@config
class EchoConfig:
    kind: Literal["echo"] = "echo"
    mel_bands: int = BANDS
    hop: int = HOP
    condition_channels: int = 0
    random: bool = True

    def build(self) -> Echo:
        return Echo(self)


class Echo(Generator):
    """A recurrent filter, y[t] = a·y[t-1] + x[t], of a frame that waits for the next one."""

    def __init__(self, config: EchoConfig) -> None:
        super().__init__(mel_bands=config.mel_bands)
        self.config = config
        self.decay = nn.Parameter(torch.full((), 0.9))
        self.steps = 0

    @property
    def hop(self) -> int:
        return self.config.hop

    @property
    def condition_channels(self) -> int:
        return self.config.condition_channels

    @property
    def draws(self) -> Draws | None:
        return Draws(channels=1, rows_per_frame=HOP, distribution="uniform") if self.config.random else None

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return first // HOP, last // HOP + 1

    def forward(self, mel: Tensor, condition: Tensor | None = None) -> Tensor:
        raise AssertionError("this is for training")

    def begin(self, batch: int, condition: Tensor | None = None) -> State:
        count = torch.zeros(batch, 1, dtype=torch.int64, device=self.decay.device)
        y = self.decay.new_zeros(batch, 1) if condition is None else condition[:, :1]
        return count, y, self.decay.new_zeros(batch, BANDS, 0), self.decay.new_zeros(batch, 1, 0)

    def advance(
        self, state: State, mel: Tensor, *, last: bool, noise: Tensor | None = None, temperature: Tensor | None = None
    ) -> tuple[State, Tensor]:
        count, y, frames, numbers = state
        frames = torch.cat([frames, mel], dim=-1)
        drawn = mel.new_zeros(len(mel), 1, mel.shape[-1] * HOP)
        if noise is not None and temperature is not None:
            drawn = temperature[:, None, None] * (noise - 0.5)
        numbers = torch.cat([numbers, drawn], dim=-1)
        ready = frames.shape[-1] - (not last)
        x = (0.01 * frames[:, :1]).repeat_interleave(HOP, dim=-1) + numbers
        samples = []
        for t in range(max(0, ready) * HOP):
            y = self.decay * y + x[..., t]
            self.steps += 1
            samples.append(y)
        wave = torch.stack(samples, dim=-1) if samples else x[..., :0]
        kept = max(0, ready)
        return (count + kept, y, frames[..., kept:].clone(), numbers[..., kept * HOP :].clone()), wave


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    GENERATORS.add(BreathConfig)
    GENERATORS.add(EchoConfig)
    yield
    for name in ("breath", "echo"):
        GENERATORS._classes.pop(name)


MEL_CONFIG = MelConfig(sample_rate=16000, fft_size=1024, hop=HOP, window_size=1024, bands=BANDS, low=0, high=8000)


def wavenet(**options: Any) -> WaveNetConfig:
    """Make a small WaveNet, which is both random and recurrent, and waits for one frame as `Echo` does."""
    sizes: dict[str, Any] = {"channels": 6, "gates": 8, "skip_channels": 6, "head_channels": 6, "layers": 4, "cycle": 3}
    return WaveNetConfig(mel_bands=BANDS, conditioning=StretchedConfig(rates=(HOP,), context=0), **sizes, **options)


KINDS: dict[str, Any] = {"breath": BreathConfig, "echo": EchoConfig, "wavenet": wavenet}


def vocoder(
    kind: str, dtype: torch.dtype = torch.float32, habit: InferenceFrames | None = None, **options: Any
) -> Vocoder:
    generator = KINDS[kind](**options)
    settings = VocoderConfig(generator=generator, mel=MEL_CONFIG, inference=habit or InferenceFrames())
    torch.manual_seed(0)
    return Vocoder(Checkpoint(settings, generator.build().state_dict(), "a test"), dtype=dtype)


def random_mel(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 10 - 11


MEL = random_mel(3, BANDS, 30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("habit", [None, InferenceFrames(replicated_frames=2, appended_frames=1, trimmed=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_stream_whole_and_item_are_equal_to_the_bit(
    kind: str, habit: InferenceFrames | None, dtype: torch.dtype, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**62))
    chunks = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum))
    voice, mel = vocoder(kind, dtype, habit), MEL[..., : sum(chunks)]
    waves = voice(mel, seed=seed)
    assert noise.last_seeds() == (seed, seed + 1, seed + 2)
    for number, wave in enumerate(waves):
        assert torch.equal(voice(mel[number], seed=seed + number), wave)
    streamer = voice.streamer(3, seed=seed)
    rest, pieces = mel, []
    for count in chunks:
        pieces.append(streamer.push(rest[..., :count]))
        rest = rest[..., count:]
    pieces.append(streamer.flush())
    assert torch.equal(torch.cat(pieces, dim=-1), waves)
    lengths = [mel.shape[-1], 1, max(1, mel.shape[-1] // 2)]
    each = voice(mel, lengths=lengths, seed=[7, 7, seed])
    for wave, item, length, own in zip(each, mel, lengths, [7, 7, seed], strict=True):
        assert torch.equal(wave, voice(item[:, :length], seed=own))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [1, 7, 29])
def test_long_mels_change_no_bit(kind: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = vocoder(kind)(MEL, seed=5)
    monkeypatch.setattr(fastvoc.engine.synthesizer, "WINDOW", window)
    assert torch.equal(vocoder(kind)(MEL, seed=5), whole)


def test_noise_is_that_of_the_absolute_sample() -> None:
    wave = vocoder("breath")(MEL[0], seed=9, temperature=2)
    drawn = noise.normal(torch.tensor([9]), 0, channels=2, rows=30 * HOP // 2)[0]
    plain = vocoder("breath")(MEL[0], seed=9, temperature=0)
    expected = 0.1 * (2 * (drawn[0] + 0.5 * drawn[1])).repeat_interleave(2)
    torch.testing.assert_close(wave - plain, expected, rtol=0, atol=4 * torch.finfo(torch.float32).eps)
    assert torch.equal(vocoder("breath")(MEL[0], seed=10, temperature=0), plain)


def test_temperature_has_the_default_of_the_generator() -> None:
    voice = vocoder("breath")
    assert torch.equal(voice(MEL, seed=1), voice(MEL, seed=1, temperature=0.6))
    assert not torch.equal(voice(MEL, seed=1), voice(MEL, seed=1, temperature=1))
    assert torch.equal(
        torch.cat(list(voice.stream([MEL[0]], seed=1, temperature=1))), voice(MEL[0], seed=1, temperature=1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_seed_is_another_each_time_and_can_be_read_back(kind: str) -> None:
    voice = vocoder(kind)
    first, seeds = voice(MEL), noise.last_seeds()
    assert not torch.equal(voice(MEL), first)
    assert noise.last_seeds() != seeds
    assert torch.equal(voice(MEL, seed=seeds), first)
    assert torch.equal(voice(MEL, seed=seeds[0]), first)
    streamer = voice.streamer()
    assert streamer.seeds == noise.last_seeds()
    wave = torch.cat([streamer.push(MEL[0]), streamer.flush()])
    assert torch.equal(voice(MEL[0], seed=streamer.seeds), wave)
    streamer.reset()
    assert torch.equal(torch.cat([streamer.push(MEL[0]), streamer.flush()]), wave)


def test_arrays_of_seeds_are_seeds() -> None:
    voice = vocoder("breath")
    expected = voice(MEL, seed=[4, 2, 0])
    assert torch.equal(voice(MEL, seed=torch.tensor([4, 2, 0])), expected)
    np.testing.assert_array_equal(voice(MEL.numpy(), seed=np.array([4, 2, 0])), expected.numpy())
    assert voice(MEL[:0]).shape == (0, 30 * HOP)


@pytest.mark.parametrize("kind", KINDS)
def test_states_keep_seed_and_place(kind: str) -> None:
    voice = vocoder(kind)
    whole = voice(MEL, seed=[3, 1, 4])
    streamer = voice.streamer(3, seed=[3, 1, 4])
    begun = streamer.push(MEL[..., :10])
    states = streamer.state().split()
    alone = voice.streamer(seed=0)
    alone.restore(states[1])
    assert alone.seeds == (1,)
    for other in (alone, copy.deepcopy(alone), pickle.loads(pickle.dumps(alone))):
        rest = torch.cat([other.push(MEL[1, :, 10:]), other.flush()])
        assert torch.equal(torch.cat([begun[1], rest]), whole[1])
    # another stream joins, which has been given another number of frames
    late = voice.streamer(seed=9)
    late.push(MEL[0, :, :12])
    both = voice.streamer(2, seed=0)
    both.restore(StreamState.join([states[2], *late.state().split()]))
    assert both.seeds == (4, 9)
    together = both.push(torch.stack([MEL[2, :, 10:20], MEL[0, :, 12:22]]))
    assert torch.equal(together[0], whole[2, 9 * HOP : 19 * HOP])
    assert torch.equal(together[1], voice(MEL[0], seed=9)[11 * HOP : 21 * HOP])


def test_recurrent_generator_computes_no_sample_twice() -> None:
    voice = vocoder("echo")
    streamer = voice.streamer(seed=0)
    assert not streamer.recomputes
    assert vocoder("breath").streamer().recomputes
    voice._generator.steps = 0
    for frame in MEL[0].split(1, dim=-1):
        streamer.push(frame)
    streamer.flush()
    assert voice._generator.steps == 30 * HOP
    assert streamer.latency == 1


def test_recurrent_generator_is_the_filter() -> None:
    from scipy import signal

    voice = vocoder("echo", torch.float64, random=False)
    x = 0.01 * np.repeat(MEL[0, 0].double().numpy(), HOP)
    expected = signal.lfilter([1], [1, -0.9], x)
    # the sum of a geometric series amplifies the rounding of 0.9 to float32, as which it is stored
    np.testing.assert_allclose(voice(MEL[0]).numpy(), signal.lfilter([1], [1, -float(np.float32(0.9))], x), atol=1e-14)
    assert np.abs(expected - voice(MEL[0]).numpy()).max() < 1e-5
    pieces = voice.stream(MEL[0].split(7, dim=-1))
    assert torch.equal(torch.cat(list(pieces)), voice(MEL[0]))
    with pytest.raises(ValueError, match="a seed was given; Echo draws no random numbers"):
        voice(MEL, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_reach_generators_of_one_part(kind: str) -> None:
    voice = vocoder(kind, condition_channels=2)
    conditions = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.0]])
    waves = voice(MEL, condition=conditions, seed=3)
    streamer = voice.streamer(3, conditions, seed=3)
    assert torch.equal(
        torch.cat([streamer.push(MEL[..., :9]), streamer.push(MEL[..., 9:]), streamer.flush()], -1), waves
    )
    assert torch.equal(voice(MEL[1], condition=conditions[1], seed=4), waves[1])
    assert not torch.equal(voice(MEL[1], condition=conditions[0], seed=4), waves[1])
    with pytest.raises(ValueError, match="no condition was given; this generator needs one"):
        voice(MEL, seed=3)


def test_forced_backend_and_moves_change_nothing() -> None:
    voice = vocoder("breath")
    wave = voice(MEL, seed=2)
    forced = Vocoder(Checkpoint(voice.config, voice.generator.state_dict(), "a test"), backend="reference")
    assert torch.equal(forced(MEL, seed=2), wave)
    assert voice.explain()["plan"] == "it is a Breath, which is none of fastvoc's blocks"
    assert torch.equal(voice.to(dtype="float64")(MEL, seed=2), vocoder("breath", torch.float64)(MEL, seed=2))
    grown = voice(MEL, seed=2)
    grown += 1  # an inference tensor would refuse
    assert not grown.is_inference()


@pytest.mark.filterwarnings("error")
def test_temperatures_of_numpy_are_compared_in_double_precision() -> None:
    voice = vocoder("breath").to(dtype=torch.float64)
    assert torch.equal(voice(MEL, seed=1, temperature=np.float32(0.5)), voice(MEL, seed=1, temperature=0.5))


def test_numbers_of_numpy_are_seeds_and_temperatures() -> None:
    voice = vocoder("breath")
    wave = voice(MEL, seed=[3, 4, 5], temperature=0.5)
    assert torch.equal(voice(MEL, seed=[*np.arange(3, 6)], temperature=np.float32(0.5)), wave)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "kind"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)]
)
def test_a_wrong_number_of_streams_is_a_sentence(batch: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"Streamer: batch is {batch!r}; it must be"):
        vocoder("breath").streamer(batch)


DRAWING_WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"seed": -1}, ValueError, "Vocoder: seed -1 must be between 0 and"),
    ({"seed": 0.5}, TypeError, "Vocoder: seed 0.5 is a float"),
    ({"seed": [1, 2]}, ValueError, "Vocoder: there are 2 seeds; it must be one int, or one for each of 3"),
    ({"temperature": -1}, ValueError, "Vocoder: temperature is -1; it must be a finite number that is not negative"),
    ({"temperature": float("nan")}, ValueError, "Vocoder: temperature is nan"),
    ({"temperature": 1e39}, ValueError, "Vocoder: temperature is 1e.39; .*in torch.float32 3.40282e.38 at most"),
    ({"temperature": "hot"}, ValueError, "Vocoder: temperature is 'hot'"),
]


@pytest.mark.parametrize(("options", "kind", "sentence"), DRAWING_WRONG)
def test_wrong_seeds_and_temperatures_are_a_sentence(
    options: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        vocoder("breath")(MEL, **options)
    with pytest.raises(kind, match=sentence):
        vocoder("breath").streamer(3, **options)


@pytest.mark.parametrize("options", [{"seed": 3}, {"temperature": 0.5}], ids=str)
def test_generators_that_draw_nothing_have_neither(options: dict[str, Any]) -> None:
    generator = HiFiGANConfig(mel_bands=BANDS, channels=8, rates=(4, 2), rate_kernel_sizes=(8, 4))
    settings = VocoderConfig(generator=generator, mel=MEL_CONFIG)
    voice = Vocoder(Checkpoint(settings, generator.build().state_dict(), "a test"))
    name = next(iter(options))
    sentence = (
        f"Vocoder: a {name} was given; HiFiGAN draws no random numbers, so that its waves depend on the mel alone"
    )
    for call in (lambda: voice(MEL, **options), lambda: voice.streamer(**options)):
        with pytest.raises(ValueError, match=sentence):
            call()
    assert voice.draws is None and voice.streamer().seeds is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (BreathConfig(), "it draws random numbers"),
        (EchoConfig(), "it is recurrent"),
        (EchoConfig(random=False), "it is recurrent"),
    ],
)
def test_onnx_has_no_place_for_numbers_and_states(settings: Any, reason: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    mel = MelConfig(sample_rate=8000, fft_size=32, hop=HOP, window_size=32, bands=BANDS, low=0, high=4000)
    voice = Vocoder(Checkpoint(VocoderConfig(generator=settings, mel=mel), settings.build().state_dict(), "a test"))
    with pytest.raises(ValueError, match=f"cannot be written as ONNX: {reason}"):
        write_onnx(voice, tmp_path / "voice.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    vocoder("breath").save_pretrained("breath")
    np.save("one.npy", MEL[0].numpy())
    np.save("two.npy", MEL[1].numpy())
    return tmp_path


def heard(name: str) -> Tensor:
    wave, _ = read_audio(name)
    return torch.as_tensor(wave)


def test_command_line_takes_seed_and_temperature(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["vocode", "one.npy", "two.npy", "--vocoder", "breath", "--subtype", "float", "--device", "cpu"]
    assert main([*command, "--out", "first", "--seed", "8", "--temperature", "0.3"]) == 0
    assert "seed" not in capsys.readouterr().out
    voice = fastvoc.open("breath")
    for name, mel in (("one", MEL[0]), ("two", MEL[1])):  # each as if it had come alone
        assert torch.equal(heard(f"first/{name}.wav"), voice(mel, seed=8, temperature=0.3))
    assert main([*command, "--out", "second"]) == 0
    seed = int(capsys.readouterr().out.split()[1])
    assert torch.equal(heard("second/one.wav"), voice(MEL[0], seed=seed))
    assert main(["info", "breath"]) == 0


def test_command_line_refuses_them_where_nothing_is_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("wide.npy", random_mel(80, 30).numpy())
    assert main(["vocode", "wide.npy", "--seed", "3", "--device", "cpu"]) == 2
    assert "--seed 3: griffin-lim-net draws no random numbers" in capsys.readouterr().err
    assert main(["vocode", "wide.npy", "--temperature", "0.5", "--device", "cpu"]) == 2
    assert "--temperature 0.5: griffin-lim-net draws no random" in capsys.readouterr().err
