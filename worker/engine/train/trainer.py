"""The one training loop: retraining, distillation and all else that trains, alone or among many."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext

import torch
from torch import Tensor, fx, nn

from planish.contract.errors import TrainingDiverged
from planish.contract.job import EventType
from planish.contract.report import Epoch
from worker.engine.model import first_output
from worker.engine.sparsity import hold
from worker.engine.train.checkpoint import Checkpoints, Position, name_of
from worker.engine.train.clip import clip_gradients
from worker.engine.train.compiled import Compiled
from worker.engine.train.feed import Feed, Piece
from worker.engine.train.kept import Average, Snapshot, finite
from worker.engine.train.losses import Loss
from worker.engine.train.optimizer import make_optimizer
from worker.engine.train.precision import Precision
from worker.engine.train.run import Run, Trained
from worker.engine.train.schedule import learning_rate
from worker.engine.train.state import TrainingState
from worker.engine.train.validate import Validator
from worker.engine.train.world import ALONE, World, part_of

log = logging.getLogger(__name__)

UPDATE_SECONDS = 0.25
LOOK_EVERY = 20
"""Steps between looks at the losses where a look would have a GPU or other processes wait."""


class _Diverged(Exception):
    """A loss or a weight is no longer finite; the text says where."""


class Trainer:
    """Trains a module in place, and leaves in it the weights of the best epoch.

    Args:
        module: on the run's device, in the memory format for training. With many processes each
            has a copy.
        loss: what is made small.
        run: all else.
        world: who takes part.
    """

    def __init__(self, module: fx.GraphModule, loss: Loss, run: Run, world: World = ALONE) -> None:
        self.module, self.loss, self.run, self.world = module, loss, run, world
        self._checkpoints = _checkpoints(module, loss, run, world)
        self._forward = Compiled(world.wrap(module), run.train.compile)
        self._loss_parameters = own = _own_parameters(loss)
        self.optimizer = make_optimizer(module, run.train, own)
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self._precision = Precision(run.train.amp, run.device)
        self._kept = Snapshot(module)
        decay = run.train.ema_decay
        self._average = None if decay is None else Average(module, decay)
        self._feed = Feed(run, loss, world)
        self._validate = Validator(run, loss, world)
        self._steps = self._feed.per_epoch * run.train.epochs
        self._at = Position()
        self._pending: list[Tensor] = []
        alone_on_cpu = world.size == 1 and run.device.type == "cpu"
        self._look_every = 1 if alone_on_cpu else LOOK_EVERY
        self._told = time.monotonic()

    def train(self) -> Trained:
        """Run all epochs that are left, and put the best weights into the module.

        Raises:
            TrainingDiverged: the loss or a weight became NaN or infinite before an epoch was
                finished; the module has the weights that it came with.
        """
        resumed = self._resume()
        self._held = hold(self.module, self.run.sparsity, self._steps)
        try:
            while not self._enough():
                self._epoch()
        except _Diverged as where:
            self._kept.put_back()
            if not self._at.best_epoch:
                raise TrainingDiverged(f"{where}; {self._advice()}") from None
            self._at.warnings.append(
                f"{where}: training stopped there, and the weights of epoch {self._at.best_epoch} "
                f"stay; {self._advice()}"
            )
        finally:
            self._feed.close()
        self._kept.put_back()
        self._finish()
        return self._trained(resumed)

    def _enough(self) -> bool:
        train, at = self.run.train, self._at
        patience = train.early_stopping
        stopped = patience is not None and at.stale >= patience
        return at.done or at.epoch > train.epochs or stopped

    def _epoch(self) -> None:
        at = self._at
        self.module.train()
        for pieces in self._feed.epoch(at.epoch, at.batch):
            self._step(pieces)
            at.batch += 1
            if at.batch % self._look_every == 0:
                self._look()
        self._look()
        self._finish_epoch()

    def _step(self, pieces: list[Piece]) -> None:
        step = self._step_number()
        rate = learning_rate(self.run.train, step, self._steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        losses = [self._piece(piece, piece is pieces[-1]) for piece in pieces]
        self._pending.append(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        self.world.average_gradients(self._loss_parameters)
        if self.run.train.clip_norm is not None:
            self._precision.unscale(self.optimizer)
            clip_gradients(self._parameters, self.run.train.clip_norm, self.world)
        self._precision.step(self.optimizer)
        self._held.enforce(step)
        if self._average is not None:
            self._average.update(step)

    def _piece(self, piece: Piece, last: bool) -> Tensor:
        """Add the gradients of one piece, and return its share of the batch's loss."""
        with self.world.syncing(last):
            with self._precision.cast():
                outputs = first_output(self._forward(*piece.inputs)).float()
                loss = self.loss(outputs, piece.inputs, piece.targets)
            if piece.weight != 1.0:
                loss = loss * piece.weight
            self._precision.backward(loss)
        return loss.detach()

    def _look(self) -> None:
        """Take the losses of the last steps in, and do what comes from time to time.

        Raises:
            _Diverged: one of them is not finite.
        """
        if not self._pending:
            return
        values = self.world.sum(torch.stack(self._pending)) / self.world.size
        self._pending.clear()
        for value in values.tolist():
            self._at.losses.append(value)
            if not math.isfinite(value):
                raise self._diverged("the loss", f"{value}")
        self._tell(f"loss {self._at.losses[-1]:.4f}")
        if self._checkpoints is not None and self.world.any(self._checkpoints.due):
            self._save()

    def _finish_epoch(self) -> None:
        """Validate, keep the weights if they are the best, and report."""
        at, loss = self._at, self._mean_loss()
        if self.world.any(not bool(finite(self.module))):
            raise self._diverged("a weight", "NaN or infinite")
        self.world.average(b for b in self.module.buffers() if b.is_floating_point())
        average = self._average
        with average.in_place(self._held) if average is not None else nullcontext():
            score = self._validate(self.module, lambda: self._tell("validating"))
            if score is not None and math.isnan(score):
                raise self._diverged("the validation score", "NaN")
            self._judge(score)
        accuracy = score if self._validate.name == "accuracy" else None
        rate = self.optimizer.param_groups[0]["lr"]
        at.epochs.append(
            Epoch(
                op=self.run.op,
                step=self.run.step,
                epoch=at.epoch,
                loss=loss,
                accuracy=accuracy,
                lr=rate,
            )
        )
        at.epoch, at.batch, at.losses = at.epoch + 1, 0, []
        told = {**at.epochs[-1].model_dump(), "epochs": self.run.train.epochs}
        self.run.progress.event(EventType.EPOCH, told)
        if self._checkpoints is not None and self.world.any(self._checkpoints.cheap):
            self._save()

    def _judge(self, score: float | None) -> None:
        """Keep the weights of an epoch that is the best; without scores, those of the last one.

        Weights that are to become sparse are not kept before all their zeros are there.
        """
        at = self._at
        if not self._held.complete:
            return
        better = score is None or at.best_score is None or score > at.best_score
        at.stale = 0 if better else at.stale + 1
        if better or score == at.best_score:
            at.best_score, at.best_epoch = score, at.epoch
            self._kept.take()

    def _mean_loss(self) -> float:
        samples, batches = len(self.run.data), self._feed.per_epoch
        sizes = (part_of(samples, i, batches) for i in range(batches))
        pairs = zip(self._at.losses, sizes, strict=True)
        return math.fsum(loss * (part.stop - part.start) for loss, part in pairs) / samples

    def _step_number(self) -> int:
        return (self._at.epoch - 1) * self._feed.per_epoch + self._at.batch

    def _tell(self, what: str) -> None:
        if time.monotonic() - self._told < UPDATE_SECONDS:
            return
        self._told = time.monotonic()
        at, epochs = self._at, self.run.train.epochs
        share = (at.epoch - 1 + at.batch / self._feed.per_epoch) / epochs
        self.run.progress.update(min(share, 1.0), f"epoch {at.epoch}/{epochs}, {what}")

    def _diverged(self, what: str, became: str) -> _Diverged:
        at = self._at
        rate = self.optimizer.param_groups[0]["lr"]
        step = (at.epoch - 1) * self._feed.per_epoch + len(at.losses)
        return _Diverged(
            f"{what} of {self.run.op} became {became} in epoch {at.epoch}, step {step}, at a "
            f"learning rate of {rate:.3g}"
        )

    def _advice(self) -> str:
        return f"set train.lr (now {self.run.train.lr:g}) to a tenth"

    def _state(self) -> TrainingState:
        average = {} if self._average is None else self._average.values
        return TrainingState(
            self.module, self.loss, self.optimizer, self._kept.values, average, self.run.device
        )

    def _save(self) -> None:
        """Write a checkpoint; every process takes part."""
        if self._checkpoints is None:
            return
        self._at.scaler = self._precision.state()
        tensors = self._state().gather(self.world)
        if self.world.leads:
            self._checkpoints.write(tensors, self._at)

    def _resume(self) -> str | None:
        """Go on from a checkpoint if there is one; say from where."""
        if self._checkpoints is None:
            return None
        found = self.world.from_leader(self._checkpoints.read() if self.world.leads else None)
        if found is None:
            return None
        tensors, position = found
        self._at = at = Position.model_validate_json(position)
        self._state().restore(tensors, self.world, done=at.done)
        self._precision.restore(at.scaler)
        where = "its end" if at.done else f"epoch {at.epoch}, step {self._step_number() + 1}"
        log.info("%s goes on from its checkpoint at %s", self.run.op, where)
        return where

    def _finish(self) -> None:
        """Leave a checkpoint that holds the result alone."""
        if self._checkpoints is None or self._at.done:
            return
        self._at.done = True
        tensors = self._state().gather(self.world, done=True)
        if self.world.leads:
            self._checkpoints.write(tensors, self._at)

    def _trained(self, resumed: str | None) -> Trained:
        at = self._at
        scored = at.best_score is not None
        return Trained(
            epochs=tuple(at.epochs),
            best_epoch=at.best_epoch,
            best_score=at.best_score,
            score_name=self._validate.name if scored else None,
            resumed_from=resumed,
            warnings=(*at.warnings, *self._forward.warnings),
        )


def _checkpoints(module: fx.GraphModule, loss: Loss, run: Run, world: World) -> Checkpoints | None:
    if run.checkpoints is None:
        return None
    name = name_of(module, loss, run, world.size)
    return Checkpoints(run.checkpoints, name, run.train.checkpoint_every_seconds)


def _own_parameters(loss: Loss) -> list[nn.Parameter]:
    """Return what a loss trains along with the model."""
    if not isinstance(loss, nn.Module):
        return []
    return [p for p in loss.parameters() if p.requires_grad]
