"""A command of the command line: its name, its options, and the function that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


class ExitCode(IntEnum):
    """The exit code of a command. UNKNOWN is never reported as DONE."""

    DONE = 0
    """Nothing is left to do."""
    FOUND = 1
    """What the command searches for was found, and is still there."""
    UNKNOWN = 2
    """Something could not be determined."""
    INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """One subcommand.

    :param name: as it is written on the command line.
    :param summary: for the list of commands.
    :param description: for the command's own help.
    :param exit_codes: their meanings, for the end of that help.
    :param add_options: adds the command's own options to a parser.
    :param run: returns the text for standard output, and the exit code.
    """

    name: str
    summary: str
    description: str
    exit_codes: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], tuple[str, ExitCode]]
