"""Mixed precision: what is computed in 16 bits, and how small gradients survive it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor, optim

Amp = Literal["none", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast, and for fp16 a loss scale that finds its own size.

    A step whose scaled gradient overflows is left out and the scale is halved: that is how the
    scale is found, no divergence (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2).
    """

    def __init__(self, amp: Amp, device: torch.device) -> None:
        self._kind = device.type
        self._dtype = DTYPES.get(amp)
        self._scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")

    def cast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass and its loss."""
        return torch.autocast(self._kind, dtype=self._dtype, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: optim.Optimizer) -> None:
        """Bring the gradients to their true size, for who looks at them before the step."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: optim.Optimizer) -> None:
        """Change the weights."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, float]:
        """Return what a checkpoint needs."""
        return dict(self._scaler.state_dict())

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        if state:
            self._scaler.load_state_dict(state)
