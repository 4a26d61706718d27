"""From files and spec fields to an accepted job or a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from pydantic import JsonValue, ValidationError

from planish.client.calls import make_plan, new_key, submit_job
from planish.client.exchange import Flow
from planish.client.sources import Sources
from planish.client.upload import Uploading, upload_all
from planish.contract.errors import InvalidSpec
from planish.contract.job import Job
from planish.contract.recipe import Params
from planish.contract.report import Plan
from planish.contract.spec import (
    Architecture,
    InputDeclaration,
    Output,
    Preprocess,
    Resources,
    Spec,
    Target,
    Task,
)
from planish.contract.validation import field_errors

RecipeSteps = Sequence[Params | Mapping[str, JsonValue]]


class SpecFields(TypedDict, total=False):
    """What `optimize` and `plan` take beside files and recipe.

    Attributes:
        name: of the job.
        labels: to find jobs again.
        seed: all randomness comes from it.
        architecture: of a model that is bare weights.
        inputs: of a model that is bare weights.
        teacher_architecture: of a teacher that is bare weights.
        teacher_inputs: of a teacher that is bare weights.
        student_architecture: of a student that is bare weights, or that starts at random ones.
        student_inputs: of such a student.
        task: what the labels are; ``none`` for data without labels.
        preprocess: from stored values to model input.
        target: device and runtime that the result is for.
        outputs: formats of the result.
        resources: GPUs and time limits.
    """

    name: str
    labels: Mapping[str, str]
    seed: int
    architecture: Architecture
    inputs: Sequence[InputDeclaration]
    teacher_architecture: Architecture
    teacher_inputs: Sequence[InputDeclaration]
    student_architecture: Architecture
    student_inputs: Sequence[InputDeclaration]
    task: Task
    preprocess: Preprocess
    target: Target
    outputs: Sequence[Output]
    resources: Resources


def build_spec(recipe: RecipeSteps, fields: SpecFields) -> Spec:
    """Return a spec; what is not given has the contract's default.

    Raises:
        InvalidSpec: `errors` names each value that is not allowed.
    """
    known = SpecFields.__annotations__
    if unknown := sorted(set(fields) - set(known)):
        raise InvalidSpec(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    plain = ("name", "labels", "seed", "target", "outputs", "resources")
    document: dict[str, object] = {key: fields[key] for key in plain if key in fields}  # type: ignore[literal-required]  # keys of the TypedDict
    document["recipe"] = [_step(step) for step in recipe]
    document["model"] = _picked(fields, {"architecture": "architecture", "inputs": "inputs"})
    for part in ("teacher", "student"):
        names = {f"{part}_architecture": "architecture", f"{part}_inputs": "inputs"}
        if described := _picked(fields, names):
            document[part] = described
    document["data"] = _picked(fields, {"task": "task", "preprocess": "preprocess"})
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        errors = field_errors(error, Spec)
        raise InvalidSpec("; ".join(f"{e.pointer}: {e.detail}" for e in errors), errors) from None


def submit(spec: Spec, sources: Sources, key: str | None, how: Uploading) -> Flow[Job]:
    """Upload what is missing, then submit; the Idempotency-Key makes every repetition safe."""
    files = yield from upload_all(sources, how)
    whole = spec.model_copy(update={"files": files})
    return (yield from submit_job(whole, key or new_key()).run())


def plan(spec: Spec, sources: Sources, how: Uploading) -> Flow[Plan]:
    """Upload what is missing, then ask for the dry run."""
    files = yield from upload_all(sources, how)
    return (yield from make_plan(spec.model_copy(update={"files": files})).run())


def _step(step: Params | Mapping[str, JsonValue]) -> object:
    return step if isinstance(step, Params) else dict(step)


def _picked(fields: SpecFields, names: Mapping[str, str]) -> dict[str, object]:
    return {field: fields[key] for key, field in names.items() if key in fields}  # type: ignore[literal-required]  # keys of the TypedDict
