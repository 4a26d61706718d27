"""A module behind torch.compile; when that fails, the module itself, and a warning."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from worker.engine.model import Outputs

log = logging.getLogger(__name__)


class Compiled:
    """Calls a module, compiled if wanted.

    Only the forward pass may fail here: its backward is compiled along with it.

    Attributes:
        warnings: why it is not compiled although it should be.
    """

    def __init__(self, module: nn.Module, wanted: bool) -> None:
        self._module = module
        # fullgraph: a break, or too many shapes, is an error and no silent return to eager.
        self._compiled = torch.compile(module, fullgraph=True) if wanted else None
        self.warnings: list[str] = []

    def __call__(self, *inputs: Tensor) -> Outputs:
        """Return the module's outputs."""
        if self._compiled is None:
            return self._module(*inputs)  # type: ignore[no-any-return]
        try:
            return self._compiled(*inputs)  # type: ignore[no-any-return]
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            reason = str(error).strip().splitlines()[0][:200]
            self.warnings.append(f"torch.compile failed ({reason}); trained without it")
            log.warning("%s", self.warnings[-1])
            self._compiled = None
            return self._module(*inputs)  # type: ignore[no-any-return]
