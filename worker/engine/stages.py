"""The stages of a job, told to whoever listens, and the passes between them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from planish.contract.job import EventType
from planish.contract.recipe import Params, op_of
from planish.contract.report import Epoch, PassReport
from worker.engine.model import Model
from worker.engine.passes import REGISTRY
from worker.engine.passes.protocol import Outcome
from worker.engine.prepare import Prepared
from worker.engine.progress import Progress
from worker.engine.report.layers import LayerSize, layer_sizes

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
    """

    model: Model
    sizes: dict[str, LayerSize]
    passes: tuple[PassReport, ...]
    training: tuple[Epoch, ...]


def run_passes(prepared: Prepared, stages: Stages, progress: Progress) -> Worked:
    """Run the recipe on a copy of the model, or of the student that stands in its place.

    Raises:
        NothingChanged, TrainingDiverged: a pass could not do its work.
    """
    model = prepared.start.clone()
    sizes = layer_sizes(model)
    reports: list[PassReport] = []
    training: list[Epoch] = []
    for step, params in enumerate(prepared.spec.recipe or (), 1):
        stages.begin(op_of(type(params)))
        outcome, report = _run_pass(model, params, step, prepared, progress)
        model = outcome.model
        reports.append(report)
        training += outcome.training
        if model.quantization is None:
            sizes = layer_sizes(model)
    return Worked(model, sizes, tuple(reports), tuple(training))


def _run_pass(
    model: Model, params: Params, step: int, prepared: Prepared, progress: Progress
) -> tuple[Outcome, PassReport]:
    op = op_of(type(params))
    progress.event(EventType.PASS_STARTED, {"op": op, "step": step})
    began = time.perf_counter()
    outcome = REGISTRY[op].run(model, params, prepared.context(step, progress))
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
