"""The rescue ladder: what is tried, in which order, when rounding alone falls short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from pydantic import JsonValue

from planish.contract.errors import NothingChanged
from planish.contract.recipe import Quantize
from worker.engine.quantize.quality import Quality
from worker.engine.quantize.sensitivity import Harm
from worker.engine.quantize.treatment import Treatment, named_treatment

GOOD_DB = 20.0
FAIR_DB = 12.0
GOOD_AGREEMENT = 0.97
_FREE_MACS = 0.5
_TOLD_LAYERS = 20
_BELOW = f"{GOOD_DB:g} dB, or {FAIR_DB:g} dB where {GOOD_AGREEMENT:.0%} of the answers agree"


@dataclass(frozen=True)
class Step:
    """One thing that was tried, and whether it stayed."""

    name: str
    words: str
    quality: Quality
    kept: bool

    def facts(self) -> dict[str, JsonValue]:
        """Return the step as the report shows it."""
        return {
            "step": self.name,
            "treatment": self.words,
            "sqnr_db": round(self.quality.sqnr_db, 2),
            "agreement": self.quality.agreement,
            "kept": self.kept,
        }


class Tried(Protocol):
    """A model after a treatment, ready to be judged."""

    @property
    def treatment(self) -> Treatment:
        """What was done."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Which layers become integers."""


T = TypeVar("T", bound=Tried)


class Ways(Protocol[T]):
    """How one model is treated and judged; the torch graph and an ONNX file have their own."""

    def rungs(self, best: Callable[[], Treatment]) -> Iterator[tuple[str, Treatment]]:
        """Yield what may help, each on top of the best so far."""

    def treat(self, treatment: Treatment, layers: tuple[str, ...]) -> T:
        """Apply a treatment and calibrate."""

    def is_idle(self, treated: T, best: T) -> bool:
        """Whether the treatment found nothing to do beyond what the best one did."""

    def judge(self, treated: T) -> Quality:
        """Return how near the output is to the float model's."""

    def harms(self, treated: T) -> tuple[Harm, ...]:
        """Return what each layer in integers does, the best candidate for float first."""


class Search(Generic[T]):
    """Finds the treatment of one model: tries, judges, keeps what measures best."""

    def __init__(self, params: Quantize, layers: tuple[str, ...], ways: Ways[T]) -> None:
        """Try the treatment that the recipe names."""
        self.params, self.layers, self.ways = params, layers, ways
        self.steps: list[Step] = []
        self.harms: tuple[Harm, ...] = ()
        self.best = ways.treat(named_treatment(params), layers)
        self.quality = ways.judge(self.best)
        self._note("as asked for", self.best, self.quality, kept=True)

    def good(self) -> bool:
        """Whether the output is near enough to the float model's to stop."""
        return is_good(self.quality) and self._reached(self.params.min_sqnr)

    def climb(self) -> None:
        """Try one method after the other until the output is good; keep what helps."""
        for name, treatment in self.ways.rungs(lambda: self.best.treatment):
            if self.good():
                return
            self._try(name, treatment, self.best.layers)
        if not is_good(self.quality):
            self._free(_FREE_MACS, is_good)

    def reach(self, wanted_db: float) -> None:
        """Put layers back to float until the output reaches `wanted_db`.

        Raises:
            NothingChanged: no layer may stay in integers for that.
        """
        if self._reached(wanted_db):
            return
        self._free(1.0, lambda quality: quality.sqnr_db >= wanted_db)
        if not self._reached(wanted_db):
            raise NothingChanged(
                f"min_sqnr {wanted_db:g} dB is out of reach: with all layers but "
                f"{len(self.best.layers)} in float the output has {self.quality.sqnr_db:.1f} dB; "
                "lower min_sqnr, or leave this pass out"
            )

    def freed(self) -> tuple[str, ...]:
        """Return the layers that went back to float."""
        return tuple(name for name in self.layers if name not in self.best.layers)

    def facts(self) -> dict[str, JsonValue]:
        """Return everything that was tried, with its figures."""
        facts: dict[str, JsonValue] = {
            "treatment": self.best.treatment.words(),
            "sqnr_db": round(self.quality.sqnr_db, 2),
            "agreement": self.quality.agreement,
        }
        if len(self.steps) > 1:
            facts["rescue"] = [step.facts() for step in self.steps]
            if self.params.algorithm == "auto":
                facts["rescue_below"] = _BELOW
        if not is_good(self.quality):
            facts["warning"] = _warning(self.quality, self.params)
        if self.harms:
            facts["sensitivity"] = [self._harm_facts(harm) for harm in self.harms[:_TOLD_LAYERS]]
            facts["sensitivity_time"] = "estimated by multiply-accumulates"
        return facts

    def _free(self, most_macs: float, enough: Callable[[Quality], bool]) -> None:
        """Put the fewest layers back to float for which the output is good enough.

        The most harmful for their time go first; how many is found by bisection, each try
        calibrated anew. If all that may go are not enough, they go where that helps.
        """
        self.harms = self.ways.harms(self.best)
        order = _affordable(self.harms, most_macs)
        low, high, found = 1, len(order), None
        while low <= high:
            middle = high if found is None else (low + high) // 2
            freed = set(order[:middle])
            kept = tuple(name for name in self.best.layers if name not in freed)
            treated = self.ways.treat(self.best.treatment, kept)
            quality = self.ways.judge(treated)
            good = enough(quality)
            name = f"{middle} layer{'s' * (middle > 1)} back to float"
            self._note(name, treated, quality, kept=False)
            if good or (found is None and quality.sqnr_db > self.quality.sqnr_db):
                found = treated, quality, len(self.steps) - 1
            if not good and middle == high:
                break
            low, high = (low, middle - 1) if good else (middle + 1, high)
        if found is not None:
            self.best, self.quality, index = found
            self.steps[index] = replace(self.steps[index], kept=True)

    def _try(self, name: str, treatment: Treatment, layers: tuple[str, ...]) -> None:
        treated = self.ways.treat(treatment, layers)
        if self.ways.is_idle(treated, self.best):
            return
        quality = self.ways.judge(treated)
        better = quality.sqnr_db > self.quality.sqnr_db
        self._note(name, treated, quality, kept=better)
        if better:
            self.best, self.quality = treated, quality

    def _reached(self, wanted_db: float | None) -> bool:
        return wanted_db is None or self.quality.sqnr_db >= wanted_db

    def _note(self, name: str, treated: T, quality: Quality, *, kept: bool) -> None:
        self.steps.append(Step(name, treated.treatment.words(), quality, kept))

    def _harm_facts(self, harm: Harm) -> dict[str, JsonValue]:
        return {
            "layer": harm.layer,
            "sqnr_db_alone": round(harm.sqnr_db, 2),
            "noise_share": round(harm.noise_share, 4),
            "macs_share": round(harm.macs_share, 4),
            "float": harm.layer not in self.best.layers,
        }


def _affordable(harms: Sequence[Harm], most_macs: float) -> list[str]:
    """Return the layers that may go back to float: by this share of the work, and never all."""
    allowed: list[str] = []
    spent = 0.0
    for harm in harms:
        if spent + harm.macs_share <= most_macs and len(allowed) < len(harms) - 1:
            allowed.append(harm.layer)
            spent += harm.macs_share
    return allowed


def is_good(quality: Quality) -> bool:
    """Whether nothing needs rescue: little noise, or some noise and nearly the same answers."""
    if quality.sqnr_db >= GOOD_DB:
        return True
    agreement = quality.agreement
    return quality.sqnr_db >= FAIR_DB and agreement is not None and agreement >= GOOD_AGREEMENT


def _warning(quality: Quality, params: Quantize) -> str:
    """Say that the output is far from the float model's, and what may help."""
    advice = (
        "mode qat trains with the rounding in the loop, mode dynamic leaves activations their range"
        if params.algorithm == "auto"
        else 'algorithm "auto" tries what may rescue it'
    )
    return (
        f"integers leave {quality.sqnr_db:.1f} dB of signal to noise in the output, where "
        f"{_BELOW} would be good; {advice}"
    )
