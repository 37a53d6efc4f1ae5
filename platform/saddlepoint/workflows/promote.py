"""From evidence to the registry: the winner's generator becomes a version, and the alias moves only if it is better.

The reigning champion is scored again beside the challenger, on the same data, with the same extractor and as many
draws: two numbers from two protocols are never compared.
"""

from dataclasses import dataclass
from statistics import fmean

from ..errors import SaddleError, UserError
from ..generator import Generator, load_generator
from ..metrics.catalogue import METRICS, Metric
from ..randomness import stream
from ..tracking import registry
from ..tracking.store import KEY_TAG, SWEEP_TAG
from ..training.setup import Setup
from ..training.subjects import subject
from .confirm import Candidate, Confirmation
from .provenance import protocol_tags
from .sweep import Sweep

DRAWS = 5  # independent sets of samples behind each of the two numbers


@dataclass(frozen=True)
class Promotion:
    model: str
    version: int
    alias: str
    moved: bool
    reason: str  # one sentence: why the alias moved, or why not

    @property
    def uri(self) -> str:
        return f"models:/{self.model}@{self.alias}"


def promote(sweep: Sweep, confirmation: Confirmation, *, force: bool = False) -> Promotion:
    """Registers the confirmed winner (once for a sweep and run) and settles the alias. Raises SaddleError if
    the pipeline names no model or the registry cannot be reached."""
    target, tracker = sweep.pipeline.promote, sweep.tracker
    if target is None:
        raise UserError(
            f"promote: is missing in the pipeline {sweep.pipeline.name!r}; it names the model and its alias"
        )
    winner, metric = confirmation.winner, METRICS[confirmation.metric]
    place = min(range(len(winner.scores)), key=lambda i: metric.badness(winner.scores[i][metric.name]))
    folder, key = winner.folders[place], winner.keys[place]
    run_id = tracker.run_id(key) if tracker.drain(timeout=120) else None
    if run_id is None:
        raise SaddleError(f"the tracking store does not answer ({tracker.trouble}); "
                          f"repeat later: saddle promote {sweep.folder.name}")  # fmt: skip
    identity = {SWEEP_TAG: tracker.sweep, KEY_TAG: key}
    champion = registry.champion(tracker.uri, target.model, target.alias)
    if champion is not None and all(champion.tags.get(tag) == value for tag, value in identity.items()):
        reason = f"it is the {target.alias} already"
        return Promotion(target.model, champion.version, target.alias, False, reason)
    moved, reason = True, "there was no champion before"
    if champion is not None:
        reigning = load_generator(registry.fetch(tracker.uri, champion.uri))
        moved, reason = _compare(load_generator(folder), reigning, sweep.shared, metric)
        reason += f" of version {champion.version}"
        if force and not moved:
            moved, reason = True, f"{reason}; forced"
    tags = {**_card(sweep, confirmation, winner), **identity, "saddle.promotion": reason}
    version = registry.log_generator(tracker.uri, run_id, folder, name=target.model, tags=tags)
    if moved:
        registry.set_alias(tracker.uri, target.model, target.alias, version)
    return Promotion(target.model, version, target.alias, moved, reason)


def _compare(challenger: Generator, champion: Generator, shared: Setup, metric: Metric) -> tuple[bool, str]:
    """Whether the challenger is better, and the sentence that says so, up to whose score the last number is."""
    if champion.sample_shape != tuple(shared.dataset.sample_shape):
        raise SaddleError(f"the champion generates samples of shape {champion.sample_shape}, not of the data's shape "
                          f"{tuple(shared.dataset.sample_shape)}; promote under another model name")  # fmt: skip
    if (theirs := _kind(champion)) != (ours := _kind(challenger)):
        raise SaddleError(f"the champion {theirs}, and the challenger {ours}; promote under another model name")
    new, old = score(challenger, shared, metric.name), score(champion, shared, metric.name)
    better = metric.is_better(new, old)
    verb = "beats" if better else "does not beat"
    draws = f"mean of {DRAWS} draws of {shared.scorer.samples}"
    return better, f"{metric.name} {new:.4g} ({draws}) {verb} {old:.4g}"


def _kind(generator: Generator) -> str:
    """What it does, as one says it: two kinds cannot be scored side by side."""
    if generator.game.translate:
        return "translates"
    what = "draws samples of a class" if generator.classes else "draws samples"
    return f"{what} and infers latents" if generator.game.inference else what


def score(generator: Generator, shared: Setup, metric: str, draws: int = DRAWS) -> float:
    """The mean of a metric over independent draws at full n."""
    scorer = shared.scorer
    drawn = (subject(generator, scorer.samples, stream(seed, "sample")) for seed in range(draws))
    return fmean(scorer.score(each, [metric])[metric] for each in drawn)


def _card(sweep: Sweep, confirmation: Confirmation, winner: Candidate) -> dict[str, str]:
    """What a version says of itself in the registry."""
    name = confirmation.metric
    scores = f"{winner.mean(name):.4g} ± {winner.spread(name):.2g} over {len(winner.scores)} seeds"
    return {
        "saddle.name": sweep.folder.name,
        "saddle.pipeline": sweep.pipeline.fingerprint(),
        "saddle.values": ", ".join(f"{name}={value}" for name, value in winner.values.items()),
        f"saddle.confirmed.{name}": scores,
        **({f"saddle.floor.{name}": f"{confirmation.floor[name]:.4g}"} if name in confirmation.floor else {}),
        **protocol_tags(sweep.shared),
    }
