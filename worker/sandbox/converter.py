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

from planish.contract.errors import ConversionFailed, InvalidModel, PlanishError
from planish.contract.spec import ModelSpec
from planish.gate.identify import identify_model
from planish.gate.parts import model_files, only_file
from planish.guard.lock import close
from worker.engine.load import load_model
from worker.engine.load.canonical import write_data, write_model
from worker.engine.runtime_model.read import write_canonical
from worker.exchange import source_of
from worker.logs import PlainFormatter, log_to
from worker.progress import ChannelProgress
from worker.sandbox.order import ANSWER, DATA_ROLES, STAGE, Answer, Order
from worker.sandbox.profiles import converter_lock, give_folder, unused_user


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
        converted = _convert(order)
    except PlanishError as error:
        return Answer(error=error.info())
    except MemoryError:
        return Answer(error=_too_large(order).info())
    except Exception as error:  # nothing that strangers send may look like a fault of ours
        traceback.print_exc()
        if "can't allocate memory" in str(error):
            return Answer(error=_too_large(order).info())
        return Answer(error=InvalidModel(_unreadable(order, error)).info())
    return Answer(converted=None if converted is None else converted.name)


def _convert(order: Order) -> Path | None:
    source = source_of(order.source)
    if order.role in DATA_ROLES:
        return write_data(only_file(source, order.role), order.result)
    files, spec = model_files(source, order.role), order.spec or ModelSpec()
    if identify_model(files.main) == "onnx":
        return write_canonical(files, spec, order.result)
    load_model(source, spec, order.role)
    return write_model(files.main, order.result)


def _too_large(order: Order) -> ConversionFailed:
    return ConversionFailed(
        f"the {order.role} needs more memory to be opened than uploads of its size may use"
    )


def _unreadable(order: Order, error: Exception) -> str:
    detail = str(error).partition("\n")[0][:300]
    return f"the {order.role} cannot be read: {type(error).__name__}: {detail}"
