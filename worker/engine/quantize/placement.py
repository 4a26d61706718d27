"""Where q/dq pairs stand, so that ONNX Runtime computes in integers between them.

ONNX Runtime turns ``dq → operator → q`` into one integer kernel. A pair too few leaves the operator
in float, a pair too many costs two passes over memory. Only operators with an integer kernel on its
CPU provider get pairs; operators that merely move values share the parameters of their input.

Source: ONNX Runtime, core/optimizer/qdq_transformer/selectors_actions (the operator lists).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, fx
from torchao.quantization.pt2e.observer import (
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    Quantizer,
    SharedQuantizationSpec,
)

from planish.contract.recipe import Quantize
from worker.engine.quantize.nodes import argument, source
from worker.engine.quantize.observers import activation_observer
from worker.engine.quantize.pairs import Pair

aten = torch.ops.aten

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
LINEARS = {aten.linear.default}
_RELUS = {aten.relu.default, aten.relu_.default}
_CLAMPS = {
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_.default,
    aten.clamp_min.default,
}
_FUSING = {aten.add.Tensor, aten.mul.Tensor}
_COMPUTING = _FUSING | {
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool2d.default,
    aten.cat.default,
    aten.leaky_relu.default,
    aten.sigmoid.default,
}
_MOVES = {
    aten.flatten.using_ints,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.permute.default,
    aten.reshape.default,
    aten.slice.Tensor,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
}
_ANNOTATION = "quantization_annotation"


class RuntimeQuantizer(Quantizer):  # type: ignore[misc]  # torchao has no types
    """A torchao quantizer for ONNX Runtime's CPU kernels: u8 activations, s8 or u8 weights."""

    def __init__(self, params: Quantize, weights: Collection[str]) -> None:
        """Quantize the layers whose weight parameters are named in `weights`."""
        super().__init__()
        self.weights = frozenset(weights)
        self.activation = activation_spec(params)
        self.weight = weight_spec(params)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Mark every value that gets a q/dq pair; nodes come in the order of computation."""
        for node in model.graph.nodes:
            if node.op == "call_function" and _ANNOTATION not in node.meta:
                self._annotate(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Accept every graph: what has no integer kernel simply gets no pairs."""

    def _annotate(self, node: fx.Node) -> None:
        if node.target in CONVOLUTIONS | LINEARS:
            if str(source(node, 1).target) in self.weights:
                self._annotate_layer(node)
        elif node.target in _COMPUTING and _worth_integers(_tensors(node)):
            mark(node, dict.fromkeys(_tensors(node), self.activation))
            self._output(tail(node) if node.target in _FUSING else node)
        elif (node.target in _MOVES or _pads_zeros(node)) and _worth_integers(_tensors(node)):
            (value,) = _tensors(node)
            mark(node, {value: self.activation}, SharedQuantizationSpec((value, node)))

    def _annotate_layer(self, node: fx.Node) -> None:
        value, bias = source(node, 0), argument(node, 2)
        inputs = {value: self.activation, source(node, 1): self.weight}
        linear = node.target in LINEARS
        if linear and bias is not None and value.meta["val"].dim() == 2:
            # The runtime's integer Gemm with float output takes its bias as int32 only.
            inputs[bias] = bias_spec(node, self.weight)
        mark(node, inputs)
        if not linear:
            # A linear layer's users ask for what they need; logits stay float at no cost.
            self._output(tail(node))

    def _output(self, node: fx.Node) -> None:
        annotation = node.meta.setdefault(_ANNOTATION, QuantizationAnnotation(_annotated=True))
        annotation.output_qspec = self.activation


def activation_spec(params: Quantize) -> QuantizationSpec:
    """Return how activations are observed: u8, one scale per tensor."""
    return QuantizationSpec(
        dtype=torch.uint8,
        observer_or_fake_quant_ctr=Pair.with_args(observer=activation_observer(params)),
        quant_min=0,
        quant_max=255,
        qscheme=torch.per_tensor_affine,
    )


def weight_spec(params: Quantize) -> QuantizationSpec:
    """Return how weights are observed: as they are now, which changes while training.

    int8 is symmetric in -127..127; without -128 u8 times s8 products fit 16-bit pairs better. uint8
    has a zero point of its own per tensor; per channel the runtime's kernels take but one for all
    channels, so that there the range is symmetric around it.
    """
    channel, signed = params.granularity == "channel", params.dtype == "int8"
    observer = MovingAveragePerChannelMinMaxObserver if channel else MovingAverageMinMaxObserver
    tensor = torch.per_tensor_symmetric if signed else torch.per_tensor_affine
    return QuantizationSpec(
        dtype=torch.int8 if signed else torch.uint8,
        observer_or_fake_quant_ctr=Pair.with_args(
            observer=observer.with_args(averaging_constant=1)
        ),
        quant_min=-127 if signed else 0,
        quant_max=127 if signed else 255,
        qscheme=torch.per_channel_symmetric if channel else tensor,
        ch_axis=0 if channel else None,
    )


def bias_spec(node: fx.Node, weight: QuantizationSpec) -> DerivedQuantizationSpec:
    """Return how the bias of `node` is stored: int32 with scale (input scale * weight scale)."""
    return DerivedQuantizationSpec(
        derived_from=[(node.args[0], node), (node.args[1], node)],
        derive_qparams_fn=_bias_parameters,
        dtype=torch.int32,
        quant_min=-(2**31),
        quant_max=2**31 - 1,
        qscheme=torch.per_tensor_symmetric if weight.ch_axis is None else weight.qscheme,
        ch_axis=weight.ch_axis,
    )


def _bias_parameters(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    (input_scale, _), (weight_scale, zero_point) = (pair.calculate_qparams() for pair in pairs)
    return input_scale * weight_scale, torch.zeros_like(zero_point)


def mark(
    node: fx.Node,
    inputs: dict[fx.Node, QuantizationSpecBase],
    output: QuantizationSpecBase | None = None,
) -> None:
    """Annotate a node: which of its inputs get a q/dq pair, and whether its output does."""
    node.meta[_ANNOTATION] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )


def tail(node: fx.Node) -> fx.Node:
    """Return the activation that the runtime fuses into `node`, else `node` itself."""
    if len(node.users) != 1:
        return node
    user = next(iter(node.users))
    fused = user.target in _RELUS or (user.target in _CLAMPS and _clamps_at_zero(user))
    return user if fused else node


def _clamps_at_zero(node: fx.Node) -> bool:
    """ReLU6 and its like: a lower bound of zero coincides with the u8 range, others need not."""
    bounds = node.args[1:]
    return bounds[:1] in ((0,), (0.0,)) and not any(isinstance(b, fx.Node) for b in bounds)


def _pads_zeros(node: fx.Node) -> bool:
    if node.target is aten.constant_pad_nd.default:
        return node.args[2:] in ((), (0,), (0.0,))
    if node.target is aten.pad.default:
        return node.args[2:] in ((), ("constant",), ("constant", None), ("constant", 0.0))
    return False


def _tensors(node: fx.Node) -> list[fx.Node]:
    """Return the values that a node computes from; empty if a constant number is among them."""
    first = node.args[0]
    values = list(first) if isinstance(first, list | tuple) else [first]
    if node.target in _FUSING:
        values.append(node.args[1])
    nodes = [value for value in values if isinstance(value, fx.Node)]
    return nodes if len(nodes) == len(values) else []


def _worth_integers(values: Sequence[fx.Node]) -> bool:
    """Whether all values are computed, and one of them in integers already.

    The others then get a pair of their own: one float layer in front of a chain of residual adds
    must not keep the whole chain in float.
    """
    computed = all(value.op == "call_function" for value in values)
    annotations = [value.meta.get(_ANNOTATION) for value in values]
    return computed and any(
        note is not None and note.output_qspec is not None for note in annotations
    )
