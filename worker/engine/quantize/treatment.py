"""What is done to a float model before it becomes integers, as one value to choose and compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from planish.contract.recipe import Quantize
from worker.engine.load.dataset import Dataset
from worker.engine.model import Model
from worker.engine.quantize.adaround import Rounded, learn_rounding
from worker.engine.quantize.bias_correction import correct_biases
from worker.engine.quantize.equalization import equalize
from worker.engine.quantize.prepared import Batches, Prepared, observe, prepare
from worker.engine.quantize.smoothquant import Smoothed, smooth
from worker.engine.quantize.streams import Stream

_BATCH = 32
LEARNING_SAMPLES = 256


@dataclass(frozen=True)
class Treatment:
    """Which methods stand between the float model and its integers, in this order.

    Attributes:
        equalized: cross-layer equalization.
        smoothed: SmoothQuant.
        calibration: how ranges of activations are found.
        adaptive: adaptive rounding.
        corrected: bias correction.
    """

    calibration: str
    equalized: bool = False
    smoothed: bool = False
    adaptive: bool = False
    corrected: bool = False

    def words(self) -> str:
        """Return the treatment in the words of the recipe."""
        methods = [
            name
            for name, used in (
                ("cross_layer_equalization", self.equalized),
                ("smoothquant", self.smoothed),
                ("adaround", self.adaptive),
                ("bias_correction", self.corrected),
            )
            if used
        ]
        return f"{' + '.join(methods) or 'rtn'}, {self.calibration}"


@dataclass(frozen=True)
class Treated:
    """A model ready to be converted.

    Attributes:
        treatment: what was done.
        layers: which layers become integers.
        model: float, with the weights that are rounded.
        prepared: its graph, calibrated.
        equalized: streams whose ranges were balanced.
        smoothed: inputs that were smoothed.
        rounded: layers whose rounding was learned.
        biases: how many biases were corrected.
    """

    treatment: Treatment
    layers: tuple[str, ...]
    model: Model
    prepared: Prepared
    equalized: tuple[Stream, ...] = ()
    smoothed: tuple[Smoothed, ...] = ()
    rounded: tuple[Rounded, ...] = ()
    biases: int = 0


def named_treatment(params: Quantize) -> Treatment:
    """Return the treatment that `params.algorithm` names; auto begins with nothing but rounding."""
    return Treatment(
        calibration=params.calibration,
        equalized=params.algorithm == "cross_layer_equalization",
        smoothed=params.algorithm == "smoothquant",
        adaptive=params.algorithm == "adaround",
        corrected=params.algorithm == "bias_correction",
    )


def treat(
    model: Model,
    params: Quantize,
    layers: tuple[str, ...],
    treatment: Treatment,
    samples: Dataset,
    seed: int,
    tell: Callable[[int], None] = lambda _: None,
) -> Treated:
    """Apply a treatment to a copy of a model and calibrate it.

    Args:
        model: float, in canonical form; stays as it is.
        params: dtype, granularity and mode.
        layers: which layers become integers.
        treatment: what to do.
        samples: calibration samples.
        seed: of learned rounding.
        tell: told how many samples were observed.
    """
    equalized: tuple[Stream, ...] = ()
    smoothed: tuple[Smoothed, ...] = ()
    model = model.clone()
    if treatment.equalized:
        model, equalized = equalize(model)
    if treatment.smoothed:
        model, smoothed = smooth(model, layers, samples)
    if treatment.corrected:
        _give_biases(model, layers)
    params = params.model_copy(update={"calibration": treatment.calibration})
    prepared = prepare(model, params, layers)
    observe(prepared, _told(samples, tell))
    few = samples.head(LEARNING_SAMPLES)
    done = Treated(treatment, layers, model, prepared, equalized, smoothed)
    if treatment.adaptive:
        done = replace(done, rounded=learn_rounding(prepared, few, seed))
    if treatment.corrected:
        done = replace(done, biases=correct_biases(prepared, few))
    return done


def _told(samples: Dataset, tell: Callable[[int], None]) -> Batches:
    for index, (inputs, _) in enumerate(samples.batches(_BATCH)):
        tell(index * _BATCH)
        yield inputs


def _give_biases(model: Model, layers: tuple[str, ...]) -> None:
    """Give layers without a bias one of zeros, which bias correction then fills."""
    for name in layers:
        layer = model.module.get_submodule(name)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) and layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(len(layer.weight)), requires_grad=False)
