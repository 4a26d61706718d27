"""Optimize a model on a server: python examples/quickstart.py net.pt2 train.npz test.npz."""

from __future__ import annotations

import sys

import planish


def main(model: str, data: str, test_data: str) -> None:
    """Submit, follow, download."""
    with planish.Client() as client:  # PLANISH_URL, else http://127.0.0.1:8000
        job = client.optimize(
            model,
            data=data,
            test_data=test_data,
            recipe=[
                planish.Prune(structure="channel", sparsity=0.5),
                planish.Distill(),
                planish.Quantize(mode="static"),
            ],
            preprocess=planish.Preprocess(scale=1 / 255),
        )
        print("submitted", job.id)
        try:
            job.wait(timeout=3600, on_change=show)
        except planish.WaitTimeout:
            print("still running; come back with client.job(", job.id, ")")
            return
        report = job.report()
        print("accuracy", report.baseline.metric.value, "→", report.optimized.metric.value)
        print("smaller", report.ratios.size, "faster", report.ratios.latency)
        print("saved", job.download("out"))


def show(job: planish.Job) -> None:
    """Print a line for each change."""
    print(f"{job.progress.fraction:4.0%} {job.progress.stage} {job.progress.message}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
