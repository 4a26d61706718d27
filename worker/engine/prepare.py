"""What every job begins with: the model, its teacher and the data, checked together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from planish.contract.checks import check_recipe
from planish.contract.errors import InvalidModel
from planish.contract.spec import ModelSpec, Spec
from worker.engine.load import load_model
from worker.engine.load.data import Splits, load_splits
from worker.engine.model import Model, first_output
from worker.engine.passes.protocol import Context
from worker.engine.progress import Progress


@dataclass(frozen=True)
class JobInputs:
    """A job as the engine gets it: the spec and the paths of its files.

    Attributes:
        job_id: stands in the report; None for a direct call.
        spec: what to do.
        model: the uploaded model.
        data: trains and calibrates; None without data.
        test_data: sealed, for the report alone.
        teacher: another model to learn from; None for the uploaded model itself.
    """

    job_id: str | None
    spec: Spec
    model: Path
    data: Path | None = None
    test_data: Path | None = None
    teacher: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """The parts of a job in the engine's own forms; none of them is ever changed."""

    spec: Spec
    original: Model
    teacher: Model
    splits: Splits | None

    def context(self, step: int, progress: Progress) -> Context:
        """Return what the pass at `step` (from 1) may use; each step has a seed of its own."""
        gpu = self.spec.resources.gpus > 0 and torch.cuda.is_available()
        return Context(
            spec=self.spec,
            splits=self.splits,
            teacher=self.teacher,
            progress=progress,
            seed=(self.spec.seed + step) % 2**32,
            device=torch.device("cuda" if gpu else "cpu"),
            step=step,
        )


def prepare(inputs: JobInputs) -> Prepared:
    """Load and check everything that came with the job.

    Raises:
        InvalidModel, InvalidData, InvalidRecipe: what came cannot be used; the text says why.
    """
    spec = inputs.spec
    model = load_model(inputs.model, spec.model)
    splits = load_splits(spec, model, inputs.data, inputs.test_data)
    has_targets = splits is not None and splits.train.targets is not None
    check_recipe(spec, has_data=splits is not None, has_targets=has_targets)
    teacher = model.clone() if inputs.teacher is None else _teacher(inputs.teacher, spec, model)
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    return Prepared(spec, model, teacher, splits)


def _teacher(path: Path, spec: Spec, model: Model) -> Model:
    teacher = load_model(path, spec.teacher or ModelSpec())
    example = model.example()
    try:
        with torch.no_grad():
            taught = first_output(teacher.module(*example))
            own = first_output(model.module(*example))
    except (RuntimeError, TypeError) as error:
        raise InvalidModel("the teacher does not take the model's inputs") from error
    if taught.shape != own.shape:
        raise InvalidModel(
            f"the teacher's outputs are {tuple(taught.shape[1:])}, the model's "
            f"{tuple(own.shape[1:])}; both must answer the same question"
        )
    return teacher
