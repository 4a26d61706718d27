"""Which samples ranges are found on, and which judge the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from planish.contract.recipe import Quantize
from worker.engine.load.data import Dataset, synthetic
from worker.engine.model import AnyModel
from worker.engine.passes.protocol import Surroundings

_JUDGING = 256
_JUDGING_SHARE = 5
_SPLIT_FROM = 20
_NOISE_WARNING = (
    "no data came along: activation ranges were calibrated on synthetic noise and may not fit real "
    "inputs; send data for a trustworthy int8 model"
)


@dataclass(frozen=True)
class Roles:
    """The calibration part of the data, divided.

    Attributes:
        ranges: what ranges, biases and rounding are found on.
        judging: what the result is judged on, none of `ranges`; None where nothing can be told:
            without data, or with fewer than 20 samples.
    """

    ranges: Dataset
    judging: Dataset | None

    def facts(self, params: Quantize) -> dict[str, JsonValue]:
        """Return what the report says about them."""
        facts: dict[str, JsonValue] = {
            "calibration": params.calibration,
            "samples": len(self.ranges),
            "judging_samples": len(self.judging) if self.judging is not None else 0,
        }
        if len(self.ranges) < params.samples:
            facts["note"] = (
                f"the data has {len(self.ranges)} samples to calibrate on, {params.samples} "
                "asked for"
            )
        return facts


def roles(model: AnyModel, params: Quantize, context: Surroundings) -> Roles:
    """Divide the calibration samples: the first ones find ranges, later ones judge.

    Where the data holds no more than `samples`, a fifth of it judges.
    """
    if context.splits is None:
        return Roles(synthetic(model, params.samples, context.seed), None)
    data = context.splits.calibration
    if len(data) < _SPLIT_FROM:
        return Roles(data.head(params.samples), None)
    cut = min(params.samples, len(data) - len(data) // _JUDGING_SHARE)
    rest = np.arange(cut, min(cut + _JUDGING, len(data)))
    return Roles(data.head(cut), data.take(rest))


def data_facts(params: Quantize, context: Surroundings, parts: Roles) -> dict[str, JsonValue]:
    """Return the facts of the samples, with a warning where they are noise."""
    facts = parts.facts(params)
    if context.splits is None:
        facts["warning"] = _NOISE_WARNING
    return facts
