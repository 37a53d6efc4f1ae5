"""The command that repairs what an earlier crash left."""

from typing import Annotated

import typer

from .common import Json, print_json

app = typer.Typer()


@app.command()
def reconcile(
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="[SWEEP]", help="A folder in sweeps/; all, and runs of no sweep here, if not given."),
    ] = None,
    stale_after: Annotated[
        float,
        typer.Option("--stale-after", metavar="HOURS", min=0, help="A run of no sweep here is dead after so long."),
    ] = 24.0,
    json: Json = False,
) -> None:
    """Repairs what a crash left: stale RUNNING runs, holes, unsent history, leftovers on disk. Repeat it at will."""
    from .. import console
    from ..workflows.reconcile import reconcile

    done = reconcile(sweep, stale_after=stale_after)
    if json:
        print_json(done)
        return
    for line in done.repaired or ["nothing to repair"]:
        console.say(line)
    for line in done.left:
        console.say(f"left alone: {line}")
