"""The same training again, from a model's card: whether it gives the same weights, bit for bit, and if not, why."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import SaddleError, UserError
from ..generator import load_generator
from ..tracking import registry
from ..training.sentinel import Diverged
from ..training.setup import Setup, setup
from .card import machine, pipeline_of, read_card
from .evidence import Scores, drawn, judged, means
from .train import Progress
from .trial import Order, replay


@dataclass(frozen=True)
class Reproduction:
    model: str
    equal: bool  # the weights, bit for bit
    weights: str  # SHA-256 of what was trained here
    recorded: str  # and of what is registered
    differences: list[str]  # what bits depend on, and is another here than it was there
    scores: Scores  # of the two generators, means over the same draws; recorded: as the card says
    recorded_scores: Scores
    folder: Path | None  # holds what was trained here, if a folder was given


def reproduce(
    model: str,
    *,
    folder: Path | None = None,
    tracking_uri: str | None = None,
    progress: Progress,
    say: Callable[[str], None],
) -> Reproduction:
    """Trains as a worker did: the pipeline, seed and threads of the card.

    Args:
        model: models:/NAME@ALIAS, models:/NAME/VERSION, or a folder with the card beside its generator.
        folder: where to train; an interrupted training goes on there. None: a temporary one.
        say: hears, before the training, what differs.

    Raises:
        UserError: no such model, or one without a card; the folder to train in is the model's own.
        SaddleError: the training diverges here.
    """
    package = _package(model, tracking_uri)
    if folder is not None and folder.resolve() == package.resolve():
        raise UserError(f"--out: {str(folder)!r} is the model itself; train in another folder")
    card, recorded = read_card(package), registry.weights_hash(package)
    pipeline, schedule = pipeline_of(card), card.get("schedule", [])
    before = tuple((until, pipeline.with_values(values).content()) for until, values in schedule[:-1])
    shared = setup(pipeline)
    found = differences(card, shared)
    if card["weights"] != recorded:
        found.insert(0, f"the card speaks of other weights ({card['weights'][:12]}) than it lies beside")
    for line in found:
        say(line)
    with _place(folder) as at:
        try:
            with progress(pipeline) as advance:
                for report in replay(Order(pipeline.content(), pipeline.seed, str(at), before=before)):
                    advance(report)
        except Diverged as error:
            raise SaddleError(f"the training diverged here, and did not there: {error}") from error
        weights = registry.weights_hash(at)
        names = judged(shared, pipeline.objective.built())
        draws = next(iter(card["generator"].values()))["count"]
        scores = means(drawn(load_generator(at, shared.device), shared, names, range(draws), "confirm"))
    return Reproduction(
        model=model,
        equal=weights == recorded,
        weights=weights,
        recorded=recorded,
        differences=found,
        scores=scores,
        recorded_scores={name: score["mean"] for name, score in card["generator"].items()},
        folder=folder and folder.absolute(),
    )


def differences(card: Mapping[str, Any], shared: Setup) -> list[str]:
    """What the weights depend on, and is not as the card says: the data, the machine, the code."""
    here = {
        "data": shared.dataset.fingerprint,
        **machine(shared),
        "saddlepoint": __version__,
    }
    there = {"data": card["data"]["fingerprint"], **card["machine"], "saddlepoint": card["code"]["version"]}
    return [f"{name}: {there[name]} there, {value} here" for name, value in here.items() if value != there[name]]


def _package(model: str, tracking_uri: str | None) -> Path:
    if ":" in model:
        return registry.fetch(tracking_uri, model)
    if not Path(model).is_dir():
        raise UserError(
            f"model: {model!r} is neither a folder nor of the form models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    return Path(model)


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="saddle-reproduce-") as temporary:
        yield Path(temporary)
