"""A MobileNet-type network whose int8 collapses, and what becomes of it without a hint.

    .venv/bin/python bench/mobilenet_rescue.py [--epochs 14] [--seeds 0 1 2]

Trains a small network of inverted residual blocks on 6,000 CIFAR-10 images once (about three
minutes on two cores; kept in the user's cache folder). Then multiplies channels by random powers
of two and divides where they are read, so that the float network answers as before: inside the
blocks alone, and along the residual streams as well. Plain rounding to int8, with one scale for a
tensor and with one for each channel, stands beside the defaults of this project, of ONNX Runtime's
quantizer and of NNCF; accuracy in ONNX Runtime on 2,000 other images. One seed is one drawing of
the powers. Writes bench/results/mobilenet_rescue.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _nets import DATA, IMAGENET, NETS, ROOT, folds
from static_int8 import nncf_static, onnxruntime_static, runtime_outputs

from planish.contract.recipe import Quantize
from planish.contract.spec import DataSpec, Spec
from tests.engine.passes.models import canonical
from tests.engine.quantize.collapse import SmallMobileNet, scale_channels, scale_streams, train
from worker.engine.load.data import Splits, load_splits
from worker.engine.model import Model
from worker.engine.passes import Context, entry_for
from worker.engine.progress import Silent
from worker.engine.save.onnx import save_onnx

RESULT = ROOT / "bench" / "results" / "mobilenet_rescue.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "planish-bench"
WIDTHS, FACTOR = (16, 16, 32, 32, 64, 64), 3
POWERS = 5.0
FLOOR = 1.2
WAYS = {
    "rtn, tensor": Quantize(algorithm="rtn", granularity="tensor"),
    "rtn, channel": Quantize(algorithm="rtn"),
    "default": Quantize(),
    "default, tensor": Quantize(granularity="tensor"),
}


def main() -> None:
    """Train or load the network, collapse and rescue it, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        spec = Spec(recipe=(Quantize(),), data=DataSpec(preprocess=IMAGENET))
        probe = canonical(SmallMobileNet(3, WIDTHS, 10, FACTOR).eval(), example())
        splits = cifar(probe, spec, at)
        net = trained(splits, options.epochs)
        cases = {}
        for seed in options.seeds:
            for name, scale in (("blocks", scale_channels), ("blocks and streams", scale_streams)):
                collapsed = copy.deepcopy(net)
                scale(collapsed, powers=POWERS, seed=seed)
                cases[f"{name}, seed {seed}"] = rescue(collapsed, spec, splits, at)
                print(name, seed, json.dumps(cases[f"{name}, seed {seed}"]["points"]), flush=True)
    met = all(case["points"]["default"] <= FLOOR for case in cases.values())
    result = {"floor_points": FLOOR, "met": met, "powers": POWERS, "cases": cases}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if met else "missed")


def example() -> tuple[torch.Tensor, ...]:
    """Return what the network takes, for two images."""
    return (torch.randn(2, 3, 32, 32),)


def cifar(model: Model, spec: Spec, at: Path) -> Splits:
    """Return the images as a job reads them."""
    (fold,) = folds(NETS[0])
    paths = at / "data.npz", at / "test.npz"
    for path, (inputs, labels) in zip(paths, fold, strict=True):
        np.savez(path, **{model.inputs[0].name: inputs, "targets": labels})
    splits = load_splits(spec, model, *paths)
    if splits is None:
        raise RuntimeError("no data")
    return splits


def trained(splits: Splits, epochs: int) -> SmallMobileNet:
    """Return the network, trained now or in an earlier run."""
    torch.manual_seed(0)
    net = SmallMobileNet(3, WIDTHS, 10, FACTOR)
    path = CACHE / f"small-mobilenet-{epochs}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    inputs, labels = splits.train.prepare(np.arange(len(splits.train)))
    images = torch.cat([inputs[0], inputs[0].flip(3)])
    began = time.perf_counter()
    train(net, images, torch.cat([labels, labels]), epochs, 0.1)
    print(f"trained in {time.perf_counter() - began:.0f} s", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return net


def rescue(net: SmallMobileNet, spec: Spec, splits: Splits, at: Path) -> dict:
    """Quantize a collapsed network every way; return points lost and what the default did."""
    model = canonical(net, example())
    files = {"float": at / "float.onnx"}
    save_onnx(model, files["float"])
    facts, seconds = {}, {}
    for name, params in WAYS.items():
        context = Context(spec, splits, model, Silent(), 0, torch.device("cpu"), 1)
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
