"""What a pass over an ONNX graph is: two functions, and what they are given and give back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pydantic import JsonValue

from planish.contract.recipe import Params
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.passes.protocol import Surroundings
from worker.engine.runtime_model.model import RuntimeModel

P = TypeVar("P", bound=Params)


@dataclass(frozen=True)
class RuntimeOutcome:
    """What a pass did. `changed=False` is an honest result with the reasons in `skipped`."""

    model: RuntimeModel
    changed: bool
    layers: tuple[LayerChanged, ...] = ()
    skipped: tuple[LayerSkipped, ...] = ()
    facts: dict[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class RuntimeEntry(Generic[P]):
    """One line of the registry.

    Attributes:
        params: its parameters in the contract.
        run: does the work; leaves the model it is given as it is.
        plan: the dry run: the model as the next pass would meet it, and what would be touched.
    """

    params: type[P]
    run: Callable[[RuntimeModel, P, Surroundings], RuntimeOutcome]
    plan: Callable[[RuntimeModel, P, Surroundings], tuple[RuntimeModel, PassPlan]]


@dataclass(frozen=True)
class Chosen:
    """Layers with weights, in graph order.

    Attributes:
        names: of those that a pass changes.
        skipped: those that stay as they are, and why.
    """

    names: tuple[str, ...]
    skipped: tuple[LayerSkipped, ...]

    def why(self, most: int = 5) -> str:
        """Return the first reasons, for an error that says that nothing is left to do."""
        reasons = "; ".join(f"{layer.name}: {layer.why}" for layer in self.skipped[:most])
        return reasons or "the model has no layers with weights"


def chosen(reasons: Sequence[tuple[str, str]]) -> Chosen:
    """Return layers by whether there is a reason to leave them alone; '' is none."""
    return Chosen(
        tuple(name for name, why in reasons if not why),
        tuple(LayerSkipped(name=name, why=why) for name, why in reasons if why),
    )
