"""Public networks with the data that they are calibrated and tested on, for the int8 benches."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from planish.contract.spec import Architecture, DataSpec, ModelSpec, Preprocess, Spec  # noqa: E402
from worker.engine.load import load_model  # noqa: E402  # the repository's root comes first
from worker.engine.load.data import Splits, load_splits  # noqa: E402
from worker.engine.model import Model  # noqa: E402

DATA = Path(os.environ.get("PLANISH_TEST_DATA", ROOT.parent / "shared" / "data"))
IMAGENET = Preprocess(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MFCC_SCALE, MFCC_ZERO = 0.5847029, 83

Arrays = tuple[NDArray[np.generic], NDArray[np.int64]]


@dataclass(frozen=True)
class Net:
    """A network and its data.

    Attributes:
        name: for people.
        weights: file in the shared data.
        architecture: planish's name of it.
        config: of the architecture.
        preprocess: from stored values to inputs.
        floor: points of accuracy that int8 may cost.
        input: name of its input.
    """

    name: str
    weights: str
    architecture: str
    config: dict[str, int]
    preprocess: Preprocess
    floor: float
    input: str = "input"

    def spec(self, recipe: tuple[object, ...]) -> Spec:
        """Return a job on this network."""
        return Spec.model_validate(
            {
                "model": ModelSpec(
                    architecture=Architecture(
                        library="planish", name=self.architecture, config=self.config
                    )
                ),
                "data": DataSpec(preprocess=self.preprocess),
                "recipe": recipe,
            }
        )

    def load(self, spec: Spec) -> Model:
        """Return the trained network."""
        return load_model(DATA / self.weights, spec.model)


NETS = (
    Net("ResNet-20", "resnet20-12fca82f.th", "cifar_resnet", {"depth": 20}, IMAGENET, 0.3),
    Net("ResNet-56", "resnet56-4bfd9763.th", "cifar_resnet", {"depth": 56}, IMAGENET, 0.3),
    Net("ResNet-8", "resnet8.pt", "resnet8", {}, Preprocess(), 0.5),
    Net("SqueezeNet", "squeezenet1_1_tv.pt", "squeezenet1_1", {}, IMAGENET, 1.0),
    Net(
        "DS-CNN",
        "kws_dscnn.pt",
        "ds_cnn",
        {},
        Preprocess(scale=MFCC_SCALE, mean=(MFCC_ZERO * MFCC_SCALE,)),
        0.5,
    ),
)


def folds(net: Net) -> list[tuple[Arrays, Arrays]]:
    """Return pairs of calibration and test arrays that share no sample.

    CIFAR nets: the 6,000 training and 2,000 test images. Nets with one small set (200 images, 480
    clips): two halves by a seeded shuffle, each tested on what the other was calibrated on, so that
    every sample is tested once.
    """
    if net.architecture in ("cifar_resnet", "resnet8"):
        with np.load(DATA / "cifar10_public.npz") as stored:
            train, test = (
                (stored[f"x_{part}"], stored[f"y_{part}"].astype(np.int64))
                for part in ("train", "test")
            )
        return [(train, test)]
    inputs, labels = _imagenet() if net.architecture == "squeezenet1_1" else _keywords()
    order = np.random.default_rng(0).permutation(len(labels))
    halves = [(inputs[rows], labels[rows]) for rows in np.array_split(order, 2)]
    return [(halves[0], halves[1]), (halves[1], halves[0])]


def splits_of(net: Net, model: Model, spec: Spec, fold: tuple[Arrays, Arrays], at: Path) -> Splits:
    """Write a fold as data files, and read them as a job does."""
    paths = at / "data.npz", at / "test.npz"
    for path, (inputs, labels) in zip(paths, fold, strict=True):
        np.savez(path, **{model.inputs[0].name: inputs, "targets": labels})
    splits = load_splits(spec, model, *paths)
    if splits is None:
        raise RuntimeError("no data")
    return splits


def _imagenet() -> Arrays:
    from PIL import Image

    paths = sorted((DATA / "imagenet_256").glob("*.jpg"))
    images = [np.asarray(Image.open(path).convert("RGB"))[16:240, 16:240] for path in paths]
    labels = [int(re.match(r"\d+", path.name)[0]) for path in paths]  # type: ignore[index]
    return np.stack(images), np.array(labels, np.int64)


def _keywords() -> Arrays:
    with np.load(DATA / "kws_mfcc_public.npz") as stored:
        return stored["mfcc_int8"], stored["y"].astype(np.int64)
