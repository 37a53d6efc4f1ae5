"""Commands that work on data."""

from pathlib import Path
from typing import Annotated

import typer

from .common import Json, Options, print_json, read_options

app = typer.Typer()


@app.command("import")
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
    from .. import console
    from ..workflows.data_import import import_data

    with console.counting("importing", "rows") as advance:
        made = import_data(source, read_options(option), out, format, rows_per_shard, advance)  # type: ignore[arg-type]
    if json:
        print_json(made)
        return
    rows = ", ".join(f"{half} {n:,}" for half, n in made.rows.items())
    console.say(f"{rows} rows in {made.files} files, {made.bytes / 1e6:,.1f} MB")
    console.say(str(made.folder))
