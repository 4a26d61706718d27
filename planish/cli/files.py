"""Uploaded files: list, upload, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from planish.cli.console import (
    JsonFlag,
    ResumableFlag,
    UrlOption,
    connect,
    out,
    print_json,
    print_table,
    say,
    size_text,
)
from planish.cli.progress import Transfers

app = typer.Typer(no_args_is_help=True)

FileIds = Annotated[list[str], typer.Argument(metavar="FILE_ID...", help="sha256:…")]
Paths = Annotated[list[str], typer.Argument(metavar="FILE...")]


@app.command("list")
def list_files(
    limit: Annotated[int, typer.Option("--limit", min=1)] = 50,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """List uploaded files, newest first."""
    with connect(url) as client:
        found = list(client.files(limit))
    if json:
        print_json(found)
        return
    rows = [(item.id, size_text(item.size), item.name or "") for item in found]
    print_table(["file", "size ", "name"], rows)


@app.command()
def upload(
    paths: Paths,
    resumable: ResumableFlag = False,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Upload files of any size; what the server has already is not sent again.

    Files of 64 MiB or more go on where they were when a connection or this command breaks off. The
    server fetches s3://bucket/key, where its operator allows it.
    """
    with connect(url, resumable=resumable) as client, Transfers() as transfers:
        found = [client.upload(path, transfers) for path in paths]
    if json:
        print_json(found)
        return
    for item in found:
        out.print(item.id)


@app.command()
def delete(file_ids: FileIds, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Delete uploaded files that no live job needs."""
    with connect(url) as client:
        for file_id in file_ids:
            client.delete_file(file_id)
    if json:
        print_json([{"id": file_id, "deleted": True} for file_id in file_ids])
    else:
        say(f"deleted: {len(file_ids)}")
