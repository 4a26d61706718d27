"""The command line; one file for each noun."""

from __future__ import annotations

import sys

import typer

from planish.cli import catalog, demo, files, jobs, optimize, serve, verify
from planish.cli.console import print_error
from planish.cli.exits import exit_of_error
from planish.contract.errors import PlanishError

app = typer.Typer(
    name="planish",
    help="Give it a trained PyTorch model; get back a smaller, faster one, with evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (serve, optimize, jobs, catalog, verify, demo):
    app.add_typer(part.app)
app.add_typer(files.app, name="files", help="Uploaded files: list, upload, delete.")


def main() -> None:
    """Run a command; see docs/cli.md for the exit codes."""
    try:
        app()
    except PlanishError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(exit_of_error(error))
