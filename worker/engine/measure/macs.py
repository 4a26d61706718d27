"""Work: multiply-accumulates of one sample, counted while the graph runs."""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from worker.engine.model import Model


def count_macs(model: Model) -> int:
    """Return the multiply-accumulates of convolutions and matrix products for one sample.

    Named dimensions other than the batch count as 1 too. A static int8 graph counts like the float
    graph it came from: q/dq pairs multiply nothing.
    """
    counter = FlopCounterMode(display=False)
    # Fused attention kernels are not counted; as plain products they are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model.module(*model.example(batch=1))
    return int(counter.get_total_flops()) // 2
