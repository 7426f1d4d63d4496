"""What the tests share: real speech where it is at hand, and quiet, single-threaded arithmetic."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

# Tests import each other by name, whatever room they are in; no two files have the same one.
sys.path[:0] = sorted({str(path.parent) for path in (REPOSITORY / "tests").rglob("*.py")})


@pytest.fixture(scope="session")
def speech() -> list[Path]:
    """Clips of real speech, sorted by name; the test is skipped where there are none."""
    folder = Path(os.environ.get("FASTVOC_SPEECH", REPOSITORY.parent / "shared" / "data" / "ljspeech-mini"))
    clips = sorted(folder.glob("*.wav"))
    if not clips:
        pytest.skip(f"no speech in {folder}; set FASTVOC_SPEECH to a folder of LJ Speech clips to run this test")
    return clips


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let each test draw the same numbers in every run, whatever runs before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def asked_anew() -> None:
    """Let each test have its own machine: no operator remembers what ran on another."""
    from fastvoc.ops import OPS

    for op in OPS.values():
        op.forget()
