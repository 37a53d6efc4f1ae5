"""The page: what it shows, gathered; then set by a template, with its style, its script and plotly.js inside."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from ...files import write_text
from ...metrics.catalogue import METRICS
from ...search import figures
from ...search.importance import Importance, importance
from ...search.ink import STATES, Figure, number
from ...search.ledger import Ledger
from ...spec import Pipeline
from ..confirm import CONFIRMATION, Candidate, Confirmation
from ..evidence import Estimate
from ..folder import Folder
from ..rollback import STORY_TAG
from ..sweep import open_ledger, searched
from . import facts as says
from .facts import Facts
from .tracked import Tracked, recall

SHOWN = 5  # trials whose pictures are shown
WIDEST = 512  # pixels of a picture on the page
# Of a confirmation, beside the objective's metrics, where they were scored: what an average conceals.
ALSO = ("precision", "recall", "coverage", "one_nn", "class_accuracy", "modes", "high_quality", "cycle_l1")


@dataclass(frozen=True)
class Report:
    """What `saddle report` prints."""

    path: Path
    verdict: str
    trials: dict[str, int]  # by state
    best: int | None
    rounds_spent: int
    rounds_saved: int
    importance: dict[str, float]
    trouble: str  # what could not be read from the tracking store, and why


def report(name: str, out: Path | None = None, *, root: Path | None = None) -> Report:
    """Of a sweep by name, which may be running. Raises UserError if there is no such sweep."""
    folder = Folder.existing(name, root)
    pipeline = folder.pipeline()
    return write_report(pipeline, folder, open_ledger(pipeline, folder), out=out)


def write_report(
    pipeline: Pipeline,
    folder: Folder,
    ledger: Ledger,
    *,
    out: Path | None = None,
    tracking_uri: str | None = None,
    seconds: float = 20,
) -> Report:
    """Writes the page to `out`, by default report.html in the sweep's folder; whole or not at all.

    Reads the ledger, confirmation.json, and for at most `seconds` the tracking store; changes none of them.
    """
    search = searched(pipeline)
    facts = says.gather(ledger.trials(), pipeline, search)
    shown = [record.number for record in facts.top[:SHOWN]]
    tracked = recall(folder, pipeline, shown, tracking_uri=tracking_uri, seconds=seconds)
    confirmation, unread = confirmed(folder)
    floor = tracked.floor or (confirmation.floor if confirmation else {})
    weights = importance(facts.inside, search.space, facts.objective)
    path = out or folder.path / "report.html"
    drawn = charts(facts, pipeline, weights, confirmation, floor)
    verdict = says.verdict(facts, floor)
    page = _environment().get_template("page.html.j2").render(
        name=folder.name,
        verdict=verdict,
        facts=facts,
        terms=says.searched(pipeline, search, facts.objective),
        parameters=[name for name, parameter in search.space.parameters.items() if parameter.type != "fixed"],
        rounds=pipeline.training.rounds,
        budget=search.trials,
        importance=weights,
        figures=drawn,
        slices=[name for name in drawn if name.startswith("slice ")],
        floor=floor,
        galleries=galleries(facts, tracked),
        tracked=tracked,
        confirmation=confirmation,
        unread=unread,
        columns=_columns(confirmation, facts) if confirmation else [],
        promotion=promotion(folder, pipeline, tracked),
        style=Markup(_beside("page.css")),
        script=Markup(_beside("page.js")),
        plotly=Markup(get_plotlyjs()),
        data=embedded({name: figure for name, figure in drawn.items() if figure}),
    )  # fmt: skip
    write_text(path, page)
    return Report(
        path=path,
        verdict=verdict,
        trials=facts.counts,
        best=facts.best.number if facts.best else None,
        rounds_spent=facts.effort.spent,
        rounds_saved=facts.effort.saved,
        importance=weights.ped_anova,
        trouble=tracked.trouble,
    )


def charts(
    facts: Facts,
    pipeline: Pipeline,
    weights: Importance,
    confirmation: Confirmation | None,
    floor: Mapping[str, float],
) -> dict[str, Figure]:
    """By the id of the place on the page; what has nothing to show is absent."""
    space, objective, metric = searched(pipeline).space, facts.objective, facts.objective.metric
    begun = [record for record in facts.inside if record.state not in ("waiting", "duplicate")]
    drawn: dict[str, Figure] = {}
    if not begun:
        return drawn
    if objective.second is None:
        marks = {"floor: real data": floor[metric.name]} if metric.name in floor else {}
        if facts.published is not None and facts.published.scores:
            marks["published defaults"] = facts.published.scores[metric.name]
        drawn["progress"] = figures.best_so_far(begun, objective, marks)
    else:
        drawn["progress"] = figures.pareto(begun, objective, facts.front)
    rungs = says.decisions(pipeline, searched(pipeline))
    best = facts.best.number if facts.best else None
    for each in objective.metrics:
        if any(record.curves.get(each.name) for record in begun):
            drawn[f"curves {each.name}"] = figures.learning_curves(begun, each, rungs, best)
    if weights.ped_anova:
        drawn["importance"] = figures.importances(weights)
    if parallel := figures.parallel(begun, space, objective, facts.places):
        drawn["parallel"] = parallel
    drawn |= {f"slice {name}": figure for name, figure in figures.slices(begun, space, objective).items()}
    scored = [c for c in confirmation.candidates if c.scores] if confirmation else []
    for name in [each.name for each in objective.metrics if all(each.name in c.estimates for c in scored)]:
        if confirmation and scored:
            estimates = [candidate.estimates[name] for candidate in scored]
            drawn[f"confirmed {name}"] = figures.intervals(
                [candidate.name for candidate in scored],
                [each.mean for each in estimates],
                [None if each.low is None or each.high is None else (each.low, each.high) for each in estimates],
                [[score[name] for score in candidate.scores] for candidate in scored],
                METRICS[name],
                confirmation.floor.get(name),
            )
    return drawn


def confirmed(folder: Folder) -> tuple[Confirmation | None, str]:
    """The evidence, if there is any; else why it cannot be read, if there is a file."""
    path = folder.path / CONFIRMATION
    try:
        content = json.loads(path.read_text())
        content["candidates"] = [
            Candidate(**candidate | {"estimates": {n: Estimate(**e) for n, e in candidate["estimates"].items()}})
            for candidate in content["candidates"]
        ]
        return Confirmation(**content), ""
    except FileNotFoundError:
        return None, ""
    except (ValueError, TypeError, KeyError) as error:
        return None, f"{path.name} cannot be read: {error}"


def promotion(folder: Folder, pipeline: Pipeline, tracked: Tracked) -> str:
    """Who bears the alias, in one sentence; "" where nobody does or nothing is promoted."""
    if tracked.champion is None or pipeline.promote is None:
        return ""
    bearer, tags = tracked.champion, tracked.champion.tags
    origin = "" if tags.get("saddle.name") == folder.name else f", from the sweep {tags.get('saddle.name', 'unknown')}"
    why = tags.get(STORY_TAG, "")
    return f"{bearer.name} version {bearer.version} is {pipeline.promote.alias}{origin}{': ' * bool(why)}{why}"


def galleries(facts: Facts, tracked: Tracked) -> list[dict[str, Any]]:
    """Of the best trials that have pictures: the record, and each picture by its round."""
    return [
        {"record": record, "pictures": {step: _picture(png) for step, png in tracked.pictures[record.number].items()}}
        for record in facts.top[:SHOWN]
        if tracked.pictures.get(record.number)
    ]


def embedded(content: Any) -> Markup:
    """JSON that can stand in a script element; what is no number becomes null, which plotly leaves out."""
    text = json.dumps(_finite(content), allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _finite(content: Any) -> Any:
    match content:
        case float():
            return content if math.isfinite(content) else None
        case Mapping():
            return {key: _finite(value) for key, value in content.items()}
        case Sequence() if not isinstance(content, str):
            return [_finite(value) for value in content]
    return content


def _picture(png: bytes) -> str:
    """As a data URL; a grid of large images is made smaller first."""
    image = Image.open(io.BytesIO(png))
    if max(image.size) > WIDEST:
        image.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "PNG", optimize=True)
        png = content.getvalue()
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _columns(confirmation: Confirmation, facts: Facts) -> list[str]:
    scored = {name for candidate in confirmation.candidates for name in candidate.estimates}
    return [name for name in dict.fromkeys([*facts.objective.names, *ALSO]) if name in scored]


def _environment() -> Environment:
    here = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "duration": says.duration, "setting": says.setting}
    environment.globals |= {
        "colours": {str(state): colour for state, (colour, _) in STATES.items()},
        "reached": says.reached,
    }
    return environment


def _beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text()
