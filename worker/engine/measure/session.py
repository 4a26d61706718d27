"""How ONNX Runtime is opened, the same way wherever something is measured."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU provider with all graph optimizations.

    Args:
        path: an ONNX file.
        threads: computing threads of one call.
    """
    options = session_options(threads)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of every session: `threads` within an operator, one operator at a time."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options
