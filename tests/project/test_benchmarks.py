"""What measures: peers compute the same network, a wrong one has no number, and pages say what rows say."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not (REPOSITORY / "benchmarks").is_dir(), reason="the benchmarks are not here")
sys.path.insert(0, str(REPOSITORY))

from benchmarks import report, test_busy, test_trials, test_tutorial, test_vocoders  # noqa: E402
from benchmarks.measuring import first, stopwatch  # noqa: E402
from benchmarks.measuring.first import First  # noqa: E402
from benchmarks.measuring.gate import Gate  # noqa: E402
from benchmarks.measuring.networks import seeded, some_mel  # noqa: E402
from benchmarks.measuring.provenance import Rows  # noqa: E402
from benchmarks.peers import engines  # noqa: E402
from benchmarks.peers.engines import ENGINES, Engine, Setting  # noqa: E402
from benchmarks.peers.exports import write_files  # noqa: E402
from benchmarks.peers.plain import PlainGenerator  # noqa: E402
from benchmarks.peers.prior import PriorHiFiGANConfig  # noqa: E402
from benchmarks.reporting.rows import newest  # noqa: E402
from benchmarks.reporting.tables import SLOWER, busy, sentences  # noqa: E402
from fastvoc import Vocoder  # noqa: E402
from fastvoc.audio import CONVENTIONS, MelConfig  # noqa: E402
from fastvoc.audio.mels.spectrogram import mel_filters  # noqa: E402
from fastvoc.audio.pqmf import PqmfConfig  # noqa: E402
from fastvoc.checkpoints import Checkpoint, VocoderConfig  # noqa: E402
from fastvoc.cli import main  # noqa: E402
from fastvoc.cli.machine import bench  # noqa: E402
from fastvoc.config import to_dict  # noqa: E402
from fastvoc.models import BigVGANConfig, HiFiGANConfig, MelGANConfig, hifigan  # noqa: E402

SMALL: dict[str, Any] = {"channels": 16, "rates": (4, 2), "rate_kernel_sizes": (8, 4)}
GENERATORS = {
    "ResBlock1": HiFiGANConfig(**SMALL),
    "ResBlock2": HiFiGANConfig(**SMALL, block="2", kernel_sizes=(3, 5), dilations=((1, 2), (2, 6))),
    "odd rate": HiFiGANConfig(channels=8, rates=(3,), rate_kernel_sizes=(7,)),
    "MelGAN": MelGANConfig(**SMALL),
    "MelGAN, odd rate": MelGANConfig(channels=8, rates=(5,), rate_kernel_sizes=(10,)),
    "BigVGAN": BigVGANConfig(**SMALL, mel_bands=80, kernel_sizes=(3,), dilations=((1, 3),)),
    "multi-band MelGAN": MelGANConfig(**SMALL, pqmf=PqmfConfig()),
}


def vocoder_of(config: Any) -> Vocoder:
    mel = MelConfig(**to_dict(CONVENTIONS["hifigan"]) | {"hop": config.hop})
    return Vocoder(Checkpoint(VocoderConfig(generator=config, mel=mel), seeded(config).state_dict(), "a test"))


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_the_plain_network_is_the_definition(name: str, planar: bool) -> None:
    generator = seeded(GENERATORS[name]).double()
    mel = some_mel(30).double()
    expected = generator(mel)[:, 0]
    found = PlainGenerator(generator, planar=planar).double()(mel)
    # some twenty sums of a few hundred products each, in another order
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))
    assert 0.001 < float(expected.std()) < 1  # neither faded nor clipped, or the line above would say little


def test_a_variant_has_no_plain_network() -> None:
    with pytest.raises(ValueError, match="PlainGenerator: no variants"):
        PlainGenerator(HiFiGANConfig(**SMALL, causal=True).build())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_files(folder, vocoder_of(GENERATORS["ResBlock1"]), engines.forms("cpu"))
    return folder


def gate_of(config: Any, mel: torch.Tensor) -> Gate:
    generator = seeded(config)
    return Gate(PlainGenerator(generator), mel, generator.hop, generator.receptive_field)


CASES = [(n, p) for n, engine in ENGINES.items() if not engine.patient for p in engine.precisions.get("cpu", ())]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_every_engine_makes_the_wave(name: str, precision: str, files: Path) -> None:
    engine = ENGINES[name]
    if reason := engine.missing(files, "cpu"):
        pytest.skip(f"{name}: {reason}")
    mel = some_mel(40, batch=2)
    gate = gate_of(GENERATORS["ResBlock1"], mel)
    run = engine.start(Setting(files=files, mel=mel.numpy(), precision=precision))
    assert gate.error(run()) <= gate.allowed(precision)


def test_a_wrong_peer_has_no_number(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = ENGINES["PyTorch"].start

    def off(setting: Setting) -> Any:
        run = exact(setting)

        def with_one_wrong_sample() -> Any:
            wave = run().clone()
            wave[0, 7] += 0.001
            return wave

        return with_one_wrong_sample

    def broken(setting: Setting) -> Any:
        raise RuntimeError("no such kernel")

    cpu = {"cpu": ("float32",)}
    engines = {
        "right": Engine(start=exact, precisions=cpu, files=()),
        "wrong": Engine(start=off, precisions=cpu, files=()),
        "broken": Engine(start=broken, precisions=cpu, files=()),
        "absent": Engine(start=broken, precisions=cpu, files=(), needs=("no_such_package",)),
        "patient": Engine(start=exact, precisions=cpu, files=(), patient=True),
        "other precision": Engine(start=broken, precisions={"cpu": ("bfloat16",)}, files=()),
    }
    monkeypatch.setattr(test_vocoders, "ENGINES", engines)
    mel = some_mel(40)
    gate = gate_of(GENERATORS["ResBlock1"], mel)
    found = test_vocoders.start(Setting(files=files, mel=mel.numpy()), gate, thorough=False)
    assert list(found) == ["right", "wrong", "broken", "absent", "patient"]
    assert "run" in found["right"] and "left_out" not in found["right"]
    assert "run" not in found["wrong"] and "no number for a wrong result" in found["wrong"]["left_out"]
    assert found["wrong"]["error"] == pytest.approx(0.001, rel=0.01)
    assert found["broken"]["left_out"] == "failed: RuntimeError: no such kernel"
    assert found["absent"]["left_out"].startswith("no_such_package not installed; pip install")
    assert "--thorough" in found["patient"]["left_out"]


def test_what_engines_round_to_is_theirs_alone() -> None:
    kinds = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    for precision in ("tf32", "float32"):
        with test_vocoders.arithmetic(precision, 1):
            assert [kind.allow_tf32 for kind in kinds] == [precision == "tf32"] * 2
        assert [kind.allow_tf32 for kind in kinds] == before


def test_the_gate_sees_either_end_and_what_is_not_finite() -> None:
    config, mel = GENERATORS["MelGAN"], some_mel(80)
    gate = gate_of(config, mel)
    wave = seeded(config)(mel)[:, 0].detach()
    assert gate.error(wave) <= gate.allowed("float32")
    for place in (0, -1):
        off = wave.clone()
        off[0, place] += 0.01
        assert gate.error(off) == pytest.approx(0.01, rel=0.01)
    wave[0, wave.shape[1] // 2] = float("nan")
    assert gate.error(wave) == float("inf")
    assert gate.error(np.zeros((1, 3))) == float("inf")


def test_runs_are_timed_in_turn_until_the_budget_is_spent() -> None:
    order: list[str] = []
    taken = stopwatch.interleaved([lambda: order.append("a"), lambda: order.append("b")], "cpu", rounds=4)
    assert order == list("abababab") and [len(column) for column in taken] == [4, 4]
    taken = stopwatch.interleaved([lambda: None], "cpu", rounds=100, budget=0)
    assert len(taken[0]) == stopwatch.FEWEST


def row(engine: str, speed: float | None, **other: Any) -> dict[str, Any]:
    made = {
        "suite": "vocoders",
        "kind": "cpu",
        "device": "a processor",
        "network": "hifigan-v2",
        "engine": engine,
        "precision": "float32",
        "seconds": 1.0,
        "batch": 1,
        "threads": 2,
        "torch": "2.0",
        "commit": "abc",
        "date": "2030-01-01T00:00:00+00:00",
    }
    if speed is None:
        return made | {"left_out": "off by 1.00e+00 where 1.00e-06 is allowed: no number for a wrong result"} | other
    return made | {"times_real_time": speed, "share_of_peak": 0.5} | other


ROWS = [
    row("fastvoc", 30.0, ratio_to_best_peer=1.5, best_peer="PyTorch"),
    row("PyTorch", 20.0),
    row("OpenVINO", None),
    row("fastvoc", 30.0, network="melgan", ratio_to_best_peer=0.75, best_peer="ONNX Runtime"),
    row("PyTorch", 20.0, network="melgan"),
    row("ONNX Runtime", 40.0, network="melgan"),
]
PAGE = """# a project

<!-- benchmarks: cpu-chart -->
what was here before
<!-- /benchmarks -->

in between

<!-- benchmarks: vocoders -->
<!-- /benchmarks -->
<!-- benchmarks: left-out -->
<!-- /benchmarks -->
<!-- benchmarks: cuda-chart -->
<!-- /benchmarks -->

the end
"""


def write_report(folder: Path, rows: list[dict[str, Any]], page: str = PAGE) -> tuple[int, str]:
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / "vocoders-cpu-1.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "README.md").write_text(page, encoding="utf-8")
    arguments = [
        "--results",
        "results",
        "--pages",
        "README.md",
        "--pictures",
        "docs/pictures",
        "--speeds",
        "speeds.json",
    ]
    code = report.main([str(folder / a) if a[:2] != "--" else a for a in arguments])
    return code, (folder / "README.md").read_text(encoding="utf-8")


def test_the_report_says_what_rows_say(tmp_path: Path) -> None:
    code, page = write_report(tmp_path, ROWS)
    assert code == 0
    assert page.startswith("# a project\n") and page.endswith("the end\n")
    assert "in between" in page and "what was here before" not in page
    assert "![Times real time of vocoders, cpu](docs/pictures/vocoders-cpu.svg)" in page
    lines = [line for line in page.splitlines() if line.startswith("| HiFi-GAN V2 | float32 |")]
    assert lines == ["| HiFi-GAN V2 | float32 | 2 | 1 | **30.0** | 20.0 | – | wrong | 1.50 | 50 % |"]
    assert "| OpenVINO | HiFi-GAN V2 | off by 1.00e+00" in page
    assert "a processor, torch 2.0, 2030-01-01, commit abc: `pytest benchmarks/test_vocoders.py -k cpu" in page
    assert page.count("`pytest") == 3  # under each figure the command that makes it; none where there is none
    again = write_report(tmp_path, ROWS, page)
    assert again == (0, page)


def test_what_is_slower_is_shown_in_red(tmp_path: Path) -> None:
    _, page = write_report(tmp_path, ROWS)
    assert f"| MelGAN | float32 | 2 | 1 | **30.0** | 20.0 | 40.0 | – | {SLOWER} 0.75 | 50 % |" in page
    picture = tmp_path / "docs" / "pictures" / "vocoders-cpu.svg"
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.count("#cf222e") == 1 and drawn.count("#1f6feb") == 1
    assert picture.stat().st_size < 100_000
    write_report(tmp_path, [one for one in ROWS if one["network"] == "hifigan-v2"])
    assert "#cf222e" not in picture.read_text(encoding="utf-8")


def test_a_section_that_does_not_exist_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = "<!-- benchmarks: magic -->\n<!-- /benchmarks -->\n"
    assert write_report(tmp_path, ROWS, page) == (1, page)
    assert "marks magic; known sections: cpu-chart" in capsys.readouterr().err


def test_only_rows_of_one_run_are_compared() -> None:
    old = [one | {"file": "old"} for one in ROWS[:3]]
    new = [{**ROWS[0], "date": "2031-01-01T00:00:00+00:00", "file": "new", "times_real_time": 33.0}]
    other = [{**ROWS[0], "threads": 1, "file": "old"}]
    assert newest([*old, *new, *other]) == [*new, *other]


def test_committed_rows_have_tables_and_a_roof(tmp_path: Path) -> None:
    sections = ("operators", "rooflines", "training", "streaming", "quality", "voices", "voice-quality")
    page = "".join(f"<!-- benchmarks: {name} -->\n<!-- /benchmarks -->\n" for name in sections)
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    rows = report.read(REPOSITORY / "benchmarks" / "results")
    said = report.write_pages([tmp_path / "page.md"], rows, tmp_path)
    assert said == [f"page.md: {name}" for name in sections]
    sizes = [path.stat().st_size for path in tmp_path.glob("roofline-*.svg")]
    assert sizes and max(sizes) < 100_000


def test_the_marks_of_the_repository_are_sections() -> None:
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        marked = {name for _, name, _ in report.PLACE.findall(page.read_text(encoding="utf-8"))}
        assert marked <= set(report.COMMANDS), page


def test_networks_of_one_sample_after_the_other_stand_beside_their_peers() -> None:
    case = {"suite": "autoregressive", "kind": "cpu", "device": "a CPU", "network": "wavenet", "threads": 1, "batch": 1}
    ours = {"engine": "fastvoc", "precision": "bfloat16", "times_real_time_each": 0.571, "ratio_to_pytorch": 45.44}
    rows = [
        case | ours | {"samples_per_second": 12596.3},
        case | {"engine": "PyTorch", "precision": "float32", "samples_per_second": 277.2},
        case | ours | {"samples_per_second": 15000.0, "threads": 2, "ratio_to_pytorch": None},
        case | {"samples_per_cpu_second": {"float32": 6650}},  # of the first version
    ]
    *_, one, two = report.tables(rows)["autoregressive"].splitlines()
    assert one == "| WaveNet, r9y9 | 1 | 1 | bfloat16 | **12,600** | 0.57 | 277 | – | 45.4 |"
    assert two == "| WaveNet, r9y9 | 2 | 1 | bfloat16 | **15,000** | 0.57 | – | – | – |"


def test_the_headline_joins_what_two_runs_have_measured() -> None:
    case = {"suite": "headline", "kind": "cuda", "device": "a GPU", "network": "hifigan-v1", "precision": "float16"}
    case |= {"batch": 32, "frames": 344, "threads": 1}

    def rows_of(peers: str, **milliseconds: float | str) -> list[dict[str, Any]]:
        made = []
        for engine, value in milliseconds.items():
            figure = (
                {"left_out": value}
                if isinstance(value, str)
                else {"milliseconds": value, "times_real_time": 1e5 / value, "share_of_peak": 5 / value}
            )
            name = {"ours": "fastvoc", "replay": "fastvoc, replay", "eager": "PyTorch, narrow weights"}.get(engine)
            made.append(case | figure | {"peers": peers, "engine": name or "torch.compile, max-autotune"})
        return made

    early = [row | {"date": "1", "file": "1"} for row in rows_of("eager", ours=12.5, replay=10.0, eager=50.0)]
    late = [row | {"date": "2", "file": "2"} for row in rows_of("compiled", ours=12.6, compiled=25.0)]
    *_, line = report.tables(newest([*early, *late]))["headline"].splitlines()
    figures = "| 10.000 | 12.500 | **8,000** | 50.000 | – | – | 25.000 | 2.00 | 50 % |"
    assert line == f"| HiFi-GAN V1 | float16 | 32 × 344 {figures}"
    *_, line = report.tables(rows_of("eager", ours=12.5, eager="off by 1 where 0 is allowed"))["headline"].splitlines()
    assert line.endswith("| – | 12.500 | **8,000** | wrong | – | – | – | – | 40 % |")


def test_the_headline_is_measured_on_a_processor_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/test_headline.py"]
    options = ["--device", "cpu", "--networks", "hifigan-v2", "--sounds", "1x8", "--rounds", "3", "-k", "eager"]
    environment = os.environ | {"FASTVOC_COMMIT": "abc1234"}
    done = subprocess.run(
        [*command, *options, "--results", tmp_path],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    [path] = tmp_path.glob("headline-cpu-*.json")
    rows = json.loads(path.read_text())
    assert [row["engine"] for row in rows] == ["fastvoc", "PyTorch, channels-last"]
    assert all(row["milliseconds"] > 0 and row["commit"] == "abc1234" for row in rows)


def test_rows_are_on_disk_as_soon_as_a_test_is_over(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.add([{"suite": "a", "number": 1}], "cpu")
    [path] = tmp_path.glob("a-cpu-*.json")
    assert [one["number"] for one in json.loads(path.read_text())] == [1]
    rows.add([{"suite": "a", "number": 2}, {"suite": "b", "number": 3, "threads": 64}], "cpu")
    assert [one["number"] for one in json.loads(path.read_text())] == [1, 2]
    [second] = [json.loads(file.read_text()) for file in tmp_path.glob("b-cpu-*.json")]
    assert second[0]["threads"] == 64 and {"device", "torch", "commit", "date", "python"} <= set(second[0])


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    base = vocoder_of(GENERATORS["ResBlock1"])

    def open_small(name: str, **how: Any) -> Vocoder:
        weights = copy.deepcopy(base.generator.state_dict())
        return Vocoder(Checkpoint(base.config, weights, "a test"), **how)

    monkeypatch.setattr(bench, "_open", open_small)


def test_bench_prints_speeds(small_networks: None, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    assert main(["bench", "hifigan-v1", "melgan", "--seconds", "0.01", "--rounds", "2", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Times real time, 0.01 s, float32, 1 thread" in " ".join(shown.split())
    [line] = [line.split() for line in shown.splitlines() if line.startswith("melgan")]
    ours, plain, ratio = map(float, line[1:])
    # the speeds are rounded to a tenth, the ratio to a hundredth
    assert ours / plain == pytest.approx(ratio, rel=0.05 / ours + 0.05 / plain + 0.005 / ratio)
    assert torch.get_num_threads() == threads


def test_bench_compares(
    small_networks: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(name, speed) for name, speed in (("fastvoc", 31.25), ("PyTorch", 20.0))]
    monkeypatch.setattr(bench, "_measured", lambda: report.summary(rows))
    networks, how = ["hifigan-v2", "melgan"], ["--seconds", "0.01", "--rounds", "1", "--device", "cpu", "--compare"]
    assert main(["bench", *networks, *how]) == 0
    shown = capsys.readouterr().out
    assert "31.2  " in shown
    known, unknown = (next(line for line in shown.splitlines() if line.startswith(name)) for name in networks)
    assert "a processor, 2 threads, 2030-01-01" in known
    assert "a processor" not in unknown  # which was not measured before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bench_measures_what_was_asked_for(dtype: torch.dtype) -> None:
    opened = bench._open("hifigan-v2", device=torch.device("cpu"), dtype=dtype, backend="reference")
    assert (opened.dtype, opened.backend, opened.device) == (dtype, "reference", torch.device("cpu"))
    assert opened.config.generator == hifigan.V2


def test_bench_has_no_number_for_a_wrong_wave(
    small_networks: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = Vocoder.__call__

    def off(self: Vocoder, mel: Any) -> Any:
        return right(self, mel) + (0.001 if self.backend is None else 0)

    monkeypatch.setattr(Vocoder, "__call__", off)
    assert main(["bench", "hifigan-v2", "--seconds", "0.01"]) == 1
    assert "hifigan-v2  WRONG" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["hifigan-v9"], "fastvoc: hifigan-v9: is no network that is measured; known: "),
        (["--seconds", "0"], "fastvoc: --seconds 0 --rounds 7 --threads 0: seconds and rounds must be positive"),
        (["--rounds", "0"], "seconds and rounds must be positive"),
        (["--threads", "-1"], "threads not negative"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("fastvoc: ") and sentence in said


def test_engines_say_what_is_not_installed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert str(ENGINES["OpenVINO"].missing(files, "cpu")).startswith("openvino, onnx, onnxscript not installed; pip")


def test_the_tutorials_benchmark_measures_what_the_tutorial_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is a stand-in: fastvoc takes 0.5 s for all mels, plain PyTorch 1 s."""
    shapes = []

    def clock(runs: list[Any], device: str, **limits: Any) -> list[list[float]]:
        for run in runs:
            run.func(lambda mel, backend=run.args[0].backend: shapes.append((backend, *mel.shape)))
        return [[0.5], [1.0]]

    monkeypatch.setattr(test_tutorial, "interleaved", clock)
    request: Any = SimpleNamespace(config=SimpleNamespace(getoption=lambda name: 1))
    rows: list[dict[str, Any]] = []
    test_tutorial.test_tutorial("cpu", request, rows)
    assert shapes == [(backend, 32, 80, 50) for backend in (None, "reference") for _ in range(4)]
    for row, seconds in zip(rows, (0.5, 1.0), strict=True):
        assert row["milliseconds_per_mel"] == pytest.approx(1e3 * seconds / 128, abs=5e-4)
        assert row["times_real_time"] == pytest.approx(128 * 50 * 256 / 22050 / seconds, abs=5e-3)
        assert (row["tutorial_milliseconds_per_mel"], row["tutorial_device"]) == ([8, 10], "NVIDIA K80")


def first_of(*arguments: str, thorough: bool = False, networks: str | None = None) -> First:
    options = {"--thorough": thorough, "--networks": networks}
    return First(SimpleNamespace(args=list(arguments), getoption=options.__getitem__))


def collected() -> list[Any]:
    def item(file: str, **values: Any) -> Any:
        return SimpleNamespace(path=Path(f"{file}.py"), callspec=SimpleNamespace(params=values))

    op = SimpleNamespace(name="conv1d")
    ops = [
        item("test_ops", op=op, case=case, dtype=dtype, memory=memory, device="cpu")
        for case in ("stem", "head")
        for dtype in ("float32", "bfloat16")
        for memory in ("channels-first", "channels-last")
    ]
    vocoders = [
        item("test_vocoders", network=network, threads=threads)
        for network in ("hifigan-v1", "bigvgan")
        for threads in (1, 2)
    ]
    streams = [item("test_streaming", name=name, frames=frames) for name in ("melgan", "bigvgan") for frames in (1, 4)]
    steps = [item("test_training", recipe=recipe) for recipe in ("hifigan-v1", "hifigan-v2")]
    return [item("test_kernels"), *ops, *steps, *streams, *vocoders]


def test_what_is_asked_for_first_comes_first_and_alone() -> None:
    chosen, left = first_of(str(REPOSITORY / "benchmarks")).sort(items := collected())
    assert [item.path.stem for item in chosen] == ["test_vocoders", "test_streaming", "test_training", "test_ops"]
    assert chosen[0].callspec.params == {"network": "hifigan-v1", "threads": 2}
    assert chosen[3].callspec.params["case"] == "stem"
    assert len(chosen) + len(left) == len(items)
    chosen, _ = first_of(str(REPOSITORY / "benchmarks"), networks="bigvgan").sort(collected())
    assert [item.callspec.params["network"] for item in chosen[:2]] == ["hifigan-v1", "bigvgan"]


@pytest.mark.parametrize("named", [{"thorough": True}, {}])
def test_a_file_that_is_named_and_a_thorough_run_are_measured_whole(named: dict[str, bool]) -> None:
    folder = REPOSITORY / "benchmarks"
    choice = first_of(str(folder if named else folder / "test_ops.py::test_op"), **named)
    chosen, left = choice.sort(items := collected())
    assert len(chosen) == len(items) and not left
    assert [item.path.stem for item in chosen[:4]] == ["test_vocoders"] * 4
    assert choice.over() is None


def test_nothing_begins_when_five_minutes_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    choice, named = first_of(str(REPOSITORY / "benchmarks")), first_of(str(REPOSITORY / "benchmarks/test_ops.py"))
    assert choice.over() is None
    monkeypatch.setattr(first, "SECONDS", 0)
    assert "--thorough" in str(choice.over())
    assert named.over() is None


def test_a_line_says_the_ratio_of_a_network() -> None:
    row = {"suite": "vocoders", "network": "hifigan-v2", "precision": "float32", "kind": "cpu", "threads": 2}
    row |= {"engine": "fastvoc", "times_real_time": 141.2, "ratio_to_best_peer": 1.9, "best_peer": "OpenVINO"}
    assert sentences([row, row | {"engine": "OpenVINO", "ratio_to_best_peer": None} | {"suite": "kernels"}]) == [
        "HiFi-GAN V2, float32, 2 threads: 141 times real time, 1.90 times OpenVINO"
    ]
    steps = [
        {"suite": "training", "recipe": "hifigan-v2", "maker": maker, "precision": "float32", "milliseconds": taken}
        for maker, taken in (("fastvoc", 200.0), ("official, eager", 300.0), ("slow", 900.0))
    ]
    assert sentences(steps) == ["HiFi-GAN V2, training step, float32: 1.50 times official, eager"]


def test_a_busy_machine_has_a_row_for_each_situation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_busy, "PAUSE", 0)
    asked = SimpleNamespace(config=SimpleNamespace(getoption={"--rounds": 3, "--budget": 60}.__getitem__))
    calls: list[str] = []
    taken = test_busy.in_situations(
        {"fastvoc": lambda: calls.append("fastvoc")}, {"OpenVINO": lambda: calls.append("OpenVINO")}, asked
    )
    assert calls == ["fastvoc", "OpenVINO", "fastvoc", "fastvoc"] * 3
    case = {"suite": "busy", "network": "melgan", "precision": "float32", "threads": 2, "seconds": 2.0, "device": "a"}
    times = {"quiet": [1.0, 1.0], "OpenVINO": [2.0, 2.0], "beside": [4.0, 4.0]}
    assert {name: len(column) for name, column in taken["fastvoc"].items()} == dict.fromkeys(times, 3)
    rows = list(test_busy.rows_of(case, {"fastvoc": times}, sound=2.0))
    assert [row["share_of_quiet"] for row in rows] == [1.0, 0.5, 0.25]
    assert "| MelGAN | float32 | 2 | 2 | fastvoc | 2.00 | – | 50 % | 25 % |" in busy(rows)
    assert sentences([row | {"kind": "cpu"} for row in rows]) == [
        "MelGAN, float32, 2 threads: 50 % of its speed behind OpenVINO",
        "MelGAN, float32, 2 threads: 25 % of its speed beside another process",
    ]


def test_trials_change_what_they_say_and_nothing_else() -> None:
    def leaves(values: Any, name: str = "") -> dict[str, Any]:
        items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
        found = {k: v for key, part in items for k, v in leaves(part, f"{name}.{key}").items()}
        return found or {name: values}

    read = {trial: leaves(to_dict(test_trials.settings(trial, "cpu", "x", Path()))) for trial in test_trials.TRIALS}
    base = read.pop("the recipe")
    for trial, values in read.items():
        changed = {name for name in base.keys() | values.keys() if base.get(name) != values.get(name)} - {".folder"}
        named = tuple(f".{name}" for name in test_trials.TRIALS[trial]) or (".generator",)
        assert changed and all(name.startswith(named) for name in changed), (trial, changed)


def test_a_trial_counts_where_it_differs_by_more_than_seeds_do() -> None:
    measures = {"pesq": 1.1, "periodicity": 0.3, "quiet_mel_l1": 0.8, "smoothed_mel_l1": 0.9}
    common = {"suite": "trials", "device": "a processor", "channels": 64, "steps": 9, "minutes": 4.0} | measures
    rows = [
        common | {"trial": "the recipe", "mel_l1": 0.50, "mr_stft": 1.0},
        common | {"trial": "the recipe, second seed", "mel_l1": 0.54, "mr_stft": 1.2},
        common | {"trial": "first", "mel_l1": 0.47, "mr_stft": 1.4},
        common | {"trial": "second", "mel_l1": 0.49, "mr_stft": 1.29, "pesq": 1.2},
        common | {"trial": "third", "mel_l1": 0.49, "mr_stft": 1.29},
        common | {"trial": "first", "mel_l1": 0.9, "mr_stft": 1.0, "minutes": 2.0},
    ]
    lines = report.tables(rows)["trials"].splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [row["trial"] for row in rows[:-1]]
    said = [line.split("|")[-2].strip() for line in lines]
    assert said == ["", "", "better: mel L1; worse: MR-STFT", "better: PESQ", "no difference"]


def test_the_spectrum_of_a_trial_has_the_mel_that_it_is_made_of() -> None:
    mel = CONVENTIONS["hifigan"]
    config = PriorHiFiGANConfig(**SMALL)
    generator = config.build()
    generator.prepare(mel)
    features = some_mel(6)
    spectrum = generator.spectrum(features)
    assert spectrum.shape == (1, 513, 6)
    exact = generator.inverse.double() @ features.double().exp()
    # in double precision the filters undo their pseudo-inverse: 80 filters are independent
    back = torch.from_numpy(mel_filters(mel)).double() @ exact
    torch.testing.assert_close(back, features.double().exp(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(spectrum.double(), exact.abs().clamp(min=1e-5).log(), rtol=0, atol=1e-3)
    torch.manual_seed(0)
    wanted = HiFiGANConfig(**SMALL).build().state_dict()
    torch.manual_seed(0)
    found = config.build().state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items() if "stem" not in name)
