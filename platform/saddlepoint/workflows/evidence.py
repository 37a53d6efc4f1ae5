"""What a score is worth: draws that are independent, a mean over them, and how far chance reaches.

Two things are random. The seed of a training decides how good its generator becomes; the noise of a draw decides how
good a given generator looks. The first is far larger, so a *configuration* is judged over seeds, each of which is first
averaged over its draws, and a *generator* over its draws. The held-out half, the extractor and n are the same for all:
every interval is given those.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev

from scipy import stats

from ..files import write_text
from ..generator import Generator, load_generator
from ..metrics.catalogue import METRICS
from ..metrics.objective import Objective
from ..randomness import stream
from ..remote import Place
from ..tracking.registry import weights_hash
from ..training.setup import Setup
from ..training.subjects import subject

Scores = dict[str, float]
DRAWS = "draws.json"  # beside a generator: what its draws scored, so that a repeated command scores none again


@dataclass(frozen=True)
class Estimate:
    """A mean, and where it would lie if more were measured: Student's t, two-sided. One value alone has neither a
    standard deviation nor an interval, nor have values that are not all finite."""

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float], confidence: float) -> "Estimate":
        """mean ± t * sd / sqrt(count), with count - 1 degrees of freedom."""
        mean, count = fmean(values), len(values)
        if count == 1 or not all(map(isfinite, values)):
            return cls(mean, None, None, None, count)
        sd = stdev(values)
        half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * sd / sqrt(count)
        return cls(mean, sd, mean - half, mean + half, count)

    @property
    def half(self) -> float | None:
        """Half of the interval's width: the number behind ±."""
        return None if self.high is None else self.high - self.mean

    def __str__(self) -> str:
        """The mean ± half of the interval."""
        half = self.half
        return f"{self.mean:.4g}" + ("" if half is None else f" ± {half:.2g}" if half < 100 else f" ± {half:.0f}")


def means(scores: Sequence[Scores]) -> Scores:
    return {name: fmean(score[name] for score in scores) for name in scores[0]}


def estimates(scores: Sequence[Scores], confidence: float) -> dict[str, Estimate]:
    """Of every metric that all of the scores have."""
    names = [name for name in scores[0] if all(name in score for score in scores)] if scores else []
    return {name: Estimate.of([score[name] for score in scores], confidence) for name in names}


def judged(shared: Setup, objective: Objective) -> list[str]:
    """What every draw is scored by: the objective, and all that is cheap."""
    cheap = [name for name in shared.scorer.metrics if METRICS[name].cost == "cheap" and not METRICS[name].per_class]
    return list(dict.fromkeys([*objective.names, *cheap]))


def drawn(
    generator: Generator, shared: Setup, names: Sequence[str], draws: Sequence[int], purpose: str
) -> list[Scores]:
    """The scores of independent draws at full n, by their indices. One index and purpose is one noise, whatever the
    generator: differences between two generators are then smaller by what both owe to it."""
    scorer = shared.scorer

    def score(index: int) -> Scores:
        return scorer.score(subject(generator, scorer.samples, stream(index, purpose)), names)

    if draws and generator.game.sample is None and generator.game.inference is None:
        return [score(draws[0])] * len(draws)  # a translator draws nothing
    return [score(index) for index in draws]


def remembered(folder: Place, shared: Setup, names: Sequence[str], draws: int) -> list[Scores]:
    """The draws that confirm the generator in the folder; those that were scored before, in the same protocol, are
    read from beside it."""
    path = folder / DRAWS
    of = {**shared.scorer.protocol, "weights": weights_hash(folder), "metrics": list(names)}
    known = json.loads(path.read_text()) if path.exists() else {}
    found: list[Scores] = known["draws"] if known.get("of") == of else []
    if missing := range(len(found), draws):
        generator = load_generator(folder, shared.device)
        found = found + drawn(generator, shared, names, missing, "confirm")
        write_text(path, json.dumps({"of": of, "draws": found}, indent=2))
    return found[:draws]
