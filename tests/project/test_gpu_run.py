"""`benchmarks/gpu.sh`: one call on a machine that is at hand for minutes, and is nowhere near while this is written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmarks" / "gpu.sh"
pytestmark = [
    pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not here"),
    pytest.mark.skipif(sys.platform != "linux", reason="the script is for Linux"),
]

PLAYED = r"""#!/usr/bin/env bash
# Python on a machine with a GPU, as far as the script looks at it.
case "$*" in
  *is_available*) ;;
  *get_device_capability*) echo 80 ;;
  *"cuda and not float32 and not backward"*)
    if [ -n "${SLOW:-}" ]; then
      trap 'echo "2 passed in 1 s"; exit 2' INT
      sleep 60 &
      wait
    fi
    echo "2 passed in 1 s" ;;
  *test_training.py*) printf 'FAILED a.py::b - AssertionError: off\n1 failed, 1 passed in 1 s\n' && exit 1 ;;
  *test_headline.py*)
    [ -z "${ROWS:-}" ] || echo "{}" >"$ROWS/row.json"
    echo "$FASTVOC_COMMIT $PYTHONPATH" && echo "1 passed in 1 s" ;;
  *test_triton_gpu.py*) echo "7 skipped in 1 s" ;;
  *benchmarks.report*) shift 4 && echo "| V1 | 0.3 ms |" >>"$2" ;;
  *) echo "1 passed in 1 s" ;;
esac
"""


def play(tmp_path: Path, *options: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str]]:
    """Run the script with a Python that is played, and return what it said and what became of its steps."""
    (tmp_path / "python").write_text(PLAYED)
    (tmp_path / "python").chmod(0o755)
    out = tmp_path / "out"
    environment = {"PATH": "/usr/bin:/bin", "OUT": str(out), "PYTHON": str(tmp_path / "python")} | environment
    done = subprocess.run(
        ["bash", SCRIPT, *options], env=environment, capture_output=True, text=True, check=False, start_new_session=True
    )
    assert [path.name for path in out.iterdir()] == ["gpu.tar.gz"], done.stderr
    with tarfile.open(out / "gpu.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    lines = (tmp_path / "gpu" / "steps.tsv").read_text().splitlines()
    return done, {line.split("\t")[0]: line.split("\t")[1] for line in lines}


def test_every_step_leaves_its_result_in_one_archive_and_the_tables_come_last(tmp_path: Path) -> None:
    done, steps = play(tmp_path, FASTVOC_COMMIT="abc1234", PYTHONPATH="/tmp/site")
    assert done.returncode == 1  # two steps failed
    assert steps["contract"] == steps["headline"] == steps["report"] == "ok"
    assert steps["training"] == "FAILED with 1" and "FAILED a.py::b - AssertionError: off" in done.stdout
    assert steps["determinism_triton"] == "FAILED: nothing passed"  # it would otherwise look as if all were well
    assert steps["memcheck"] == "there is no compute-sanitizer" and "hopper_probe" not in steps
    assert (tmp_path / "gpu" / "logs" / "headline.txt").read_text().startswith(f"abc1234 {REPOSITORY}:/tmp/site\n")
    last = done.stdout.splitlines()
    assert last[-1].startswith("report\tok") and "| V1 | 0.3 ms |" in last[-len(steps) - 6 :]


def test_a_step_that_is_cut_off_keeps_what_it_had_and_the_tables_are_made_all_the_same(tmp_path: Path) -> None:
    done, steps = play(tmp_path, "--seconds", "9", SLOW="yes")
    assert done.returncode == 0
    assert steps["contract"] == "cut off; what was complete is kept"
    assert (tmp_path / "gpu" / "logs" / "contract.txt").read_text() == "2 passed in 1 s\n"
    assert steps["headline"] == "not reached" and steps["report"] == "ok"


def test_steps_can_be_chosen(tmp_path: Path) -> None:
    done, steps = play(tmp_path, "--only", "headline,determinism")
    assert done.returncode == 0 and list(steps) == ["headline", "determinism", "report"]


def test_what_matters_most_comes_first() -> None:
    done = subprocess.run(["bash", SCRIPT, "--dry-run"], capture_output=True, text=True, check=True)
    steps = [line.split(" ")[0] for line in done.stdout.splitlines()]
    order = ["machine", "hopper_probe", "build", "predicted", "contract", "headline", "training", "contract_gradients"]
    assert steps[: len(order)] == order and steps[-1] == "report"
    assert {"contract_float32", "vocoders", "operators", "memcheck", "racecheck", "headline_compiled"} < {*steps}
    for line in done.stdout.splitlines():
        for word in line.split():
            if word.startswith(("benchmarks/test_", "tests/")):
                assert (REPOSITORY / word.split("::")[0]).is_file(), line
    assert not (REPOSITORY / "benchmarks" / "results" / "gpu").exists()


def test_what_each_step_should_say_is_written_down() -> None:
    done = subprocess.run(["bash", SCRIPT, "--dry-run"], capture_output=True, text=True, check=True)
    steps = [line.split(" ")[0] for line in done.stdout.splitlines()]
    page = (REPOSITORY / "docs" / "cuda.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.split("## On a GPU machine")[1].splitlines() if line[:3] == "| `"]
    described = [name for step, _ in rows for name in re.findall(r"`(\w+)`", step)]
    assert sorted(described) == sorted(steps)
    assert all(len(words.strip()) > 3 for _, words in rows)


def test_make_gpu_installs_nothing() -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    done = subprocess.run(["make", "-n", "gpu"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "pip" not in done.stdout and "venv -" not in done.stdout and "benchmarks/gpu.sh" in done.stdout


HIDING = """
import importlib.machinery, importlib.metadata
from importlib.metadata import PackageNotFoundError

HIDDEN = {names}
find_spec, distribution = importlib.machinery.PathFinder.find_spec, importlib.metadata.distribution

@classmethod
def found(cls, name, *others):
    return None if name.split(".")[0] in HIDDEN else find_spec(name, *others)

importlib.machinery.PathFinder.find_spec = found

def visible(name):
    if name.lower().replace("-", "_") in HIDDEN | {{"fastvoc"}}:
        raise PackageNotFoundError(name)
    return distribution(name)

importlib.metadata.distribution = visible
"""


def project_table() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11 brought it
    project: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return project


def hidden() -> set[str]:
    """Return the packages that the script must do without: those of extras, but for pytest's and the compilers'."""
    project = project_table()
    wanted = {line for extra in project["optional-dependencies"].values() for line in extra}
    names = {line.split(">")[0].split("[")[0].strip().lower().replace("-", "_") for line in wanted}
    pytest_and_plugins = {"pytest", "pytest_benchmark", "pytest_xdist", "hypothesis"}
    return names - pytest_and_plugins - {"fastvoc", "triton", "setuptools", "cmake", "ninja", "nvidia_cuda_nvrtc"}


def test_kernels_are_tested_and_measured_with_torch_and_cffi_alone(tmp_path: Path) -> None:
    project = project_table()
    needed = {line.split(">")[0].lower().replace("-", "_") for line in project["dependencies"]}
    absent = hidden() | needed - {"torch", "numpy", "cffi", "typing_extensions"} | {"yaml"}
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=absent))
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    seen = subprocess.run([sys.executable, "-c", "import soundfile"], env=environment, capture_output=True, check=False)
    assert b"No module named 'soundfile'" in seen.stderr
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only"]
    for files in (["tests/ops/test_ops.py"], ["benchmarks/test_ops.py", "benchmarks/test_kernels.py"]):
        done = subprocess.run(
            [*command, *files], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and "error" not in done.stderr.lower(), done.stdout[-3000:] + done.stderr


@pytest.mark.slow
def test_every_step_reaches_its_own_work_on_a_bare_machine(tmp_path: Path) -> None:
    """There is neither a network nor git, nor a package but those that fastvoc needs, PyTorch and pytest.

    Steps that compile or execute kernels, or train, take many minutes, and are left to `FASTVOC_REHEARSE=all`. It may
    also name steps, with commas between them.
    """
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(names=hidden()))
    tree = tmp_path / "tree"
    left = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "results", "build", "__pycache__")
    shutil.copytree(REPOSITORY, tree, ignore=left)
    alone = ["unshare", "-n"] if os.geteuid() == 0 and shutil.which("unshare") else []
    environment = os.environ | {"OUT": str(tmp_path / "out"), "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)}
    script = ["bash", tree / "benchmarks" / "gpu.sh", "--rehearse", "--seconds", "3600"]
    asked = os.environ.get("FASTVOC_REHEARSE") or "machine,headline,doctor,operators,hottest"
    script += [] if asked == "all" else ["--only", asked]
    done = subprocess.run([*alone, *script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gpu.tar.gz"]
