"""Which version of its format each model file is."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from xml.etree import ElementTree

import onnx
import torch
from torch._export.serde.schema import SCHEMA_VERSION

from planish.contract.wire import ARCHITECTURE
from worker.engine.save.standalone import NATIVE


def format_of(path: Path) -> str:
    """Return the format of a file of ours in words: ``ONNX opset 20, IR version 10``."""
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix == ".xml":
        root = ElementTree.parse(path).getroot()  # noqa: S314  # written by openvino itself
        return f"OpenVINO IR {root.get('version')}"
    release = torch.__version__.partition("+")[0]
    if path.suffix == ".safetensors":
        stated = json.loads(path.with_name(ARCHITECTURE).read_bytes())
        return f"safetensors with {stated['format']} {stated['version']}, torch {stated['torch']}"
    if path.name.endswith(NATIVE):
        return f"native code for {platform.machine()}, torch {release}"
    return f"torch.export schema {'.'.join(map(str, SCHEMA_VERSION))}, torch {release}"


def _onnx(path: Path) -> str:
    proto = onnx.load(path, load_external_data=False)
    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), 0)
    return f"ONNX opset {opset}, IR version {proto.ir_version}"
