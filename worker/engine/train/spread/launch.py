"""Has many processes train a model: writes the parcel, runs torchrun, reads the result."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from planish.contract import errors
from planish.contract.checks import NO_RENDEZVOUS
from planish.contract.errors import InvalidRecipe, PlanishError, UnsatisfiableResources
from planish.contract.job import EventType
from planish.contract.recipe import Distill, Retrain
from planish.contract.report import Epoch
from planish.contract.spec import Spec
from worker.engine.distill.lesson import DistillationLoss
from worker.engine.model import Model
from worker.engine.progress import Progress
from worker.engine.train.loop import check_run
from worker.engine.train.losses import Loss, TaskLoss
from worker.engine.train.run import Nodes, Run, Trained
from worker.engine.train.spread.meeting import call
from worker.engine.train.spread.parcel import (
    ERROR,
    PARCEL,
    PROGRESS,
    RESULT,
    WEIGHTS,
    Parcel,
    store_dataset,
    store_sparsity,
    write_model,
)
from worker.engine.train.spread.torchrun import environment, stop, torchrun

POLL_SECONDS = 0.05


def processes_of(params: Distill | Retrain, gpus: int) -> int:
    """Return how many processes train on each machine.

    Raises:
        InvalidRecipe: more processes than GPUs, or a loss scale that shards do not share.
    """
    count = params.processes or gpus or 2
    if gpus and count > gpus:
        raise InvalidRecipe(f"{count} processes need {count} GPUs; resources.gpus is {gpus}")
    if params.strategy == "fsdp" and params.train.amp == "fp16":
        raise InvalidRecipe('strategy "fsdp" has no fp16 loss scale; set train.amp to "bf16"')
    return count


def train_spread(
    model: Model,
    teacher: Model,
    loss: Loss,
    run: Run,
    spec: Spec,
    params: Distill | Retrain,
    nodes: Nodes,
) -> Trained:
    """Train a model in place by `params.strategy` (ddp, fsdp), as `loop.train` does in one process.

    Args:
        model: what is trained.
        teacher: of a distillation; in eval mode.
        loss: of the task, or a distillation's.
        run: all else; its progress hears what rank 0 tells.
        spec: of the job.
        params: of the pass.
        nodes: machines that train together.

    Raises:
        InvalidRecipe, TrainingDiverged, OutOfMemory: as in one process.
        UnsatisfiableResources: several machines, and no place to meet.
        RuntimeError: a process died; what it said is in the log.
    """
    if nodes.count > 1 and nodes.rendezvous is None:
        raise UnsatisfiableResources(NO_RENDEZVOUS)
    if not isinstance(loss, TaskLoss | DistillationLoss):
        raise TypeError(f"a loss of type {type(loss).__name__} cannot go to other processes")
    count = processes_of(params, spec.resources.gpus if run.device.type == "cuda" else 0)
    check_run(model, run.train, len(run.data), count * nodes.count)
    if isinstance(loss, DistillationLoss):
        loss.close()  # its hooks must not be part of the graph that is written
    with tempfile.TemporaryDirectory(prefix="spread-") as name:
        folder = Path(name)
        write_model(model, folder, "model", training=True)
        taught = isinstance(loss, DistillationLoss)
        if taught:
            write_model(teacher, folder, "teacher", training=False)
        parcel = _parcel(model, run, spec, params, folder, taught=taught, processes=count)
        (folder / PARCEL).write_text(parcel.model_dump_json())
        if nodes.meet is not None and run.checkpoints is not None:
            call(run.checkpoints, folder, count, nodes)
        _watch(folder, count, nodes, run.progress)
        model.module.load_state_dict(load_file(folder / WEIGHTS))
        words = json.loads((folder / RESULT).read_text())
    words["epochs"] = tuple(Epoch.model_validate(epoch) for epoch in words["epochs"])
    words["warnings"] = tuple(words["warnings"])
    return Trained(**words)


def _parcel(
    model: Model,
    run: Run,
    spec: Spec,
    params: Distill | Retrain,
    folder: Path,
    *,
    taught: bool,
    processes: int,
) -> Parcel:
    frozen = tuple(n for n, p in model.module.named_parameters() if not p.requires_grad)
    validation = run.validation
    return Parcel(
        spec=spec,
        params=params.model_copy(update={"train": run.train}),
        taught=taught,
        op=run.op,
        step=run.step,
        seed=run.seed,
        task=run.task,
        variant=run.variant,
        checkpoints=run.checkpoints,
        data=store_dataset(run.data, folder, "data"),
        validation=None if validation is None else store_dataset(validation, folder, "validation"),
        frozen=frozen,
        sparsity=store_sparsity(run.sparsity, folder),
        device=run.device.type,
        threads=max(1, torch.get_num_threads() // processes),
    )


def _watch(folder: Path, processes: int, nodes: Nodes, progress: Progress) -> None:
    """Run torchrun to its end, and pass on what rank 0 tells.

    `folder` must be on storage that all machines share.
    """
    with subprocess.Popen(
        torchrun(folder, processes, nodes), env=environment(nodes), stdin=subprocess.DEVNULL
    ) as agent:
        try:
            told = 0
            while agent.poll() is None:
                told = _tell(folder / PROGRESS, told, progress)
                time.sleep(POLL_SECONDS)
            _tell(folder / PROGRESS, told, progress)
        finally:
            stop(agent)
    if (folder / ERROR).exists():
        raise _error(json.loads((folder / ERROR).read_text()))
    if agent.returncode or not (folder / RESULT).exists():
        raise RuntimeError(f"a training process died (torchrun ended with {agent.returncode})")


def _tell(path: Path, told: int, progress: Progress) -> int:
    """Pass on whole lines behind the first `told` bytes; return how many bytes are told then."""
    if not path.exists():
        return told
    with open(path, "rb") as file:
        file.seek(told)
        new = file.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.splitlines():
        word = json.loads(line)
        if "update" in word:
            progress.update(*word["update"])
        else:
            kind, data = word["event"]
            progress.event(EventType(kind), data)
    return told + len(whole)


def _error(words: dict[str, str]) -> PlanishError:
    """Return the error that a process left."""
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    ours = (kind for kind in kinds if issubclass(kind, PlanishError))
    found = next((kind for kind in ours if kind.code == words["code"]), errors.InternalError)
    return found(words["detail"])
