"""Training a model in one process: its place, its form and its randomness around the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from planish.contract.errors import InvalidRecipe
from planish.contract.recipe import Train
from planish.contract.report import Epoch
from worker.engine.model import Model
from worker.engine.passes.layers import has_batchnorm
from worker.engine.train.feed import memory_format
from worker.engine.train.losses import Loss
from worker.engine.train.placement import move
from worker.engine.train.run import Run, Trained
from worker.engine.train.samples import arranged, batches_per_epoch
from worker.engine.train.trainer import Trainer
from worker.engine.train.world import ALONE, World

__all__ = ["Run", "Trained", "fit", "train"]


def fit(model: Model, loss: Loss, run: Run) -> tuple[Epoch, ...]:
    """Train a model in place, as `train`, and return its epochs."""
    return train(model, loss, run).epochs


def train(model: Model, loss: Loss, run: Run, world: World = ALONE) -> Trained:
    """Train a model in place and leave it in eval mode on the CPU.

    Same seed, data and thread count give the same weights, bit for bit, interrupted or not. The
    weights of the epoch with the best validation score stay (lowest validation loss without
    targets; a later epoch wins a tie); without validation data those of the last epoch.

    A run that diverges after an epoch was finished ends there, with a warning.

    Raises:
        InvalidRecipe: augmentation of something that is not images, or batches too small for
            BatchNorm, for their pieces or for the processes.
        TrainingDiverged: the loss became NaN or infinite in the first epoch; the model is as it
            was.
    """
    check_run(model, run.train, len(run.data), world.size)
    with deterministic(run, world.rank), training_form(model.module, loss, run):
        return Trainer(model.module, loss, run, world).train()


def check_run(model: Model, params: Train, samples: int, processes: int = 1) -> None:
    """Refuse a run that cannot work; raises as `train`.

    Args:
        model: what is trained.
        params: of the run.
        samples: there are to learn from.
        processes: that share each batch.
    """
    images = [len(spec.shape) == 4 and spec.dtype.is_floating_point for spec in model.inputs]
    if params.augment != "none" and images != [True]:
        raise InvalidRecipe(
            f"augment {params.augment!r} is for models with one image input (batch, channels, "
            f'height, width); set augment to "none"'
        )
    if params.mixup and images != [True]:
        raise InvalidRecipe(
            "mixup blends images, and this model does not take one image input (batch, channels, "
            "height, width); set mixup to 0"
        )
    pieces = params.accumulate * processes
    batch = samples // batches_per_epoch(samples, params.batch_size)
    if batch < pieces:
        raise InvalidRecipe(
            f"a batch of {batch} samples cannot be divided into {pieces} pieces (accumulate "
            f"{params.accumulate}, processes {processes}); set a larger batch_size"
        )
    if batch // pieces < 2 and has_batchnorm(model.module):
        raise InvalidRecipe(
            f"BatchNorm cannot train on one sample: {samples} samples come in batches of "
            f"{batch} and {pieces} pieces; set batch_size to 2 or more for each piece, or send "
            f"more data"
        )


@contextmanager
def deterministic(run: Run, rank: int) -> Iterator[None]:
    """Seed dropout and ask for deterministic kernels; give the caller's state back afterwards.

    Args:
        run: with cudnn_benchmark, speed goes before equal bits.
        rank: of this process; each has another dropout.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic  # a module whose attributes torch's stubs leave out
    fill = memory.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.manual_seed(run.seed + rank)
        torch.use_deterministic_algorithms(not run.train.cudnn_benchmark, warn_only=True)
        torch.backends.cudnn.benchmark = run.train.cudnn_benchmark
        # Every kernel writes all of its output; to fill it before costs a tenth of the time.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            memory.fill_uninitialized_memory = fill
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def training_form(module: fx.GraphModule, loss: Loss, run: Run) -> Iterator[None]:
    """Bring a module to the run's device and memory format, and back to CPU and eval mode."""
    move(module, run.device)
    if isinstance(loss, nn.Module):
        loss.to(run.device)
    arrange(module, memory_format(run))
    try:
        yield
    finally:
        move(module, torch.device("cpu"))
        arrange(module, torch.contiguous_format)
        module.eval()
        for parameter in module.parameters():
            parameter.grad = None


def arrange(module: nn.Module, form: torch.memory_format) -> None:
    """Lay the kernels of 2-d convolutions out in memory."""
    for parameter in module.parameters():
        parameter.data = arranged(parameter.data, form)
