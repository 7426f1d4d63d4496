"""The door: parse, call, print. A command is a file, and a name in `COMMANDS`."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import tyro

from fastvoc.cli.autoencoder.decode import Decode
from fastvoc.cli.autoencoder.encode import Encode
from fastvoc.cli.autoencoder.morph import Morph
from fastvoc.cli.checkpoint.convert import Convert
from fastvoc.cli.checkpoint.info import Info
from fastvoc.cli.command import MISTAKES, Command, UsageError
from fastvoc.cli.instrument.melody import Melody
from fastvoc.cli.instrument.note import PlayNote
from fastvoc.cli.instrument.notes import Notes
from fastvoc.cli.instrument.rainbowgram import Rainbowgram
from fastvoc.cli.machine.bench import Bench
from fastvoc.cli.machine.demo import Demo
from fastvoc.cli.machine.doctor import Doctor
from fastvoc.cli.piper import Piper
from fastvoc.cli.terminal import complain
from fastvoc.cli.train import Train
from fastvoc.cli.vocoder.mel import Mel
from fastvoc.cli.vocoder.noise import Noise
from fastvoc.cli.vocoder.resynth import Resynth
from fastvoc.cli.vocoder.vocode import Vocode

COMMANDS: dict[str, Callable[..., Command | Notes]] = {
    "demo": Demo,
    "vocode": Vocode,
    "resynth": Resynth,
    "mel": Mel,
    "noise": Noise,
    "encode": Encode,
    "decode": Decode,
    "morph": Morph,
    "piper": Piper,
    "note": PlayNote,
    "melody": Melody,
    "rainbowgram": Rainbowgram,
    "notes": Notes,
    "convert": Convert,
    "train": Train,
    "info": Info,
    "doctor": Doctor,
    "bench": Bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Parameters
    ----------
    argv : sequence of str, optional
        What stands behind ``fastvoc``; by default this process's own arguments.

    Returns
    -------
    int
        The exit code: 0, 1 if something failed, 2 for wrong usage, 130 if it was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal's code page lacks is no reason to die
            stream.reconfigure(errors="backslashreplace")
    arguments = [_at_home(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    if arguments == ["--version"]:
        print(f"fastvoc {version('fastvoc')}")
        return 0
    if twice := _given_twice(arguments):
        complain(f"fastvoc: {twice} is given twice, of which only the last would count; write all of it behind one")
        return 2
    try:
        command: Command | Notes = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="fastvoc",
            description="Turn mel spectrograms into sound, fast. `fastvoc COMMAND --help` explains a command.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as end:  # how the parser says that it has printed help (0) or an error (2)
        return end.code if isinstance(end.code, int) else 2
    try:
        return command.run()
    except MISTAKES as error:
        if command.debug:
            traceback.print_exc()
        else:
            complain(f"fastvoc: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        complain("fastvoc: interrupted; what is written is complete, and the same command goes on from there")
        return 130


def _given_twice(arguments: Sequence[str]) -> str | None:
    """Return the first option that is there again, whose values the parser would forget, or None."""
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return next((option for option in options if options.count(option) > 1), None)


def _at_home(argument: str) -> str:
    """Expand a leading ``~``, which a shell leaves alone in quotes and behind an equals sign."""
    option, sign, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if not value.startswith("~") or Path(value).exists():
        return argument
    return option + sign + os.path.expanduser(value)  # noqa: PTH111 (which leaves unknown users alone)
