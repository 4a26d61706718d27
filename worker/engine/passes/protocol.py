"""What a pass is: two functions over a `Model`, and what they are given and give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from pydantic import JsonValue

from planish.contract.recipe import Params
from planish.contract.report import Epoch, LayerChanged, LayerSkipped, PassPlan
from planish.contract.spec import Spec
from worker.engine.load.data import Splits
from worker.engine.model import Model
from worker.engine.progress import Progress
from worker.engine.train.run import ONE_NODE, Nodes

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class Surroundings:
    """What any pass may use.

    Attributes:
        spec: the whole job.
        splits: the data's parts; None when none came.
        progress: told about fractions and epochs.
        seed: all randomness of the pass comes from it.
        step: position in the recipe, from 1.
    """

    spec: Spec
    splits: Splits | None
    progress: Progress
    seed: int
    step: int


@dataclass(frozen=True, kw_only=True)
class Context(Surroundings):
    """What a pass over a torch graph may use besides.

    Attributes:
        teacher: the original model, or the uploaded teacher; frozen, never changed.
        device: where training runs.
        checkpoints: folder that training goes on from after a crash; None: it starts over.
        nodes: machines that train together.
    """

    teacher: Model
    device: torch.device
    checkpoints: Path | None = None
    nodes: Nodes = ONE_NODE


@dataclass(frozen=True)
class Outcome:
    """What a pass did. `changed=False` is an honest result with the reasons in `skipped`.

    `control` is a model trained without a teacher, for comparison alone.
    """

    model: Model
    changed: bool
    layers: tuple[LayerChanged, ...] = ()
    skipped: tuple[LayerSkipped, ...] = ()
    facts: dict[str, JsonValue] = field(default_factory=dict)
    training: tuple[Epoch, ...] = ()
    control: Model | None = None


@dataclass(frozen=True)
class PassEntry(Generic[P]):
    """One line of the registry.

    Attributes:
        params: its parameters in the contract.
        run: does the work; may use up the model it is given.
        plan: the dry run: the model as the next pass would meet it, and what would be touched.
    """

    params: type[P]
    run: Callable[[Model, P, Context], Outcome]
    plan: Callable[[Model, P, Context], tuple[Model, PassPlan]]
