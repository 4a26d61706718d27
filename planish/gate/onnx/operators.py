"""The operators that an ONNX model may call. What is not in the table is refused.

Arithmetic on tensors alone: no loops (they may never end), no random numbers (a baseline could not
be compared), no strings, sequences, optionals, decoders or losses.
"""

from __future__ import annotations

from planish.contract.errors import OperatorNotAllowed

_STANDARD = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
BatchNormalization BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
Celu CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger
ConvTranspose Cos Cosh CumProd CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout
DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity If
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual
LinearAttention Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool
MaxUnpool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot
Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT
ScatterElements ScatterND Scatter Selu Shape Shrink Sigmoid Sign SimplifiedLayerNormalization Sin
Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan
Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""
_MICROSOFT = """
Attention BiasAdd BiasGelu BiasSplitGelu ConvTransposeWithDynamicPads DequantizeLinear
DynamicQuantizeLSTM DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedConv FusedGemm
FusedMatMul Gelu GroupNorm GroupQueryAttention Inverse MatMulBnb4 MatMulInteger16
MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcMaxPool Pad QAttention
QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool QLinearConcat QLinearConv
QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid
QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu Rfft Irfft RotaryEmbedding
SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization Trilu Unique
"""
STANDARD = frozenset(_STANDARD.split())
MICROSOFT = frozenset(_MICROSOFT.split())
DOMAINS = {"": STANDARD, "ai.onnx": STANDARD, "com.microsoft": MICROSOFT}


def check_operator(domain: str, name: str, layer: str) -> None:
    """Refuse an operator outside the table.

    Args:
        domain: empty for the standard operators.
        name: of the operator.
        layer: the node's name, for the error text.

    Raises:
        OperatorNotAllowed: says operator, node and what is taken.
    """
    known = DOMAINS.get(domain)
    place = f" at node {layer[:200]!r}" if layer else ""
    if known is None:
        raise OperatorNotAllowed(
            f"the model calls {name[:100]!r} of the domain {domain[:100]!r}{place}; operators of "
            "the standard domain and of com.microsoft are taken. Export the model without custom "
            "operators"
        )
    if name not in known:
        shown = f"{domain}::{name[:100]}" if domain else name[:100]
        raise OperatorNotAllowed(
            f"the model calls {shown}{place}, which is not in the table of operators: no loops, "
            "random numbers, strings or sequences are taken. Export the model without it"
        )
