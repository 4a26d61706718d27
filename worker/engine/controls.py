"""What teachers were worth, on the samples that only the report reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import JsonValue

from planish.contract.report import PassReport
from worker.engine.load.data import Dataset
from worker.engine.model import Model, first_output
from worker.engine.train.losses import Task
from worker.engine.train.scores import task_score

BATCH = 256


@dataclass(frozen=True)
class Controlled:
    """Both ends of a distillation with a control: equal beginnings, data, seeds and settings.

    Attributes:
        step: of the pass in the recipe, from 1.
        taught: trained with the teacher, as the next pass got it.
        control: trained on the labels alone.
    """

    step: int
    taught: Model
    control: Model


def judged(
    passes: Sequence[PassReport],
    controlled: Sequence[Controlled],
    sealed: Dataset | None,
    task: Task,
) -> tuple[PassReport, ...]:
    """Return what the passes did, with what each control showed.

    A control that did better than its teacher's student is a warning: the model stays all the same,
    because choosing by the sealed samples would spoil them as evidence.

    Args:
        passes: in the recipe's order.
        controlled: the distillations that had a control.
        sealed: what both are judged on; without labels there, the validation figures stand.
        task: what the targets are.
    """
    told = list(passes)
    for pair in controlled:
        done = told[pair.step - 1]
        facts = done.facts.get("control")
        control: dict[str, JsonValue] = dict(facts) if isinstance(facts, dict) else {}
        if sealed is not None and sealed.targets is not None:
            control |= _on_sealed(pair, sealed, task)
        more = _in_words(control, task)
        told[pair.step - 1] = done.model_copy(
            update={"facts": {**done.facts, "control": control, **_joined(done.facts, more)}}
        )
    return tuple(told)


def _on_sealed(pair: Controlled, sealed: Dataset, task: Task) -> dict[str, JsonValue]:
    own, other = score(pair.taught, sealed, task), score(pair.control, sealed, task)
    return {
        "sealed_samples": len(sealed),
        "sealed_with_teacher": own,
        "sealed_without_teacher": other,
        "sealed_gain": round(own - other, 6),
    }


def score(model: Model, dataset: Dataset, task: Task) -> float:
    """Return the mean score of a model over labelled samples; higher is better."""
    judge, total, count = task_score(task), 0.0, 0
    with torch.no_grad():
        for inputs, targets in dataset.batches(BATCH):
            if targets is not None:
                some, terms = judge(first_output(model.module(*inputs)), targets)
                total, count = total + float(some), count + int(terms)
    return total / max(count, 1)


def _in_words(control: Mapping[str, JsonValue], task: Task) -> dict[str, str]:
    """Return the sentence for the report, and a warning if the teacher did harm."""
    if "sealed_gain" in control:
        own, other = control["sealed_with_teacher"], control["sealed_without_teacher"]
        where = f"{control['sealed_samples']:,} sealed samples"
    else:
        own, other = (
            control.get("validation_with_teacher"),
            control.get("validation_without_teacher"),
        )
        where = "validation samples"
    if not (isinstance(own, float) and isinstance(other, float)):
        return {}
    name = task_score(task).name
    if name == "accuracy":
        gain, both = f"{100 * (own - other):+.2f} points", f"{own:.2%} with it, {other:.2%} without"
    else:
        gain, both = f"{own - other:+.4g}", f"{own:.4g} with it, {other:.4g} without"
    told = {"teacher_gain": f"{gain} of {name} ({both}, on {where})"}
    if own < other:
        told["warning"] = (
            f"the same training without the teacher did better: {name} {both}, on {where}; try "
            "retrain in place of distill"
        )
    return told


def _joined(facts: Mapping[str, JsonValue], more: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the new facts; a warning that is there already stays beside a new one."""
    warnings = [note for note in (facts.get("warning"), more.get("warning")) if note]
    told: dict[str, JsonValue] = dict(more)
    return {**told, "warning": "; ".join(map(str, warnings))} if warnings else told
