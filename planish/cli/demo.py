"""The main job from end to end, on this machine, without a network."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from planish.cli.comparison import print_comparison
from planish.cli.console import JsonFlag, err, out, print_json, say
from planish.cli.optimize import check, fetch, run_job
from planish.cli.verify import print_verification
from planish.client.sources import Sources
from planish.client.submit import build_spec
from planish.client.sync import Client
from planish.contract.errors import VerificationFailed
from planish.contract.recipe import Distill, Params, Prune, Quantize, Train
from planish.contract.spec import Preprocess, Spec, Target
from planish.contract.wire import REPORT_HTML
from planish.launch.apps import CannotStart, command, environment, require
from planish.launch.stack import Stack, StackSettings

app = typer.Typer()

RECIPE: tuple[Params, ...] = (
    Prune(structure="channel", method="magnitude", sparsity=0.5, round_to=16),
    Distill(method="kd", train=Train(epochs=8, batch_size=64, lr=0.02)),
    Quantize(mode="static", dtype="int8"),
)
PIXEL_SCALE = 1 / 16  # the scans have values of 0..16


class Trained(BaseModel):
    """What the training says."""

    correct: int
    total: int
    seconds: float


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the result goes.")
    ] = Path("planish-demo"),
    json: JsonFlag = False,
) -> None:
    """Train a small network, optimize it over HTTP, and show before and after; offline."""
    began = time.monotonic()
    require("demo", ("sklearn",))
    with tempfile.TemporaryDirectory(prefix="planish-demo-") as name:
        scratch = Path(name)
        say("1  training a residual CNN on scikit-learn's handwritten digits (really)")
        trained = train(scratch)
        say(f"   {trained.correct}/{trained.total} test digits right, {trained.seconds:.0f} s")
        say("2  starting API, worker and Redis")
        with Stack(StackSettings(scratch / "data", log=scratch / "serve.log")) as stack:
            say(f"   ready on {stack.url}")
            say("3  prune → distill → quantize, over HTTP")
            with Client(stack.url) as client:
                job = run_job(client, demo_spec(), sources(scratch), None, print_final=json)
                report = fetch(client, job, output)
    say("4  verifying what came back, in fresh processes")
    verification = check(output)
    if json:
        print_json(
            {
                "job": job,
                "report": report,
                "verification": verification,
                "folder": str(output),
            }
        )
    else:
        print_verification(verification)
        out.print()
        print_comparison(report)
        out.print(f"\n{time.monotonic() - began:.0f} seconds in all. Open this in a browser:")
        out.print(str((output / REPORT_HTML).resolve()), markup=False)
    if not verification.ok:
        raise VerificationFailed(f"{output} does not hold what the report says; see above")


def train(folder: Path) -> Trained:
    """Train and export the network in a process of its own; this package imports no torch."""
    with err.status("training"):
        done = subprocess.run(
            command("worker.demo_model", str(folder)),
            env=environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise CannotStart(f"the training failed:\n{done.stderr.strip()}")
    return Trained.model_validate_json(done.stdout.strip().splitlines()[-1])


def demo_spec() -> Spec:
    """Return the spec that the demo submits."""
    return build_spec(
        RECIPE,
        {
            "name": "demo",
            "labels": {"from": "planish demo"},
            "preprocess": Preprocess(scale=PIXEL_SCALE),
            "target": Target(threads=1),
            "outputs": ("onnx", "pt2"),
        },
    )


def sources(folder: Path) -> Sources:
    """Return the files that the training wrote."""
    return Sources(folder / "digits.pt2", folder / "train.npz", folder / "test.npz")
