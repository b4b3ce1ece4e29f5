"""The command line, ``airflow-resilient``, for people on call. Each command is a file of `operations`."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from . import registry
from .operations.command import ExitCode
from .operations.report import printable_lines

if TYPE_CHECKING:
    from .operations.command import Command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: those of the command line by default.
    :return: the exit code, see `ExitCode`.
    """
    # On a terminal only warnings and errors are of interest.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    # The commands import Airflow, whose log handlers keep the standard output that they find then.
    with contextlib.redirect_stdout(sys.stderr):
        parser = _parser(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(arguments)
    return _run(options.command, options)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; of a command that is named first, alone: others may import what it does not need."""
    parser = argparse.ArgumentParser(
        prog="airflow-resilient",
        description="Watch an Airflow; find and clean up the remote jobs of airflow_resilient's operators.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = [name for name in registry.OPERATIONS if name in arguments[:1]]
    for name in named or registry.OPERATIONS:
        command: Command = registry.operation(name)
        own = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.description,
            epilog=f"exit code: {command.exit_codes}",
        )
        own.set_defaults(command=command)
        command.add_options(own)
    return parser


def _run(command: Command, options: argparse.Namespace) -> int:
    """Run a command. Only its result is printed on standard output."""
    terminal = _Terminal(sys.stderr)
    # Whatever Airflow and boto3 print, and log with handlers of their own.
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        logging.basicConfig(stream=terminal, level=logging.WARNING, format="%(message)s")
        from .operations.task_instances import AirflowApiError

        try:
            text, code = command.run(options)
        except AirflowApiError as error:
            sys.stderr.write(f"airflow-resilient: {error}\n")
            return ExitCode.UNKNOWN
        except KeyboardInterrupt:
            sys.stderr.write("airflow-resilient: interrupted; jobs that were cancelled already will end\n")
            return ExitCode.INTERRUPTED
        except Exception:
            logging.getLogger(__name__).exception(
                "airflow-resilient: unexpected error; please report it as a bug"
            )
            return ExitCode.UNKNOWN  # never FOUND
    sys.stdout.write(printable_lines(text) + "\n")
    return code


class _Terminal(io.TextIOBase):
    """A stream to which nothing is written that a terminal would act on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str) -> int:
        self._stream.write(printable_lines(text))
        return len(text)

    def flush(self) -> None:
        if not self._stream.closed:  # Python flushes an object that it discards, however late that is
            self._stream.flush()


def _version() -> str:
    from importlib.metadata import version

    return f"airflow-resilient {version('airflow-resilient')}"
