"""Empirical bias correction: what rounding shifts on average, the bias shifts back."""

from __future__ import annotations

from worker.engine.load.dataset import Dataset
from worker.engine.quantize.prepared import Prepared, fit_biases
from worker.engine.quantize.walk import Site, walk


def correct_biases(prepared: Prepared, samples: Dataset) -> int:
    """Add to each bias the mean error of its channel; return how many layers were corrected.

    Layer by layer in order, each behind corrected ones: ``b += E[y_float] - E[y_integer]`` over
    samples and positions. Layers without a bias are left alone. Source: Nagel et al. 2019,
    arXiv:1906.04721, appendix D (empirical bias correction).

    Args:
        prepared: its pairs are settled; biases change in place.
        samples: calibration samples, none of those that the result is judged on.
    """
    corrected = 0

    def visit(site: Site) -> None:
        nonlocal corrected
        bias = prepared.bias(site.node)
        if bias is None:
            return
        weight = prepared.pair(site.node, 1)(prepared.weight(site.node))
        error = site.wanted - site.compute(site.inputs, weight, bias)
        others = [dim for dim in range(error.dim()) if dim != site.channel_dim]
        bias.add_(error.mean(others))
        corrected += 1

    walk(prepared, samples, visit)
    fit_biases(prepared)
    return corrected
