"""Parameters of `quantize`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from planish.contract.passes.base import LayerPatterns, Need, Params, Stage
from planish.contract.passes.train import Train

DTYPES = {
    "static": ("int8", "uint8"),
    "qat": ("int8", "uint8"),
    "dynamic": ("int8", "uint8", "fp8"),
    "weight_only": ("int8", "int4", "fp8"),
}
GRANULARITIES = {
    "static": ("channel", "tensor"),
    "qat": ("channel", "tensor"),
    "dynamic": ("channel", "tensor"),
    "weight_only": ("channel", "tensor", "group"),
}
ALGORITHMS = {
    "static": (
        "auto",
        "rtn",
        "smoothquant",
        "bias_correction",
        "cross_layer_equalization",
        "adaround",
    ),
    "qat": ("auto", "rtn", "cross_layer_equalization"),
    "dynamic": ("auto", "rtn", "smoothquant"),
    "weight_only": ("auto", "rtn", "gptq"),
}
ON_DATA = ("smoothquant", "bias_correction", "adaround", "gptq")


class Quantize(Params):
    """Store and compute in integers: x_q = clamp(round(x / scale) + zero_point)."""

    stage: ClassVar[Stage] = Stage.QUANTIZE
    source: ClassVar[str] = (
        "Jacob et al. 2018, arXiv:1712.05877, section 2; Nagel et al. 2019, arXiv:1906.04721 "
        "(cross-layer equalization, bias correction); Nagel et al. 2020, arXiv:2004.10568 "
        "(adaround); Xiao et al. 2022, arXiv:2211.10438 (smoothquant); Frantar et al. 2022, "
        "arXiv:2210.17323 (gptq)"
    )

    op: Literal["quantize"] = "quantize"
    mode: Literal["static", "dynamic", "weight_only", "qat"] = Field(
        "static",
        description="static: activation ranges from calibration data, all layers in integers. "
        "dynamic: ranges per call, matrix products only (transformers). weight_only: float "
        "activations (language models). qat: static, trained with the rounding in the loop.",
    )
    dtype: Literal["int8", "uint8", "int4", "fp8"] = Field(
        "int8",
        description="Type of the weights. static, qat: int8, uint8. dynamic: int8, uint8, fp8. "
        "weight_only: int8, int4, fp8. fp8 needs a GPU.",
    )
    granularity: Literal["channel", "tensor", "group"] = Field(
        default_factory=lambda values: "group" if values.get("dtype") == "int4" else "channel",
        description="One weight scale for each output channel, for the tensor, or for each group "
        "of group_size weights (weight_only; the default of int4).",
    )
    group_size: Literal[16, 32, 64, 128, 256] = Field(
        32, description="Weights that share a scale in granularity group."
    )
    calibration: Literal["minmax", "moving_average", "entropy", "percentile", "mse"] = Field(
        "minmax",
        description="How static activation ranges are found: extremes, their moving average, the "
        "least KL divergence, a percentile, or the least squared error.",
    )
    percentile: float = Field(
        99.99, gt=50, le=100, description="Share of the values within the range, in percent."
    )
    algorithm: Literal[
        "auto",
        "rtn",
        "smoothquant",
        "gptq",
        "bias_correction",
        "cross_layer_equalization",
        "adaround",
    ] = Field(
        "auto",
        description="How rounding errors are kept small. rtn: rounding to nearest alone. auto: "
        "rtn, and what rescues the output where that falls short. static: all but gptq. "
        "qat: cross_layer_equalization. dynamic: smoothquant. weight_only: gptq.",
    )
    samples: int = Field(512, ge=1, le=100_000, description="Calibration samples.")
    min_sqnr: float | None = Field(
        None,
        gt=0,
        le=100,
        description="static: put the most harmful layers back to float until the output's signal "
        "to quantization noise ratio, in dB, is reached.",
    )
    keep_float: LayerPatterns = Field(
        (), description="Layers that stay float: names or shell patterns."
    )
    train: Train = Field(
        default_factory=lambda: Train(epochs=2, lr=0.0005, schedule="cosine"),
        description="qat: the training run.",
    )

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield the data that algorithms learn from, and the device that fp8 runs on."""
        if self.mode == "qat":
            yield Need.DATA, "quantize in mode qat trains on data; send a data file"
            yield from self.train.wants()
        if self.algorithm in ON_DATA:
            yield Need.DATA, f"{self.algorithm} learns from calibration data; send a data file"
        if self.min_sqnr is not None:
            yield Need.DATA, "min_sqnr is measured on calibration data; send a data file"
        if self.dtype == "fp8":
            yield Need.GPU, 'dtype "fp8" computes on GPUs only; set it to "int8"'

    @model_validator(mode="after")
    def _fits_together(self) -> Quantize:
        for name, table in (
            ("dtype", DTYPES),
            ("granularity", GRANULARITIES),
            ("algorithm", ALGORITHMS),
        ):
            value, allowed = getattr(self, name), table[self.mode]
            if value not in allowed:
                raise ValueError(
                    f"mode {self.mode!r} knows no {name} {value!r}; "
                    f"allowed there: {', '.join(allowed)}"
                )
        if self.min_sqnr is not None and self.mode != "static":
            raise ValueError('min_sqnr is for mode "static"')
        return self
