"""Parameters of `prune`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from planish.contract.passes.base import LayerPatterns, Need, Params, Stage

METHODS = {
    "unstructured": ("magnitude", "gradient", "taylor", "wanda", "sparsegpt", "random"),
    "n:m": ("magnitude", "gradient", "taylor", "wanda", "sparsegpt", "random"),
    "channel": ("magnitude", "gradient", "taylor", "bn_scale", "fpgm", "random"),
    "layer": ("kl", "block_influence", "random"),
}
"""Which rankings each structure knows."""

ON_DATA = ("gradient", "taylor", "wanda", "sparsegpt", "kl", "block_influence")
ON_LABELS = ("gradient", "taylor")
HOW_MUCH = ("sparsity", "threshold_ratio", "target_macs", "target_latency", "blocks")
"""Ways to say how much goes; exactly one of them holds."""
PATTERN = r"^[1-9][0-9]?:[1-9][0-9]?$"


def _half_unless_said_otherwise(values: dict[str, object]) -> float | None:
    return None if any(values.get(name) for name in ("pattern", *HOW_MUCH[1:])) else 0.5


class Prune(Params):
    """Remove weights: single ones, fixed patterns, whole channels or whole layers."""

    stage: ClassVar[Stage] = Stage.PRUNE
    source: ClassVar[str] = (
        "Li et al. 2017, arXiv:1608.08710 (magnitude); Fang et al. 2023, arXiv:2301.12900 "
        "(groups); "
        "Molchanov et al. 2017, arXiv:1611.06440 (taylor, gradient of channels); Liu et al. 2017, "
        "arXiv:1708.06519 (bn_scale); He et al. 2019, arXiv:1811.00250 (fpgm); "
        "Sun et al. 2023, arXiv:2306.11695 (wanda); Frantar and Alistarh 2023, arXiv:2301.00774 "
        "(sparsegpt); Men et al. 2024, arXiv:2403.03853 (block influence); Zhu and Gupta 2017, "
        "arXiv:1710.01878 (cubic)"
    )

    op: Literal["prune"] = "prune"
    structure: Literal["unstructured", "n:m", "channel", "layer"] = Field(
        "channel",
        description="What is removed as a unit: single weights, all but n of each m weights, "
        "channels, or whole blocks.",
    )
    method: Literal[
        "magnitude",
        "gradient",
        "taylor",
        "wanda",
        "sparsegpt",
        "bn_scale",
        "fpgm",
        "kl",
        "block_influence",
        "random",
    ] = Field(
        default_factory=lambda values: "kl" if values.get("structure") == "layer" else "magnitude",
        description="How units are ranked. unstructured, n:m: magnitude, gradient, taylor, wanda, "
        "sparsegpt, random. channel: magnitude, gradient, taylor, bn_scale, fpgm, random. layer: "
        "kl (the default there), block_influence, random.",
    )
    pattern: str | None = Field(
        default_factory=lambda values: "2:4" if values.get("structure") == "n:m" else None,
        pattern=PATTERN,
        description='n:m only: keep n of each m weights, e.g. "2:4" (the default there) or "4:8".',
    )
    threshold_ratio: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Unstructured magnitude instead of sparsity: weights stay where "
        "|w| > threshold_ratio * max|w|.",
    )
    target_macs: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Channels instead of sparsity: share of the multiply-accumulates to keep.",
    )
    target_latency: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Channels or layers instead of sparsity: share of the measured latency on the "
        "target to keep.",
    )
    blocks: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Layers instead of sparsity: how many blocks to remove, one by one.",
    )
    sparsity: float | None = Field(
        default_factory=_half_unless_said_otherwise,
        gt=0,
        lt=1,
        description="Share of the units to remove. null where another parameter says how much.",
    )
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share in every layer, or one ranking over all layers."
    )
    round_to: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Kept channels are rounded to a multiple of this. "
        "null: what the target's kernels like.",
    )
    schedule: Literal["one_shot", "cubic"] = Field(
        "one_shot",
        description="cubic (unstructured, n:m): the share grows during the training pass that "
        "follows.",
    )
    samples: int = Field(
        512, ge=1, le=100_000, description="Samples that rank units and recalibrate BatchNorm."
    )
    recalibrate: bool = Field(
        True, description="Estimate BatchNorm statistics anew afterwards, if there is data."
    )
    ignore: LayerPatterns = Field((), description="Layers to leave alone: names or shell patterns.")

    def wants(self) -> Iterator[tuple[Need, str]]:
        """Yield the data that the ranking learns from, and the training that cubic grows in."""
        if self.method in ON_DATA:
            yield Need.DATA, f"prune ranks by {self.method} on data; send a data file"
        if self.method in ON_LABELS:
            yield (
                Need.TARGETS,
                f"prune ranks by the {self.method} of the loss on labels; add an array named "
                "targets to the data",
            )
        if self.schedule == "cubic":
            yield (
                Need.TRAINING,
                'schedule "cubic" grows during training; put distill or retrain after it',
            )

    @model_validator(mode="after")
    def _fits_together(self) -> Prune:
        known = METHODS[self.structure]
        if self.method not in known:
            raise ValueError(
                f"method {self.method!r} does not rank structure {self.structure!r}; "
                f"allowed there: {', '.join(known)}"
            )
        self._check_amount()
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        if self.schedule == "cubic" and self.structure not in ("unstructured", "n:m"):
            raise ValueError(
                f'schedule "cubic" is for unstructured and n:m; structure {self.structure!r} is '
                'removed at once: set schedule to "one_shot"'
            )
        return self

    def _check_amount(self) -> None:
        amounts = [name for name in HOW_MUCH if getattr(self, name) is not None]
        allowed = {
            "unstructured": ("sparsity", "threshold_ratio"),
            "n:m": (),
            "channel": ("sparsity", "target_macs", "target_latency"),
            "layer": ("sparsity", "blocks", "target_latency"),
        }[self.structure]
        if self.structure == "n:m":
            if amounts and (amounts != ["sparsity"] or self.sparsity != self.pattern_share):
                raise ValueError(
                    f"pattern {self.pattern!r} says how much goes; leave out {amounts[0]}"
                )
            return
        if len(amounts) != 1 or amounts[0] not in allowed:
            raise ValueError(
                f"structure {self.structure!r} takes exactly one of {', '.join(allowed)}; "
                f"got {', '.join(amounts) or 'none'}"
            )
        if self.threshold_ratio is not None and self.method != "magnitude":
            raise ValueError("threshold_ratio compares magnitudes; set method to magnitude")

    def _check_pattern(self, pattern: str) -> None:
        if self.structure != "n:m":
            raise ValueError('pattern is for structure "n:m"')
        if self.pattern_share <= 0:
            raise ValueError(f"pattern {pattern!r} keeps everything; n must be below m")

    @property
    def kept_of(self) -> tuple[int, int]:
        """N and m of the pattern: n weights stay of each m."""
        kept, of = (self.pattern or "1:1").split(":")
        return int(kept), int(of)

    @property
    def pattern_share(self) -> float:
        """Share of the weights that the pattern removes."""
        kept, of = self.kept_of
        return 1 - kept / of
