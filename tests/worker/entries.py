"""What children of the tests do in place of the engine; loaded by a zygote."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from planish.contract.errors import InternalError, UnsafeModel
from planish.contract.job import Artifact, EventType, Result, Summary
from worker.exchange import Draft, Request
from worker.progress import ChannelProgress
from worker.sandbox.order import ANSWER, STAGE, Answer, Order


def _request(argument: str) -> Request:
    return Request.model_validate_json(Path(argument).read_bytes())


def _succeed(request: Request, content: bytes = b"a smaller model") -> int:
    (request.artifacts / "model.onnx").write_bytes(content)
    artifact = Artifact(
        name="model.onnx",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        media_type="application/vnd.onnx",
        href=f"/jobs/{request.job_id}/artifacts/model.onnx",
    )
    result = Result(
        model="model.onnx",
        artifacts=(artifact,),
        report=f"/jobs/{request.job_id}/report",
        summary=Summary(metric="accuracy"),
    )
    draft = Draft(result=result, verdict="not_evaluated")
    request.draft.write_text(draft.model_dump_json())
    return 0


def take_as_it_is(argument: str, channel: int) -> int:
    """Stand for the process that opens uploads: none of these jobs has a real model."""
    order = Order.model_validate_json(Path(argument).read_bytes())
    (order.result / ANSWER).write_text(Answer().model_dump_json())
    return 0


def _opening(argument: str, channel: int) -> Order:
    """Say that the upload is being opened from here on."""
    ChannelProgress(channel).stage(STAGE, 0, 0)
    return Order.model_validate_json(Path(argument).read_bytes())


def crash_at_opening(argument: str, channel: int) -> int:
    _opening(argument, channel)
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def hang_at_opening(argument: str, channel: int) -> int:
    _opening(argument, channel)
    time.sleep(600)
    return 0


def end_without_a_word(argument: str, channel: int) -> int:
    _opening(argument, channel)
    return 3


def flood_the_disk(argument: str, channel: int) -> int:
    """Write more than may be, in files that are each small enough."""
    order = _opening(argument, channel)
    for number in range(40):
        (order.spare / str(number)).write_bytes(os.urandom(order.limits.output // 20))
    time.sleep(600)
    return 0


def leave_garbage(argument: str, channel: int) -> int:
    order = _opening(argument, channel)
    (order.result / "model.safetensors").write_bytes(b"no model at all")
    (order.result / ANSWER).write_text(Answer(converted="model.safetensors").model_dump_json())
    return 0


def leave_a_link(argument: str, channel: int) -> int:
    order = _opening(argument, channel)
    (order.result / "model.safetensors").symlink_to("/etc/passwd")
    (order.result / ANSWER).write_text(Answer(converted="model.safetensors").model_dump_json())
    return 0


def accuse_the_service(argument: str, channel: int) -> int:
    order = _opening(argument, channel)
    error = InternalError("the service is broken").info()
    (order.result / ANSWER).write_text(Answer(error=error).model_dump_json())
    return 0


def refuse(argument: str, channel: int) -> int:
    order = _opening(argument, channel)
    error = UnsafeModel("it holds a pickle").info()
    (order.result / ANSWER).write_text(Answer(error=error).model_dump_json())
    return 0


def die_before_opening(argument: str, channel: int) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


def succeed(argument: str, channel: int) -> int:
    request = _request(argument)
    progress = ChannelProgress(channel)
    progress.stage("prune", 1, 2)
    progress.event(EventType.PASS_STARTED, {"op": "prune"})
    progress.update(0.5, "halfway")
    os.write(channel, b'{"kind":"event","type":"job.finished","data":{}}\nnot json\n')
    progress.stage("quantize", 2, 2)
    progress.event(EventType.PASS_FINISHED, {"op": "prune"})
    print("printed by the job", flush=True)
    return _succeed(request)


def succeed_slowly(argument: str, channel: int) -> int:
    request = _request(argument)
    progress = ChannelProgress(channel)
    progress.stage("distill", 1, 1)
    for step in range(100):
        progress.update(step / 100, f"epoch {step}")
        time.sleep(0.02)
    return _succeed(request)


def tell_and_wait(argument: str, channel: int) -> int:
    """Tell of an epoch every 0.1 s, for 2 s."""
    request = _request(argument)
    progress = ChannelProgress(channel)
    progress.stage("retrain", 1, 1)
    for epoch in range(20):
        progress.event(EventType.EPOCH, {"epoch": epoch})
        time.sleep(0.1)
    return _succeed(request)


def lie(argument: str, channel: int) -> int:
    request = _request(argument)
    _succeed(request)
    (request.artifacts / "model.onnx").write_bytes(b"something else!")
    return 0


def add_file(argument: str, channel: int) -> int:
    request = _request(argument)
    _succeed(request)
    (request.artifacts / "extra.so").write_bytes(b"x")
    return 0


def link_out(argument: str, channel: int) -> int:
    request = _request(argument)
    _succeed(request)
    outside = request.scratch / "outside"
    outside.write_bytes(b"a smaller model")
    (request.artifacts / "model.onnx").unlink()
    (request.artifacts / "model.onnx").symlink_to(outside)
    return 0


def grow_a_tree(argument: str, channel: int) -> int:
    """Sleep with a child, a grandchild that left the group, and a deaf ear for SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark = _request(argument).job_id
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code, mark])
    subprocess.Popen([sys.executable, "-c", code, mark], start_new_session=True)
    ChannelProgress(channel).stage("grown", 1, 1)
    time.sleep(600)
    return 0


def die(argument: str, channel: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def die_once(argument: str, channel: int) -> int:
    request = _request(argument)
    if "a1-" in str(request.draft.parent):
        os.kill(os.getpid(), signal.SIGSEGV)
    return _succeed(request)


def show_environment(argument: str, channel: int) -> int:
    for name, value in os.environ.items():
        print(f"{name}={value}")
    descriptors = [fd for fd in Path("/proc/self/fd").iterdir() if fd.exists()]
    print("descriptors", sorted(str(fd.readlink()) for fd in descriptors))
    print("session", os.getsid(0) == os.getpid(), "core", _core_limit())
    return _succeed(_request(argument))


def _core_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0]
