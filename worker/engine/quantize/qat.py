"""Training with the rounding in the loop, between calibration and conversion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from worker.engine.distill.losses import soft_divergence
from worker.engine.model import first_output
from worker.engine.quantize.pairs import pairs_of
from worker.engine.quantize.prepared import Prepared, fit_biases
from worker.engine.train.blend import Targets
from worker.engine.train.losses import Inputs, Task

TEMPERATURE = 4.0
_LOGITS = ("classification", "language_modeling")


@dataclass(frozen=True)
class Imitation:
    """The loss of a network in integers that learns what it answered in float; needs no labels.

    Softened divergence of logits at T = 4 (Hinton et al. 2015, arXiv:1503.02531, section 2); for
    outputs that are no logits the squared error, over the mean square of what is wanted.

    Attributes:
        teacher: the float model, in eval mode, on the device of the batch.
        task: says what the outputs are.
    """

    teacher: fx.GraphModule
    task: Task

    def __call__(self, outputs: Tensor, inputs: Inputs, _targets: Targets) -> Tensor:
        """Return the loss of one batch."""
        with torch.no_grad():
            wanted = first_output(self.teacher(*inputs))
        if self.task in _LOGITS:
            return soft_divergence(outputs, wanted, TEMPERATURE)
        return F.mse_loss(outputs, wanted) / wanted.square().mean().clamp(min=1e-12)


def begin_training(prepared: Prepared) -> None:
    """Let every pair round, and weight scales follow their weights; in place.

    Ranges of activations stay as calibrated: what the network learns, it learns within them. The
    graph answers in eval mode as its integers will. Source: Jacob et al. 2018, arXiv:1712.05877,
    section 3.

    Args:
        prepared: calibrated.
    """
    for pair in pairs_of(prepared.graph).values():
        pair.enable_fake_quant()
    for _, node in prepared.calls():
        prepared.pair(node, 1).enable_observer()
    for parameter in prepared.graph.parameters():
        parameter.requires_grad_(True)


def end_training(prepared: Prepared) -> None:
    """Settle weight scales on the final weights; in place."""
    with torch.no_grad():
        for _, node in prepared.calls():
            pair = prepared.pair(node, 1)
            pair.activation_post_process(prepared.weight(node).detach())
            pair.settle()
        fit_biases(prepared)
    for parameter in prepared.graph.parameters():
        parameter.requires_grad_(False)
