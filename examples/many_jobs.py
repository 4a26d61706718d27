"""Try several sparsities at once: python examples/many_jobs.py net.pt2 train.npz."""

from __future__ import annotations

import asyncio
import sys

import planish

SPARSITIES = (0.25, 0.5, 0.75)


async def attempt(client: planish.AsyncClient, model: str, data: str, sparsity: float) -> str:
    """Run one job; return a line about it."""
    job = await client.optimize(
        model,
        data=data,
        recipe=[planish.Prune(sparsity=sparsity), planish.Distill(), planish.Quantize()],
        name=f"sparsity {sparsity}",
        labels={"sweep": "sparsity"},
    )
    try:
        await job.wait()
    except planish.JobFailed as error:
        return f"{sparsity}: failed: {error.detail}"
    report = await job.report()
    metric, ratios = report.optimized.metric, report.ratios
    return f"{sparsity}: {metric.name} {metric.value}, {ratios.size:.1f}x smaller, {job.id}"


async def main(model: str, data: str) -> None:
    """Submit all; the files are uploaded once, the server knows their content."""
    async with planish.AsyncClient() as client:
        model_id = (await client.upload(model)).id
        data_id = (await client.upload(data)).id
        tries = (attempt(client, model_id, data_id, sparsity) for sparsity in SPARSITIES)
        for line in await asyncio.gather(*tries):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
