"""The command that shows what happened in a sweep."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, SweepArgument, print_json

app = typer.Typer()


@app.command()
def report(
    sweep: SweepArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="The HTML file; report.html in the sweep's folder if not given.")
    ] = None,
    json: Json = False,
) -> None:
    """One HTML page of a sweep, running or done: best so far, curves, importance, slices, failures, pictures."""
    from .. import console
    from ..workflows.report import report

    written = report(sweep, out)
    if json:
        print_json(written)
        return
    console.say(written.verdict)
    if written.trouble:
        console.say(f"without what the tracking store knows: {written.trouble}")
    console.say(str(written.path))
