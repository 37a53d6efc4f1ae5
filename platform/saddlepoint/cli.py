"""The command `saddle`: parses, calls, prints. What a command does stands in workflows/.

Exit codes: 0 done, 1 failed, 2 the user's input is wrong. Errors are one line on stderr.
The heavy rooms are imported by the command that needs them, so that `saddle --help` answers at once.
"""

import dataclasses
import errno
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from .errors import SaddleError, UserError

if TYPE_CHECKING:
    from .spec import Pipeline

app = typer.Typer(
    help="Searches, scales, compares and promotes adversarial models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

data = typer.Typer(help="Data sets on disk.", no_args_is_help=True)
app.add_typer(data, name="data")

PipelineArgument = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A shipped pipeline by name, or a YAML file.")
]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="A folder in sweeps/, by name.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Overrides a value of the pipeline; repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Overrides the pipeline's seed.")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, help="Overrides search.trials; extends a sweep.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="An option of the data set; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Prints the result as JSON.")]


def load(pipeline: str, overrides: list[str] | None, seed: int | None, trials: int | None = None) -> "Pipeline":
    from .spec import Pipeline

    changes = list(overrides or [])
    changes += [] if seed is None else [f"seed={seed}"]
    changes += [] if trials is None else [f"search.trials={trials}"]
    return Pipeline.load(pipeline, changes)


def read_options(texts: list[str] | None) -> dict[str, Any]:
    from .validation import parse_yaml

    options = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--option: {text!r} is not of the form KEY=VALUE")
        options[key] = parse_yaml(value, f"--option {key}")
    return options


def print_json(result: Any) -> None:
    def plain(value: Any) -> Any:
        return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)  # type: ignore[arg-type]

    print(json.dumps(result, default=plain, indent=2))


@app.command()
def run(
    pipeline: PipelineArgument, set_: Set = None, seed: Seed = None, trials: Trials = None, json: Json = False
) -> None:
    """The whole: sweep, confirm, promote, and a picture from the promoted generator. Repeat it after any crash."""
    from . import console
    from .workflows.run import run

    done = run(load(pipeline, set_, seed, trials), view=console.watching)
    if json:
        print_json(done)
        return
    console.out.print(console.trials_table(done.trials, done.confirmation.metric), "")
    console.out.print(console.confirmation_table(done.confirmation), "")
    if done.promotion is not None:
        _print_promotion(done.promotion)
    if done.picture is not None:
        console.say(str(done.picture))


def _print_promotion(promotion: Any) -> None:
    from . import console

    verb = "is now" if promotion.moved else "is not" if "already" not in promotion.reason else "stays"
    console.say(f"{promotion.model} version {promotion.version} {verb} {promotion.alias}: {promotion.reason}")


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
    json: Json = False,
) -> None:
    """The search alone. With --resume it goes on; with more --trials it extends a finished one."""
    from . import console
    from .workflows.folder import Folder
    from .workflows.sweep import sweep

    if (pipeline is None) == (resume is None):
        raise UserError("sweep: give either a PIPELINE or --resume SWEEP")
    source = pipeline if pipeline is not None else str(Folder.existing(resume or "").pipeline_file)
    loaded = load(source, set_, seed, trials)
    records = sweep(loaded, view=console.watching)
    if json:
        print_json(records)
    else:
        console.out.print(console.trials_table(records, loaded.objective.metric))


@app.command()
def train(
    pipeline: PipelineArgument,
    set_: Set = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder for checkpoint and generator.")] = None,
    json: Json = False,
) -> None:
    """One configuration, here: the pipeline's own values. Repeated after a crash, it goes on from its checkpoint."""
    from . import console
    from .workflows.train import train_here

    loaded = load(pipeline, set_, seed)
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
    from . import console
    from .workflows.plan import plan

    found = plan(load(pipeline, set_, seed))
    if json:
        print_json(found)
    else:
        console.out.print(console.plan_table(found))


@app.command()
def confirm(sweep: SweepArgument, json: Json = False) -> None:
    """Retrains the sweep's best few, and the published defaults, on fresh seeds."""
    from . import console
    from .workflows.confirm import confirm
    from .workflows.folder import Folder
    from .workflows.sweep import opened

    with opened(Folder.existing(sweep).pipeline(), view=console.watching) as at:
        result = confirm(at)
    if json:
        print_json(result)
    else:
        console.out.print(console.confirmation_table(result))


@app.command()
def promote(
    sweep: SweepArgument,
    force: Annotated[bool, typer.Option("--force", help="Moves the alias whatever the scores say; recorded.")] = False,
    json: Json = False,
) -> None:
    """Registers the confirmed winner and moves the alias if it beats the champion."""
    from . import console
    from .workflows.confirm import confirm
    from .workflows.folder import Folder
    from .workflows.promote import promote
    from .workflows.sweep import opened

    with opened(Folder.existing(sweep).pipeline(), view=console.watching) as at:
        promotion = promote(at, confirm(at), force=force)
    if json:
        print_json(promotion)
    else:
        _print_promotion(promotion)


@app.command()
def runs(json: Json = False) -> None:
    """The sweeps in the tracking store."""
    from . import console
    from .tracking.query import sweeps

    found = sweeps(None)
    if json:
        print_json(found)
    else:
        console.out.print(console.runs_table(found))


@app.command()
def show(sweep: SweepArgument, json: Json = False) -> None:
    """The trials of a sweep, from its ledger."""
    from . import console
    from .workflows.folder import Folder
    from .workflows.sweep import open_ledger

    folder = Folder.existing(sweep)
    pipeline = folder.pipeline()
    records = open_ledger(pipeline, folder).trials()
    if json:
        print_json(records)
    else:
        console.out.print(console.trials_table(records, pipeline.objective.metric, folder.name))


@app.command()
def generate(
    model: ModelArgument,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many samples.")] = 64,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same samples.")] = 0,
    label: Annotated[int | None, typer.Option("--class", help="Of a conditional model: all of this class.")] = None,
    out: Annotated[
        list[Path] | None, typer.Option("--out", help=".png, .npz or .parquet, by its suffix; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Samples from a generator, to a PNG grid, NPZ or Parquet."""
    from . import console
    from .workflows.generate import generate

    paths = generate(model, out or [Path("samples.png")], n, seed, label)
    if json:
        print_json(paths)
    else:
        for path in paths:
            console.say(str(path))


@app.command()
def translate(
    model: ModelArgument,
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="An image, a folder of images, or an NPZ.")],
    out: Annotated[
        Path, typer.Option("--out", help="A folder for one PNG each; .npz; or .png: sources beside translations.")
    ] = Path("translated"),
    direction: Annotated[str, typer.Option("--direction", help="x_to_y or y_to_x.")] = "x_to_y",
    json: Json = False,
) -> None:
    """Translates images from one domain to the other."""
    from . import console
    from .workflows.translate import translate

    paths = translate(model, images, out, direction)
    if json:
        print_json(paths)
    else:
        console.say(str(paths[0] if len(paths) == 1 else paths[0].parent))


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[
        str | None, typer.Option("--data", help="A data set by name; the generator's own if not given.")
    ] = None,
    option: Options = None,
    samples: Annotated[int | None, typer.Option("--samples", min=2, help="n of every metric.")] = None,
    features: Annotated[str, typer.Option("--features", help="auto, classifier, inception or pixels.")] = "auto",
    weights: Annotated[str | None, typer.Option("--weights", help="A file with the extractor's weights.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the samples that are scored.")] = 0,
    json: Json = False,
) -> None:
    """Scores a generator against a data set with every metric that applies, beside the floor of real data."""
    from . import console
    from .workflows.evaluate import evaluate

    found = evaluate(
        model,
        dataset=data,
        options=read_options(option),
        samples=samples,
        features=features,
        feature_weights=weights,
        seed=seed,
    )
    if json:
        print_json(found)
        return
    title = f"{found.model} against the held-out half of {found.data}, n = {found.protocol['samples']}"
    console.out.print(console.scores_table(title, {"score": found.scores, "floor": found.floor}))


@data.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A data set by name, an import path, or a folder of images.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder for the shards.")],
    option: Options = None,
    format: Annotated[str, typer.Option("--format", help="array: pixels as numbers; png: as PNG files.")] = "array",
    rows_per_shard: Annotated[int, typer.Option("--rows-per-shard", min=1)] = 25_000,
    json: Json = False,
) -> None:
    """Writes a data set as Parquet shards, which `data: {name: parquet, path: OUT}` reads back bit for bit."""
    from . import console
    from .workflows.data_import import import_data

    with console.counting("importing", "rows") as advance:
        made = import_data(source, read_options(option), out, format, rows_per_shard, advance)  # type: ignore[arg-type]
    if json:
        print_json(made)
        return
    rows = ", ".join(f"{half} {n:,}" for half, n in made.rows.items())
    console.say(f"{rows} rows in {made.files} files, {made.bytes / 1e6:,.1f} MB")
    console.say(str(made.folder))


@app.command()
def ui(port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000) -> None:
    """The MLflow UI on the tracking store of this folder, on loopback; and how to look into a ledger."""
    from . import console
    from .tracking.ui import command

    arguments, environment = command(None, port)
    console.say(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    console.say("A sweep's ledger: optuna-dashboard sqlite:///sweeps/NAME/ledger.db (pip install optuna-dashboard)")
    os.execvpe(arguments[0], arguments, environment)


@app.command()
def doctor(json: Json = False) -> None:
    """Versions, GPUs, Ray, tracking store, disk: each with a plain verdict."""
    from . import console
    from .workflows.doctor import doctor

    checks = doctor()
    if json:
        print_json(checks)
    else:
        console.out.print(console.doctor_table(checks))
    if not all(check.good for check in checks):
        raise SystemExit(1)


FULL = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up"}
CLOSED = {errno.EROFS: "the file system is read-only", errno.EACCES: "permission denied"}


def complain(message: str) -> None:
    print(f"saddle: {' '.join(message.split())}", file=sys.stderr)


def main() -> None:
    """Runs the command and turns what went wrong into one line and an exit code."""
    try:
        code = app(standalone_mode=False)
    except SaddleError as error:
        complain(str(error))
        code = error.exit_code
    except TyperException as error:
        complain(getattr(error, "format_message", error.__str__)())
        code = 2
    except KeyboardInterrupt:
        complain("stopped; everything that was done is on disk, and the same command goes on")
        code = 1
    except OSError as error:
        reason = (FULL | CLOSED).get(error.errno or 0)
        if reason is None:
            raise
        complain(f"cannot write {error.filename or 'here'}: {reason}")
        code = 2
    sys.exit(code if isinstance(code, int) else 0)
