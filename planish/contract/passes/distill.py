"""Parameters of `distill`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from planish.contract.passes.base import Need, Stage
from planish.contract.passes.train import Spread, Train

LayerName = Annotated[str, Field(min_length=1, max_length=300)]
FEATURES = ("hint", "attention_relation")
"""Methods that look into the layers of both networks."""

CLASSES = ("kd", "dkd", "dist")
"""Methods that compare probabilities of classes alone."""


class Distill(Spread):
    """Train the model to match the teacher: the original, or an uploaded stronger model."""

    stage: ClassVar[Stage] = Stage.RECOVER
    needs: ClassVar[tuple[Need, ...]] = (Need.DATA,)
    source: ClassVar[str] = (
        "Hinton et al. 2015, arXiv:1503.02531, section 2 (kd); Zhao et al. 2022, arXiv:2203.08679 "
        "(dkd); Huang et al. 2022, arXiv:2205.10536 (dist); Romero et al. 2015, arXiv:1412.6550 "
        "(hint); Wang et al. 2020, arXiv:2012.15828 (attention relation)"
    )

    op: Literal["distill"] = "distill"
    method: Literal["kd", "dkd", "dist", "mse_logits", "hint", "attention_relation"] = Field(
        "kd",
        description="kd: KL divergence of the softened outputs. dkd: decoupled into target and "
        "other classes. dist: correlation between and within classes. mse_logits: squared error. "
        "hint: kd and features. attention_relation: kd and relations of the last attention.",
    )
    temperature: float = Field(4.0, gt=0, le=100, description="Softens both outputs.")
    alpha: float = Field(
        0.9, ge=0, le=1, description="Weight of the teacher; 1 - alpha is the labels' weight."
    )
    beta: float | None = Field(
        None,
        ge=0,
        le=1000,
        description="dkd: weight of the other classes (null: 8). dist: weight of the relations "
        "within a class (null: 1).",
    )
    feature_weight: float = Field(
        1.0, gt=0, le=1e6, description="hint, attention_relation: weight of the feature loss."
    )
    layer_map: dict[LayerName, LayerName] = Field(
        default_factory=dict,
        max_length=100,
        description="hint: student's layer → teacher's layer. Empty: found by name and shape.",
    )
    control: bool = Field(
        False,
        description="Also train without the teacher, same budget, and report both.",
    )
    train: Train = Field(default_factory=Train, description="The training run.")

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield data, labels unless the teacher alone teaches, and the device."""
        yield Need.DATA, "distill trains on data; send a data file"
        if self.alpha < 1 or self.method == "dkd" or self.control:
            why = "set alpha to 1 to learn from the teacher alone"
            if self.method == "dkd":
                why = 'set method to "kd" and alpha to 1 to learn from the teacher alone'
            elif self.control:
                why = "leave out control and set alpha to 1 to learn from the teacher alone"
            yield (
                Need.TARGETS,
                f"distill needs labels; add an array named targets to the data, or {why}",
            )
        yield from super().wants()
        yield from self.train.wants()

    @model_validator(mode="after")
    def _fits_together(self) -> Distill:
        if self.layer_map and self.method != "hint":
            raise ValueError('layer_map is for method "hint"')
        if self.train.mixup and self.method == "dkd":
            raise ValueError('no one class is right for a blend; set train.mixup to 0 for "dkd"')
        if self.beta is not None and self.method not in ("dkd", "dist"):
            raise ValueError('beta is for the methods "dkd" and "dist"')
        if self.method in FEATURES and self.strategy == "data_parallel":
            raise ValueError(
                f'{self.method} looks into the layers, which "data_parallel" copies to each GPU; '
                'set strategy to "ddp" or "single"'
            )
        return self
