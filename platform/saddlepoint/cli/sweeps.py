"""Commands that work on a sweep, or on one training."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .common import Json, PipelineArgument, Seed, Set, SweepArgument, Trials, load, print_json, print_promotion

app = typer.Typer()


@app.command()
def run(
    pipeline: PipelineArgument, set_: Set = None, seed: Seed = None, trials: Trials = None, json: Json = False
) -> None:
    """The whole: sweep, confirm, promote, and a picture from the promoted generator. Repeat it after any crash."""
    from .. import console
    from ..workflows.run import run

    done = run(load(pipeline, set_, seed, trials), view=console.watching)
    if json:
        print_json(done)
        return
    console.out.print(console.trials_table(done.trials, done.confirmation.metric), "")
    console.out.print(console.confirmation_table(done.confirmation), "")
    if done.promotion is not None:
        print_promotion(done.promotion)
    if done.picture is not None:
        console.say(str(done.picture))


@app.command()
def sweep(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE]", help="A shipped name, or a YAML file.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="SWEEP", help="Goes on with a sweep by name.")
    ] = None,
    set_: Set = None,
    seed: Seed = None,
    trials: Trials = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="With more training.rounds: so many of the best are trained anew."),
    ] = None,
    json: Json = False,
) -> None:
    """The search alone. With --resume it goes on; more --trials, or another search.space or more training.rounds by
    --set, extend it."""
    from .. import console
    from ..workflows.folder import Folder
    from ..workflows.sweep import sweep

    if (pipeline is None) == (resume is None):
        raise UserError("sweep: give either a PIPELINE or --resume SWEEP")
    source = pipeline if pipeline is not None else str(Folder.existing(resume or "").pipeline_file)
    loaded = load(source, set_, seed, trials)
    extend = resume is not None
    records = sweep(loaded, view=console.watching, extend=extend, top=(top or loaded.confirm.top) if extend else 0)
    if json:
        print_json(records)
    else:
        console.out.print(console.trials_table(records, loaded.objective.metric))


@app.command()
def train(
    pipeline: PipelineArgument,
    set_: Set = None,
    seed: Seed = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes that train together, on this machine or at RAY_ADDRESS."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder for checkpoint and generator.")] = None,
    json: Json = False,
) -> None:
    """One configuration: the pipeline's own values. Repeated after a crash, it goes on from its checkpoint, with as
    many workers as it is told."""
    from .. import console
    from ..workflows.train import train_here

    changes = [*(set_ or []), *([] if workers is None else [f"resources.workers={workers}"])]
    loaded = load(pipeline, changes, seed)
    done = train_here(loaded, out or Path("runs") / f"{loaded.name}-{loaded.seed}", progress=console.progress)
    if json:
        print_json(done)
        return
    console.out.print(console.scores_table("The best generator", {"score": done.scores, "floor": done.floor}))
    console.say(f"{done.seconds:.1f} s; at most {done.memory_megabytes:,.0f} MB of memory")
    console.say(str(done.folder))


@app.command()
def plan(pipeline: PipelineArgument, set_: Set = None, seed: Seed = None, json: Json = False) -> None:
    """Validates everything, builds the networks, plays one round, and says what a sweep would cost. Starts nothing."""
    from .. import console
    from ..workflows.plan import plan

    found = plan(load(pipeline, set_, seed))
    if json:
        print_json(found)
    else:
        console.out.print(console.plan_table(found))


@app.command()
def confirm(sweep: SweepArgument, json: Json = False) -> None:
    """Retrains the sweep's best few, and the published defaults, on fresh seeds."""
    from .. import console
    from ..workflows.confirm import confirm
    from ..workflows.folder import Folder
    from ..workflows.sweep import opened

    with opened(Folder.existing(sweep).pipeline(), view=console.watching) as at:
        result = confirm(at)
    if json:
        print_json(result)
    else:
        console.out.print(console.confirmation_table(result))


@app.command()
def runs(json: Json = False) -> None:
    """The sweeps in the tracking store."""
    from .. import console
    from ..tracking.query import sweeps

    found = sweeps(None)
    if json:
        print_json(found)
    else:
        console.out.print(console.runs_table(found))


@app.command()
def show(sweep: SweepArgument, json: Json = False) -> None:
    """The trials of a sweep, from its ledger."""
    from .. import console
    from ..workflows.folder import Folder
    from ..workflows.sweep import open_ledger

    folder = Folder.existing(sweep)
    pipeline = folder.pipeline()
    records = open_ledger(pipeline, folder).trials()
    if json:
        print_json(records)
    else:
        console.out.print(console.trials_table(records, pipeline.objective.metric, folder.name))
