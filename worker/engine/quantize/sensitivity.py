"""Which layers integers hurt most, and which are worth their time in float."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from worker.engine.passes.layers import layer_of
from worker.engine.quantize.pairs import Pair
from worker.engine.quantize.placement import tail
from worker.engine.quantize.prepared import Prepared
from worker.engine.quantize.quality import Judge

SAMPLES = 64
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Harm:
    """What one layer in integers does to the output.

    Attributes:
        layer: its name.
        sqnr_db: of the output with this layer alone in integers (weight, input and output).
        noise_share: its part of the noise of all layers measured so, 0 to 1.
        macs: multiply-accumulates for one sample; stands for the time that integers save.
        macs_share: of all measured layers.
    """

    layer: str
    sqnr_db: float
    noise_share: float
    macs: int
    macs_share: float


def measure_harm(prepared: Prepared, judge: Judge) -> tuple[Harm, ...]:
    """Return the harm of each layer, in the order in which they are worth going back to float.

    Noise of single layers nearly adds up in the output, so what a layer adds to it alone is what
    taking it out removes. Most noise per multiply-accumulate comes first; layers with less than a
    hundredth of the noise come last, since nothing is gained by them however small they are. Time
    is estimated by multiply-accumulates, not measured.

    Args:
        prepared: calibrated.
        judge: its first 64 samples are used.
    """
    few = judge.few(SAMPLES)
    sqnr = {
        layer: few.judge_only(prepared.graph, _own_pairs(prepared, nodes)).sqnr_db
        for layer, nodes in _by_layer(prepared).items()
    }
    macs = {layer: _macs(prepared, nodes) for layer, nodes in _by_layer(prepared).items()}
    return by_worth(sqnr, macs)


def by_worth(sqnr: Mapping[str, float], macs: Mapping[str, int]) -> tuple[Harm, ...]:
    """Return the harm of each layer from what it does alone, in the order of `measure_harm`.

    Args:
        sqnr: of the output with one layer in integers, in dB.
        macs: of the same layers.
    """
    noise = {layer: 10 ** (-value / 10) for layer, value in sqnr.items()}
    all_noise, all_macs = sum(noise.values()) or 1.0, sum(macs.values()) or 1
    harms = [
        Harm(name, sqnr[name], noise[name] / all_noise, macs[name], macs[name] / all_macs)
        for name in sqnr
    ]
    return tuple(sorted(harms, key=_worth, reverse=True))


def _worth(harm: Harm) -> tuple[bool, float]:
    return harm.noise_share >= _LEAST_SHARE, harm.noise_share / max(harm.macs, 1)


def _by_layer(prepared: Prepared) -> dict[str, list[fx.Node]]:
    calls: dict[str, list[fx.Node]] = {}
    for layer, node in prepared.calls():
        calls.setdefault(layer, []).append(node)
    return calls


def _own_pairs(prepared: Prepared, nodes: Sequence[fx.Node]) -> list[Pair]:
    """Return the pairs around some calls: inputs, weight, and outputs where they have one."""
    pairs = []
    for node in nodes:
        pairs += [prepared.pair(node, 0), prepared.pair(node, 1)]
        for user in tail(node).users:
            layer = layer_of(prepared.graph, user)
            if isinstance(layer, Pair):
                pairs.append(layer)
    return pairs


def _macs(prepared: Prepared, nodes: Sequence[fx.Node]) -> int:
    total = 0
    for node in nodes:
        value, weight = node.meta.get("val"), prepared.weight(node)
        if isinstance(value, Tensor):
            sizes = [int(size) if isinstance(size, int) else 1 for size in value.shape[1:]]
            total += math.prod(sizes) // len(weight) * weight.numel()
    return total
