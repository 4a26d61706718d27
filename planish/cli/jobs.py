"""Jobs: submit, list, show, watch, wait, cancel, delete, download, report, logs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planish.cli.comparison import faster, print_comparison
from planish.cli.console import (
    JobId,
    JsonFlag,
    ResumableFlag,
    UrlOption,
    connect,
    out,
    print_json,
    print_table,
    say,
    size_text,
)
from planish.cli.exits import exit_of_job
from planish.cli.inputs import (
    ArchConfigOption,
    ArchitectureOption,
    DataOption,
    LabelOption,
    ModelArgument,
    ModelPartOption,
    NameOption,
    RecipeOption,
    SetOption,
    SpecOption,
    StudentOption,
    TeacherOption,
    TestDataOption,
    read_sources,
    read_spec,
)
from planish.cli.progress import JobBar, Transfers
from planish.client.wait import failure_of
from planish.contract.errors import InvalidParameter, PlanishError
from planish.contract.job import Event, EventType, Job, JobStatus, Progress, Summary

app = typer.Typer()

KeyOption = Annotated[
    str | None,
    typer.Option("--idempotency-key", help="The same key gives the same job, however often."),
]
StatusOption = Annotated[JobStatus | None, typer.Option("--status", help="Only these.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many, newest first.")]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Then exit with 124.")
]
FolderOption = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Where to; made when missing.")
]


@app.command()
def submit(
    model: ModelArgument,
    data: DataOption = None,
    test_data: TestDataOption = None,
    teacher: TeacherOption = None,
    student: StudentOption = None,
    model_part: ModelPartOption = None,
    recipe: RecipeOption = None,
    spec: SpecOption = None,
    architecture: ArchitectureOption = None,
    arch_config: ArchConfigOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    label: LabelOption = None,
    idempotency_key: KeyOption = None,
    resumable: ResumableFlag = False,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Upload the files, submit a job, and print its id without waiting."""
    sources = read_sources(model, data, test_data, teacher, student, model_part)
    whole = read_spec(
        spec=spec,
        recipe=recipe,
        architecture=architecture,
        arch_config=arch_config,
        settings=settings,
        name=name,
        labels=label,
    )
    with connect(url, resumable=resumable) as client, Transfers() as transfers:
        job = client.submit(
            whole, sources, idempotency_key=idempotency_key, progress=transfers
        ).document
    if json:
        print_json(job)
    else:
        out.print(job.id)


@app.command()
def jobs(
    status: StatusOption = None,
    label: LabelOption = None,
    limit: LimitOption = 20,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """List jobs, newest first."""
    labels = dict(_pair(text) for text in label or ())
    with connect(url) as client:
        found = list(client.jobs(status=status, labels=labels, limit=limit))
    if json:
        print_json(found)
        return
    rows = [
        (j.id, j.name or "", str(j.status), f"{j.progress.fraction:.0%}", _result(j), _when(j))
        for j in found
    ]
    print_table(["job", "name", "status", "done ", "result", "created"], rows)


@app.command()
def show(job: JobId, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Show one job."""
    with connect(url) as client:
        found = client.get(job)
    if json:
        print_json(found)
    else:
        print_job(found)


@app.command()
def watch(job: JobId, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Follow a job's events until it is finished; with --json one event a line."""
    with connect(url) as client, JobBar() as bar:
        for event in client.events(job):
            if json:
                sys.stdout.write(event.model_dump_json() + "\n")
                sys.stdout.flush()
            elif event.type == EventType.PROGRESS:
                progress = Progress.model_validate(event.data)
                bar.show(progress, progress.stage)
            else:
                bar.line(event_line(event))
        final = client.get(job)
    end(final)


@app.command()
def wait(
    job: JobId, timeout: TimeoutOption = None, url: UrlOption = None, json: JsonFlag = False
) -> None:
    """Wait until a job is finished; the exit code says how it ended."""
    with connect(url) as client, JobBar() as bar:
        try:
            final = client.wait(job, timeout, bar)
        except PlanishError as error:
            if json and error.job is not None:
                print_json(error.job)
            raise
    if json:
        print_json(final)
    else:
        print_job(final)
    raise typer.Exit(exit_of_job(final))


@app.command()
def cancel(job: JobId, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Cancel a job; a running one ends within seconds."""
    with connect(url) as client:
        found = client.cancel(job)
    if json:
        print_json(found)
    else:
        say(f"{found.id} is {found.status}" + ("" if found.terminal else ", cancel requested"))


@app.command()
def delete(job: JobId, url: UrlOption = None, json: JsonFlag = False) -> None:
    """Forget a finished job and its artifacts."""
    with connect(url) as client:
        client.delete(job)
    if json:
        print_json({"id": job, "deleted": True})
    else:
        say(f"{job} is deleted")


@app.command()
def download(
    job: JobId,
    names: Annotated[list[str] | None, typer.Argument(help="Artifacts; default: all.")] = None,
    output: FolderOption = Path(),
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Download artifacts; broken downloads go on where they stopped, every sha256 is checked."""
    with connect(url) as client, Transfers() as transfers:
        model = client.download(job, output, *(names or ()), progress=transfers)
    if json:
        print_json({"folder": str(output), "model": str(model)})
    else:
        out.print(str(output), markup=False)


@app.command()
def report(
    job: JobId,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the page there.")
    ] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Show a job's evidence: before and after."""
    with connect(url) as client:
        found = client.report(job)
        if html is not None:
            html.write_text(client.report_html(job), "utf-8")
            say(f"wrote {html}")
    if json:
        print_json(found)
    else:
        print_comparison(found)


@app.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job is finished.")
    ] = False,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Print what a job's process printed."""
    with connect(url) as client:
        if json:
            raw = b"".join(client.follow_logs(job)) if follow else client.logs(job).encode()
            print_json({"id": job, "logs": raw.decode("utf-8", "replace")})
            return
        for piece in client.follow_logs(job) if follow else (client.logs(job).encode(),):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def print_job(job: Job) -> None:
    """Print the facts of a job that a person asks for first."""
    rows = [("job", job.id), ("status", str(job.status))]
    rows += [("name", job.name)] if job.name else []
    rows += [("labels", ", ".join(f"{k}={v}" for k, v in job.labels.items()))] if job.labels else []
    rows.append(("recipe", " → ".join(str(step.op) for step in job.spec.recipe or ())))
    if not job.terminal:
        progress = job.progress
        rows.append(("progress", f"{progress.fraction:.0%} {progress.stage} {progress.message}"))
    if job.result is not None:
        rows.append(("result", _result(job)))
        rows += [(a.name, f"{size_text(a.size)}  sha256:{a.sha256}") for a in job.result.artifacts]
    if job.error is not None:
        rows.append(("error", f"{job.error.code}: {job.error.detail}"))
    print_table(["", ""], rows)


def event_line(event: Event) -> str:
    """Return an event in one line."""
    facts = "  ".join(f"{key}={_short(value)}" for key, value in event.data.items())
    return f"{event.time:%H:%M:%S}  {event.type}  {facts}".rstrip()


def end(job: Job) -> None:
    """Leave with the exit code of a finished job, and its error where there is one."""
    if job.terminal and not job.succeeded:
        error = failure_of(job)
        error.job = job
        raise error
    raise typer.Exit(exit_of_job(job))


def _result(job: Job) -> str:
    if job.result is None:
        return job.error.code if job.error is not None else ""
    summary = job.result.summary
    return "  ".join(filter(None, [_size(summary), faster(summary.latency_ratio), _metric(job)]))


def _size(summary: Summary) -> str:
    ratio = summary.size_ratio
    if not ratio:
        return ""
    return f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x LARGER"


def _metric(job: Job) -> str:
    if job.result is None or job.result.summary.optimized is None:
        return ""
    summary = job.result.summary
    before = "" if summary.baseline is None else f"{summary.baseline:.4f} → "
    return f"{summary.metric} {before}{summary.optimized:.4f}"


def _when(job: Job) -> str:
    return f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidParameter(f"--label {text!r}: needs KEY=VALUE")
    return key, value
