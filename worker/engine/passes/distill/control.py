"""What the teacher was worth: the same training without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from planish.contract.job import EventType
from planish.contract.recipe import Distill
from worker.engine.model import Model
from worker.engine.passes.protocol import Context, Outcome
from worker.engine.passes.training import train_model
from worker.engine.progress import Progress
from worker.engine.train.losses import task_loss


@dataclass(frozen=True)
class ControlProgress:
    """Tells of the control run without mixing it up with the run that counts."""

    inner: Progress

    def stage(self, name: str, step: int, steps: int) -> None:
        """Pass a stage on."""
        self.inner.stage(name, step, steps)

    def update(self, fraction: float, message: str) -> None:
        """Pass a fraction on, as the control's."""
        self.inner.update(fraction, f"control without teacher: {message}")

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Pass on everything but epochs: the report's curves are of the model that is delivered."""
        if kind is not EventType.EPOCH:
            self.inner.event(kind, data)


def train_control(model: Model, params: Distill, ctx: Context) -> Outcome:
    """Train a model in place on the labels alone, all else as the parameters say."""
    quiet = replace(ctx, progress=ControlProgress(ctx.progress))
    loss = task_loss(ctx.spec.data.task, params.train.label_smoothing)
    return train_model(model, params, loss, quiet, {}, variant="control")


def with_control(taught: Outcome, control: Outcome) -> Outcome:
    """Return the outcome of the distillation with what the control showed on validation data."""
    own, other = validation_score(taught.facts), validation_score(control.facts)
    facts: dict[str, JsonValue] = {
        "validation_with_teacher": own,
        "validation_without_teacher": other,
    }
    if own is not None and other is not None:
        facts["validation_gain"] = round(own - other, 6)
    return replace(taught, facts={**taught.facts, "control": facts}, control=control.model)


def validation_score(facts: Mapping[str, JsonValue]) -> float | None:
    """Return the score of the best epoch, whatever it is called; None without validation data."""
    scores = (v for k, v in facts.items() if k.startswith("validation_") and isinstance(v, float))
    return next(scores, None)
