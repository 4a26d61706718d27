"""stories260K, a llama-type model, with weights in 8 and 4 bits: perplexity on tinyshakespeare.

Three jobs through the whole engine on the same data: int8; int4 in groups by gptq; the same rounded
to nearest. The model comes from the shared data and is built with transformers; its tokenizer is
the one beside it. Windows of 256 tokens, each with its BOS: 512 to learn from, 256 sealed ones from
the end of the text for the figures. Writes bench/results/stories260k.json.
Run it on a quiet machine: python bench/stories260k.py
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402  # the root comes first

from planish.contract.report import Report  # noqa: E402
from planish.contract.validation import spec_from  # noqa: E402
from worker.engine.pipeline import JobInputs, optimize  # noqa: E402
from worker.engine.progress import Silent  # noqa: E402

DATA = Path(os.environ.get("PLANISH_TEST_DATA", ROOT.parent / "shared" / "data"))
RESULT = ROOT / "bench" / "results" / "stories260k.json"
TOKENS, LEARNT, SEALED = 256, 512, 256
BOS, FIRST_BYTE = 1, 3
CASES = {
    "int8": {"dtype": "int8"},
    "int4_gptq": {"dtype": "int4", "algorithm": "gptq"},
    "int4_rtn": {"dtype": "int4", "algorithm": "rtn"},
}
GOALS = {
    "int8_perplexity_rise": 0.005,
    "int4_gptq_perplexity_rise": 0.06,
    "int4_gptq_to_rtn_rise": 1.0,
}


class Logits(nn.Module):
    """The model without the containers of its library."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits (N, S, 512) of token ids (N, S)."""
        return self.model(input_ids=input_ids, use_cache=False).logits


def main() -> None:
    """Run the jobs, print and write the figures."""
    if not DATA.is_dir():
        sys.exit(f"no shared data at {DATA}: set PLANISH_TEST_DATA to its folder")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = export(folder / "model.pt2")
        data, test = windows(folder)
        reports = {
            case: run(folder / case, params, model, data, test) for case, params in CASES.items()
        }
    result = summary(reports)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    missed = [name for name, goal in GOALS.items() if result["ratios"][name] > goal]
    sys.exit(f"MISSED: {', '.join(missed)}" if missed else 0)


def export(path: Path) -> Path:
    """Build the network, load its weights and export it with dynamic batch and length."""
    config = LlamaConfig(**json.loads((DATA / "stories260k_config.json").read_text()))
    model = LlamaForCausalLM(config)
    state = torch.load(DATA / "stories260k_hf.pt", weights_only=True)
    model.load_state_dict(state)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    ids = torch.randint(3, 512, (2, 16), generator=torch.Generator().manual_seed(0))
    module = Logits(model).eval()
    torch.export.save(torch.export.export(module, (ids,), dynamic_shapes=(dims,)), path)
    return path


def windows(folder: Path) -> tuple[Path, Path]:
    """Tokenize the text and store windows from its beginning and from its end."""
    text = (DATA / "tinyshakespeare.txt").read_text()
    tokens = encode(text[:500_000]), encode(text[-300_000:])
    paths = folder / "data.npz", folder / "test.npz"
    for path, ids, count in zip(paths, tokens, (LEARNT, SEALED), strict=True):
        rows = np.array(ids[: count * (TOKENS - 1)], np.int16).reshape(count, TOKENS - 1)
        np.savez(path, input_ids=np.insert(rows, 0, BOS, axis=1))
    return paths


def encode(text: str) -> list[int]:
    """Return token ids without BOS, word by word.

    No piece holds a space behind its first character, or a line's end within it, so the merges of
    a word never depend on its neighbours.
    """
    words = " " + text.replace("\n", "\n\x00")
    parts = [
        part for word in words.replace(" ", "\x01 ").split("\x01") for part in word.split("\x00")
    ]
    return [token for part in parts if part for token in _merged(part)]


@cache
def _pieces() -> dict[bytes, tuple[int, float]]:
    raw = (DATA / "stories260k_tok512.bin").read_bytes()
    pieces: dict[bytes, tuple[int, float]] = {}
    at = 4
    for index in range(512):
        score, size = struct.unpack_from("<fi", raw, at)
        pieces.setdefault(raw[at + 8 : at + 8 + size], (index, score))
        at += 8 + size
    return pieces


@cache
def _merged(word: str) -> tuple[int, ...]:
    """Return the tokens of a word: the adjacent pair of the highest score merges first."""
    pieces = _pieces()
    parts = [char.encode() for char in word]
    while True:
        pairs = [
            (pieces[a + b][1], -i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in pieces
        ]
        if not pairs:
            break
        place = -max(pairs)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return tuple(
        token
        for part in parts
        for token in ([pieces[part][0]] if part in pieces else [FIRST_BYTE + byte for byte in part])
    )


def run(folder: Path, params: dict, model: Path, data: Path, test: Path) -> Report:
    """Run one job."""
    began = time.perf_counter()
    spec = spec_from(
        {
            "data": {"task": "language_modeling"},
            "recipe": [{"op": "quantize", "mode": "weight_only", **params}],
            "target": {"batch_size": 1, "threads": 2},
            "outputs": ["onnx", "pt2"],
        }
    )
    report = optimize(JobInputs(None, spec, model, data, test), folder, Silent())
    print(f"{params}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return report


def summary(reports: dict[str, Report]) -> dict:
    """Return the figures of all jobs, and the ratios that the goals are about."""
    rises = {
        case: report.optimized.metric.value / report.baseline.metric.value - 1
        for case, report in reports.items()
    }
    return {
        "ratios": {
            "int8_perplexity_rise": rises["int8"],
            "int4_gptq_perplexity_rise": rises["int4_gptq"],
            "int4_rtn_perplexity_rise": rises["int4_rtn"],
            "int4_gptq_to_rtn_rise": rises["int4_gptq"] / rises["int4_rtn"],
        },
        "jobs": {
            case: {
                "perplexity": [report.baseline.metric.value, report.optimized.metric.value],
                "certificate": report.certificate.model_dump(),
                "bytes": [report.baseline.size_bytes, report.optimized.size_bytes],
                "latency_ratio": report.ratios.latency,
                "facts": {
                    key: value
                    for key, value in report.passes[0].facts.items()
                    if key not in ("weight_scales", "output_errors")
                },
                "warnings": report.warnings,
            }
            for case, report in reports.items()
        },
        "tokens": {"window": TOKENS, "learnt": LEARNT, "sealed": SEALED},
        "environment": reports["int8"].environment,
    }


if __name__ == "__main__":
    main()
