"""One process of many that train: ``python -m worker.engine.train.spread.rank FOLDER``.

Started by torchrun. Rank 0 tells of progress, and writes the result or the error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors.torch import save_file
from torch import distributed as dist

from planish.contract.errors import OutOfMemory, PlanishError
from planish.contract.job import EventType
from worker.engine.load.splits import Splits
from worker.engine.model import Model
from worker.engine.passes.distill.lesson import plan_lesson
from worker.engine.passes.protocol import Context
from worker.engine.progress import Progress, Silent
from worker.engine.train.feed import memory_format
from worker.engine.train.loop import arrange, check_run, deterministic
from worker.engine.train.losses import Loss, task_loss
from worker.engine.train.placement import move
from worker.engine.train.run import Run, Trained
from worker.engine.train.shards import local, tensors_of, whole
from worker.engine.train.spread.parcel import (
    ERROR,
    PARCEL,
    PROGRESS,
    RESULT,
    WEIGHTS,
    Parcel,
    open_dataset,
    open_sparsity,
    read_model,
)
from worker.engine.train.spread.processes import Copies, Processes, Shards
from worker.engine.train.trainer import Trainer
from worker.kin import die_with_parent


class Told:
    """Progress as lines of JSON at the end of a file."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - as long as we

    def stage(self, name: str, step: int, steps: int) -> None:
        """Ignore a stage: a run has none."""

    def update(self, fraction: float, message: str) -> None:
        """Write a fraction."""
        self._file.write(json.dumps({"update": [fraction, message]}) + "\n")

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        """Write an event."""
        self._file.write(json.dumps({"event": [kind, data]}) + "\n")


def main(folder: Path) -> int:
    """Train; return the exit code."""
    parcel = Parcel.model_validate_json((folder / PARCEL).read_bytes())
    device = _settle_in(parcel)
    leads = dist.get_rank() == 0
    progress: Progress = Told(folder / PROGRESS) if leads else Silent()
    try:
        _train(folder, parcel, device, progress)
    except PlanishError as error:
        _complain(folder, error)
        return 1
    except torch.OutOfMemoryError:
        _complain(folder, OutOfMemory("a GPU ran out of memory; set a smaller train.batch_size"))
        return 1
    finally:
        dist.destroy_process_group()
    return 0


def _settle_in(parcel: Parcel) -> torch.device:
    """Give this process its threads and its device, and meet the others."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(parcel.threads)
    device = torch.device(parcel.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def _train(folder: Path, parcel: Parcel, device: torch.device, progress: Progress) -> None:
    model = read_model(folder, "model")
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name not in parcel.frozen)
    run = _run(folder, parcel, device, progress)
    sharded = parcel.params.strategy == "fsdp"
    world = (Shards if sharded else Copies)(device)
    check_run(model, run.train, len(run.data), world.size)
    loss = _loss(folder, parcel, model, run)
    move(model.module, device)
    if isinstance(loss, torch.nn.Module):
        loss.to(device)
    arrange(model.module, torch.contiguous_format if sharded else memory_format(run))
    with deterministic(run, world.rank):
        trained = Trainer(model.module, loss, run, world).train()
    _write(folder, model, trained, world)


def _run(folder: Path, parcel: Parcel, device: torch.device, progress: Progress) -> Run:
    return Run(
        op=parcel.op,
        step=parcel.step,
        train=parcel.params.train,
        data=open_dataset(parcel.data),
        validation=None if parcel.validation is None else open_dataset(parcel.validation),
        seed=parcel.seed,
        device=device,
        progress=progress,
        task=parcel.task,
        sparsity=open_sparsity(parcel.sparsity, folder),
        checkpoints=parcel.checkpoints,
        variant=parcel.variant,
    )


def _loss(folder: Path, parcel: Parcel, model: Model, run: Run) -> Loss:
    params = parcel.params
    if not parcel.taught or params.op == "retrain":
        return task_loss(parcel.task, params.train.label_smoothing)
    teacher = read_model(folder, "teacher")
    for parameter in teacher.module.parameters():
        parameter.requires_grad_(False)
    ctx = Context(
        spec=parcel.spec,
        splits=Splits(run.data, run.data, run.validation, None),
        teacher=teacher,
        progress=run.progress,
        seed=run.seed,
        device=run.device,
        step=run.step,
    )
    lesson, _ = plan_lesson(model, params, ctx)
    move(teacher.module, run.device)
    return lesson.loss(model.module)


def _write(folder: Path, model: Model, trained: Trained, world: Processes) -> None:
    """Gather the weights, and have rank 0 write them."""
    state = {n: whole(local(t), t).contiguous() for n, t in tensors_of(model.module).items()}
    if not world.leads:
        return
    save_file(state, folder / WEIGHTS)
    words = {
        "epochs": [epoch.model_dump() for epoch in trained.epochs],
        "best_epoch": trained.best_epoch,
        "best_score": trained.best_score,
        "score_name": trained.score_name,
        "resumed_from": trained.resumed_from,
        "warnings": trained.warnings,
    }
    part = folder / f"{RESULT}.part"
    part.write_text(json.dumps(words))
    part.replace(folder / RESULT)


def _complain(folder: Path, error: PlanishError) -> None:
    """Leave an error for the parent; every process may, and each has the same to say."""
    part = folder / f"{ERROR}.{os.getpid()}"
    part.write_text(json.dumps({"code": error.code, "detail": error.detail}))
    part.replace(folder / ERROR)
    time.sleep(0.2)  # torchrun kills the others at the first end: let them say theirs


if __name__ == "__main__":
    die_with_parent(os.getppid())
    sys.exit(main(Path(sys.argv[1])))
