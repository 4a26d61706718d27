"""A MobileNet-type network whose int8 collapses, and what becomes of it without a hint.

    .venv/bin/python bench/mobilenet_rescue.py [--data mnist cifar] [--seeds 0 1 2]

Trains a small network of inverted residual blocks once: on 8,000 digits of MNIST at 14 x 14 (less
than a minute on a quiet core), or on 6,000 CIFAR-10 images (some minutes); weights are kept in the
user's cache folder. Then multiplies channels by random powers of two and divides where they are
read, so that the float network answers as before: inside the blocks alone, and along the residual
streams as well. Plain rounding to int8, with one scale for a tensor and with one for each channel,
stands beside the defaults of this project, of ONNX Runtime's quantizer and of NNCF; accuracy in
ONNX Runtime on images that nobody trained or calibrated on (4,000 or 2,000). One seed is one
drawing of the powers. Results are merged into bench/results/mobilenet_rescue.json; the shared data
lies in PLANISH_TEST_DATA.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import DATA, IMAGENET, ROOT
from static_int8 import nncf_static, onnxruntime_static, runtime_outputs

from planish.contract.recipe import Quantize
from planish.contract.spec import DataSpec, Preprocess, Spec
from tests.engine.passes.models import canonical
from tests.engine.quantize.collapse import SmallMobileNet, scale_channels, scale_streams, train
from worker.engine.load.data import Splits, load_splits
from worker.engine.model import Model
from worker.engine.passes import Context, entry_for
from worker.engine.progress import Silent
from worker.engine.save.onnx import save_onnx

RESULT = ROOT / "bench" / "results" / "mobilenet_rescue.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "planish-bench"
FACTOR = 3
POWERS = 5.0
FLOOR = 1.2
WAYS = {
    "rtn, tensor": Quantize(algorithm="rtn", granularity="tensor"),
    "rtn, channel": Quantize(algorithm="rtn"),
    "default": Quantize(),
    "default, tensor": Quantize(granularity="tensor"),
}


@dataclass(frozen=True)
class Task:
    """What the network is trained on.

    Attributes:
        file: in the shared data, with x_train, y_train, x_test, y_test.
        preprocess: from stored values to inputs.
        channels: of an image.
        side: of an image.
        pooled: how many stored pixels make one, each way.
        widths: of the network's blocks.
        epochs: of training.
    """

    file: str
    preprocess: Preprocess
    channels: int
    side: int
    pooled: int
    widths: tuple[int, ...]
    epochs: int

    def network(self) -> SmallMobileNet:
        """Return the network with random weights."""
        torch.manual_seed(0)
        return SmallMobileNet(self.channels, self.widths, 10, FACTOR)

    def example(self) -> tuple[torch.Tensor, ...]:
        """Return what the network takes, for two images."""
        return (torch.randn(2, self.channels, self.side, self.side),)


TASKS = {
    "mnist": Task("mnist_public.npz", Preprocess(scale=1 / 255), 1, 14, 2, (8, 8, 16, 16), 4),
    "cifar": Task("cifar10_public.npz", IMAGENET, 3, 32, 1, (16, 16, 32, 32, 64, 64), 14),
}


def main() -> None:
    """Train or load the networks, collapse and rescue them, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    torch.set_num_threads(options.threads)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"tasks": {}}
    for name in options.data:
        result["tasks"].setdefault(name, {}).update(collapse_and_rescue(name, options.seeds))
        cases = [case for each in result["tasks"].values() for case in each.values()]
        result["floor_points"], result["powers"] = FLOOR, POWERS
        result["met"] = all(case["points"]["default"] <= FLOOR for case in cases)
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if result["met"] else "missed")


def collapse_and_rescue(name: str, seeds: list[int]) -> dict[str, dict]:
    """Return the figures of every drawing of one task."""
    task = TASKS[name]
    spec = Spec(recipe=(Quantize(),), data=DataSpec(preprocess=task.preprocess))
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        splits = read_splits(task, spec, at)
        net = trained(name, task, splits)
        for seed in seeds:
            for where, scale in (("blocks", scale_channels), ("blocks and streams", scale_streams)):
                collapsed = copy.deepcopy(net)
                scale(collapsed, powers=POWERS, seed=seed)
                case = rescue(canonical(collapsed, task.example()), spec, splits, at)
                cases[f"{where}, seed {seed}"] = case
                print(name, where, seed, json.dumps(case["points"]), flush=True)
    return cases


def read_splits(task: Task, spec: Spec, at: Path) -> Splits:
    """Return the images as a job reads them."""
    model = canonical(task.network().eval(), task.example())
    paths = at / "data.npz", at / "test.npz"
    with np.load(DATA / task.file) as stored:
        for path, part in zip(paths, ("train", "test"), strict=True):
            images, labels = stored[f"x_{part}"], stored[f"y_{part}"].astype(np.int64)
            if task.pooled > 1:
                cells = (len(images), task.side, task.pooled, task.side, task.pooled)
                images = images.reshape(cells).mean((2, 4)).astype(np.uint8)
            images = images if images.ndim == 4 else images[:, None]
            np.savez(path, **{model.inputs[0].name: images, "targets": labels})
    splits = load_splits(spec, model, *paths)
    if splits is None:
        raise RuntimeError("no data")
    return splits


def trained(name: str, task: Task, splits: Splits) -> SmallMobileNet:
    """Return the network, trained now or in an earlier run."""
    net = task.network()
    path = CACHE / f"small-mobilenet-{name}-{task.epochs}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    (images,), labels = splits.train.prepare(np.arange(len(splits.train)))
    if name == "cifar":
        images, labels = torch.cat([images, images.flip(3)]), torch.cat([labels, labels])
    began = time.perf_counter()
    train(net, images, labels, task.epochs, 0.1)
    print(f"trained in {time.perf_counter() - began:.0f} s", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net


def rescue(model: Model, spec: Spec, splits: Splits, at: Path) -> dict:
    """Quantize a collapsed network every way; return points lost and what the default did."""
    files = {"float": at / "float.onnx"}
    save_onnx(model, files["float"])
    facts, seconds = {}, {}
    for name, params in WAYS.items():
        context = Context(spec, splits, Silent(), 0, 1, teacher=model, device=torch.device("cpu"))
        began = time.perf_counter()
        outcome = entry_for(params).run(model.clone(), params, context)
        seconds[name] = round(time.perf_counter() - began, 1)
        files[name] = at / f"{name}.onnx"
        save_onnx(outcome.model, files[name])
        told = ("treatment", "sqnr_db", "agreement", "rescue")
        facts[name] = {key: outcome.facts[key] for key in told if key in outcome.facts}
        facts[name]["back_to_float"] = [layer.name for layer in outcome.skipped]
    shared, name = splits.calibration.head(512), model.inputs[0].name
    for peer, quantizer in (("onnxruntime", onnxruntime_static), ("nncf", nncf_static)):
        files[peer] = at / f"{peer}.onnx"
        quantizer(files["float"], files[peer], shared, name)
    labels = splits.sealed.targets
    right = {
        name: int((runtime_outputs(path, splits.sealed).argmax(1) == labels).sum())
        for name, path in files.items()
    }
    points = {
        name: round((right["float"] - hits) / len(labels) * 100, 2) for name, hits in right.items()
    }
    return {
        "accuracy_float": right["float"] / len(labels),
        "points": points,
        "seconds": seconds,
        "facts": facts,
    }


if __name__ == "__main__":
    main()
