"""What the commands share: their arguments, and how a pipeline and options are read."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError

if TYPE_CHECKING:
    from ..spec import Pipeline

PipelineArgument = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A shipped pipeline by name, or a YAML file.")
]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="A folder in sweeps/, by name.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder, also s3://...")
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
    from ..spec import Pipeline

    changes = list(overrides or [])
    changes += [] if seed is None else [f"seed={seed}"]
    changes += [] if trials is None else [f"search.trials={trials}"]
    return Pipeline.load(pipeline, changes)


def read_options(texts: list[str] | None) -> dict[str, Any]:
    from ..validation import parse_yaml

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


def print_promotion(promotion: Any) -> None:
    from .. import console

    verb = "is now" if promotion.moved else "is not" if "already" not in promotion.reason else "stays"
    console.say(f"{promotion.model} version {promotion.version} {verb} {promotion.alias}: {promotion.reason}")
