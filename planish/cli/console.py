"""Where things go: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from planish.client.sync import Client
from planish.client.upload import RESUMABLE_BYTES
from planish.contract.errors import PlanishError

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="PLANISH_URL", help="Server; default http://127.0.0.1:8000."),
]
ResumableFlag = Annotated[
    bool,
    typer.Option("--resumable", help="Send files of every size in pieces that survive restarts."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job id.")]

PIPE_WIDTH = 10_000  # lines of a pipe are for programs: never folded
out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False)


def connect(url: str | None, *, resumable: bool = False) -> Client:
    """Return a client for a command; the key comes from ``PLANISH_API_KEY``.

    Args:
        url: of the server.
        resumable: send files of every size in pieces.
    """
    return Client(url, resumable_bytes=0 if resumable else RESUMABLE_BYTES)


def print_json(value: BaseModel | Mapping[str, object] | Sequence[object]) -> None:
    """Write one JSON document to stdout; pydantic models may stand anywhere in it."""
    document = to_jsonable_python(value, inf_nan_mode="null")
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table to stdout; values are never taken for markup.

    A column whose title ends in a blank is aligned to the right; the first one is never folded.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        side: JustifyMethod = "right" if column.endswith(" ") else "left"
        table.add_column(column.strip(), justify=side, overflow="fold", no_wrap=not number)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)


def say(text: str) -> None:
    """Tell a person something on stderr."""
    err.print(escape(text))


def print_error(error: PlanishError, *, as_json: bool) -> None:
    """Write an error to stderr: in words, or as one JSON line."""
    if as_json:
        sys.stderr.write(error.info().model_dump_json() + "\n")
        return
    err.print(f"[bold red]{escape(error.title)}:[/] {escape(error.detail)}")
    pointed = [fault for fault in error.errors if fault.detail not in error.detail]
    for fault in pointed:
        err.print(f"  {escape(fault.pointer)}: {escape(fault.detail)}")
    if error.job is not None and error.job.error is not None:
        say(f"  planish logs {error.job.id}   shows what its process printed")


def size_text(count: float) -> str:
    """Return bytes for people: ``1.4 MB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
