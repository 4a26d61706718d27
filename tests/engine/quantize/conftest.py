"""A network really trained on digits, once for all tests of this folder."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from planish.contract.recipe import Quantize
from tests.engine.passes.models import canonical, context, digit_splits
from tests.engine.quantize.collapse import SmallMobileNet, scale_channels, scale_streams, train
from worker.engine.load.splits import Splits
from worker.engine.model import Model, first_output
from worker.engine.passes import simplify


@dataclass(frozen=True)
class Trained:
    """The network as a job loads it, folded; with its inner channels scaled; with all scaled."""

    plain: Model
    scaled: Model
    streams: Model
    splits: Splits

    def accuracy(self, model: Model) -> float:
        """Return the accuracy on the sealed part."""
        inputs, labels = self.splits.sealed.prepare(np.arange(len(self.splits.sealed)))
        with torch.no_grad():
            return float((first_output(model.module(*inputs)).argmax(1) == labels).float().mean())


@pytest.fixture(scope="session")
def digits_net() -> Trained:
    splits = digit_splits()
    inputs, labels = splits.train.prepare(np.arange(len(splits.train)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SmallMobileNet(1, (8, 8, 16), 10, factor=3)
        train(net, inputs[0], labels, epochs=6, rate=0.1)
    scaled, streams = copy.deepcopy(net), copy.deepcopy(net)
    scale_channels(scaled, powers=6)
    scale_streams(streams, powers=6)
    example = (torch.randn(2, 1, 8, 8),)
    models = [folded(canonical(each, example)) for each in (net, scaled, streams)]
    return Trained(*models, splits)


def folded(model: Model) -> Model:
    """Return the model with its BatchNorms folded, as every quantization begins."""
    return simplify.run(model, simplify.FOLD, context(model, Quantize())).model
