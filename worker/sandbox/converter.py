"""The converter: opens one upload behind locked doors, and writes down our own form of it.

Forked by the zygote. Nothing of the upload is looked at before the doors are shut.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

import torch

from planish.contract.columns import Columns
from planish.contract.errors import ConversionFailed, InvalidModel, PlanishError
from planish.contract.spec import ModelSpec
from planish.gate.parts import only_file
from planish.gate.signature import Signature
from planish.guard.lock import close
from worker.engine.load.canonical import write_data, write_model
from worker.exchange import source_of
from worker.logs import PlainFormatter, log_to
from worker.progress import ChannelProgress
from worker.sandbox.order import ANSWER, DATA_ROLES, STAGE, Answer, Order
from worker.sandbox.profiles import converter_lock, give_folder, unused_user

# Neither torch nor mmap has an exception class of its own for it.
OUT_OF_MEMORY = ("t allocate memory", "Cannot allocate memory", "bad_alloc", "bad allocation")


def main(argument: str, channel: int) -> int:
    """Carry out the order in the file `argument`; say in the pipe `channel` that it begins.

    Returns:
        The exit code: 0 when an answer was written, a refusal too.
    """
    order = Order.model_validate_json(Path(argument).read_bytes())
    parent = os.getppid()
    settle_in(order)
    if order.guarded:
        user = unused_user(os.getpid()) if os.geteuid() == 0 else None
        give_folder(order, user)
        close(converter_lock(order, user, channel), parent)
    ChannelProgress(channel).stage(STAGE, 0, 0)  # from here on, what breaks is the upload's fault
    os.close(channel)
    answer = _attempt(order)
    (order.result / ANSWER).write_text(answer.model_dump_json())
    return 0


def settle_in(order: Order) -> None:
    """Give this process its log, its threads and its temporary folder."""
    log_to(sys.stderr, PlainFormatter())
    os.environ["TMPDIR"] = os.environ["HOME"] = tempfile.tempdir = str(order.spare)
    os.chdir(order.spare)
    torch.set_num_threads(order.threads)


def _attempt(order: Order) -> Answer:
    try:
        return _convert(order)
    except MemoryError:
        return Answer(error=_too_large(order).info())
    except PlanishError as error:
        short = any(words in error.detail for words in OUT_OF_MEMORY)
        return Answer(error=(_too_large(order) if short else error).info())
    except Exception as error:  # nothing that strangers send may look like a fault of ours
        traceback.print_exc()
        short = any(words in str(error) for words in OUT_OF_MEMORY)
        refusal = _too_large(order) if short else InvalidModel(_unreadable(order, error))
        return Answer(error=refusal.info())


def _convert(order: Order) -> Answer:
    source, role, spec = source_of(order.source), order.role, order.spec
    if role in DATA_ROLES:
        inputs = [Signature(item.name, item.shape, item.dtype) for item in order.inputs]
        arrays, unpacked = write_data(only_file(source, role), inputs, spec, role, order.result)
        columns = None
        if unpacked is not None:
            columns = Columns(names=dict(unpacked.names), has_images=unpacked.has_images)
        return Answer(converted=_name(arrays), columns=columns)
    described: ModelSpec = getattr(spec, role) or ModelSpec()
    model, takes = write_model(source, described, role, order.result)
    declared = [{"name": item.name, "shape": item.shape, "dtype": item.dtype} for item in takes]
    return Answer.model_validate({"converted": _name(model), "inputs": declared})


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


def _too_large(order: Order) -> ConversionFailed:
    return ConversionFailed(
        f"the {order.role} needs more memory to be opened than uploads of its size may use"
    )


def _unreadable(order: Order, error: Exception) -> str:
    detail = str(error).partition("\n")[0][:300]
    return f"the {order.role} cannot be read: {type(error).__name__}: {detail}"
