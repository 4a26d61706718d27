"""Simplify an ONNX graph: constants, identities, and BatchNorms into the layers before them.

The rewrites are those of onnx-ir and onnxscript; what comes out is held against what went in.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules import common as rules

from planish.contract.recipe import Simplify
from planish.contract.report import LayerChanged, LayerSkipped, PassPlan
from worker.engine.passes.protocol import Surroundings
from worker.engine.runtime_model.layers import PRODUCTS, Graph
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.protocol import RuntimeOutcome
from worker.engine.runtime_model.read import amount_of
from worker.engine.runtime_model.session import open_session
from worker.engine.runtime_model.tidy import tidy

EVERYTHING = Simplify()
"""What other passes do before they read weights."""
SAME = 1e-3
_ROUNDS = 3
_LARGEST_CONSTANT = 64 << 20
_SHARED_SIZE = 64
_BATCHNORM = "BatchNormalization"
_NORMS = (
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
)
_IDLE = (
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.dropout_inference_rule,
    rules.dropout_zero_rule,
)


def run(model: RuntimeModel, params: Simplify, _around: Surroundings) -> RuntimeOutcome:
    """Rewrite a copy of the graph; its function stays as it is.

    A rewrite after which the outputs differ by more than rounding is thrown away.
    """
    return _run(model, params, doubling=False)


def _run(model: RuntimeModel, params: Simplify, *, doubling: bool) -> RuntimeOutcome:
    proto = rewritten(model.proto, params, doubling=doubling)
    before, after = _counts(model.proto), _counts(proto)
    gone = {kind: count - after.get(kind, 0) for kind, count in before.items()}
    gone = {kind: count for kind, count in sorted(gone.items()) if count > 0}
    away = _distance(model, proto)
    if away > SAME:
        return RuntimeOutcome(model, False, skipped=(_all(f"the outputs moved by {away:.2g}"),))
    norms = tuple(LayerSkipped(name=n.name, why=_UNFOLDED) for n in _norms(proto))
    changed = LayerChanged(name="(graph)", what=f"{len(model.proto.graph.node)} → "
                           f"{len(proto.graph.node)} nodes")  # fmt: skip
    smaller = replace(model, proto=proto)
    return RuntimeOutcome(
        model=replace(smaller, amount=amount_of(smaller)),
        changed=bool(gone),
        layers=(changed,) if gone else (),
        skipped=norms if gone or norms else (_all(_nothing(params)),),
        facts={
            "nodes": [len(model.proto.graph.node), len(proto.graph.node)],
            "removed": dict(gone),
            "batchnorm_folded": gone.get(_BATCHNORM, 0),
            "batchnorm_kept": after.get(_BATCHNORM, 0),
        },
    )


def plan(
    model: RuntimeModel, params: Simplify, around: Surroundings
) -> tuple[RuntimeModel, PassPlan]:
    """Do it, and say what was rewritten."""
    outcome = run(model, params, around)
    return outcome.model, PassPlan(
        op=params.op,
        layers_changed=len(outcome.layers),
        layers=outcome.layers,
        layers_skipped=outcome.skipped,
        facts=outcome.facts,
    )


def folded(model: RuntimeModel) -> RuntimeModel:
    """Return the graph as quantizers want it: simplified, if that keeps its function.

    A weight that is looked up in and multiplied with becomes two: integers are smaller by more.
    """
    return _run(model, EVERYTHING, doubling=True).model


def rewritten(proto: ModelProto, params: Simplify, *, doubling: bool = False) -> ModelProto:
    """Return a copy of a graph after the rewrites that are asked for.

    Args:
        proto: left as it is.
        params: which rewrites.
        doubling: whether a weight that several nodes read may be stored once for each.
    """
    logging.getLogger("onnxscript").setLevel(logging.CRITICAL)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for _ in range(_ROUNDS):
        nodes = sum(1 for _ in model.graph)
        if params.fold_constants:
            fold_constants_ir(
                model,
                input_size_limit=_LARGEST_CONSTANT,
                output_size_limit=_LARGEST_CONSTANT,
                should_fold=_may_double if doubling else _never_doubles,
            )
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        if params.remove_identities:
            rewrite(model, pattern_rewrite_rules=list(_IDLE))
            passes.IdentityEliminationPass()(model)
            passes.CommonSubexpressionEliminationPass()(model)
        if params.fold_batchnorm:
            model = ir.from_proto(_with_own_biases(ir.to_proto(model)))
            rewrite(model, pattern_rewrite_rules=list(_NORMS))
        passes.RemoveUnusedNodesPass()(model)
        if sum(1 for _ in model.graph) == nodes:
            break
    done: ModelProto = ir.to_proto(model)
    return tidy(done)


def _may_double(_node: ir.Node) -> bool | None:
    """Leave it to the pass."""
    return None


def _never_doubles(node: ir.Node) -> bool | None:
    """Keep what turns a shared weight as it is: folded, the weight would be stored twice."""
    for value in node.inputs:
        if value is None or value.const_value is None or len(value.uses()) < 2:
            continue
        if value.const_value.size >= _SHARED_SIZE:
            return False
    return None


def _with_own_biases(proto: ModelProto) -> ModelProto:
    """Give each product its own bias: no BatchNorm folds into a constant that others read."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    graph = Graph(copy)
    for node in copy.graph.node:
        bias = node.input[2] if node.op_type in PRODUCTS and len(node.input) > 2 else ""
        if bias in graph.constants and len(graph.users[bias]) > 1:
            own = copy.graph.initializer.add()
            own.CopyFrom(graph.constants[bias])
            own.name = node.input[2] = f"{node.name}.own_bias"
    return copy


_UNFOLDED = "could not be folded into a layer before it"


def _counts(proto: ModelProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _norms(proto: ModelProto) -> list[ir.NodeProto]:  # type: ignore[name-defined]
    return [node for node in proto.graph.node if node.op_type == _BATCHNORM]


def _distance(model: RuntimeModel, proto: ModelProto) -> float:
    """Return the largest relative distance of any output, on the model's example."""
    call = model.named(model.example(model.batch or 2))
    before, after = (open_session(p).run(None, call) for p in (model.proto, proto))
    worst = 0.0
    for one, two in zip(before, after, strict=True):
        a, b = np.asarray(one, np.float64), np.asarray(two, np.float64)
        strange = ~np.isfinite(a)
        if a.shape != b.shape or not np.array_equal(a[strange], b[strange], equal_nan=True):
            return math.inf
        scale = max(float(np.abs(a[~strange]).max(initial=0.0)), 1e-6)
        error = float(np.abs(a[~strange] - b[~strange]).max(initial=0.0))
        worst = max(worst, error / scale if math.isfinite(error) else math.inf)
    return worst


def _all(why: str) -> LayerSkipped:
    return LayerSkipped(name="(model)", why=why)


def _nothing(params: Simplify) -> str:
    looked_for: Sequence[str] = [
        text
        for text, wanted in (
            ("BatchNorm behind a convolution", params.fold_batchnorm),
            ("constants to fold", params.fold_constants),
            ("identities", params.remove_identities),
        )
        if wanted
    ]
    return f"the model has no {', no '.join(looked_for)}" if looked_for else "all is switched off"
