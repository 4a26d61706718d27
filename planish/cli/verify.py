"""Are these artifacts what their report says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planish.cli.console import JsonFlag, err, out, print_json, print_table
from planish.cli.exits import Exit
from planish.verify import Outcome, Verification, verify

app = typer.Typer()

_MARKS = {Outcome.OK: "ok", Outcome.FAILED: "FAILED", Outcome.SKIPPED: "not checked"}


@app.command("verify")
def verify_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Downloaded artifacts.")],
    test_data: Annotated[
        Path | None,
        typer.Option("--test-data", help="Measure the metric anew on these labelled samples."),
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Also run .aoti.pt2 files: code that can do anything.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check hashes, run every model in a fresh process, compare; exit 1 when something fails."""
    with err.status("verifying in fresh processes"):
        found = verify(folder, test_data, native=native)
    if json:
        print_json(found)
    else:
        print_verification(found)
    raise typer.Exit(Exit.OK if found.ok else Exit.UNEXPECTED)


def print_verification(found: Verification) -> None:
    """Print each check."""
    rows = [(check.name, _MARKS[check.outcome], check.detail) for check in found.checks]
    print_table(["check", "", ""], rows)
    out.print("verified" if found.ok else "[bold red]not what the report says[/]")
