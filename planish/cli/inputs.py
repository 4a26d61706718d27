"""From command-line options to a spec and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from planish.client.sources import FileSource, PartSource, Sources, is_id
from planish.client.sync import Client
from planish.client.transfer import OnTransfer
from planish.contract.errors import InvalidSpec
from planish.contract.named import named_recipe
from planish.contract.spec import Spec
from planish.contract.validation import parse_json, spec_from

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A .pt2, .safetensors or state_dict file, a Hugging Face folder, or a file id.",
    ),
]
ModelPartOption = Annotated[
    list[str] | None,
    typer.Option("--model-part", metavar="FILE", help="A file that belongs to MODEL; repeatable."),
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="FILE", help="Data to train and calibrate on.")
]
TestDataOption = Annotated[
    str | None, typer.Option("--test-data", metavar="FILE", help="Sealed data; only measured on.")
]
TeacherOption = Annotated[
    str | None, typer.Option("--teacher", metavar="FILE", help="A stronger model for distill.")
]
StudentOption = Annotated[
    str | None,
    typer.Option("--student", metavar="FILE", help="A smaller model to optimize in its place."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", metavar="NAME|JSON", help="A named recipe, or passes as a JSON list."),
]
SpecOption = Annotated[
    str | None, typer.Option("--spec", metavar="FILE|JSON", help="A whole spec, or - for stdin.")
]
ArchitectureOption = Annotated[
    str | None,
    typer.Option("--architecture", metavar="NAME", help="Of bare weights: [library/]name."),
]
ArchConfigOption = Annotated[
    list[str] | None,
    typer.Option("--arch-config", metavar="KEY=VALUE", help="Of the architecture; repeatable."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="A spec value, e.g. data.preprocess.scale=0.0625."
    ),
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the job.")]
LabelOption = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Repeatable.")
]


def read_sources(
    model: str,
    data: str | None,
    test_data: str | None,
    teacher: str | None,
    student: str | None = None,
    model_parts: Sequence[str] | None = None,
) -> Sources:
    """Return the files of a job; raises `MissingPart` before anything is connected or started."""
    whole: PartSource = [model, *model_parts] if model_parts else model
    sources = Sources(whole, data, test_data, teacher, student)
    sources.given()
    return sources


def uploaded(client: Client, sources: Sources, progress: OnTransfer) -> Sources:
    """Upload what is not on the server yet; return the same parts as file ids."""

    def file_id(source: FileSource) -> str:
        return str(source) if is_id(source) else client.upload(source, progress).id

    ids: dict[str, PartSource] = {}
    for role, source in sources.given().items():
        if isinstance(source, Mapping):
            ids[role] = {name: file_id(file) for name, file in source.items()}
        else:
            ids[role] = file_id(source)
    return Sources(**ids)


def read_spec(
    *,
    spec: str | None,
    recipe: str | None,
    architecture: str | None = None,
    arch_config: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    name: str | None = None,
    labels: Sequence[str] | None = None,
) -> Spec:
    """Return the spec that the options describe; later options win over the spec file.

    Raises:
        InvalidSpec: `errors` names each value that is not allowed.
    """
    document = _document(spec)
    if recipe is not None:
        document = {**_recipe(recipe), **document, "recipe": _recipe(recipe)["recipe"]}
    if architecture is not None:
        library, _, plain = architecture.rpartition("/")
        config = dict(_assignment(text, "--arch-config") for text in arch_config or ()) or None
        value: dict[str, JsonValue] = {"library": library or "planish", "name": plain}
        _put(document, ["model", "architecture"], {**value, "config": config})
    elif arch_config:
        raise InvalidSpec("--arch-config needs --architecture")
    if name is not None:
        document["name"] = name
    for text in labels or ():
        key, label = _split(text, "--label")
        _put(document, ["labels", key], label)
    for text in settings or ():
        path, setting = _assignment(text, "--set")
        _put(document, path.split("."), setting)
    if document.get("recipe") is None:
        raise InvalidSpec("say what to do: --recipe NAME (see planish passes), or --spec FILE")
    return spec_from(document)


def _document(spec: str | None) -> dict[str, JsonValue]:
    if spec is None:
        return {}
    value = parse_json(_text(spec, "--spec").encode())
    if not isinstance(value, dict):
        raise InvalidSpec("--spec: needs a JSON object")
    return value


def _recipe(text: str) -> dict[str, JsonValue]:
    if text.lstrip().startswith("["):
        value = parse_json(text.encode())
        if not isinstance(value, list):
            raise InvalidSpec("--recipe: needs a JSON list of passes")
        return {"recipe": value}
    found = named_recipe(text).model_dump(mode="json")
    return {"recipe": found["recipe"], "outputs": found["outputs"]}


def _text(source: str, option: str) -> str:
    if source.lstrip().startswith("{"):
        return source
    try:
        return typer.get_text_stream("stdin").read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{option}: {source} cannot be read: {error}") from None


def _assignment(text: str, option: str) -> tuple[str, JsonValue]:
    """Read ``depth=20``: the value is JSON where it can be, else text."""
    key, value = _split(text, option)
    try:
        parsed: JsonValue = json.loads(value)
    except ValueError:
        return key, value
    return key, parsed


def _split(text: str, option: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InvalidSpec(f"{option} {text!r}: needs KEY=VALUE")
    return key, value


def _put(document: dict[str, JsonValue], path: list[str], value: JsonValue) -> None:
    here = document
    for part in path[:-1]:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InvalidSpec(f"--set {'.'.join(path)}: {part} is not an object")
        here = inner
    here[path[-1]] = value
