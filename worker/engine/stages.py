"""The stages of a job, told to whoever listens, and the passes between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pydantic import JsonValue

from planish.contract.job import EventType
from planish.contract.recipe import Params, op_of
from planish.contract.report import Epoch, LayerChanged, LayerSkipped, PassReport
from worker.engine.controls import Controlled
from worker.engine.measure.size import count_parameters
from worker.engine.model import Model
from worker.engine.passes import REGISTRY
from worker.engine.passes.protocol import Outcome
from worker.engine.prepare import Prepared
from worker.engine.progress import Progress
from worker.engine.report.layers import LayerSize, layer_sizes


class Did(Protocol):
    """What any pass says about its work; see `worker.engine.passes.protocol.Outcome`."""

    @property
    def changed(self) -> bool:
        """Whether it changed anything."""

    @property
    def layers(self) -> tuple[LayerChanged, ...]:
        """What it changed."""

    @property
    def skipped(self) -> tuple[LayerSkipped, ...]:
        """What it left alone, and why."""

    @property
    def facts(self) -> dict[str, JsonValue]:
        """Its figures."""


D = TypeVar("D", bound=Did)
BEFORE = ("load", "baseline")
AFTER = ("export", "measure", "reload", "report")
MESSAGES = {
    "load": "reading model and data",
    "baseline": "exporting the original",
    "export": "exporting the optimized model",
    "reload": "opening every artifact in a fresh process",
    "report": "writing the report",
}


class Stages:
    """Walks through the stages of one job in order: load, baseline, each pass, …, report."""

    def __init__(self, ops: Iterable[str], progress: Progress) -> None:
        self._names = (*BEFORE, *ops, *AFTER)
        self._at = 0
        self._progress = progress

    def begin(self, name: str) -> None:
        """Begin the next stage; `name` must be its name."""
        if self._names[self._at] != name:
            raise RuntimeError(f"the stage after {self._at} is {self._names[self._at]}, not {name}")
        self._at += 1
        self._progress.stage(name, self._at, len(self._names))
        self._progress.update(0.0, MESSAGES.get(name, name))


@dataclass(frozen=True)
class Worked:
    """The model after all passes, and what they did.

    Attributes:
        model: the result.
        sizes: its weighted layers as they were before quantization packed them.
        passes: what each pass did.
        training: every epoch of every pass.
        controlled: distillations that were repeated without the teacher.
    """

    model: Model
    sizes: dict[str, LayerSize]
    passes: tuple[PassReport, ...]
    training: tuple[Epoch, ...]
    controlled: tuple[Controlled, ...] = ()


def run_passes(prepared: Prepared, stages: Stages, progress: Progress) -> Worked:
    """Run the recipe on a copy of the model, or of the student that stands in its place.

    Raises:
        NothingChanged, TrainingDiverged: a pass could not do its work.
    """
    model = prepared.start.clone()
    sizes = layer_sizes(model)
    reports: list[PassReport] = []
    training: list[Epoch] = []
    controlled: list[Controlled] = []
    for step, params in enumerate(prepared.spec.recipe or (), 1):
        stages.begin(op_of(type(params)))
        outcome, report = _run_pass(model, params, step, prepared, progress)
        model = outcome.model
        reports.append(report)
        training += outcome.training
        if outcome.control is not None:
            controlled.append(Controlled(step, model.clone(), outcome.control))
        if model.quantization is None:
            sizes = layer_sizes(model)
    passes = _with_student(reports, prepared)
    return Worked(model, sizes, passes, tuple(training), tuple(controlled))


def _with_student(reports: Sequence[PassReport], prepared: Prepared) -> tuple[PassReport, ...]:
    """Let the first pass's facts say that another network than the model was worked on."""
    if prepared.student is None or not reports:
        return tuple(reports)
    first, *others = reports
    own, other = (count_parameters(m).total for m in (prepared.student, prepared.original))
    described = prepared.spec.student
    name = described.architecture.name if described and described.architecture else "uploaded"
    start = "random weights" if prepared.student_is_built else "its own weights"
    words = f"{name}, from {start}, {own:,} parameters in place of the model's {other:,}"
    return (first.model_copy(update={"facts": {"student": words, **first.facts}}), *others)


def _run_pass(
    model: Model, params: Params, step: int, prepared: Prepared, progress: Progress
) -> tuple[Outcome, PassReport]:
    run = REGISTRY[op_of(type(params))].run
    return reported(
        lambda: run(model, params, prepared.context(step, progress)), params, step, progress
    )


def reported(
    run: Callable[[], D], params: Params, step: int, progress: Progress
) -> tuple[D, PassReport]:
    """Run a pass, tell of its beginning and end, and return what it did in the report's form.

    Args:
        run: the pass on its model.
        params: what was asked for.
        step: position in the recipe, from 1.
        progress: told.
    """
    op = op_of(type(params))
    progress.event(EventType.PASS_STARTED, {"op": op, "step": step})
    began = time.perf_counter()
    outcome = run()
    report = PassReport(
        op=op,
        changed=outcome.changed,
        layers_changed=len(outcome.layers),
        layers_skipped=outcome.skipped,
        layers=outcome.layers,
        facts=outcome.facts,
        seconds=round(time.perf_counter() - began, 3),
    )
    told = report.model_dump(mode="json", include={"op", "changed", "layers_changed", "seconds"})
    progress.event(EventType.PASS_FINISHED, {**told, "step": step})
    return outcome, report
