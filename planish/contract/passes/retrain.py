"""Parameters of `retrain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from planish.contract.passes.base import Need, Stage
from planish.contract.passes.train import Spread, Train


class Retrain(Spread):
    """Fine-tune the model on the labels of the data, on one or many GPUs or nodes."""

    stage: ClassVar[Stage] = Stage.RECOVER
    needs: ClassVar[tuple[Need, ...]] = (Need.DATA, Need.TARGETS)
    source: ClassVar[str] = (
        "Han et al. 2015, arXiv:1506.02626, section 3 (retraining after pruning)"
    )

    op: Literal["retrain"] = "retrain"
    train: Train = Field(default_factory=Train, description="The training run.")

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield data, labels and the device."""
        yield Need.DATA, "retrain trains on data; send a data file"
        yield Need.TARGETS, "retrain needs labels; add an array named targets to the data"
        yield from super().wants()
        yield from self.train.wants()
