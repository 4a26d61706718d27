"""The training loop: the same for retraining, distillation and every other pass that trains."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, fx

from planish.contract.errors import InvalidRecipe, TrainingDiverged
from planish.contract.job import EventType
from planish.contract.recipe import Train
from planish.contract.report import Epoch
from worker.engine.load.data import Dataset
from worker.engine.model import Model, first_output
from worker.engine.passes.layers import has_batchnorm
from worker.engine.progress import Progress
from worker.engine.train.augment import augment
from worker.engine.train.losses import Loss
from worker.engine.train.optimizer import make_optimizer
from worker.engine.train.placement import move
from worker.engine.train.samples import Batch, batches_per_epoch, reader, shuffled_batches
from worker.engine.train.schedule import learning_rate

UPDATE_SECONDS = 0.25


@dataclass(frozen=True)
class Run:
    """Everything that one training run depends on.

    Attributes:
        op: pass that trains, for the report.
        step: its position in the recipe, from 1.
        train: hyperparameters.
        data: what is learnt from.
        validation: what the best epoch is chosen on; None keeps the last epoch.
        seed: order, augmentation and dropout come from it.
        device: where it runs.
        progress: told about every quarter of a second and every epoch.
    """

    op: str
    step: int
    train: Train
    data: Dataset
    validation: Dataset | None
    seed: int
    device: torch.device
    progress: Progress


def fit(model: Model, loss: Loss, run: Run) -> tuple[Epoch, ...]:
    """Train a model in place and leave it in eval mode on the CPU.

    Same seed, data and thread count give the same weights, bit for bit. The weights of the epoch
    with the best validation accuracy stay (lowest validation loss without labels; a later epoch
    wins a tie); without validation data those of the last epoch.

    Raises:
        InvalidRecipe: augmentation of something that is not images, or batches too small for
            BatchNorm.
        TrainingDiverged: the loss became NaN or infinite.
    """
    _check(model, run)
    with _deterministic(run.seed), _training_form(model.module, run):
        return _Fit(model.module, loss, run).epochs()


class _Fit:
    """State of one run: the optimizer, the random streams, and the best weights so far."""

    def __init__(self, module: fx.GraphModule, loss: Loss, run: Run) -> None:
        self.module, self.loss, self.run = module, loss, run
        self.optimizer = make_optimizer(module, run.train)
        self.generator = Generator().manual_seed(run.seed)
        self.read = reader(run.data)
        self.read_validation = None if run.validation is None else reader(run.validation)
        self.per_epoch = batches_per_epoch(len(run.data), run.train.batch_size)
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.told = time.monotonic()

    def epochs(self) -> tuple[Epoch, ...]:
        """Run all epochs and load the best weights."""
        done = []
        for number in range(1, self.run.train.epochs + 1):
            done.append(self._epoch(number))
            self.run.progress.event(
                EventType.EPOCH, {**done[-1].model_dump(), "epochs": self.run.train.epochs}
            )
        if self.best is not None:
            self.module.load_state_dict(self.best[1])
        return tuple(done)

    def _epoch(self, number: int) -> Epoch:
        self.module.train()
        total = 0.0
        batches = shuffled_batches(len(self.run.data), self.run.train.batch_size, self.generator)
        for index, indices in enumerate(batches):
            value = self._step((number - 1) * self.per_epoch + index, self.read(indices), number)
            total += value * len(indices)
            self._tell(number, index + 1, value)
        score, accuracy = self._validate(number)
        if score is not None and (self.best is None or score >= self.best[0]):
            self.best = score, copy.deepcopy(self.module.state_dict())
        return Epoch(
            op=self.run.op,
            step=self.run.step,
            epoch=number,
            loss=total / len(self.run.data),
            accuracy=accuracy,
            lr=self.optimizer.param_groups[0]["lr"],
        )

    def _step(self, step: int, batch: Batch, epoch: int) -> float:
        rate = learning_rate(self.run.train, step, self.per_epoch * self.run.train.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = self._place(batch, augmented=True)
        loss = self.loss(first_output(self.module(*inputs)), inputs, targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the loss of {self.run.op} became {value} in epoch {epoch}, step {step + 1}, at a "
                f"learning rate of {rate:.3g}; set train.lr (now {self.run.train.lr:g}) to a tenth"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return value

    def _place(self, batch: Batch, *, augmented: bool) -> Batch:
        """Move a batch to the device in the run's memory format, with random changes if wanted."""
        inputs, targets = batch
        if augmented:
            inputs = tuple(augment(t, self.run.train.augment, self.generator) for t in inputs)
        form = _memory_format(self.run.train)
        placed = tuple(
            t.to(self.run.device, memory_format=form) if t.dim() == 4 else t.to(self.run.device)
            for t in inputs
        )
        return placed, None if targets is None else targets.to(self.run.device)

    def _validate(self, epoch: int) -> tuple[float | None, float | None]:
        """Return the score that ranks epochs, and the accuracy."""
        data = self.run.validation
        if data is None or self.read_validation is None:
            return None, None
        self.module.eval()
        correct, loss = 0, 0.0
        size = max(self.run.train.batch_size, 256)
        with torch.no_grad():
            for start in range(0, len(data), size):
                indices = torch.arange(start, min(start + size, len(data)))
                inputs, targets = self._place(self.read_validation(indices), augmented=False)
                logits = first_output(self.module(*inputs))
                if targets is None:
                    loss += float(self.loss(logits, inputs, None)) * len(indices)
                else:
                    correct += int((logits.argmax(-1) == targets).sum())
                self._tell(epoch, self.per_epoch, None)
        if data.targets is None:
            return -loss / len(data), None
        return correct / len(data), correct / len(data)

    def _tell(self, epoch: int, batch: int, loss: float | None) -> None:
        if time.monotonic() - self.told < UPDATE_SECONDS:
            return
        self.told = time.monotonic()
        epochs = self.run.train.epochs
        share = (epoch - 1 + batch / self.per_epoch) / epochs
        what = "validating" if loss is None else f"loss {loss:.4f}"
        self.run.progress.update(share, f"epoch {epoch}/{epochs}, {what}")


def _check(model: Model, run: Run) -> None:
    images = [len(spec.shape) == 4 and spec.dtype.is_floating_point for spec in model.inputs]
    if run.train.augment != "none" and images != [True]:
        raise InvalidRecipe(
            f"augment {run.train.augment!r} is for models with one image input (batch, channels, "
            f'height, width); set augment to "none"'
        )
    smallest = len(run.data) // batches_per_epoch(len(run.data), run.train.batch_size)
    if smallest < 2 and has_batchnorm(model.module):
        raise InvalidRecipe(
            f"BatchNorm cannot train on batches of one sample: {len(run.data)} samples in batches "
            f"of {run.train.batch_size}; set batch_size to 2 or more, and send more data"
        )


def _memory_format(train: Train) -> torch.memory_format:
    return torch.channels_last if train.channels_last else torch.contiguous_format


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Seed dropout and ask for deterministic kernels; give the caller's state back afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _training_form(module: fx.GraphModule, run: Run) -> Iterator[None]:
    """Bring a module to the run's device and memory format, and back to CPU and eval mode."""
    move(module, run.device)
    _arrange(module, _memory_format(run.train))
    try:
        yield
    finally:
        move(module, torch.device("cpu"))
        _arrange(module, torch.contiguous_format)
        module.eval()
        for parameter in module.parameters():
            parameter.grad = None


def _arrange(module: fx.GraphModule, form: torch.memory_format) -> None:
    """Lay the kernels of 2-d convolutions out in memory."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=form)
