"""What every job begins with: the model, its teacher, its student and the data, held together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from planish.contract.checks import check_recipe, check_student
from planish.contract.errors import InvalidModel
from planish.contract.spec import ModelSpec, Spec
from planish.gate.parts import Source, only_file
from worker.engine.agreement import check_agreement
from worker.engine.load import load_model
from worker.engine.load.construct import construct_model
from worker.engine.load.data import Splits, load_splits
from worker.engine.model import Model
from worker.engine.passes.protocol import Context
from worker.engine.progress import Progress
from worker.engine.train.run import ONE_NODE, Nodes


@dataclass(frozen=True)
class JobInputs:
    """A job as the engine gets it: the spec and its files, `Parts` where a role has several.

    Attributes:
        job_id: stands in the report; None for a direct call.
        spec: what to do.
        model: the uploaded model.
        data: trains and calibrates; None without data.
        test_data: sealed, for the report alone.
        teacher: another model to learn from; None for the uploaded model itself.
        student: another model that the recipe works on; None for the uploaded model itself, or for
            an architecture that the spec names.
        checkpoints: folder that outlives an attempt, for training to go on from; None: start over.
        rendezvous: host:port where the machines of one job meet; None: this machine alone.
    """

    job_id: str | None
    spec: Spec
    model: Source
    data: Source | None = None
    test_data: Source | None = None
    teacher: Source | None = None
    student: Source | None = None
    checkpoints: Path | None = None
    rendezvous: str | None = None


@dataclass(frozen=True)
class Prepared:
    """The parts of a job in the engine's own forms; none of them is ever changed.

    Attributes:
        original: the uploaded model: the baseline.
        teacher: whom `distill` learns from.
        splits: the data's parts.
        student: what the recipe works on in the model's place; None for the model itself.
        student_is_built: whether the student began at random weights.
        checkpoints: folder for training to go on from; None: start over.
        nodes: machines that train together.
    """

    spec: Spec
    original: Model
    teacher: Model
    splits: Splits | None
    student: Model | None = None
    student_is_built: bool = False
    checkpoints: Path | None = None
    nodes: Nodes = ONE_NODE

    @property
    def start(self) -> Model:
        """What the recipe begins with; make a copy before changing it."""
        return self.original if self.student is None else self.student

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
            checkpoints=self.checkpoints,
            nodes=self.nodes,
        )


def prepare(inputs: JobInputs) -> Prepared:
    """Load and check everything that came with the job.

    Raises:
        InvalidModel, InvalidData, InvalidRecipe: what came cannot be used; the text says why.
    """
    spec = inputs.spec
    model = load_model(inputs.model, spec.model)
    data, test_data = _data_file(inputs.data, "data"), _data_file(inputs.test_data, "test_data")
    splits = load_splits(spec, model, data, test_data)
    has_targets = splits is not None and splits.train.targets is not None
    check_recipe(spec, has_data=splits is not None, has_targets=has_targets)
    check_student(spec, has_file=inputs.student is not None)
    teacher = _teacher(inputs, model)
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    student = _student(inputs, model)
    return Prepared(
        spec=spec,
        original=model,
        teacher=teacher,
        splits=splits,
        student=student,
        student_is_built=student is not None and inputs.student is None,
        checkpoints=inputs.checkpoints,
        nodes=Nodes(spec.resources.nodes, inputs.rendezvous, inputs.job_id or "planish"),
    )


def _data_file(source: Source | None, role: str) -> Path | None:
    return None if source is None else only_file(source, role)


def _teacher(inputs: JobInputs, model: Model) -> Model:
    if inputs.teacher is None:
        return model.clone()
    teacher = load_model(inputs.teacher, inputs.spec.teacher or ModelSpec(), "teacher")
    return check_agreement(teacher, model, "teacher")


def _student(inputs: JobInputs, model: Model) -> Model | None:
    wanted = inputs.spec.student or ModelSpec()
    if inputs.student is not None:
        student = load_model(inputs.student, wanted, "student")
    elif inputs.spec.student is not None:
        student = construct_model(wanted, inputs.spec.seed)
    else:
        return None
    student = check_agreement(student, model, "student")
    if not any(p.requires_grad for p in student.module.parameters()):
        raise InvalidModel("the student holds no weights; there is nothing to train or optimize")
    return student
