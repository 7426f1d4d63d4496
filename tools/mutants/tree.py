"""Copies of the tree in folders of their own, where files may be changed and tests may write."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
from pathlib import Path
from py_compile import PycInvalidationMode

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".mutants"
PACKAGE = "fastvoc"
BUILT = ("fastvoc/_native", "build")  # ignored by Git, and needed by tests


def tracked(*selection: str) -> list[str]:
    """Return the files of the tree that Git does not ignore, sorted; only those that match the selection, if any."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *selection]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted({name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()})


def changed(base: str) -> list[str]:
    """Return the files of the package that differ from what they were where this branch left `base`."""
    command = ["git", "diff", "--name-only", "--merge-base", base, "--", PACKAGE]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return sorted(set(done.stdout.split("\n")) & set(tracked(PACKAGE)))


def copy(folder: Path) -> None:
    """Copy the working tree into a folder, without its history, and with what was built in it."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, target)
    for name in BUILT:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, folder / name, dirs_exist_ok=True)
    # Compiled files know the content of their source, not its time and size, which a mutant may share with it.
    compileall.compile_dir(folder / PACKAGE, quiet=2, invalidation_mode=PycInvalidationMode.CHECKED_HASH)


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which the tests of a copy run: its own package, home and temporary files."""
    for name in ("home", "tmp"):
        (folder / ".mutants" / name).mkdir(parents=True, exist_ok=True)
    speech = os.environ.get("FASTVOC_SPEECH", str(REPOSITORY.parent / "shared" / "data" / "ljspeech-mini"))
    return {
        "FASTVOC_SPEECH": speech,
        "HOME": str(folder / ".mutants" / "home"),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TMPDIR": str(folder / ".mutants" / "tmp"),
    }
