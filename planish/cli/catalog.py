"""What can be done, and a dry run of it: passes, plan."""

from __future__ import annotations

from collections.abc import Iterable
from json import dumps
from typing import Annotated

import typer
from pydantic import BaseModel

from planish.cli.console import (
    JsonFlag,
    UrlOption,
    connect,
    err,
    out,
    print_json,
    print_table,
    size_text,
)
from planish.cli.inputs import (
    ArchConfigOption,
    ArchitectureOption,
    DataOption,
    ModelArgument,
    ModelPartOption,
    RecipeOption,
    SetOption,
    SpecOption,
    StudentOption,
    TeacherOption,
    TestDataOption,
    read_sources,
    read_spec,
    uploaded,
)
from planish.cli.progress import Transfers
from planish.contract.catalog import PassInfo, pass_catalog
from planish.contract.errors import NotFound
from planish.contract.named import NamedRecipe, named_recipes
from planish.contract.report import PassPlan, Plan, PlanSize

app = typer.Typer()

SHOWN_LAYERS = 12


class Catalog(BaseModel):
    """What `planish passes --json` prints."""

    passes: tuple[PassInfo, ...]
    recipes: tuple[NamedRecipe, ...]


@app.command()
def passes(
    op: Annotated[str | None, typer.Argument(metavar="PASS", help="One pass in full.")] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """List the passes and the named recipes; of the server with --url, else of this version."""
    found = pass_catalog().items
    if url is not None:
        with connect(url) as client:
            found = client.passes()
    if op is not None:
        found = tuple(item for item in found if item.op == op)
        if not found:
            raise NotFound(f"there is no pass {op!r}; see planish passes")
    if json:
        recipes = tuple(named_recipes().values())
        print_json(found[0] if op else Catalog(passes=found, recipes=recipes))
    elif op is not None:
        _print_pass(found[0])
    else:
        rows = [(item.op, item.summary.partition("\n")[0], ", ".join(item.needs)) for item in found]
        print_table(["pass", "what it does", "needs"], rows)
        out.print()
        named = named_recipes().values()
        print_table(["recipe", "what it is for"], [(item.name, item.summary) for item in named])


@app.command()
def plan(
    model: ModelArgument,
    data: DataOption = None,
    test_data: TestDataOption = None,
    teacher: TeacherOption = None,
    student: StudentOption = None,
    model_part: ModelPartOption = None,
    recipe: RecipeOption = None,
    spec: SpecOption = None,
    architecture: ArchitectureOption = None,
    arch_config: ArchConfigOption = None,
    settings: SetOption = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Say what a recipe would touch and skip in this model, and why, without doing it."""
    sources = read_sources(model, data, test_data, teacher, student, model_part)
    whole = read_spec(
        spec=spec,
        recipe=recipe,
        architecture=architecture,
        arch_config=arch_config,
        settings=settings,
    )
    with connect(url) as client:
        with Transfers() as transfers:
            uploads = uploaded(client, sources, transfers)
        with err.status("planning"):
            found = client.plan_spec(whole, uploads)
    if json:
        print_json(found)
    else:
        print_plan(found)


def print_plan(plan: Plan) -> None:
    """Print sizes before and after, and each pass's layers."""
    rows = [("before", *_size_cells(plan.before)), ("after", *_size_cells(plan.after))]
    print_table(["", "parameters ", "weights ", "MACs "], rows)
    for found in plan.passes:
        out.print(f"\n[bold]{found.op}[/]: {found.layers_changed} layers")
        print_table(["layer", "what"], _layer_rows(found))
    if plan.warnings:
        print_table(["note"], [(text,) for text in plan.warnings])


def _layer_rows(plan: PassPlan) -> list[tuple[str, str]]:
    touched = [(layer.name, layer.what) for layer in plan.layers]
    skipped = [(layer.name, f"skipped: {layer.why}") for layer in plan.layers_skipped]
    return [*_first(touched), *_first(skipped)]


def _first(rows: list[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    more = len(rows) - SHOWN_LAYERS
    return rows if more <= 0 else [*rows[:SHOWN_LAYERS], ("…", f"and {more} more; see --json")]


def _size_cells(size: PlanSize) -> tuple[str, str, str]:
    macs = "" if size.macs is None else f"{size.macs:,}"
    return f"{size.params:,}", size_text(size.size_bytes), macs


def _print_pass(found: PassInfo) -> None:
    out.print(f"[bold]{found.op}[/]", found.summary)
    out.print(
        f"needs: {', '.join(found.needs) or 'nothing'}   source: {found.source}", markup=False
    )
    rows = [(p.name, dumps(p.default), p.range, p.description) for p in found.parameters]
    print_table(["parameter", "default", "allowed", ""], rows)
