"""What the converter is told, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from planish.contract.columns import Columns
from planish.contract.problem import ErrorInfo
from planish.contract.spec import InputDeclaration, Spec
from worker.exchange import Stored

Role = Literal["model", "teacher", "student", "data", "test_data"]
DATA_ROLES: tuple[Role, ...] = ("data", "test_data")
ROLES: tuple[Role, ...] = ("model", "teacher", "student", *DATA_ROLES)

ORDER, ANSWER, RESULT, SPARE = "order.json", "answer.json", "result", "spare"
STAGE = "open"


class Frozen(BaseModel):
    """Base: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Frozen):
    """What one conversion may use.

    Attributes:
        seconds: of wall clock.
        cpu_seconds: of processor time, all threads together.
        memory: bytes of addresses, beyond what the process has at its start.
        output: bytes that it may write.
    """

    seconds: float = Field(gt=0)
    cpu_seconds: int = Field(ge=1)
    memory: int = Field(ge=1)
    output: int = Field(ge=1)


class Order(Frozen):
    """Open what came for one role; lies as ``order.json`` in the conversion's folder.

    Attributes:
        role: which one.
        source: where it lies.
        spec: of the job; says how to read it.
        inputs: what the model takes; for data.
        folder: ``result/`` takes the canonical form, ``spare/`` what is temporary; the answer lies
            in ``result/``.
        threads: of torch.
        limits: see there.
        guarded: False only where the operator allows it without guards.
    """

    role: Role
    source: Stored
    spec: Spec
    inputs: tuple[InputDeclaration, ...] = ()
    folder: Path
    threads: int = Field(ge=1)
    limits: Limits
    guarded: bool

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the source."""
        if isinstance(self.source, tuple):
            return tuple(part.path for part in self.source)
        return (self.source,)

    @property
    def result(self) -> Path:
        """Where the canonical form goes."""
        return self.folder / RESULT

    @property
    def spare(self) -> Path:
        """Where temporary files go."""
        return self.folder / SPARE


class Answer(Frozen):
    """How a conversion ended.

    Attributes:
        converted: name of the file in ``result/`` that stands for the upload from now on; None:
            the upload is in canonical form already.
        inputs: what the model takes.
        columns: what became of the columns of a parquet file.
        error: why it is refused.
    """

    converted: str | None = Field(None, pattern=r"^[a-z]{1,20}\.(pt2|safetensors|npz|onnx)$")
    inputs: tuple[InputDeclaration, ...] = ()
    columns: Columns | None = None
    error: ErrorInfo | None = None
