"""The command line; one file for each noun."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from planish.cli import (
    architectures,
    catalog,
    demo,
    denied,
    doctor,
    files,
    jobs,
    keys,
    optimize,
    serve,
    verify,
)
from planish.cli.console import print_error, say
from planish.cli.exits import Exit, exit_of_error
from planish.contract.errors import PlanishError

app = typer.Typer(
    name="planish",
    help="Give it a trained PyTorch model; get back a smaller, faster one, with evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (serve, optimize, jobs, catalog, architectures, verify, demo, doctor):
    app.add_typer(part.app)
app.add_typer(files.app, name="files", help="Uploaded files: list, upload, delete.")
app.add_typer(keys.app, name="keys", help="API keys of the service on this machine.")
app.add_typer(denied.app, name="denied", help="Files that broke the sandbox: list, clear.")


def main() -> None:
    """Run a command; see docs/cli.md for the exit codes."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except PlanishError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(exit_of_error(error))
    except OSError as error:
        say(f"{error.filename or 'this machine'}: {error.strerror or error}")
        sys.exit(Exit.UNEXPECTED)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """End like an exception, so that what a command started is stopped."""
    sys.exit(128 + number)
