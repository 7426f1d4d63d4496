"""Data beside weights are opened without running anything; what would run something is refused unread."""

from __future__ import annotations

import argparse
import builtins
import collections
import datetime
import functools
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch

from fastvoc.audio import MelConfig
from fastvoc.checkpoints import open_checkpoint
from fastvoc.checkpoints.reading import safe_loading, stand_ins
from fastvoc.models import HiFiGANConfig

TINY = HiFiGANConfig(channels=4, rates=(4, 2), rate_kernel_sizes=(8, 4), kernel_sizes=(3,), dilations=((1,),))
MEL = MelConfig(sample_rate=16000, fft_size=32, hop=8, window_size=24, bands=80, low=0, high=7000)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return foreign.official(tmp_path / "run", TINY, MEL, values=foreign.single) / "g_00000005"


def losses() -> Any:
    found: Any = collections.defaultdict(list)
    found["mel"].append(np.float32(0.5))
    return found


BESIDE: dict[str, Any] = {
    "NumPy scalars": {"loss": np.float64(0.25), "step": np.int64(7), "best": np.bool_(True), "name": np.str_("a")},
    "NumPy arrays": {"history": np.arange(3.0), "mean": np.zeros((2, 80), dtype=np.float32)},
    "paths": {"out": Path("runs/1"), "data": pathlib.PureWindowsPath("C:/data"), "pure": pathlib.PurePosixPath("/a")},
    "arguments": argparse.Namespace(config=Path("config.json"), rate=np.float32(1e-4), inner=argparse.Namespace(a=1)),
    "defaultdict": losses(),
    "ordered and counted": [collections.OrderedDict(a=1), collections.Counter("ab"), collections.deque([1], maxlen=2)],
    "dates": [
        datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.timezone.utc),
        datetime.date(2024, 5, 6),
        datetime.timedelta(seconds=3),
    ],
    "simple namespace": types.SimpleNamespace(a=1),
}


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BESIDE)
def test_data_beside_weights_are_opened(official: Path, name: str, archive: bool) -> None:
    expected = open_checkpoint(official)
    content = torch.load(official) | {"beside": BESIDE[name]}
    torch.save(content, official, _use_new_zipfile_serialization=archive)
    found = open_checkpoint(official)
    assert found.config == expected.config and found.notes == expected.notes
    assert all(torch.equal(found.weights[key], tensor) for key, tensor in expected.weights.items())


def test_numbers_of_numpy_keep_their_values_and_all_else_is_inert(tmp_path: Path) -> None:
    numbers = [np.float16(1.5), np.float64(-2.5), np.int8(-3), np.uint64(2**63), np.bool_(True)]
    swapped = np.array(2.5, dtype=np.dtype(">f8" if sys.byteorder == "little" else "<f8"))[()]
    others = [np.complex64(1), np.arange(3), Path("a"), argparse.Namespace(a=1), datetime.date(2024, 1, 1)]
    torch.save({"numbers": [*numbers, swapped], "others": others, "losses": losses()}, tmp_path / "data.pt")
    found = safe_loading.load(tmp_path / "data.pt")
    assert found["numbers"] == [1.5, -2.5, -3, 2**63, True, 2.5]
    assert [type(number) for number in found["numbers"]] == [float, float, int, int, bool, float]
    assert all(type(other) is stand_ins.Inert for other in found["others"])
    assert found["losses"] == {"mel": [0.5]} and type(found["losses"]) is dict


def test_settings_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    foreign.deep_learning_examples(tmp_path, TINY, MEL)
    path = next(tmp_path.iterdir())
    content = torch.load(path)
    content["train_setup"]["sampling_rate"] = np.int64(16001)
    content["train_setup"]["output"] = Path("runs")
    torch.save(content, path)
    assert open_checkpoint(path).config.mel.sample_rate == 16001


def test_afterwards_pytorch_trusts_no_more_than_before(official: Path) -> None:
    before = set(torch.serialization.get_safe_globals())  # which PyTorch lists in any order
    torch.save(torch.load(official) | {"loss": np.float64(1)}, official)
    open_checkpoint(official)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(official)


class Call:
    """Is unpickled by calling something, and perhaps by setting a state."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.made = (function, arguments, *([] if state is None else [state]))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    """A file that every attack would make."""
    yield tmp_path / "trace"


def command(trace: Path) -> str:
    return f"touch {trace}"


def code(trace: Path) -> str:
    return f"open({str(trace)!r}, 'w')"


def reconstruct() -> Any:
    return np._core.multiarray._reconstruct


ATTACKS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda trace: Call(os.system, command(trace)),
    "eval": lambda trace: Call(builtins.eval, code(trace)),
    "exec": lambda trace: Call(builtins.exec, code(trace)),
    "import": lambda trace: Call(builtins.__import__, "antigravity"),
    "getattr": lambda trace: Call(builtins.getattr, Path, "unlink"),
    "open": lambda trace: Call(builtins.open, str(trace), "w"),
    "subprocess": lambda trace: Call(subprocess.check_output, command(trace)),
    "torch.load": lambda trace: Call(torch.load, str(trace)),
    "torch.hub": lambda trace: Call(torch.hub.load, "owner/name", "model"),
    "numpy.load": lambda trace: Call(np.load, str(trace), None, True),
    "functools.partial": lambda trace: Call(functools.partial, os.system, command(trace)),
    "map": lambda trace: Call(builtins.map, os.system, [command(trace)]),
    "pickle.loads": lambda trace: Call(pickle.loads, pickle.dumps(1)),
    "an array of a class": lambda trace: Call(reconstruct(), subprocess.Popen, (command(trace),), b"b"),
    "a defaultdict that calls": lambda trace: Call(collections.defaultdict, os.system),
    "arguments with a state": lambda trace: Call(
        argparse.Namespace, state={"__setstate__": Call(os.system, command(trace))}
    ),
    "a path that is none": lambda trace: Call(Path.unlink, Path(trace)),
    "a method of a path": lambda trace: Call(Path.write_text, Path(trace), "a"),
    "a module": lambda trace: torch.nn.Linear(1, 1),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_would_run_is_refused(official: Path, trace: Path, name: str) -> None:
    """In either layout of PyTorch's, also behind data for which there are stand-ins."""
    inert = {"loss": np.float64(1), "out": Path("a"), "losses": losses()}
    for beside, archive in (({}, True), (inert, True), (inert, False)):
        content = {**beside, "attack": ATTACKS[name](trace), **torch.load(official)}
        broken = official.with_name("g_00000009")
        torch.save(content, broken, _use_new_zipfile_serialization=archive)
        with pytest.raises(ValueError, match=r"wants to run [\w.]+ while it is opened") as caught:
            open_checkpoint(broken)
        assert "\n" not in str(caught.value)
        assert not trace.exists()


def archive_of(path: Path, program: bytes) -> None:
    """Write a file as PyTorch does, around a pickle that is written by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", sys.byteorder)
        archive.writestr("archive/version", "3\n")


def name_of(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


NAMESPACE, PATH = name_of("argparse", "Namespace"), name_of("pathlib", "PosixPath")
NEW, CALL, BUILD = b")\x81", b")R", b"b"

PROGRAMS: dict[str, tuple[bytes, str | None]] = {
    # a state for a class, not for an object of it: what follows would have this method
    "the class is given a method": (NAMESPACE + b"}" + text("__setstate__") + NAMESPACE + b"s" + BUILD, "Can only"),
    "slots are set on a class": (NAMESPACE + b"N}" + text("__call__") + NAMESPACE + b"s\x86" + BUILD, "Can only"),
    "a function is given a state": (name_of("collections", "defaultdict") + b"}" + BUILD, "Can only"),
    "an object is given methods": (
        NAMESPACE + NEW + b"}" + text("__setstate__") + NAMESPACE + b"s" + BUILD + b"}" + BUILD,
        None,
    ),
    "a path is given slots": (PATH + CALL + b"N}" + text("_raw_paths") + NAMESPACE + b"s\x86" + BUILD, None),
    "a number of a made-up kind": (
        name_of("numpy.core.multiarray", "scalar") + name_of("numpy", "dtype") + NEW + text("x") + b"\x86R",
        None,
    ),
    "an object in a number": (
        name_of("numpy.core.multiarray", "scalar")
        + name_of("numpy", "dtype")
        + text("O8")
        + b"\x85R"
        + NAMESPACE
        + NEW
        + b"\x86R",
        None,
    ),
    "an object is called": (NAMESPACE + NEW + CALL, "unrecognized"),
    "a subclass of a path": (name_of("evil", "PosixPath") + CALL, "evil.PosixPath"),
    "an attribute of a class": (name_of("argparse", "Namespace.__init__") + CALL, "argparse.Namespace"),
    "a name with dots": (name_of("pathlib", "os.system") + CALL, "pathlib.os.system"),
}
"""A pickle's program, and what its refusal names; None where it makes nothing but inert data."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_written_by_hand_do_nothing(tmp_path: Path, name: str) -> None:
    program, refused = PROGRAMS[name]
    before = {kind: dict(vars(kind)) for kind in (stand_ins.Inert, stand_ins.Dtype)}
    archive_of(tmp_path / "g_00000001", b"\x80\x02}" + text("a") + program + b"s.")
    if refused is None:
        found = safe_loading.load(tmp_path / "g_00000001")["a"]
        assert type(found) in (stand_ins.Inert, dict) and "_raw_paths" not in vars(found)
    else:
        with pytest.raises(ValueError, match=rf"wants to run (code|{re.escape(refused)})"):
            safe_loading.load(tmp_path / "g_00000001")
    assert {kind: dict(vars(kind)) for kind in before} == before


@pytest.mark.parametrize("name", ["a network", "weights beside an object", "it's $(touch trace) `touch trace`"])
def test_what_is_refused_can_be_saved_again_by_the_command(tmp_path: Path, name: str) -> None:
    """By someone who trusts the file; its name may hold what a shell would run."""
    foreign.official(tmp_path, replace(TINY), MEL, values=foreign.single)
    state = torch.load(tmp_path / "g_00000005")["generator"]
    expected = open_checkpoint(tmp_path).weights
    path = tmp_path / f"{name}.pt"
    if name == "a network":
        network = torch.nn.Linear(1, 1)
        network.load_state_dict = None
        torch.save(network, path)
    else:
        torch.save({"generator": state, "schedule": torch.nn.Linear(1, 1), "epoch": 3}, path)
    with pytest.raises(ValueError, match="wants to run torch") as caught:
        open_checkpoint(path)
    told = re.search(r"python (-c .*)", str(caught.value))
    assert told is not None
    subprocess.run(f"{sys.executable} {told[1]}", shell=True, cwd=tmp_path, check=True)
    assert not (tmp_path / "trace").exists()
    again = tmp_path / f"plain-{name}.pt"
    if name == "a network":
        assert set(torch.load(again, weights_only=True)) == {"weight", "bias"}
    else:
        found = open_checkpoint(again).weights
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
