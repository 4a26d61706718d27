"""The supervisor's side of the sandbox: has each upload opened there, and takes what comes out.

What breaks the converter is a refused upload with a cause, and counted; it is never a crash of the
job. What comes out goes through the gate again before anything else reads it.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from planish.contract.errors import (
    ConversionFailed,
    InvalidInput,
    PlanishError,
    StorageFull,
    error_from,
)
from planish.contract.guards import is_guarded
from planish.contract.parts import is_rider
from planish.contract.problem import ErrorInfo, FieldError
from planish.contract.spec import InputDeclaration, ModelSpec
from planish.guard.kernel import kernel_guards
from planish.store.denied import DeniedFiles
from planish.store.jobs import Claim, Ledger
from planish.store.records import SpecRecord
from worker.attempt import Attempt, End, Interrupted, Lease
from worker.exchange import Request, Stored
from worker.launcher import Child, Launcher
from worker.lifeline import Lifeline
from worker.sandbox.order import DATA_ROLES, ORDER, ROLES, STAGE, Answer, Order, Role
from worker.sandbox.outcome import check_plain, limits_for, read_answer, replaced, written
from worker.settings import WorkerSettings

MAX_DETAIL = 2000


class OpenerLost(Exception):
    """The converter ended through no fault of the upload."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass(frozen=True)
class Opening:
    """A job whose uploads are to be opened.

    Attributes:
        record: what was asked for.
        claim: the hold on it.
        lease: kept meanwhile.
        request: what its process will be told, with the paths of the uploads.
        log: the attempt's log file.
        until: monotonic time when the job's own time is over.
    """

    record: SpecRecord
    claim: Claim
    lease: Lease
    request: Request
    log: Path
    until: float


class Conversion:
    """Opens uploads, one process for each role.

    Args:
        ledger: told that the job lives.
        launcher: forks the converter.
        lifeline: says when the worker stops.
        denied: counts of files that broke it.
        settings: limits of this worker.
    """

    def __init__(
        self,
        ledger: Ledger,
        launcher: Launcher,
        lifeline: Lifeline,
        denied: DeniedFiles,
        settings: WorkerSettings,
    ) -> None:
        self._ledger = ledger
        self._launcher = launcher
        self._lifeline = lifeline
        self._denied = denied
        self._settings = settings

    def open_all(self, opening: Opening) -> Request:
        """Return the request with nothing but canonical forms in it.

        Raises:
            PlanishError: an upload is refused.
            OpenerLost: try again.
            Interrupted: the job must end.
            worker.launcher.ZygoteFailed: no process could be had.
        """
        record, request = opening.record, opening.request
        if record.spec.files is not None:
            self._denied.check(record.spec.files, record.tenant)
        found: dict[str, object] = {}
        takes: tuple[InputDeclaration, ...] = ()
        for role in ROLES:  # the model comes first: it says which columns of the data are wanted
            stored: Stored | None = getattr(request, role)
            if stored is not None:
                opened, inputs = self._open(opening, role, stored, takes)
                found |= {} if opened is None else {role: opened}
                takes = inputs if role == "model" else takes
        spec = record.spec
        for name in set(found).difference(DATA_ROLES):
            described: ModelSpec | None = getattr(spec, name)
            if described is not None:  # a checkpoint is a safetensors file from here on
                plain = described.model_copy(update={"format": "auto"})
                spec = spec.model_copy(update={name: plain})
        return request.model_copy(update={**found, "spec": spec})

    def _open(
        self, opening: Opening, role: Role, stored: Stored, takes: tuple[InputDeclaration, ...]
    ) -> tuple[Stored | None, tuple[InputDeclaration, ...]]:
        """Return what stands for an upload from now on (None: itself), and a model's inputs."""
        guarded = is_guarded(kernel_guards())
        if not guarded and not self._settings.unguarded:
            check_plain(stored, role)
        order = self._order(opening, role, stored, takes, guarded=guarded)
        for folder in (order.folder, order.result, order.spare):
            folder.mkdir(mode=0o700)
        (order.folder / ORDER).write_text(order.model_dump_json())
        answer = self._ask(opening, order)
        if answer.error is not None:
            raise self._refusal(opening, order, answer.error)
        if answer.converted is None:
            return None, answer.inputs
        try:
            return replaced(order, answer.converted, answer.columns), answer.inputs
        except InvalidInput as error:
            cause = f"what came out of it is not whole: {error.detail}"
            raise self._blamed(opening, order, cause) from error

    def _order(
        self,
        opening: Opening,
        role: Role,
        stored: Stored,
        takes: tuple[InputDeclaration, ...],
        *,
        guarded: bool,
    ) -> Order:
        request = opening.request
        return Order(
            role=role,
            source=stored,
            spec=opening.record.spec,
            inputs=takes,
            folder=request.scratch / f"open-{role}",
            threads=request.threads,
            limits=limits_for(stored, role, request, self._settings.convert_seconds),
            guarded=guarded,
        )

    def _ask(self, opening: Opening, order: Order) -> Answer:
        """Run the converter to its end; return what it says."""
        left = opening.until - time.monotonic()
        log_file = os.open(opening.log, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            child = self._launcher.launch(str(order.folder / ORDER), log_file, opens=True)
        finally:
            os.close(log_file)
        attempt = self._attempt(opening, order, child, min(left, order.limits.seconds))
        try:
            code = attempt.watch()
        except Interrupted as interrupted:
            limits = order.limits
            if interrupted.end is End.FLOODED:
                cause = f"it wrote more than {limits.output} bytes"
            elif interrupted.end is End.OVERDUE and limits.seconds < left:
                cause = f"it took longer than {limits.seconds:.0f} s"
            else:
                raise
            raise self._blamed(opening, order, cause) from None
        answer = read_answer(order.result)
        if answer is not None:
            return answer
        if attempt.stage != STAGE or code == -signal.SIGKILL:
            raise OpenerLost(code)
        raise self._blamed(opening, order, _how(code, order))

    def _attempt(self, opening: Opening, order: Order, child: Child, seconds: float) -> Attempt:
        def look() -> None:
            if written(order.folder) > order.limits.output:
                raise Interrupted(End.FLOODED)

        claim, lease = opening.claim, opening.lease
        return Attempt(self._ledger, claim, lease, child, self._lifeline, seconds, look)

    def _refusal(self, opening: Opening, order: Order, info: ErrorInfo) -> PlanishError:
        """Return what the converter says; its words are a stranger's, so their kind is checked."""
        error: PlanishError = error_from(info.code, info.detail[:MAX_DETAIL], info.errors[:20])
        if isinstance(error, ConversionFailed) or not isinstance(error, InvalidInput | StorageFull):
            return self._blamed(opening, order, error.detail)
        return error

    def _blamed(self, opening: Opening, order: Order, cause: str) -> ConversionFailed:
        """Count a crash against the files of a role; return their refusal."""
        record = opening.record
        given = None if record.spec.files is None else record.spec.files.given().get(order.role)
        for file_id in _weights(given):
            self._denied.count(file_id, record.tenant, cause, record.id)
        detail = f"the {order.role} broke the process that opens uploads: {cause}"
        return ConversionFailed(
            detail, (FieldError(pointer=f"/files/{order.role}", detail=detail),)
        )


def _weights(given: object) -> list[str]:
    """Return the ids of what is read of a role; companions break nothing."""
    if isinstance(given, tuple):
        return [file.id for file in given if not is_rider(file.name)]
    return [given] if isinstance(given, str) else []


def _how(code: int, order: Order) -> str:
    if code == -signal.SIGXCPU:
        return f"it took more than {order.limits.cpu_seconds} s of processor time"
    if code < 0:
        return f"it died by {signal.Signals(-code).name}"
    return f"it ended without a word (exit code {code})"
