"""The whole trip in one command: upload, submit, progress, download, verify, before and after."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from planish.cli.comparison import print_comparison
from planish.cli.console import (
    JsonFlag,
    ResumableFlag,
    UrlOption,
    connect,
    err,
    out,
    print_json,
    say,
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
from planish.cli.verify import print_verification
from planish.client.connection import ENV_URL
from planish.client.sources import Sources
from planish.client.sync import Client
from planish.contract.errors import PlanishError, VerificationFailed
from planish.contract.job import Job
from planish.contract.report import Report
from planish.contract.spec import Spec
from planish.contract.wire import REPORT_HTML
from planish.launch.stack import Stack, StackSettings
from planish.verify import Verification, verify

app = typer.Typer()

FolderOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Default: MODEL's name with -planish."),
]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Then exit with 124.")
]


@app.command()
def optimize(
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
    output: FolderOption = None,
    timeout: TimeoutOption = None,
    resumable: ResumableFlag = False,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a model smaller and faster, wait for it, fetch it, and check it.

    Without --url and PLANISH_URL a server is started for this one job, and stopped after it.
    """
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
    folder = output or Path(f"{Path(model).stem.replace(':', '-')}-planish")
    with server(url, resumable=resumable) as client:
        job = run_job(client, whole, sources, timeout, print_final=json)
        report = fetch(client, job, folder)
    verification = check(folder)
    if json:
        print_json(
            {
                "job": job,
                "folder": str(folder),
                "report": report,
                "verification": verification,
            }
        )
    else:
        print_comparison(report)
        print_verification(verification)
        out.print(f"{folder / job.result.model if job.result else folder}", markup=False)
        out.print(f"{folder / REPORT_HTML}", markup=False)
    if not verification.ok:
        raise VerificationFailed(f"{folder} does not hold what the report says; see above")
    raise typer.Exit(exit_of_job(job))


@contextlib.contextmanager
def server(url: str | None, *, resumable: bool = False) -> Iterator[Client]:
    """Yield a client of the named server, or of one that lives as long as this block."""
    if url is not None:
        with connect(url, resumable=resumable) as client:
            try:
                yield client
            except KeyboardInterrupt:
                say("the job goes on; planish jobs lists it, planish cancel ends it")
                raise
        return
    say(f"no server is named ({ENV_URL} or --url): starting one for this job")
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        log = Path(folder, "serve.log")
        settings = StackSettings(Path(folder, "data"), log=log)
        with Stack(settings) as stack, Client(stack.url) as client:
            yield client


def run_job(
    client: Client,
    spec: Spec,
    sources: Sources,
    timeout: float | None,
    *,
    print_final: bool,
) -> Job:
    """Submit and follow a job until it has succeeded."""
    with Transfers() as transfers:
        job = client.submit(spec, sources, progress=transfers)
    say(f"{job.id} is {job.status}")
    try:
        with JobBar() as bar:
            return client.wait(job.id, timeout, bar)
    except PlanishError as error:
        if print_final and error.job is not None:
            print_json(error.job)
        raise


def fetch(client: Client, job: Job, folder: Path) -> Report:
    """Download all artifacts; return the report."""
    with Transfers() as transfers:
        client.download(job.id, folder, progress=transfers)
    return client.report(job.id)


def check(folder: Path) -> Verification:
    """Verify a folder of artifacts in fresh processes."""
    with err.status("verifying in a fresh process"):
        return verify(folder)
