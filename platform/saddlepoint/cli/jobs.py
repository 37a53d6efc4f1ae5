"""Commands that work on a Ray cluster from outside, through the address of its dashboard."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SaddleError
from .common import Json, PipelineArgument, Seed, Set, Trials, load, print_json

if TYPE_CHECKING:
    from ..scaling.submission import Jobs, Submitted

app = typer.Typer()

Address = Annotated[
    str | None,
    typer.Option("--address", metavar="URL", help="http://HEAD:8265 of the cluster, or set RAY_API_SERVER_ADDRESS."),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job of the cluster, as `saddle jobs` names it.")]


@app.command()
def submit(
    pipeline: PipelineArgument,
    address: Address = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="DIR", help="A folder that every node sees, or set SADDLE_STORAGE."),
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(
            "--checkpoints",
            metavar="URI",
            help="s3://BUCKET/PREFIX for what the nodes write, or set SADDLE_CHECKPOINTS; --storage may then be a "
            "folder that the head alone sees.",
        ),
    ] = None,
    set_: Set = None,
    seed: Seed = None,
    trials: Trials = None,
    pip: Annotated[
        list[str] | None,
        typer.Option("--pip", metavar="REQUIREMENT", help="What the nodes install for this job; repeatable."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Does not wait for the job.")] = False,
    json: Json = False,
) -> None:
    """`saddle run` on a Ray cluster. It shows what the job prints; Ctrl-C leaves it running. Repeated, it goes on."""
    from .. import console
    from ..scaling.submission import Jobs
    from ..workflows.submit import submit

    wanted = load(pipeline, set_, seed, trials)
    sent = submit(wanted, address, storage=storage, checkpoints=checkpoints, pip=pip or ())
    if json and detach:
        print_json(sent)
    elif not json:
        console.say(f"job {sent.job} runs; its sweep is {sent.sweep}, its runs are in {sent.tracking}")
    if not detach:
        _follow(Jobs(sent.address), sent.job, json)


@app.command()
def jobs(address: Address = None, json: Json = False) -> None:
    """The jobs of a cluster."""
    from .. import console
    from ..scaling.submission import Jobs

    found = Jobs(address).all()
    if json:
        print_json(found)
        return
    table = console.plain_table()
    for column in ("job", "status", "started", "minutes", "sweep"):
        table.add_column(column)
    for job in found:
        table.add_row(job.id, job.status, _clock(job.started), _minutes(job), job.notes.get("sweep", ""))
    console.out.print(table)


@app.command()
def logs(
    job: JobArgument,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Waits for more, until the job is over.")] = False,
) -> None:
    """What a job has printed."""
    from ..scaling.submission import Jobs

    at = Jobs(address)
    if follow:
        _follow(at, job)
    else:
        with _piped():
            print(at.log(job), end="", flush=True)


@app.command()
def status(job: JobArgument, address: Address = None, json: Json = False) -> None:
    """How a job is doing."""
    from ..scaling.submission import Jobs

    _show(Jobs(address).job(job), json)


@app.command()
def stop(job: JobArgument, address: Address = None, json: Json = False) -> None:
    """Stops a job, as Ctrl-C would; what it did is kept, and the same `saddle submit` goes on."""
    from ..scaling.submission import Jobs

    _show(Jobs(address).stop(job), json)


def _follow(at: "Jobs", job: str, json: bool = False) -> None:
    """Raises SaddleError if the job did not succeed, or if Ctrl-C ended the following."""
    from ..scaling.submission import ADDRESS

    to = sys.stderr if json else sys.stdout  # stdout holds the result alone
    known = os.environ.get(ADDRESS, "").rstrip("/") == at.address
    there = "" if known else f" --address {shlex.quote(at.address)}"
    try:
        with _piped():
            ended = at.follow(job, lambda text: print(text, end="", flush=True, file=to))
    except KeyboardInterrupt:
        raise SaddleError(
            f"{job} goes on without this command; "
            f"come back: saddle logs {job} --follow{there}; end it: saddle stop {job}{there}"
        ) from None
    if json:
        print_json(ended)
    if ended.status != "SUCCEEDED":
        raise SaddleError(f"job {job} {ended.status}: {ended.reason}; look: saddle logs {job}{there}")


@contextmanager
def _piped() -> Iterator[None]:
    """Whoever reads may have enough, as `head` does: that ends the command, without a word."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python would flush at its end
        raise SystemExit(0) from None


def _show(job: "Submitted", json: bool) -> None:
    from .. import console

    if json:
        print_json(job)
        return
    rows = [
        ("status", job.status),
        ("started", _clock(job.started)),
        ("minutes", _minutes(job)),
        *job.notes.items(),
        ("message", job.message.strip()),
    ]
    console.out.print(console.rows_table(job.id, rows))


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def _minutes(job: "Submitted") -> str:
    if job.started is None:
        return ""
    return f"{((job.ended or datetime.now().timestamp()) - job.started) / 60:.1f}"
