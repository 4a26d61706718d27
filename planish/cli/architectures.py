"""Which networks bare weights may belong to."""

from __future__ import annotations

from json import dumps
from typing import Annotated

import typer

from planish.cli.console import JsonFlag, UrlOption, connect, out, print_json, print_table
from planish.contract.catalog import ArchitectureInfo, architecture_catalog
from planish.contract.errors import NotFound

app = typer.Typer()


@app.command()
def architectures(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One in full: [library/]name.")
    ] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """List the architectures of bare weights; of the server with --url, else of this version."""
    found = architecture_catalog().items
    if url is not None:
        with connect(url) as client:
            found = client.architectures()
    if name is not None:
        found = tuple(item for item in found if name in (item.name, f"{item.library}/{item.name}"))
        if not found:
            raise NotFound(f"there is no architecture {name!r}; see planish architectures")
    if json:
        print_json(found[0] if name else {"items": list(found)})
    elif name is not None:
        _print_one(found[0])
    else:
        rows = [(item.library, item.name[:40], _where(item), _first_line(item)) for item in found]
        print_table(["library", "name", "", "what it is"], rows)


def _where(item: ArchitectureInfo) -> str:
    return "" if item.available else f"needs {item.install or 'its plugin'}"


def _first_line(item: ArchitectureInfo) -> str:
    return item.summary.partition("\n")[0]


def _print_one(item: ArchitectureInfo) -> None:
    out.print(f"[bold]{item.library}/{item.name}[/]", item.summary)
    out.print(f"source: {item.source}   {_where(item)}", markup=False)
    shapes = ", ".join(f"{i['name']} {dumps(i['shape'])} {i['dtype']}" for i in item.inputs)
    out.print(f"takes: {shapes}", markup=False)
    print_table(["config", "default"], [(key, dumps(v)) for key, v in item.defaults.items()])
