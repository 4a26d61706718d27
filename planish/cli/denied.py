"""Files that broke the sandbox: list and clear. They work on the server's data folder."""

from __future__ import annotations

from typing import Annotated

import typer

from planish.cli.console import JsonFlag, print_json, print_table, say
from planish.cli.serve import DataDirOption, default_data_dir
from planish.contract.errors import InvalidParameter
from planish.store.denied import DeniedFiles

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_denied(data_dir: DataDirOption = None, json: JsonFlag = False) -> None:
    """List files that broke the process which opens uploads; those in state refused stay out."""
    found = DeniedFiles(data_dir or default_data_dir()).known()
    if json:
        print_json([{**entry.model_dump(), "refused": entry.refused} for entry in found])
        return
    rows = [
        (
            entry.id,
            entry.tenant,
            str(entry.crashes),
            "refused" if entry.refused else "counted",
            entry.last.strftime("%Y-%m-%d %H:%M"),
            entry.cause,
        )
        for entry in found
    ]
    print_table(["file", "tenant", "crashes ", "state", "last", "cause"], rows)


@app.command()
def clear(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE_ID]...", help="As `list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget every file.")] = False,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Forget what files did, so that they are opened again."""
    if bool(ids) == everything:
        raise InvalidParameter("name the files to forget, or --all; planish denied list shows them")
    gone = DeniedFiles(data_dir or default_data_dir()).clear(None if everything else ids)
    if json:
        print_json([entry.model_dump() for entry in gone])
    else:
        say(f"forgotten: {', '.join(entry.id for entry in gone) or 'nothing'}")
