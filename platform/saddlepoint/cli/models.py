"""Commands that work on a model: in the registry, or in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, ModelArgument, Options, SweepArgument, print_json, print_promotion, read_options

app = typer.Typer()


@app.command()
def promote(
    sweep: SweepArgument,
    force: Annotated[bool, typer.Option("--force", help="Moves the alias whatever the scores say; recorded.")] = False,
    json: Json = False,
) -> None:
    """Registers the confirmed winner and moves the alias if it beats the champion."""
    from .. import console
    from ..workflows.confirm import confirm
    from ..workflows.folder import Folder
    from ..workflows.promote import promote
    from ..workflows.sweep import opened

    with opened(Folder.existing(sweep).pipeline(), view=console.watching) as at:
        promotion = promote(at, confirm(at), force=force)
    if json:
        print_json(promotion)
    else:
        print_promotion(promotion)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A registered model, by name.")],
    alias: Annotated[str, typer.Option("--alias", help="Which alias.")] = "champion",
    json: Json = False,
) -> None:
    """Gives the alias back to the version that bore it before. Repeated, it goes one further back."""
    from .. import console
    from ..workflows.rollback import rollback

    done = rollback(model, alias)
    if json:
        print_json(done)
    else:
        console.say(f"{model} version {done.version} is {alias} again; version {done.before} was rolled back")


@app.command()
def reproduce(
    model: ModelArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Where to train; a temporary folder if not given.")] = None,
    json: Json = False,
) -> None:
    """Trains a promoted model again, from its card, and compares the weights bit for bit. Exit code 1: not equal."""
    from .. import console
    from ..workflows.reproduce import reproduce

    def differs(line: str) -> None:
        console.say(f"another than there: {line}")

    done = reproduce(model, folder=out, progress=console.progress, say=(lambda line: None) if json else differs)
    if json:
        print_json(done)
    else:
        scores = {"recorded": done.recorded_scores, "here": done.scores}
        console.out.print(console.scores_table("Means over draws", scores))
        console.say(console.reproduced(done))
    if not done.equal:
        raise typer.Exit(1)


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
    from .. import console
    from ..workflows.generate import generate

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
    from .. import console
    from ..workflows.translate import translate

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
    from .. import console
    from ..workflows.evaluate import evaluate

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
