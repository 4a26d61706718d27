"""Where the figures were measured: versions, processor, instruction sets, threads.

Speed and even accuracy of integer kernels depend on the instruction set, so a figure without it is
no evidence. Nothing here names a host, a user or a path.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch
from pydantic import JsonValue

from planish.contract.spec import Target

PACKAGES = (
    "planish",
    "torch",
    "onnxruntime",
    "openvino",
    "onnx",
    "onnxscript",
    "torchao",
    "safetensors",
    "numpy",
)
ISA_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "sve",
    "bf16",
)
_CPUINFO = Path("/proc/cpuinfo")


def describe_environment(target: Target, seed: int, precision: str) -> dict[str, JsonValue]:
    """Return the facts that a reader needs to judge or repeat the measurements.

    Args:
        target: what was measured for.
        seed: of the job.
        precision: what the runtime computed in where the file does not say integers.
    """
    cpu = _cpuinfo()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    isa: list[JsonValue] = [name for name in ISA_FLAGS if name in flags]
    gpus: list[JsonValue] = [
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    ]
    return {
        "versions": _versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu.get("model name") or platform.processor() or "unknown",
        "isa": isa,
        "cpus_available": len(os.sched_getaffinity(0)),
        "threads": target.threads,
        "batch_size": target.batch_size,
        "runtime": target.runtime,
        "device": target.device,
        "precision": precision,
        "gpus": gpus,
        "seed": seed,
    }


def _versions() -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpuinfo() -> dict[str, str]:
    """Return the keys of the first processor; empty where the system has no such file."""
    if not _CPUINFO.is_file():
        return {}
    first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
