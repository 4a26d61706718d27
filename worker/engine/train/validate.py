"""How good the weights are after an epoch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from worker.engine.model import first_output
from worker.engine.train.feed import memory_format
from worker.engine.train.losses import Loss
from worker.engine.train.run import Run
from worker.engine.train.samples import Batch, reader
from worker.engine.train.scores import task_score
from worker.engine.train.world import World, part_of


class Validator:
    """Scores a module on the validation data, each process its part.

    Attributes:
        name: of the score; None without validation data.
    """

    def __init__(self, run: Run, loss: Loss, world: World) -> None:
        self._run, self._loss, self._world = run, loss, world
        self._data = run.validation
        self._score = task_score(run.task)
        # Half of what training takes: nothing is kept for a backward pass.
        self._size = max(1, 2 * run.train.batch_size // run.train.accumulate) * world.size
        if self._data is not None:
            self._read = reader(self._data, run.device, memory_format(run))

    @property
    def name(self) -> str | None:
        """What the score is called."""
        if self._data is None:
            return None
        return "negative loss" if self._data.targets is None else self._score.name

    @torch.no_grad()
    def __call__(self, module: nn.Module, tell: Callable[[], None]) -> float | None:
        """Return the mean score over the data, None without any; leaves the module in eval mode.

        Without targets it is the training loss, negated.

        Args:
            module: on the run's device.
            tell: called after each batch.
        """
        if self._data is None:
            return None
        module.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=self._run.device)
        for start in range(0, len(self._data), self._size):
            count = min(self._size, len(self._data) - start)
            own = part_of(count, self._world.rank, self._world.size)
            # With sharded weights every process must take part: the idle ones repeat a sample.
            indices = start + torch.arange(count)[own if own.start < own.stop else slice(1)]
            sums = self._sums(module, self._read(indices))
            totals += sums if own.start < own.stop else 0 * sums
            tell()
        total, terms = self._world.sum(totals).tolist()
        return float(total / max(terms, 1))

    def _sums(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of a batch's scores, and how many they are."""
        inputs, targets = batch
        outputs = first_output(module(*inputs)).float()
        if targets is not None:
            return torch.stack([part.double() for part in self._score(outputs, targets)])
        loss = self._loss(outputs, inputs, None).double() * len(outputs)
        return torch.stack([-loss, loss.new_tensor(len(outputs))])
