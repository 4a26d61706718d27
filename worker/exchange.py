"""What a job's process and its supervisor say to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from planish.contract.job import EventType, Result
from planish.contract.problem import ErrorInfo
from planish.contract.report import Plan
from planish.contract.spec import Spec
from planish.gate.parts import Part, Parts, Source
from planish.store.records import Kind, Verdict

REQUEST = "request.json"
DRAFT = "outcome_draft.json"
SCRATCH = "scratch"


class Frozen(BaseModel):
    """Base: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PartPath(Frozen):
    """One of several files of a role: the name that it came under, and where it lies."""

    name: str
    path: Path


Stored = Path | tuple[PartPath, ...]


def source_of(stored: Stored) -> Source:
    """Return what a request names, as gate and engine know it."""
    if isinstance(stored, tuple):
        return Parts(tuple(Part(part.name, part.path) for part in stored))
    return stored


class Request(Frozen):
    """What the child is to do; lies as ``request.json`` in the attempt's folder.

    Attributes:
        job_id: which job.
        kind: whether to optimize or only to plan.
        spec: what was asked for.
        model: where the uploaded model lies, with the names of its files where there are several;
            likewise `data`, `test_data`, `teacher`, `student`.
        artifacts: folder for the artifacts.
        scratch: folder for everything temporary; removed when the attempt ends.
        checkpoints: folder that outlives the attempt, for training to go on from.
        rendezvous: where the machines of one job meet, host:port.
        draft: where the result goes.
        threads: intra-op threads of torch.
        guarded: whether the process locks itself in before it works.
    """

    job_id: str
    kind: Kind
    spec: Spec
    model: Stored
    data: Stored | None = None
    test_data: Stored | None = None
    teacher: Stored | None = None
    student: Stored | None = None
    artifacts: Path
    scratch: Path
    checkpoints: Path | None = None
    rendezvous: str | None = None
    draft: Path
    threads: int = Field(ge=1)
    guarded: bool = False


class Draft(Frozen):
    """What the child proposes as the outcome: exactly one of `result`, `plan` and `error`."""

    result: Result | None = None
    verdict: Verdict | None = None
    plan: Plan | None = None
    error: ErrorInfo | None = None


class StageMessage(Frozen):
    """Stage `step` of `steps` begins."""

    kind: Literal["stage"] = "stage"
    name: str = Field(max_length=100)
    step: int = Field(ge=0)
    steps: int = Field(ge=0)


class UpdateMessage(Frozen):
    """How much of the current stage is done."""

    kind: Literal["update"] = "update"
    fraction: float = Field(ge=0, le=1)
    message: str = Field(max_length=500)


class EventMessage(Frozen):
    """Something worth keeping; the job's own life cycle is not the child's to tell."""

    kind: Literal["event"] = "event"
    type: Literal[
        EventType.PASS_STARTED, EventType.PASS_FINISHED, EventType.EPOCH, EventType.WARNING
    ]
    data: dict[str, JsonValue]


Message = StageMessage | UpdateMessage | EventMessage
MESSAGE: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])
